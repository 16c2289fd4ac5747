"""Not Just a Black Box: Learning Important Features Through Propagating Activation Differences.

Shrikumar, Greenside, Shcherbina, Kundaje. 2016. arXiv:1605.01713

    R_i = x_i * d S_c / d x_i                            (gradient * input, the paper's comparison)

S_c     score of class c before the softmax             logits[:, c]
x       the image                                       x, normalised: 0 is the data set's mean colour

Differs from the paper: no.
Differs from other code: no.
Good to know: on a ReLU network without biases the map sums to S_c.
"""

from jaxtyping import Float
from torch import Tensor, nn

from methods._registry import method
from methods._torch import Target
from methods.gradient import gradient


@method(
    title="Gradient x Input",
    cite="shrikumar2016not",
    family="gradient",
    forward=1,
    backward=1,
    signed=True,
    fails={
        "input_shift": "kindermans2019unreliability: the input is a factor",
        "model_randomization": "adebayo2018sanity: absolute rank correlation 0.99 in the authors' notebook of digits",
    },
    verified=("captum", "literal"),
)
def input_x_gradient(model: nn.Module, x: Float[Tensor, "B C H W"], target: Target) -> Float[Tensor, "B C H W"]:
    """First-order share of each pixel and channel in the score."""
    return x * gradient(model, x, target)  # B C H W
