"""The trace of K H L H written out literally: image by image, region by region, pair by pair."""

import numpy as np
import torch
from scipy.stats import qmc


def literal(model, x, target, *, segments=4, width="distances", fill="zero", seed=0, chunk=8):
    N, R = 20, segments**2
    z = np.round(qmc.LatinHypercube(R, rng=np.random.default_rng(seed)).random(N))
    maps = []
    for image, c in zip(x, target, strict=True):
        y = []
        for row in z:
            M = torch.tensor(row).view(segments, segments).repeat_interleave(8, 0).repeat_interleave(8, 1)
            with torch.no_grad():
                y.append(float(model((image * M)[None])[0, c]))
        apart = sorted(abs(y[a] - y[b]) for a in range(N) for b in range(a))
        sigma = apart[(len(apart) - 1) // 2] if width == "distances" else sorted(y)[(N - 1) // 2]
        H = np.eye(N) - 1 / N
        L = np.array([[np.exp(-((a - b) ** 2) / 2 / sigma**2) for b in y] for a in y])
        S = []
        for i in range(R):
            K = np.array([[1 - (a[i] - b[i]) ** 2 for b in z] for a in z])
            S.append(np.trace(K @ H @ L @ H) / N**2)
        maps.append(torch.tensor(S).view(1, segments, segments).repeat_interleave(8, 1).repeat_interleave(8, 2))
    return torch.stack(maps)


literal.keywords = {"samples": 20}
