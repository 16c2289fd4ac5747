"""Deep Inside Convolutional Networks: Visualising Image Classification Models and Saliency Maps.

Simonyan, Vedaldi, Zisserman. ICLR workshop 2014. arXiv:1312.6034

    w = d S_c / d I  at I_0                              (eq. 4)

S_c     score of class c before the softmax             logits[:, c]
I_0     the image                                       x
w       derivative of the score at the image            returned, with its sign

Differs from the paper: returns w; section 3.1 displays max over channels of |w|.
Differs from other code: captum's Saliency takes |w| by default.
Good to know: the gradient of the softmax probability is another map, and vanishes where the model is sure.
"""

from jaxtyping import Float
from torch import Tensor, nn

from methods._registry import method
from methods._torch import Target, gradients


@method(
    title="Gradient",
    cite="simonyan2014deep",
    family="gradient",
    forward=1,
    backward=1,
    signed=True,
    verified=("captum", "saliency", "literal"),
)
def gradient(model: nn.Module, x: Float[Tensor, "B C H W"], target: Target) -> Float[Tensor, "B C H W"]:
    """How the class score changes with each pixel and channel."""
    (w,) = gradients(model, x[None], target)  # B C H W   eq. 4
    return w
