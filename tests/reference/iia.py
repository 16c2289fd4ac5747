"""IIA2 written out literally: image by image, step by step, with the whole network run each time."""

from functools import partial

import torch

from helpers import references
from methods.iia import iia
from peers import at


def literal(model, x, target, *, layer, steps, chunk=64):
    """The iterated integral as sums over the right ends of the steps, from an image of zeros."""
    gradient_at = references("dix")["literal"].__globals__["_gradient_at"]
    maps = []
    for b in range(len(x)):
        m = 0
        for i in range(1, steps + 1):
            point = i / steps * x[b]
            u = at(model, point[None], target[b : b + 1], layer)[0][0]
            r = torch.stack([torch.full_like(channel, float(channel.min())) for channel in u])
            integral = torch.zeros_like(u)
            for j in range(1, steps + 1):
                v = r + j / steps * (u - r)
                integral += v * gradient_at(model, point, target[b], layer, v) / steps
            m = m + ((u - r) * integral).sum(dim=0) / steps
        maps.append(m[None])
    return torch.stack(maps)


def authors(net, x, target, golden):
    """Its IIA2 and IIA3 at 10 steps."""
    cam = partial(iia, net, x, target, layer="layer4", form="released", steps=10)
    return {"map": cam(), "map_triple": cam(earlier="layer3")}
