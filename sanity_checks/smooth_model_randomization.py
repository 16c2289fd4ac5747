"""Sanity Checks Revisited: An Exploration to Repair the Model Parameter Randomisation Test (smooth MPRT).

Hedstrom, Weber, Lapuschkin, Hohne. XAI in Action workshop, NeurIPS 2023. arXiv:2401.06465

    e~(x)  = 1/N  sum_i  Phi( x + eps_i, f, y ),   eps_i ~ N(0, sigma)        (eq. 3)
    q      = mean_l  rho( |e~(x)|, |e~^l(x)| )                        (e~^l: after l layers)

Phi     the method                                       of
N       noisy samples                                    samples
sigma   standard deviation                               noise * (max - min) of the image
l       layers, lowest first                             points along the bottom-up order

Differs from the paper: weights are permuted (see model_randomization). Maps are not divided by their second moment
first, because this does not change ranks. As in the authors' code, the last sample has no noise, and |.| is taken after
the averaging.
Differs from other code: Quantus 0.6 sets the seed again before each module (see model_randomization).
Good to know: averaging removes the noise of a gradient map and keeps its stable part, so all scores rise.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from methods._cost import Formula
from methods._torch import Attribution, noisy, tile
from sanity_checks._randomize import lost_stages, randomizations, stages
from sanity_checks._registry import Result, check
from sanity_checks._torch import explain
from sanity_checks.similarity import between_images, similarities


@check(
    title="Smooth model randomisation (sMPRT)",
    cite="hedstrom2023sanity",
    kind="randomization",
    protocol=(
        "Maps are averaged over noisy copies of the image, before and after the weights are randomised, lowest stage "
        "first. The number is the mean rank correlation over the steps."
    ),
    higher_is_better=False,
    forward=0,
    runs=Formula("samples · (2 + points)", lambda s: s.samples * (2 + min(s.points or s.S, s.S))),
    verified=("literal",),
    quick={"samples": 4, "points": 2},
)
@torch.no_grad()
def smooth_model_randomization(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Int[Tensor, " B"],
    of: Attribution,
    *,
    samples: int = 50,
    noise: float = 0.1,
    points: int | None = None,
    order: str = "bottom-up",
    init: str = "permute",
    seed: int = 0,
    chunk: int = 8,
) -> Result:
    """Whether maps averaged over noise change when the network's weights are discarded, step by step.

    Mean similarity along the cascade; the curve has each step; columns `full`, `null`, `ceiling`.

    Args:
        model: classifier.
        x: normalised images.
        target: classes.
        of: the method.
        samples: noisy copies.
        noise: their standard deviation, as a share of each image's range.
        points: steps of the cascade; None: all stages.
        order: "bottom-up" or "top-down".
        init: see `_randomize.randomized`.
        seed: of noise and weights.
        chunk: images per run of the method.
    """
    L = stages(model, x)

    def smoothed(f: nn.Module) -> Tensor:
        total, last = torch.zeros(()), 0
        for X in noisy(x, samples, noise, seed, chunk):
            last += len(X)
            X = torch.cat([X[:-1], x[None]]) if last == samples else X  # the last sample is the image itself
            maps = explain(of, f, X.flatten(0, 1), tile(target, len(X)))  # kB K h w
            total = total.to(x.device) + maps.unflatten(0, (len(X), len(x))).sum(dim=0)  # B K h w
        return total / samples  # eq. 3

    e = smoothed(model)
    null, ceiling = between_images(e, x, ("spearman",)), similarities(e, smoothed(model), x, ("spearman",))
    steps = list(lost_stages(order, len(L), points))
    q = []
    for _, _, f in randomizations(model, L, steps, init=init, seeds=(seed,)):
        q.append(similarities(e, smoothed(f), x, ("spearman",))["spearman"])
    curve = torch.stack(q, dim=1)  # B points
    return Result(
        values=curve.mean(dim=1),
        columns={"full": q[-1], "null": null["spearman"], "ceiling": ceiling["spearman"]},
        curves={order: curve},
        at=tuple(float(k + 1) for k in range(len(steps))),
        facts={"init": init, "steps": [[L[k].name for k in sorted(lost)] for lost in steps]},
    )
