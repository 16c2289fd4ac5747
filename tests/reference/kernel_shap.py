"""Shapley values by captum (every order of the regions), and Kernel SHAP written out literally."""

import math

import numpy as np
import torch
from captum.attr import ShapleyValues

from methods._coalitions import draw


def captum(model, x, target, *, sampling="leverage", seed=0, chunk=8):
    """Of 2 x 2 regions, zeros elsewhere: all 14 coalitions run, so that ours is exact, too."""
    i = torch.arange(32) // 16
    return ShapleyValues(model).attribute(x, target=target, feature_mask=(2 * i[:, None] + i)[None, None])[:, :1]


captum.tolerance = {"rtol": 1e-5, "atol": 1e-7}  # it sums in float32
captum.keywords = {"segments": 2, "samples": 14, "fill": "zero"}


def literal(model, x, target, *, segments=4, sampling="leverage", seed=0, chunk=8):
    """The constrained least squares by Lagrange's multiplier, on the coalitions of ours."""
    R, z = 16, draw(60, "leverage", seed, 16)
    sizes = z.sum(axis=1).astype(int)
    c = _sizes_drawn(60, R)
    w = [0 if s in (0, R) else 1 / (math.comb(R, s) * s * (R - s)) / (c[s] / math.comb(R, s)) for s in sizes]
    maps = []
    for image, k in zip(x, target, strict=True):
        M = torch.from_numpy(z).view(-1, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)
        with torch.no_grad():
            f = model(image * M)[:, k].numpy()
        KKT, right = np.ones((R + 1, R + 1)), np.empty(R + 1)
        KKT[:R, :R], KKT[R, R] = 2 * z.T @ np.diag(w) @ z, 0
        right[:R], right[R] = 2 * z.T @ (w * (f - f[0])), f[1] - f[0]
        phi = np.linalg.solve(KKT, right)[:R]
        maps.append(torch.from_numpy(phi).view(1, 4, 4).repeat_interleave(8, 1).repeat_interleave(8, 2))
    return torch.stack(maps)


def _sizes_drawn(samples, R):
    """How many coalitions of each size are expected: the same, but no more than there are (by bisection)."""
    low, high = 0.0, float(samples)
    for _ in range(200):
        c = (low + high) / 2
        if sum(min(c, math.comb(R, s)) for s in range(1, R)) < samples:
            low = c
        else:
            high = c
    return [min(c, math.comb(R, s)) for s in range(R + 1)]


literal.keywords = {"samples": 60, "fill": "zero"}
literal.tolerance = {"rtol": 1e-6, "atol": 1e-9}  # the system is solved in another way
