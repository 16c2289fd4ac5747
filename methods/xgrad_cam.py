"""Axiom-based Grad-CAM: Towards Accurate Visualization and Explanation of CNNs.

Fu, Hu, Dong, Guo, Gao, Li. BMVC 2020. arXiv:2008.02312

    alpha_k^c = sum_xy  F^k_xy / ( sum_xy F^k_xy )  dS_c / dF^k_xy      (XGrad-CAM weights, section 3)
    M^c       = ReLU( sum_k  alpha_k^c F^k )                             (the CAM sum)

S_c     score of class c before the softmax             y
F^k     k-th feature map                                 F[:, k]
alpha   the gradient, averaged with weights F            alpha

Differs from the paper: alpha is 0 where sum F is 0 (the paper's feature maps are not).
Differs from other code: the authors and pytorch-grad-cam add a small positive number to sum F, which has either sign.
Good to know: made for ReLU features. Where F can be negative, as after SiLU, GELU or a norm, sum F may be close to zero
and the weights become very large. Equals Grad-CAM on average-pooled linear heads.
"""

from jaxtyping import Float
from torch import Tensor, nn

from methods._cost import Passes
from methods._registry import method
from methods._torch import Target, activation_and_gradient, ratio


@method(
    title="XGrad-CAM",
    cite="fu2020axiom",
    family="cam",
    forward=1,
    backward=Passes(1, before=0),
    signed=False,
    verified=("literal", "grad_cam", "torchcam"),
)
def xgrad_cam(model: nn.Module, x: Float[Tensor, "B C H W"], target: Target, *, layer: str) -> Float[Tensor, "B 1 h w"]:
    """Grad-CAM whose weights come closest to two axioms, sensitivity and conservation."""
    _, F, dS_dF = activation_and_gradient(model, x, target, layer)  # B, B K h w, B K h w
    alpha = ratio((F * dS_dF).sum(dim=(2, 3), keepdim=True), F.sum(dim=(2, 3), keepdim=True))  # B K 1 1
    return (alpha * F).sum(dim=1, keepdim=True).relu()  # B 1 h w
