"""Smooth Grad-CAM++, sample by sample and number by number, with exp(S) as it stands."""

import math

import torch

from peers import at, draws


def literal(model, x, target, *, layer, samples, noise=0.15, seed=0, chunk=8):
    sums = [None] * len(x)
    for eps in draws(x, samples, noise, seed):
        for b, (_, g, S) in enumerate(at(model, x + eps, target, layer)):
            powers = [math.exp(S) * g**p / samples for p in (1, 2, 3)]
            sums[b] = powers if sums[b] is None else [s + p for s, p in zip(sums[b], powers, strict=True)]
    maps = []
    for (A, _, _), D in zip(at(model, x, target, layer), sums, strict=True):
        L = torch.zeros_like(A[0])
        for k in range(len(A)):
            total, w = float(A[k].sum()), 0.0
            for d1, d2, d3 in zip(*(d[k].flatten().tolist() for d in D), strict=True):
                if d2 != 0:
                    w += d2 / (2 * d2 + total * d3) * max(d1, 0.0)
            L += w * A[k]
        maps.append(L.clamp(min=0)[None])
    scores = [_scores(model, x + eps, target) for eps in draws(x, samples, noise, seed)]
    mean = sum(s.exp() for s in scores) / samples  # the factor that is left out
    return torch.stack(maps) / mean[:, None, None, None]


def _scores(model, x, target):
    with torch.no_grad():
        return model(x)[torch.arange(len(x)), target]
