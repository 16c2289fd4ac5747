"""Striving for Simplicity: The All Convolutional Net.

Springenberg, Dosovitskiy, Brox, Riedmiller. ICLR workshop 2015. arXiv:1412.6806

    R^l_i = (f^l_i > 0) (R^{l+1}_i > 0) R^{l+1}_i        (figure 1c, guided backpropagation)

f^l     input of a ReLU                                  f
R^l     signal on its way back to the image              R; at the image it is the map

Differs from the paper: a ReLU6 also stops the signal at an input above 6, as its derivative does.
Differs from other code: captum, pytorch-grad-cam and riverback find nn.ReLU modules only. On networks with ReLU6,
functional or other activations they return the plain gradient without a warning; here a model without ReLU is refused.
Good to know: the map shows edges, for every class and for nearly any weights.
"""

from jaxtyping import Float
from torch import Tensor, nn

from methods._registry import method
from methods._rules import relu_backward
from methods._torch import Target
from methods.gradient import gradient


def guided(own: Tensor, R: Tensor) -> Tensor:
    """What a ReLU passes backwards, from own = (f > 0) R and R."""
    return (R > 0) * own  # figure 1c


@method(
    title="Guided Backpropagation",
    cite="springenberg2015striving",
    family="backprop-rule",
    forward=1,
    backward=1,
    signed=True,
    needs="relu",
    architectures=("cnn",),
    verified=("captum", "literal"),
    fails={"model_randomization": "adebayo2018sanity, figure 2; nie2018theoretical"},
)
def guided_backprop(model: nn.Module, x: Float[Tensor, "B C H W"], target: Target) -> Float[Tensor, "B C H W"]:
    """The gradient, keeping only positive signals at every ReLU."""
    with relu_backward(guided):
        return gradient(model, x, target)  # B C H W   figure 1c
