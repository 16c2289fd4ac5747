"""Eigen-CAM: Class Activation Map using Principal Components.

Muhammad, Yeasin. IJCNN 2020. arXiv:2008.00299

    O = U S V^T                                          (singular value decomposition of the layer's output)
    L = O v_1                                            (projection on the first right singular vector)

O       output of the layer, positions x channels        O: B hw K
v_1     first column of V                                V[:, 0]
L       map, on the layer's grid                         returned

Differs from the paper: the sign of v_1, which a decomposition does not determine, is fixed so that the map agrees with
the summed activation (their product sums to >= 0; where it sums to 0, as after a layer norm, the largest value is
positive). The map keeps its sign.
Differs from other code: pytorch-grad-cam subtracts each channel's mean first (center=True), does not fix the sign, so
that some of its maps are inverted, and cuts at 0.
Good to know: it uses no class and no gradient, so the map is the same for every target. Not differentiable: singular
vectors with equal singular values, above all 0, have no derivative.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from methods._registry import method
from methods._torch import Target, activation, at_least_float32, oriented


def first_component(A: Float[Tensor, "B K h w"], center: bool) -> Float[Tensor, "B 1 h w"]:
    """A projected on its first right singular vector, positions as rows; per image, with the sign of `oriented`."""
    O = A.flatten(2).transpose(1, 2)  # B hw K
    O = O - O.mean(dim=1, keepdim=True) if center else O
    U, S, _ = torch.linalg.svd(O, full_matrices=False)
    L = U[:, :, :1] * S[:, None, :1]  # B hw 1   = O v_1
    return oriented(L.transpose(1, 2).unflatten(2, A.shape[2:]), A)  # B 1 h w


@method(
    title="Eigen-CAM",
    cite="muhammad2020eigencam",
    family="cam",
    forward=1,
    backward=0,
    signed=True,
    verified=("literal", "grad_cam"),
    differentiable=False,
    fails={"random_logit": "uses no class: the same map for every target"},
)
@torch.no_grad()
def eigen_cam(
    model: nn.Module, x: Float[Tensor, "B C H W"], target: Target, *, layer: str, center: bool = False
) -> Float[Tensor, "B 1 h w"]:
    """What most distinguishes the positions of `layer`."""
    _, A = activation(model, x.detach(), layer)  # B K h w
    return first_component(at_least_float32(A), center)  # B 1 h w
