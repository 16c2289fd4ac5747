"""Grad-CAM, element-wise. Published as code, in pytorch-grad-cam (Gildenblat, 2021); no paper defines it.

Relative of HiResCAM (Draelos, Carin. arXiv:2011.08891), with a ReLU before the sum over channels instead of none

    L^c = sum_k  ReLU( dy^c / dA^k * A^k )               (GradCAMElementWise)

y^c     score of class c before the softmax             y
A^k     k-th feature map                                 A[:, k]
dy/dA   its gradient, position by position               g

Differs from the paper: there is none. The equation is the package's own.
Differs from other code: pytorch-grad-cam rescales to [0, 1].
Good to know: at each position, channels with evidence against the class are omitted, so they cannot cancel evidence for
it. The map is therefore at least ReLU(HiResCAM) everywhere. After a ReLU A >= 0, and the map is LayerCAM.
"""

from jaxtyping import Float
from torch import Tensor, nn

from methods._cost import Passes
from methods._registry import method
from methods._torch import Target, activation_and_gradient


@method(
    title="Grad-CAM, element-wise",
    cite="gildenblat2021pytorch",
    family="cam",
    forward=1,
    backward=Passes(1, before=0),
    signed=False,
    source="package",
    verified=("literal", "grad_cam"),
)
def grad_cam_elementwise(
    model: nn.Module, x: Float[Tensor, "B C H W"], target: Target, *, layer: str
) -> Float[Tensor, "B 1 h w"]:
    """The positive contributions of the channels to the score, summed at each position of `layer`."""
    _, A, g = activation_and_gradient(model, x, target, layer)  # B, B K h w, B K h w
    return (g * A).relu().sum(dim=1, keepdim=True)  # B 1 h w
