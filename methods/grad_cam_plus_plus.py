"""Grad-CAM++: Improved Visual Explanations for Deep Convolutional Networks.

Chattopadhay, Sarkar, Howlader, Balasubramanian. WACV 2018. arXiv:1710.11063

    Y^c = exp(S^c):  alpha^kc_ij = g_ij^2 / ( 2 g_ij^2 + sum_ab A^k_ab  g_ij^3 )      (eq. 19)
    w_k^c = sum_ij  alpha^kc_ij  ReLU( dY^c / dA^k_ij ),  dY^c / dA = exp(S^c) g     (the gradient weights, section 3)
    L^c   = ReLU( sum_k  w_k^c A^k )                                                  (the map, section 3)

S^c     score of class c before the softmax             y
A^k     k-th feature map                                 A[:, k]
g_ij    d S^c / d A^k_ij                                 g

Differs from the paper: the factor exp(S^c), one positive number per image, is omitted, since it can overflow.
alpha is written 1 / (2 + sum A g), which is eq. 19 divided by g^2, and 0 where g or the denominator is 0.
Differs from other code: the authors' code normalises alpha once more; pytorch-grad-cam adds 1e-6 to a denominator
that is often smaller; torchcam sums g^3 A instead of A. Away from the last layer these are different maps.
Good to know: alpha has a pole where sum A g = -2 and is negative below it; maps of early layers can be erratic.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from methods._cost import Passes
from methods._registry import method
from methods._torch import Target, activation_and_gradient, ratio


@method(
    title="Grad-CAM++",
    cite="chattopadhay2018gradcampp",
    family="cam",
    forward=1,
    backward=Passes(1, before=0),
    signed=False,
    verified=("literal", "grad_cam"),
    fails={"random_logit": "positive gradients alone: hardly another map for another class, on small networks"},
)
def grad_cam_plus_plus(
    model: nn.Module, x: Float[Tensor, "B C H W"], target: Target, *, layer: str
) -> Float[Tensor, "B 1 h w"]:
    """Grad-CAM with positive gradients only, weighted by position."""
    _, A, g = activation_and_gradient(model, x, target, layer)  # B, B K h w, B K h w
    alpha = ratio(torch.ones_like(g), 2 + A.sum(dim=(2, 3), keepdim=True) * g)  # B K h w   eq. 19
    w = (alpha * g.relu()).sum(dim=(2, 3), keepdim=True)  # B K 1 1   0 where g is 0
    return (w * A).sum(dim=1, keepdim=True).relu()  # B 1 h w
