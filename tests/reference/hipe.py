"""HiPe written out literally, window by window; and the maps of the authors' code with perturbation "fade"."""

import math

import torch

from methods.hipe import hipe


def literal(model, x, target, *, threshold="mid-range", fill="mean", chunk=8):
    H, W = x.shape[2:]
    maps = []
    for image, c in zip(x, target, strict=True):
        with torch.no_grad():
            f, S = model(image[None])[0, c], torch.zeros(H, W, dtype=x.dtype)
            cells = int(math.ceil(math.log2(min(H, W))) / 2)
            while 2 * cells <= min(H, W) / 4:
                cells *= 2
                T = (S.min() + S.max()) / 2 if threshold == "mid-range" else S.mean()
                new = S.clone()
                for i in range(-1, cells):
                    for j in range(-1, cells):
                        inside = [
                            [i <= u * cells // H < i + 2 and j <= v * cells // W < j + 2 for v in range(W)]
                            for u in range(H)
                        ]
                        w = torch.tensor(inside)
                        if S[w].max() >= T:
                            hidden = image.clone()
                            hidden[:, w] = image[:, w].mean(dim=1, keepdim=True)
                            new[w] += (f - model(hidden[None])[0, c]).clamp(min=0)
                S = new
        maps.append(S[None])
    return torch.stack(maps)


def authors(net, x, target, golden):
    return {"map_fade": hipe(net, x, target, fill="zero")[:, 0]}
