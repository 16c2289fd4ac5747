"""SIX written out literally: image by image, noise by noise, step by step, with the whole network run each time."""

import torch

from helpers import references
from peers import at


def literal(model, x, target, *, layer, samples, steps, seed=0, chunk=32):
    gradient_at = references("dix")["literal"].__globals__["_gradient_at"]
    p = 1.0
    for t in range(501):
        p *= 1 - (1e-4 + t / 500 * (0.02 - 1e-4))
    maps = []
    for b, (A, _, _) in enumerate(at(model, x, target, layer)):
        rng, H = torch.Generator().manual_seed(seed), torch.zeros_like(A[0])
        for _ in range(samples):
            r = p**0.5 * A + (1 - p) * torch.randn(A.shape, generator=rng, dtype=x.dtype)
            for i in range(1, steps + 1):
                v = r + i / steps * (A - r)
                g = gradient_at(model, x[b], target[b], layer, v)
                H += sum(g[k] * v[k] for k in range(len(A))) / steps / samples
        maps.append(H[None])
    return torch.stack(maps)
