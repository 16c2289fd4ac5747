"""Jansen's estimator written out literally: image by image, row by row, region by region."""

import numpy as np
import torch
from scipy.stats import qmc


def literal(model, x, target, *, segments=4, designs=4, fill="zero", seed=0, chunk=8):
    R = segments**2
    rows = qmc.Sobol(2 * R, scramble=True, rng=np.random.default_rng(seed)).random(designs)
    maps = []
    for image, c in zip(x, target, strict=True):

        def f(z, image=image, c=c):
            side = 32 // segments
            M = torch.tensor(z).view(segments, segments).repeat_interleave(side, 0).repeat_interleave(side, 1)
            with torch.no_grad():
                return float(model((image * M)[None])[0, c])

        y = [f(row[:R]) for row in rows]
        mean = sum(y) / designs
        V = sum((v - mean) ** 2 for v in y) / (designs - 1)
        S = []
        for i in range(R):
            total = 0
            for j, row in enumerate(rows):
                C = row[:R].copy()
                C[i] = row[R + i]
                total += (y[j] - f(C)) ** 2
            S.append(total / (2 * designs * V))
        maps.append(torch.tensor(S).view(1, segments, segments).repeat_interleave(8, 1).repeat_interleave(8, 2))
    return torch.stack(maps)
