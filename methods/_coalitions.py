"""Which regions are seen in the samples of Kernel SHAP: `kernel_shap` has the equations."""

import math
from itertools import combinations

import numpy as np
from jaxtyping import Float


def expected(samples: int, R: int) -> list[float]:
    """Leverage sampling: the expected number of pairs with |z| = 1 .. R / 2 (and R - |z|); all of them, or the same."""
    most = [math.comb(R, s) / (1 + (2 * s == R)) for s in range(1, R // 2 + 1)]
    a, left = list(most), samples // 2
    if sum(most) <= left:
        return a
    share = [1 / (1 + (2 * s == R)) for s in range(1, R // 2 + 1)]  # pairs of equal halves are one size, not two
    free = set(range(len(most)))
    while True:
        c = (left - sum(a[s] for s in range(len(a)) if s not in free)) / sum(share[s] for s in free)
        full = {s for s in free if most[s] <= c * share[s]}
        if not full:
            return [c * share[s] if s in free else a[s] for s in range(len(a))]
        free -= full


def draw(samples: int, sampling: str, seed: int, R: int) -> Float[np.ndarray, "n R"]:
    """Nothing, the whole image, and pairs of z and 1 - z."""
    rng, sizes = np.random.default_rng(seed), range(1, R // 2 + 1)
    if sampling == "kernel":
        pi = np.array([(2 - (2 * s == R)) / (s * (R - s)) for s in sizes])
        chosen = [tuple(rng.choice(R, s, replace=False)) for s in rng.choice(sizes, samples // 2, p=pi / pi.sum())]
    else:
        edges = np.floor(np.round(np.cumsum([0, *expected(samples, R)]), 9) + rng.random())
        chosen = [z for s, k in zip(sizes, np.diff(edges), strict=True) for z in distinct(rng, R, s, int(k))]
    z = np.zeros((1 + len(chosen), R))
    for row, seen in zip(z[1:], chosen, strict=True):
        row[list(seen)] = 1
    return np.stack([z, 1 - z], axis=1).reshape(-1, R)


def distinct(rng: np.random.Generator, R: int, s: int, k: int) -> list[tuple[int, ...]]:
    """K different sets of s of R regions; of two that complement each other only the one that has region 0."""
    if math.comb(R, s) <= 10_000:
        every = [z for z in combinations(range(R), s) if 2 * s < R or z[0] == 0]
        return [every[i] for i in rng.permutation(len(every))[:k]]
    found: dict[tuple[int, ...], None] = {}
    while len(found) < k:
        z = set(rng.choice(R, s, replace=False).tolist())
        found[tuple(sorted(z if 2 * s < R or 0 in z else set(range(R)) - z))] = None
    return list(found)
