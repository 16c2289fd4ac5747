"""Features Understanding in 3D CNNs for Actions Recognition in Video (FEM, the Feature Explanation Method).

Fuad, Martin, Giot, Bourqui, Benois-Pineau, Zemmari. IPTA 2020. doi:10.1109/IPTA50016.2020.9286629

    B_k(i, j) = 1 where A_k(i, j) > mu_k + K sigma_k, else 0     (strong features of channel k: the K-sigma rule)
    w_k       = mu_k                                             (its weight: its mean activation)
    L         = sum_k  w_k B_k                                   (the map)

A_k          k-th feature map of the layer               A[:, k]
mu_k sigma_k mean and standard deviation over positions  mu, sigma (of all h w, not h w - 1)
K            width of the rule, 2                        sigmas

Differs from the paper: its text was not available. The three equations are those of xplique, and of public Keras code
that calls them the original ones; images instead of videos. That code divides the map by its maximum; here it is raw.
Differs from other code: pytorch-grad-cam swaps the roles, sum_k mean(B_k) A_k (weights="share"); xplique takes
A_k >= the threshold, so that a constant channel counts everywhere.
Good to know: it uses no class and no gradient, so the map is the same for every target. At most 1 / (1 + K^2) of the
positions of a channel can be strong (Cantelli): with K = 2, none on a grid of fewer than 6 positions. The threshold is
a step function, so the derivative of the map comes from the weights alone.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from methods._registry import method
from methods._torch import Target, activation, at_least_float32


@method(
    title="FEM",
    cite="fuad2020fem",
    family="cam",
    forward=1,
    backward=0,
    signed=True,
    source="package",
    verified=("literal", "grad_cam"),
    fails={"random_logit": "uses no class: the same map for every target"},
)
def fem(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Target,
    *,
    layer: str,
    sigmas: float = 2.0,
    weights: str = "mean",
) -> Float[Tensor, "B 1 h w"]:
    """Positions at which channels of `layer` are unusually active, each channel counted by its mean activation.

    Raises:
        ValueError: weights is unknown.
    """
    if weights not in ("mean", "share"):
        raise ValueError(f"weights: must be 'mean' (the paper) or 'share' (pytorch-grad-cam), got {weights!r}")
    with torch.set_grad_enabled(x.requires_grad):
        A = at_least_float32(activation(model, x, layer)[1])  # B K h w
        mu = A.mean(dim=(2, 3), keepdim=True)  # B K 1 1
        sigma = (A - mu).detach().square().mean(dim=(2, 3), keepdim=True).sqrt()  # B K 1 1
        strong = (A - mu > sigmas * sigma).to(A)  # B K h w   B_k
        w, M = (mu, strong) if weights == "mean" else (strong.mean(dim=(2, 3), keepdim=True), A)
        return (w * M).sum(dim=1, keepdim=True)  # B 1 h w
