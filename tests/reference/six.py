"""SIX written out literally: image by image, noise by noise, step by step, with the whole network run each time."""

from functools import partial

import torch

from helpers import references
from methods.six import six
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


def authors(net, x, target, golden):
    """The noise of our seed 0 is the one that torch.manual_seed(0) gave the released code, for each image alone."""
    cam = partial(six, net, x, target, form="released", seed=0)
    return {"map": cam(layer="layer4"), "map_layer3": cam(layer="layer3")}
