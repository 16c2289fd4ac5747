"""How much the boxes of maps depend on the threshold: hits of `wsol` at each threshold, and their maxima.

hits    n u 3: 1 where the best of all boxes of image n overlaps enough at threshold u, for each of `wsol.DELTAS`
"""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Real, UInt8
from torch import Tensor

from methods._torch import minmax
from sanity_checks._boxes import boxes_above
from sanity_checks._statistics import interval, of_images
from sanity_checks.wsol import DELTAS

RESAMPLES = 10_000


def as_bytes(a: Float[Tensor, "H W"]) -> UInt8[np.ndarray, "H W"]:
    """A map as `wsol` thresholds it: scaled to 0 ... 255."""
    return (minmax(a.double()).cpu().numpy() * 255).astype(np.uint8)


def found_boxes(a: Float[Tensor, "H W"], tau: float) -> Real[np.ndarray, "n 4"]:
    """The boxes that `wsol` scores at a threshold: the boxes of all contours, in the pixels of the map."""
    image = as_bytes(a)
    return boxes_above(image, int(tau * image.max()))[0]


def hits_of(curves: Mapping[str, Float[Tensor, "n t"]]) -> Float[np.ndarray, "n u 3"]:
    """The hits of a result's curves, at each threshold below 1."""
    best = curves["iou_any"][:, :-1].cpu().numpy()
    return np.stack([best >= delta for delta in DELTAS], axis=2).astype(float)


def highest(acc: Float[np.ndarray, "..."], axis: int) -> Int[np.ndarray, "..."]:
    """The index of the maximum: the first of equal values, where values that differ only by rounding are equal."""
    return acc.round(9).argmax(axis=axis)


def at_level(hits: Float[np.ndarray, "n u 3"], tau: Float[np.ndarray, " u"], level: float) -> Float[np.ndarray, " n"]:
    """Each image's mean hit over DELTAS at one threshold."""
    return hits[:, int(np.abs(tau - level).argmin())].mean(axis=1)


def held_out(hits: Float[np.ndarray, "n u 3"]) -> Float[np.ndarray, " n"]:
    """Each image's mean hit over DELTAS, at the thresholds that are best for the other half of the images."""
    half = np.arange(len(hits)) % 2 == 0
    found = np.empty(len(hits))
    for part in (half, ~half):
        place = highest(hits[~part].mean(axis=0), axis=0)  # 3
        found[part] = np.stack([hits[part, p, k] for k, p in enumerate(place)]).mean(axis=0)
    return found


def resampled(hits: Float[np.ndarray, "n u 3"], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """MaxBoxAccV2 and the indices of the best thresholds in bootstrap resamples of the images: R, and R 3.

    Thresholds are chosen again in every resample, as for the number itself. A maximum of means is a little too high for
    these images, and even a little higher in a resample. The same seed draws the same images.
    """
    n, u, k = hits.shape
    rng = np.random.default_rng(seed)
    scores, places = [], []
    for _ in range(RESAMPLES // 250):
        weights = rng.multinomial(n, np.full(n, 1 / n), size=250) / n  # 250 n
        acc = (weights @ hits.reshape(n, -1)).reshape(-1, u, k)  # 250 u 3
        scores.append(acc.max(axis=1).mean(axis=1))
        places.append(highest(acc, axis=1))
    return np.concatenate(scores), np.concatenate(places)


def summary(
    hits: Float[np.ndarray, "n u 3"], tau: Float[np.ndarray, " u"], facts: Mapping[str, Any], fixed: float
) -> dict[str, Any]:
    """Scores with 95 % intervals, for the sidecar and the picture: at the best thresholds and at a `fixed` one.

    Args:
        hits: of one row.
        tau: their thresholds.
        facts: of the result of `wsol`.
        fixed: one threshold for all.
    """
    acc = hits.mean(axis=0)  # u 3
    scores, places = resampled(hits)
    low, high = np.percentile(scores, [2.5, 97.5])
    ends = tau[np.percentile(places, [2.5, 97.5], axis=0, method="nearest")]  # 2 3
    best = tau[highest(acc, axis=0)]  # 3
    return {
        "MaxBoxAccV2": {"mean": facts["MaxBoxAccV2"], "low": low, "high": high},
        "MaxBoxAcc": facts["MaxBoxAcc"],
        "PxAP": facts["PxAP"],
        "threshold_of_other_half": of_images(held_out(hits)),
        f"threshold_{fixed}": of_images(at_level(hits, tau, fixed)),
        "best_threshold": {
            str(delta): {"best": best[k], "low": ends[0, k], "high": ends[1, k]} for k, delta in enumerate(DELTAS)
        },
        "BoxAcc": {str(delta): acc[:, k] for k, delta in enumerate(DELTAS)},
    }


def reversals(scores: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> list[tuple[str, str]]:
    """Pairs (a, b) where a is certainly better than b by the first of its lists and certainly worse by the second.

    Certainly: the 95 % interval of the paired difference is on one side of 0. The pair that changes most comes first.
    """
    changes = {}
    for a, b in itertools.permutations(scores, 2):
        one, other = (interval(scores[a][k] - scores[b][k]) for k in (0, 1))
        if one.low > 0 > other.high:
            changes[a, b] = one.mean - other.mean
    return sorted(changes, key=lambda pair: -changes[pair])
