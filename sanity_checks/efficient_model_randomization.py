"""Sanity Checks Revisited: An Exploration to Repair the Model Parameter Randomisation Test (efficient MPRT).

Hedstrom, Weber, Lapuschkin, Hohne. XAI in Action workshop, NeurIPS 2023. arXiv:2401.06465

    xi(e)  = - sum_b  p_b ln p_b             p: histogram of the attributions in B equal bins        (eq. 5)
    q      = ( xi(e^) - xi(e) ) / xi(e)      e, e^: maps of the trained and of the random network    (eq. 6)

e       attributions of all channels and positions, signed
B       bins over each map's own range                   bins

Differs from the paper: weights are permuted (see model_randomization). q is 0 where xi(e) is 0. The column `clipped` is
the same with each map clipped at its 0.5th and 99.5th percentiles, because one outlier leaves most bins empty.
Differs from other code: Quantus' rules for the number of bins use the number of axes instead of the number of
attributions. With a given number of bins its entropy is the same as here.
Good to know: a map with the highest possible complexity scores about 0, as noise does. A map that does not use the
network scores exactly 0.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from methods._calls import logits, probabilities
from methods._cost import Formula
from methods._torch import Attribution, at_least_float32, ratio
from sanity_checks._randomize import alive, randomizations, whole
from sanity_checks._registry import Result, check
from sanity_checks._torch import explain


@check(
    title="Efficient model randomisation (eMPRT)",
    cite="hedstrom2023sanity",
    kind="randomization",
    protocol="The number is the relative rise of the map's histogram entropy when all weights are randomised.",
    higher_is_better=True,
    forward=Formula("2 · seeds", lambda s: 2 * s.seeds),
    runs=Formula("1 + seeds", lambda s: 1 + s.seeds),
    verified=("literal", "quantus"),
    quick={"seeds": 1},
)
@torch.no_grad()
def efficient_model_randomization(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Int[Tensor, " B"],
    of: Attribution,
    *,
    bins: int = 100,
    seeds: int = 5,
    seed: int = 0,
    init: str = "permute",
) -> Result:
    """Whether the map becomes less ordered when the network's weights are random: the rise of its entropy, q.

    Averaged over `seeds` random networks.

    Args:
        model: classifier.
        x: normalised images.
        target: classes.
        of: the method.
        bins: of the histogram.
        seeds: random networks.
        seed: of the first.
        init: see `_randomize.randomized`.

    Returns:
        Columns: `clipped` (see above), `entropy` xi(e), and `skill`: (xi(e^) / xi(e)) / (H(f^) / H(f)), where H is the
        entropy of the softmax.

    Raises:
        ValueError: the randomised network is dead, or fewer than two bins.
    """
    if bins < 2:
        raise ValueError(f"bins: at least 2, got {bins}")
    e, H = explain(of, model, x, target), _softmax_entropy(model, x)
    xi, xi_clipped = entropy(e, bins), entropy(clipped(e), bins)
    sums = torch.zeros(3, len(x), dtype=torch.float64, device=x.device)
    statistics = {}
    for _, _, f in randomizations(model, [whole(model)], init=init, seeds=range(seed, seed + seeds)):
        statistics = alive(f, model, x, init)
        e_ = explain(of, f, x, target)
        xi_, xi_clipped_ = entropy(e_, bins), entropy(clipped(e_), bins)
        skill = ratio(ratio(xi_, xi), ratio(_softmax_entropy(f, x), H))
        sums += torch.stack([ratio(xi_ - xi, xi), ratio(xi_clipped_ - xi_clipped, xi_clipped), skill])  # eq. 6
    q, q_clipped, skill = sums / seeds
    return Result(
        values=q,
        columns={"clipped": q_clipped, "entropy": xi, "skill": skill},
        facts={"init": init, "randomized_output": statistics},
    )


def entropy(e: Float[Tensor, "B K h w"], bins: int) -> Float[Tensor, " B"]:
    """xi: entropy in nats of the histogram of each map over its own range; 0 for a constant map."""
    a = e.detach().double().flatten(1)  # B n
    low, high = a.amin(dim=1, keepdim=True), a.amax(dim=1, keepdim=True)
    b = (ratio(a - low, high - low) * bins).long().clamp(max=bins - 1)  # the last bin holds its right edge
    p = torch.zeros(len(a), bins, dtype=a.dtype, device=a.device).scatter_add_(1, b, torch.ones_like(a)) / a.shape[1]
    return torch.special.entr(p).sum(dim=1)  # eq. 5


def clipped(e: Float[Tensor, "B K h w"]) -> Float[Tensor, "B K h w"]:
    """Each map clipped at its 0.5th and 99.5th percentiles."""
    ordered = at_least_float32(e.detach()).flatten(1).sort(dim=1).values
    n = ordered.shape[1] - 1
    low, high = (ordered[:, round(share * n)].view(-1, 1, 1, 1) for share in (0.005, 0.995))
    return e.clamp(low, high)


def _softmax_entropy(model: nn.Module, x: Float[Tensor, "B C H W"]) -> Float[Tensor, " B"]:
    p = probabilities(logits(model, x).double())
    return torch.special.entr(p if p.shape[1] > 1 else torch.cat([p, 1 - p], dim=1)).sum(dim=1)
