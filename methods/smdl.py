"""Less is More: Fewer Interpretable Region via Submodular Subset Selection (SMDL).

Chen, Zhang, Liang, Li, Cao. ICLR 2024. arXiv:2402.09164

    F(S)  =  l_1 conf(S) + l_2 eff(S) + l_3 cons(S) + l_4 colla(S)                        (eq. 8)

    conf(S)   =  1 - H( p(S) ) / log N               (how sure the network is: entropy over the N classes)
    eff(S)    =  sum_{i in S} min_{j in S, j != i} d( phi_i, phi_j ),  d = arccos(cosine) / pi       (no region twice)
    cons(S)   =  p_c(S)                              (probability of the class with these regions only)
    colla(S)  =  1 - p_c(V - S)                      (... without them)
    S_t       =  S_{t-1} + argmax_b F(S_{t-1} + b)   (greedy)

V       all regions                                      1
p       softmax probabilities                            p
phi_i   features of the image with only region i: what   phi
        the last linear layer gets
map     1 - (t - 1) / k of the t-th region               greedy

Differs from the paper: it measures conf by a network that is trained for it; the entropy is the authors' code without
training, which leaves it out of F (weights=(0, 1, 1, 1)) as it runs. Its cons is the cosine to a class prototype for
recognition, and p_c for classification.
Differs from other code: the authors' code (RuoyuChen10/SMDL-Attribution) adds entropy / log N, so an unsure network
counts as confident where it is used; the sign here is the paper's.
Good to know: 2 passes for each region that is left, at each step: 2 R k, and R for the features. A target that is a
callable must give p_c. With several heads or none, phi are the logits.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from methods._calls import logits_of, probabilities, run
from methods._cost import Formula
from methods._layers import probe
from methods._regions import Fill, Segments, count, greedy, greedy_steps, hiding, painted, regions
from methods._registry import method
from methods._torch import Target, at_least_float32, chunks, match_format, probability, score, submodule, tile


def passes(s: Any) -> int:
    """The features, and two images for each set."""
    R, sets = greedy_steps(s.segments, s.k)
    return R + 2 * sets


@method(
    title="SMDL",
    cite="chen2024less",
    family="perturbation",
    forward=Formula("(2 k + 1) · regions - k (k - 1)", passes),
    backward=0,
    signed=False,
    verified=("literal",),
    differentiable=False,  # an order
)
@torch.no_grad()
def smdl(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Target,
    *,
    segments: Segments = 7,
    k: int | None = None,
    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
    fill: Fill = "zero",
    chunk: int = 8,
) -> Float[Tensor, "B 1 H W"]:
    """The order in which regions are added to the set that explains the class best.

    Raises:
        ValueError: k is below 1, or as `regions`, `hiding`.
    """
    goal = probability(target) if isinstance(target, Tensor) else target
    labels, B = regions(x, segments), len(x)
    hide, R = hiding(x, fill, labels), max(count(labels))
    eye = torch.eye(R, device=x.device)  # R R
    alone = eye[:, None].expand(-1, B, -1)  # R B R
    phi = torch.cat([features(model, x, hide(painted(alone[i], labels))) for i in chunks(R, chunk, B)])  # R B K
    phi = F.normalize(phi.transpose(0, 1), dim=2)  # B R K
    d = torch.acos((phi @ phi.transpose(1, 2)).clamp(-1, 1)) / math.pi  # B R R

    def value(S: Float[Tensor, "m B R"]) -> Float[Tensor, "m B"]:
        both = hide(painted(torch.cat([S, 1 - S]), labels))  # 2m B C H W
        output = run(model, match_format(x, both.flatten(0, 1)))
        p = probabilities(output)  # 2mB N
        y = at_least_float32(score(output, tile(goal, len(both)))).unflatten(0, (2, -1, B))  # 2 m B   p_c
        H = torch.special.entr(p).sum(dim=1).unflatten(0, (2, -1, B))[0]  # m B
        conf = 1 - H / math.log(max(p.shape[1], 2))
        nearest = torch.where(S[..., None, :] * (1 - eye) > 0, d, 1).amin(dim=3)  # m B R
        terms = conf, (nearest * S).sum(dim=2), y[0], 1 - y[1]
        return sum((w * term for w, term in zip(weights, terms, strict=True)), torch.zeros_like(conf))  # eq. 8

    return greedy(labels, k, value, max(1, chunk // 2))[:, None].to(at_least_float32(x))  # B 1 H W


def features(model: nn.Module, x: Float[Tensor, "B C H W"], X: Float[Tensor, "n B C H W"]) -> Float[Tensor, "n B K"]:
    """What the last linear layer gets; the logits if there is not exactly one such layer."""
    names, kept = probe(model, x).head, []
    handle = None
    if len(names) == 1:
        handle = submodule(model, names[0]).register_forward_pre_hook(lambda _m, args: kept.append(args[0]))
    try:
        logits = logits_of(run(model, match_format(x, X.flatten(0, 1))))
    finally:
        if handle:
            handle.remove()
    phi = kept[0].flatten(1) if len(kept) == 1 and len(kept[0]) == len(logits) else logits
    return at_least_float32(phi).unflatten(0, X.shape[:2])
