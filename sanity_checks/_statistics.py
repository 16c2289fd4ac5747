"""From numbers per image to a line in a table: bootstrap intervals, retained similarity, and the verdict."""

from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

RESAMPLES = 10_000
BATCH = 20_000_000  # numbers drawn at once, for memory

Verdict = Literal["responds", "partial", "insensitive", "no evidence"]


@dataclass(frozen=True)
class Interval:
    """A mean over images with its 95 % bootstrap interval; NaN bounds with fewer than two images."""

    mean: float
    low: float
    high: float
    n: int  # images with a number
    missing: int  # images without


def interval(values: Float[np.ndarray, " B"], seed: int = 0) -> Interval:
    """The mean over images; percentile bootstrap, 10,000 resamples."""
    return _bootstrap((values,), lambda v, axis=-1: v.mean(axis=axis), seed)


def of_images(values: Tensor | np.ndarray) -> dict[str, float]:
    """A mean over images with its 95 % interval, as a sidecar holds it."""
    return asdict(interval(np.asarray(torch.as_tensor(values).double().cpu())))


def retained(
    s: Float[np.ndarray, " B"], null: Float[np.ndarray, " B"], ceiling: Float[np.ndarray, " B"], seed: int = 0
) -> Interval:
    """R = (s - null) / (ceiling - null) of the means: 1 if the map does not change, 0 if only chance similarity stays.

    Args:
        s: similarity of each image's map before and after the change.
        null: similarity of the maps of different images, both before the change.
        ceiling: similarity of two runs of the method before the change; 1 for a deterministic method.
        seed: of the resampling.
    """

    def ratio(s: np.ndarray, null: np.ndarray, ceiling: np.ndarray, axis: int = -1) -> np.ndarray:
        s, null, ceiling = (v.mean(axis=axis) for v in (s, null, ceiling))
        room = ceiling - null
        return np.where(room > 1e-6, (s - null) / np.where(room > 1e-6, room, 1.0), 1.0)

    return _bootstrap((s, null, ceiling), ratio, seed)


def verdict(
    s: Float[np.ndarray, " B"], null: Float[np.ndarray, " B"], ceiling: Float[np.ndarray, " B"], seed: int = 0
) -> Verdict:
    """The verdict on a method from its response to a change of the network, the labels or the class.

    "Certainly" means: by the 95 % bootstrap interval. responds: R is certainly below 0.1. insensitive: R is certainly
    above 0.5. partial: neither is certain. no evidence: there are fewer than two images, or two runs of the method on
    one image are not certainly more similar (by 0.1) than its maps of different images; then R has no meaning, for
    example for noise. A map that is the same for every image has no R either; it is insensitive if it stays the same
    (within 0.1) when the network changes.
    """
    R = retained(s, null, ceiling, seed)
    if R.n < 2:
        return "no evidence"
    if interval(ceiling - null, seed).low > 0.1:
        return "responds" if R.high < 0.1 else "insensitive" if R.low > 0.5 else "partial"
    stays = interval(ceiling - s, seed).high < 0.1 and interval(ceiling, seed).low > 0.5
    return "insensitive" if stays else "no evidence"


def paired(a: Float[np.ndarray, " B"], b: Float[np.ndarray, " B"]) -> dict[str, float]:
    """Two lists on the same images: Wilcoxon's signed-rank p and Cliff's delta, -1 to 1; NaN with one image."""
    both = ~(np.isnan(a) | np.isnan(b))
    a, b = a[both], b[both]
    if len(a) < 2:
        return {"wilcoxon_p": float("nan"), "cliffs_delta": float("nan")}
    p = float(np.asarray(stats.wilcoxon(a, b))[1]) if np.any(a != b) else 1.0
    b = np.sort(b)
    below, above = np.searchsorted(b, a, "left"), len(b) - np.searchsorted(b, a, "right")  # of b, for each of a
    return {"wilcoxon_p": p, "cliffs_delta": float((below - above).sum() / len(a) ** 2)}


def _bootstrap(data: tuple[np.ndarray, ...], statistic: object, seed: int) -> Interval:
    there = ~np.any(np.isnan(np.stack(data)), axis=0)
    data = tuple(np.asarray(v, dtype=np.float64)[there] for v in data)
    n, missing = int(there.sum()), int((~there).sum())
    if n == 0:
        return Interval(float("nan"), float("nan"), float("nan"), 0, missing)
    mean = float(statistic(*data))  # type: ignore[operator]
    if n == 1:
        return Interval(mean, float("nan"), float("nan"), 1, missing)
    if all(np.ptp(v) == 0 for v in data):  # nothing to resample
        return Interval(mean, mean, mean, n, missing)
    found = stats.bootstrap(
        data,
        statistic,
        n_resamples=RESAMPLES,
        batch=max(1, min(RESAMPLES, BATCH // n)),
        paired=True,
        vectorized=True,
        method="percentile",
        rng=seed,
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high), n, missing)
