"""On the Faithfulness of Vision Transformer Explanations: the salience-guided faithfulness coefficient, SaCo.

Wu, Kang, Tang, Hong, Yan. CVPR 2024. arXiv:2404.01415

Pixels are sorted by their salience, highest first, and cut into K groups G_1 .. G_K of equal size:

    d_i   =  p(x) - p(x without G_i)                            the group is replaced by the mean colour
    w_ij  =  s(G_i) - s(G_j)   if d_i >= d_j,   s(G_j) - s(G_i)   if not             for i < j
    SaCo  =  sum_i<j w_ij  /  sum_i<j |w_ij|                    -1 to 1

s(G)    salience of a group: its mean over the pixels        s
p       softmax probability of the class                     p
K       groups                                               groups

1: groups with more salience always matter more; each pair counts by the difference of its saliences, so a map must have
the right sizes and not only the right order.

Differs from the paper: the mean salience of a group, not its sum, so that groups that differ by one pixel are compared
fairly; for groups of one size the coefficient is the same. The mean colour is the data set's, 0 of a normalised image.
Differs from other code: the authors' file (adreamwu/SaCo@b293527) leaves the groups and the passes to the reader, and
raises an error for a constant map; here it has 0.
Good to know: it does not depend on the scale of the map. Two groups with equal drops count as in the right order.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from methods._cost import Formula
from methods._torch import chunks, probability, scores
from sanity_checks._registry import Result, check
from sanity_checks._torch import pixels, ranks
from sanity_checks.insertion_deletion import substrate


@check(
    title="SaCo",
    cite="wu2024faithfulness",
    kind="faithfulness",
    protocol=(
        "Groups of pixels of equal size, from the most to the least salient, are replaced by the mean colour one at a "
        "time; the number says whether larger salience goes with a larger drop of the probability, weighted by the "
        "difference of the saliences."
    ),
    higher_is_better=True,
    forward=Formula("groups + 1", lambda s: s.groups + 1),
    runs=0,
    verified=("literal", "closed form"),
)
def saco(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Int[Tensor, " B"],
    maps: Float[Tensor, "B K h w"],
    *,
    groups: int = 10,
    fill: str = "mean",
    chunk: int = 8,
) -> Result:
    """Whether groups of pixels with more salience matter more to the class, pair by pair.

    Args:
        model: classifier.
        x: normalised images.
        target: classes.
        maps: the maps to evaluate.
        groups: K.
        fill: value of a removed group, a key of SUBSTRATES in insertion_deletion.
        chunk: images per forward pass.

    Raises:
        ValueError: fewer than two groups, or more than pixels; an unknown fill.
    """
    x, n = x.detach(), x.shape[2] * x.shape[3]
    if not 2 <= groups <= n:
        raise ValueError(f"groups: from 2 to the number of pixels, {n}, got {groups}")
    a = pixels(maps, x)  # B H W
    G = ranks(a) * groups // n  # B H W   the group of each pixel
    zero = a.new_zeros(len(x), groups, dtype=torch.float64)
    size = zero.scatter_add(1, G.flatten(1), torch.ones_like(G.flatten(1), dtype=zero.dtype))
    s = zero.scatter_add(1, G.flatten(1), a.flatten(1).double()) / size  # B K
    filled, f = substrate(x, fill, "fill"), probability(target)
    p = [scores(model, x[None], f)]
    for k in chunks(groups, chunk, len(x)):
        i = torch.arange(groups, device=x.device)[k, None, None, None]  # k 1 1 1
        p.append(scores(model, torch.where((i == G)[:, :, None], filled, x), f))  # k B
    p = torch.cat(p)  # K+1 B
    d = (p[0] - p[1:]).T  # B K
    i, j = torch.triu_indices(groups, groups, offset=1, device=x.device)  # pairs i < j
    w = torch.where(d[:, i] >= d[:, j], s[:, i] - s[:, j], s[:, j] - s[:, i])  # B pairs
    total = w.abs().sum(dim=1)
    return Result(
        values=torch.where(total > 0, w.sum(dim=1) / torch.where(total > 0, total, 1.0), 0.0),
        curves={"salience": s, "drop": d},
        at=tuple(float(k) for k in range(groups)),
    )
