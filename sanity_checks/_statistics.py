"""From numbers per image to a line in a table: intervals, retained similarity, gains over controls, and the verdict.

What decides on a verdict holds for few images: intervals of Student's t; those of the bootstrap are too short there.
"""

import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

RESAMPLES = 10_000
BATCH = 20_000_000  # numbers drawn at once, for memory
FEWEST = 5  # images; with fewer, no gain over a control counts as sure

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


def retained(s: Float[np.ndarray, " B"], null: Float[np.ndarray, " B"], ceiling: Float[np.ndarray, " B"]) -> Interval:
    """R = (s - null) / (ceiling - null) of the means: 1 if the map does not change, 0 if only chance similarity stays.

    With Fieller's 95 % interval of a ratio of means (J. Royal Statistical Society B 16, 1954); its bounds are NaN where
    ceiling - null is not certainly above 0, and with fewer than two images.

    Args:
        s: similarity of each image's map before and after the change.
        null: mean similarity of each image's map and those of other images, before the change. A pair is in the
            numbers of both its images, so the deviation of an image counts twice.
        ceiling: similarity of two runs of the method before the change; 1 for a deterministic method.
    """
    there = ~np.isnan(np.stack([s, null, ceiling])).any(axis=0)
    s, null, ceiling = (np.asarray(v, dtype=np.float64)[there] for v in (s, null, ceiling))
    n, missing, nan = len(s), int((~there).sum()), float("nan")
    if n == 0:
        return Interval(nan, nan, nan, 0, missing)
    null = 2 * null - null.mean()
    a, b = s - null, ceiling - null
    R = float(a.mean() / b.mean()) if b.mean() > 1e-6 else 1.0
    if n == 1 or b.mean() <= 1e-6:
        return Interval(R, nan, nan, n, missing)
    k = _quantile(0.975, n - 1) ** 2 / n
    v = np.cov(a, b)  # mean(a) - r mean(b) is within t standard errors of 0:  A r^2 - 2 B r + C <= 0
    A, B, C = b.mean() ** 2 - k * v[1, 1], a.mean() * b.mean() - k * v[0, 1], a.mean() ** 2 - k * v[0, 0]
    if A <= 0:
        return Interval(R, nan, nan, n, missing)
    half = float(np.sqrt(max(B * B - A * C, 0.0)))
    return Interval(R, float((B - half) / A), float((B + half) / A), n, missing)


def verdict(s: Float[np.ndarray, " B"], null: Float[np.ndarray, " B"], ceiling: Float[np.ndarray, " B"]) -> Verdict:
    """The verdict on a method from its response to a change of the network, the labels or the class.

    It takes the sizes of the similarities: a map that is turned upside down has not changed. "Certainly" means: by the
    95 % interval of `retained`. responds: R is certainly below 0.25. insensitive: R is certainly above 0.5. partial:
    neither is certain. no evidence: there are fewer than two images, or two runs of the method on one image are not
    certainly more similar (by 0.1) than its maps of different images; then R has no meaning, for example for noise. A
    map that is the same for every image has no R either; it is insensitive if it stays the same (within 0.1) when the
    network changes.
    """
    s, null = np.abs(s), np.abs(null)
    R = retained(s, null, ceiling)
    if R.n < 2:
        return "no evidence"
    if bounds(ceiling - null)[0] > 0.1 and R.low == R.low:
        return "responds" if R.high < 0.25 else "insensitive" if R.low > 0.5 else "partial"
    stays = bounds(ceiling - s)[1] < 0.1 and bounds(ceiling)[0] > 0.5
    return "insensitive" if stays else "no evidence"


def bounds(values: Float[np.ndarray, " B"], level: float = 0.025) -> tuple[float, float]:
    """Lower and upper bound of the mean by Student's t, each of which fails with probability `level`; NaN for one."""
    v = values[~np.isnan(values)]
    if len(v) < 2:
        return float("nan"), float("nan")
    half = _quantile(1 - level, len(v) - 1) * float(v.std(ddof=1)) / len(v) ** 0.5
    return float(v.mean()) - half, float(v.mean()) + half


@functools.cache
def _quantile(p: float, degrees: int) -> float:
    return float(stats.t.ppf(p, degrees))


@dataclass(frozen=True)
class Gain:
    """How much better a map is than the best of several controls on the same images."""

    mean: float  # over the control that it beats by least
    low: float  # the smallest lower bound over all controls; NaN with fewer than FEWEST images
    against: str  # the control of `mean`
    n: int
    missing: int


def gain(values: Float[np.ndarray, " B"], controls: Mapping[str, Float[np.ndarray, " B"]], tests: int = 1) -> Gain:
    """The gain of `values` (higher is better) over each control, paired by image: the least of them.

    A map that is not better than all controls has `low` above 0 with probability 2.5 % at most in all `tests`
    columns together (Bonferroni): one-sided t bounds, and all of them must hold (an intersection-union test), so there
    is no correction for the number of controls.
    """
    found = {}
    for name, control in controls.items():
        d = values - control
        d = d[~np.isnan(d)]
        low = bounds(d, 0.025 / tests)[0] if len(d) >= FEWEST else float("nan")
        found[name] = Gain(float(d.mean()) if len(d) else float("nan"), low, name, len(d), len(values) - len(d))
    least = min(found.values(), key=lambda g: g.mean)
    lows = [g.low for g in found.values()]
    return Gain(least.mean, float("nan") if np.isnan(lows).any() else min(lows), least.against, least.n, least.missing)


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
