"""Opti-CAM, written out literally: image by image, with torch's own Adam."""

import torch
from torch.nn.functional import interpolate

from peers import at


def literal(model, x, target, *, layer, steps=50, lr=0.1, objective="plain"):
    maps = []
    for image, c, (A, _, y) in zip(x, target, at(model, x, target, layer), strict=True):
        u = torch.full((len(A),), 0.5, dtype=x.dtype, requires_grad=True)
        adam = torch.optim.Adam([u], lr=lr)

        def combined(A=A, u=u):
            weights = u.exp() / u.exp().sum()
            return sum(w * channel.clamp(min=0) for w, channel in zip(weights, A, strict=True))

        for _ in range(steps):
            S = interpolate(combined()[None, None], size=x.shape[2:], mode="bilinear", align_corners=False)[0]
            S = (S - S.min()) / (S.max() - S.min())
            f = model((image * S)[None])[0, c]
            adam.zero_grad()
            (y - f if objective == "plain" else (y - f).abs()).backward()
            adam.step()
        maps.append(combined().detach()[None])
    return torch.stack(maps)
