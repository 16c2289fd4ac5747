"""Poly-CAM: High resolution class activation map for convolutional neural networks.

Englebert, Cornu, De Vleeschouwer. Machine Vision and Applications 2024. arXiv:2204.13359

For each layer l, from the deepest to the shallowest:

    M_k   = clip( ( A_k - q_lo ) / q_hi, 0, 1 ),  up to the image's size    (masks; q: percentiles 0.1 and 99.9 of A_k)
    w_k   = f( x * M_k )                                                    (PCAM+)
    w_k   = ReLU( f(x) - f( x * (1 - M_k) ) )                               (PCAM-)
    w_k   = ReLU( f( x * M_k ) + f(x) - f( x * (1 - M_k) ) )                (PCAM+-)
    S_l   = ReLU( sum_k  w_k A_k )                                          (the map of the layer)
    P_l   = LNorm( S_l ) * Up( P_{l+1} ),  P = S at the deepest             (its detail, where deeper maps are high)
    LNorm( S ) = S / Up( Down( S ) )                                        (Down to the grid of layer l + 1)

f       probability of the explained class              confidence
A_k     k-th feature map of layer l                     A[:, k]
l       layers: the last one of each grid size          layers, layer (the deepest)
P       the map so far; at the end on the finest grid   P

Differs from the paper: all equations are those of the authors' code (aenglebert/polycam@8003dc6). LNorm is 0 where
its divisor is 0; theirs divides by 1e-12 there.
Differs from other code: the authors' code rescales P as it does A_k (clip, by percentiles 0.1 and 99.9), then resizes
it to the image, and takes one image. By default it takes the layers that run just before the grid changes, also inside
blocks; the layers that its scripts name for resnet50 (after the stem, layer1, ... layer4) are the ones found here.
Good to know: f is evaluated at every channel of every layer, twice for PCAM+-: 7808 passes for five layers of resnet50.
A callable target gets probabilities; with confidence="score" it gets logits. A ViT has one grid size, so one layer.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from methods._calls import probabilities
from methods._cost import Formula
from methods._layers import finer_layers
from methods._registry import method
from methods._torch import Target, activation, at_least_float32, chunks, ratio, score, scores, upsample


@method(
    title="Poly-CAM",
    cite="englebert2024polycam",
    family="cam",
    forward=Formula("depth + channels, or + 2 · channels", lambda s: s.depth + (1 + (s.variant == "+-")) * s.channels),
    backward=0,
    signed=False,
    source="authors' code",
    verified=("literal", "authors"),
)
def poly_cam(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Target,
    *,
    layer: str,
    layers: Sequence[str] | None = None,
    variant: str = "+-",
    percentile: float = 0.1,
    confidence: str = "probability",
    chunk: int = 8,
) -> Float[Tensor, "B 1 h w"]:
    """The score-weighted map of a deep layer, refined by those of shallower `layers`; None finds them.

    Raises:
        ValueError: variant or confidence is unknown, or percentile is outside [0, 50).
    """
    if variant not in ("+", "-", "+-"):
        raise ValueError(f"variant: must be '+', '-' or '+-', got {variant!r}")
    if not 0 <= percentile < 50:
        raise ValueError(f"percentile: must be in [0, 50), got {percentile}")
    if confidence not in ("probability", "score"):
        raise ValueError(f"confidence: must be 'probability' (the authors' code) or 'score', got {confidence!r}")

    def probability(output: Any) -> Float[Tensor, " n"]:
        return score(probabilities(output), target)

    f = probability if confidence == "probability" else target
    S: list[Tensor] = []
    with torch.set_grad_enabled(x.requires_grad):
        deepest = activation(model, x, layer)
        finer = finer_layers(model, layer, x) if layers is None else layers
        for name in (layer, *reversed(finer)):
            output, A = deepest if name == layer else activation(model, x, name)  # .., B K h w
            f_x, A, w = at_least_float32(score(output, f)), at_least_float32(A), []  # B, B K h w
            for k in chunks(A.shape[1], chunk, len(x)):
                q = A.new_tensor([percentile / 100, 1 - percentile / 100])  # 2
                lo, hi = A[:, k].flatten(2).quantile(q, dim=2)[..., None, None]  # B k 1 1, B k 1 1
                M = upsample(((A[:, k] - lo) / hi.clamp(min=1e-12)).clamp(0, 1), x)  # B k H W
                M = M.transpose(0, 1)[:, :, None]  # k B 1 H W
                plus = scores(model, x * M, f, like=x) if "+" in variant else 0  # k B
                minus = f_x - scores(model, x * (1 - M), f, like=x) if "-" in variant else 0  # k B
                w.append(plus + minus)
            w = torch.cat(w).T[:, :, None, None]  # B K 1 1
            S.append(((w.relu() if "-" in variant else w) * A).sum(dim=1, keepdim=True).relu())  # B 1 h w
        P = S[0]  # B 1 h w
        for S_l in S[1:]:
            P = ratio(S_l, upsample(upsample(S_l, P), S_l)) * upsample(P, S_l)  # B 1 h w   LNorm( S_l ) * Up( P )
        return P
