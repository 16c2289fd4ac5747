"""Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural networks.

Draelos, Carin. 2020. arXiv:2011.08891

    A~_m = sum_f  ( ds_m / dA^f ) * A^f                  (the HiResCAM definition, element-wise product)

s_m     score of class m before the softmax             y
A^f     f-th feature map                                 A[:, f]

Differs from the paper: no; a ReLU belongs to the display.
Differs from other code: pytorch-grad-cam applies the ReLU and rescales to [0, 1].
Good to know: with one linear layer after A, the map sums to the score without its bias.
"""

from jaxtyping import Float
from torch import Tensor, nn

from methods._cost import Passes
from methods._registry import method
from methods._torch import Target, activation_and_gradient


@method(
    title="HiResCAM",
    cite="draelos2020hirescam",
    family="cam",
    forward=1,
    backward=Passes(1, before=0),
    signed=True,
    verified=("literal", "grad_cam", "captum"),
)
def hires_cam(model: nn.Module, x: Float[Tensor, "B C H W"], target: Target, *, layer: str) -> Float[Tensor, "B 1 h w"]:
    """Which positions of `layer` raise (or lower) the score."""
    _, A, ds_dA = activation_and_gradient(model, x, target, layer)  # B, B K h w, B K h w
    return (ds_dA * A).sum(dim=1, keepdim=True)  # B 1 h w
