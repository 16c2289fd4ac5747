"""KPCA-CAM: Visual Explainability of Deep Computer Vision Models using Kernel PCA.

Karmani, Sivakaran, Prasad, Ali, Yang, Tang. 2024. arXiv:2410.00267

    k(a, b) = tanh( gamma <a, b> + c )                   (the sigmoid kernel; a, b: the features of two positions)
    K       = matrix of k over all pairs of positions,  Kc = H K H,  H = I - 1/n          (centred in feature space)
    L       = sqrt(lambda_1) u_1,  Kc u_1 = lambda_1 u_1                                  (first kernel component)

a, b            rows of the layer's output, positions x channels, each channel minus its mean    O: B n K
n               number of positions, h w                          O.shape[1]
gamma, c        1 / number of channels, 1                         gamma, c
lambda_1, u_1   largest eigenvalue and its eigenvector            lam, u
L               map, on the layer's grid                          returned

Differs from the paper: its text was not available. Kernel, centring and constants are those of the package in which the
method was released (authors' code); it takes them from scikit-learn. The sign of u_1, which an eigenvector does not
determine, is fixed so that the map agrees with the summed activation, as in eigen_cam. The map keeps its sign.
Differs from other code: pytorch-grad-cam does not fix the sign, so that some of its maps are inverted, cuts at 0 and
rescales to [0, 1].
Good to know: it uses no class and no gradient, so the map is the same for every target. With the linear kernel it is
Eigen-CAM of centred features. It needs the eigenvectors of an n x n matrix per image: n = 49 at layer4 of resnet50, but
3136 at layer1, which takes seconds. Not differentiable: eigenvectors of equal eigenvalues, above all 0, have no
derivative.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from methods._registry import method
from methods._torch import Target, activation, at_least_float32, oriented

C, DEGREE = 1.0, 3  # scikit-learn's coef0 and degree
KERNELS = {
    "sigmoid": lambda O, gamma: (gamma * O @ O.mT + C).tanh(),
    "rbf": lambda O, gamma: (-gamma * torch.cdist(O, O, compute_mode="donot_use_mm_for_euclid_dist") ** 2).exp(),
    "poly": lambda O, gamma: (gamma * O @ O.mT + C) ** DEGREE,
    "linear": lambda O, gamma: O @ O.mT,
}


@method(
    title="KPCA-CAM",
    cite="karmani2024kpcacam",
    family="cam",
    forward=1,
    backward=0,
    signed=True,
    source="package",
    verified=("literal", "grad_cam"),
    differentiable=False,
    fails={"random_logit": "uses no class: the same map for every target"},
)
@torch.no_grad()
def kpca_cam(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Target,
    *,
    layer: str,
    kernel: str = "sigmoid",
    gamma: float | None = None,
) -> Float[Tensor, "B 1 h w"]:
    """What most distinguishes the positions of `layer`, in the feature space of a kernel.

    Raises:
        ValueError: kernel is unknown.
    """
    if kernel not in KERNELS:
        raise ValueError(f"kernel: must be one of {', '.join(map(repr, KERNELS))}, got {kernel!r}")
    A = at_least_float32(activation(model, x.detach(), layer)[1])  # B K h w
    O = A.flatten(2).mT  # B n K
    O = O - O.mean(dim=1, keepdim=True)
    K = KERNELS[kernel](O, 1 / A.shape[1] if gamma is None else gamma)  # B n n
    K = K - K.mean(dim=1, keepdim=True)
    K = K - K.mean(dim=2, keepdim=True)  # H K H
    lam, U = torch.linalg.eigh(K)  # B n, B n n   ascending
    L = lam[:, -1:].clamp(min=0).sqrt() * U[:, :, -1]  # B n
    return oriented(L.view(len(A), 1, *A.shape[2:]), A)  # B 1 h w
