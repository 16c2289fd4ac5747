"""Removal with a fixed value, and how well the rankings of methods by two removal orders agree.

Rong et al. ICML 2022. arXiv:2202.00449. What fig_road_consistency.py measures besides the check `road`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor, nn

import _run  # noqa: F401  puts the repository on the path
from methods._torch import probability
from sanity_checks._torch import path, pixels
from sanity_checks.road import random_ties

PERCENTAGES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)
FILLS = {"fixed": "fixed value (mean)", "linear": "noisy linear imputation"}


@torch.no_grad()
def fixed_value(model: nn.Module, x: Tensor, y: Tensor, maps: Tensor, seed: int) -> dict[str, Float[np.ndarray, "n p"]]:
    """Probability and accuracy as in the check `road`, for the same pixels, but filled with the mean colour, 0."""
    a = pixels(maps, x)
    r = torch.rand(a[0].numel(), generator=torch.Generator().manual_seed(seed)).view_as(a[0]).to(a).expand_as(a)
    counts = torch.tensor([int(a[0].numel() * p) for p in PERCENTAGES])
    found = {}
    for name, rank in (("morf", random_ties(a, r)), ("lerf", random_ties(-a, r))):
        for end, score in (("", probability(y)), ("_accuracy", correct(y))):
            found[name + end] = path(model, x, torch.zeros_like(x), rank, counts, score, 200).T.cpu().double().numpy()
    return found


def correct(y: Tensor) -> Callable[[Tensor], Tensor]:
    """A score of logits: 1 where the top class is y."""
    return lambda logits: (logits.argmax(dim=1) == y).to(logits.dtype)


def consistency(
    curves: Sequence[dict[str, tuple[Float[np.ndarray, "n p"], Float[np.ndarray, "n p"]]]],
    truth: Float[np.ndarray, "m n"],
    order: np.ndarray,
) -> dict[str, Any]:
    """Rank correlations of methods, averaged over the shares removed, with 95 % bootstrap intervals over images.

    Args:
        curves: for each method: fill -> (MoRF, LeRF), of each image at each share.
        truth: of each method and image, high is good.
        order: draws of images, one row per resample.
    """
    draws = [np.arange(order.shape[1]), *order]  # the first is the sample itself
    found: dict[str, list[float]] = {}
    for draw in draws:
        true = truth[:, draw].mean(axis=1)  # m
        for f in FILLS:
            morf, lerf = (np.stack([c[f][k][draw].mean(axis=0) for c in curves]) for k in (0, 1))  # m p
            for name, a, b in (
                (f"{f}: MoRF, LeRF", -morf, lerf),
                (f"{f}: MoRF, truth", -morf, true),
                (f"{f}: LeRF, truth", lerf, true),
            ):
                found.setdefault(name, []).append(spearman(a, b))
        for k in ("MoRF, LeRF", "MoRF, truth", "LeRF, truth"):
            found.setdefault(f"linear - fixed: {k}", []).append(found[f"linear: {k}"][-1] - found[f"fixed: {k}"][-1])
    numbers: dict[str, Any] = {
        k: {"mean": v[0], "low": np.percentile(v[1:], 2.5), "high": np.percentile(v[1:], 97.5)}
        for k, v in found.items()
    }
    for f in FILLS:
        morf, lerf = (np.stack([c[f][k].mean(axis=0) for c in curves]) for k in (0, 1))
        taus = [float(np.asarray(stats.kendalltau(-a, b))[0]) for a, b in zip(morf.T, lerf.T, strict=True)]
        numbers[f"{f}: MoRF, LeRF, Kendall"] = float(np.mean(taus))
    return numbers


def spearman(a: Float[np.ndarray, "m p"], b: np.ndarray) -> float:
    """Spearman's correlation over the m methods, mean over p; b is m x p or m. Ties get their mean rank."""
    a, b = (stats.rankdata(v.reshape(len(v), -1), axis=0) for v in (a, b))
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    norms = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return float(np.mean((a * b).sum(axis=0) / np.where(norms == 0, 1, norms)))
