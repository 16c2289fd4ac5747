"""Occlusion, by captum, and written out literally."""

import torch
from captum.attr import Occlusion


def captum(model, x, target, *, size=15, stride=8, value=0.0, chunk=8):
    C = x.shape[1]

    def total(score, x, **given):  # captum divides by the count itself, but in float32
        occlusion = Occlusion(score)
        occlusion.use_weights = False
        return occlusion.attribute(x, (C, size, size), (C, stride, stride), **given)

    count = total(lambda ones: ones.amin(dim=(1, 2, 3)), torch.ones_like(x), baselines=0)  # each window costs 1
    return (total(model, x, baselines=value, target=target) / count)[:, :1]


def literal(model, x, target, *, size=15, stride=8, value=0.0, chunk=8):
    """The mean over the windows of a pixel, one image and one window at a time."""
    H, W = x.shape[2:]

    def corners(n):
        first = [0]
        while first[-1] + size < n:  # pixels are left
            first.append(first[-1] + stride)
        return first

    maps = []
    for b in range(len(x)):
        drops = [[[] for _ in range(W)] for _ in range(H)]
        for top in corners(H):
            for left in corners(W):
                hidden = x[b].detach().clone()
                hidden[:, top : top + size, left : left + size] = value
                with torch.no_grad():
                    drop = float(model(x[b : b + 1])[0, target[b]] - model(hidden[None])[0, target[b]])
                for i in range(top, min(top + size, H)):
                    for j in range(left, min(left + size, W)):
                        drops[i][j].append(drop)
        maps.append([[[sum(d) / len(d) for d in row] for row in drops]])
    return torch.tensor(maps, dtype=x.dtype)
