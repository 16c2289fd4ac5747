"""Smooth Grad-CAM++: An Enhanced Inference Level Visualization Technique for Deep Convolutional Neural Network Models.

Omeiza, Speakman, Cintas, Weldermariam. 2019. arXiv:1908.01224

    D_p^k   = 1/n  sum_1^n  d^p Y^c / (dA^k_ij)^p  at  x + N(0, sigma^2),  p = 1, 2, 3     (averaged derivatives)
    alpha   = D_2^k / ( 2 D_2^k + sum_ab A^k_ab  D_3^k )                                   (Grad-CAM++, with D_p)
    w_k^c   = sum_ij  alpha^kc_ij  ReLU( D_1^k )                                           (weights)
    L^c     = ReLU( sum_k  w_k^c A^k )                                                     (the map)
    Y^c = exp(S^c):  d^p Y / dA^p = exp(S^c) g^p,  g = dS^c / dA                           (as in grad_cam_plus_plus)

S^c     score of class c before the softmax             y
A^k     k-th feature map of the image without noise      A[:, k]
D_p     averaged derivatives                             D[p - 1], each divided by the mean of exp(S^c)
n       number of noisy samples                          samples
sigma   standard deviation of the noise                  noise * (x_max - x_min), per image

Differs from the paper: its text was not available. According to torchcam's documentation, D_1, D_2 and D_3 are averaged
separately, A is not averaged, and the paper prints D_1 in the numerator of alpha. This would not be Grad-CAM++ at
sigma = 0, so that is numerator="first", not the default. Y = exp(S) comes from Grad-CAM++. The defaults of samples
and noise are those of SmoothGrad. The D_p are divided by the mean of exp(S^c), one positive number per image.
Differs from other code: torchcam leaves exp(S) out, sums A g^3 instead of A, and takes the gradient of the last sample
for D_1; others average whole Grad-CAM++ maps, smooth_grad(of=partial(grad_cam_plus_plus, layer=...)).
Good to know: samples are weighted by exp(S^c): a score that is higher by 3 counts twenty times as much, so few samples
may dominate. alpha has the poles of Grad-CAM++; maps of early layers can be erratic.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from methods._cost import Formula, Passes
from methods._registry import method
from methods._torch import Target, activation, activation_and_gradient, at_least_float32, noisy, ratio, tile


@method(
    title="Smooth Grad-CAM++",
    cite="omeiza2019smoothgradcampp",
    family="cam",
    forward=Formula("samples + 1", lambda s: s.samples + 1),
    backward=Passes("samples", before=0),
    signed=False,
    source="package",
    verified=("literal",),
    fails={"random_logit": "positive gradients alone: hardly another map for another class, on small networks"},
)
def smooth_grad_cam_plus_plus(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Target,
    *,
    layer: str,
    samples: int = 50,
    noise: float = 0.15,
    numerator: str = "second",
    seed: int = 0,
    chunk: int = 8,
) -> Float[Tensor, "B 1 h w"]:
    """Grad-CAM++ with its three derivatives averaged over noisy copies of the image.

    Raises:
        ValueError: numerator is unknown.
    """
    if numerator not in ("second", "first"):
        raise ValueError(f"numerator: must be 'second' (as in Grad-CAM++) or 'first' (as printed), got {numerator!r}")
    with torch.set_grad_enabled(x.requires_grad):
        A = at_least_float32(activation(model, x, layer)[1])  # B K h w
    D, Z = [torch.zeros_like(A)] * 3, torch.zeros_like(A[:, 0, 0, 0])  # B K h w each, B
    top = torch.full_like(Z, -math.inf)  # the highest score so far: exp(S - top) cannot overflow
    for X in noisy(x, samples, noise, seed, chunk):  # k B C H W   x + N(0, sigma^2)
        y, _, g = activation_and_gradient(model, X.flatten(0, 1), tile(target, len(X)), layer)  # kB, ., kB K h w
        y, g = y.unflatten(0, X.shape[:2]), g.unflatten(0, X.shape[:2])  # k B, k B K h w
        top, last = top.maximum(y.detach().amax(dim=0)), top  # B
        E, keep = (y - top).exp(), (last - top).exp()  # k B, B   exp(S^c)
        Z = keep * Z + E.sum(dim=0)  # B
        E, keep = E[:, :, None, None, None], keep[:, None, None, None]
        D = [keep * d + (E * g**p).sum(dim=0) for p, d in enumerate(D, start=1)]  # B K h w each   exp(S^c) g^p
    D_1, D_2, D_3 = (d / Z[:, None, None, None] for d in D)
    alpha = ratio(D_2 if numerator == "second" else D_1, 2 * D_2 + A.sum(dim=(2, 3), keepdim=True) * D_3)  # B K h w
    w = (alpha * D_1.relu()).sum(dim=(2, 3), keepdim=True)  # B K 1 1
    return (w * A).sum(dim=1, keepdim=True).relu()  # B 1 h w
