"""Visualizing and Understanding Convolutional Networks.

Zeiler, Fergus. ECCV 2014. arXiv:1311.2901

    R^l_i = (R^{l+1}_i > 0) R^{l+1}_i                    (section 2.1, rectification)

R^l     signal on its way back to the image              R; at the image it is the map

Differs from the paper: starts from the class score instead of one feature map; max-pooling routes as the gradient does
(the paper's switches) and convolutions transpose (the paper's filtering), as Simonyan et al. 2014 show.
Differs from other code: captum finds nn.ReLU modules only; here a model without any ReLU is refused.
Good to know: the backward pass ignores which ReLUs were active, so without max-pooling the map hardly depends on the
image.
"""

from jaxtyping import Float
from torch import Tensor, nn

from methods._registry import method
from methods._rules import relu_backward
from methods._torch import Target
from methods.gradient import gradient


def rectified(own: Tensor, R: Tensor) -> Tensor:
    """What a ReLU passes backwards: it ignores its own derivative."""
    return (R > 0) * R  # section 2.1


@method(
    title="DeconvNet",
    cite="zeiler2014visualizing",
    family="backprop-rule",
    forward=1,
    backward=1,
    signed=True,
    needs="relu",
    architectures=("cnn",),
    verified=("captum", "literal"),
    fails={"model_randomization": "nie2018theoretical"},
)
def deconvnet(model: nn.Module, x: Float[Tensor, "B C H W"], target: Target) -> Float[Tensor, "B C H W"]:
    """The signal projected back to the image, rectified at every ReLU."""
    with relu_backward(rectified):
        return gradient(model, x, target)  # B C H W   section 2.1
