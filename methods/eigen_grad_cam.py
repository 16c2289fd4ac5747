"""EigenGradCAM: Eigen-CAM of activations times gradients. Published as code, in pytorch-grad-cam (Gildenblat, 2021).

Muhammad, Yeasin. Eigen-CAM, IJCNN 2020. arXiv:2008.00299, with G * A in place of the layer's output

    O = G * A,  O = U S V^T,  L = O v_1

A       output of the layer                              A
G       dy^c / dA                                        G
v_1     first right singular vector of O                 see eigen_cam

Differs from the paper: there is none; the sign of v_1 is fixed as in eigen_cam, so that the map agrees with HiResCAM.
Differs from other code: pytorch-grad-cam subtracts each channel's mean first (center=True), does not fix the sign,
and cuts at 0.
Good to know: class-specific, unlike Eigen-CAM. Not differentiable, for the same reason.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from methods._cost import Passes
from methods._registry import method
from methods._torch import Target, activation_and_gradient
from methods.eigen_cam import first_component


@method(
    title="EigenGradCAM",
    cite="gildenblat2021pytorch",
    family="cam",
    forward=1,
    backward=Passes(1, before=0),
    signed=True,
    source="package",
    verified=("literal", "grad_cam"),
    differentiable=False,
)
def eigen_grad_cam(
    model: nn.Module, x: Float[Tensor, "B C H W"], target: Target, *, layer: str, center: bool = False
) -> Float[Tensor, "B 1 h w"]:
    """What most distinguishes the positions of `layer`, seen through the gradient of the score."""
    _, A, G = activation_and_gradient(model, x.detach(), target, layer)  # B, B K h w, B K h w
    with torch.no_grad():
        return first_component(G * A, center)  # B 1 h w
