"""RISE written out literally, mask by mask, with scikit-image's resize; and the maps of the authors' code."""

import math

import torch
from skimage.transform import resize

from methods.rise import enlarge, rise


def literal(model, x, target, *, samples=4000, cells=7, p=0.5, fill="zero", masks=None, stop=0, seed=0, chunk=8):
    rng, size = torch.Generator().manual_seed(seed), x.shape[2:]
    grids = (torch.rand(samples, cells, cells, generator=rng) < p).double().numpy()
    shares = torch.rand(samples, 2, generator=rng).tolist()
    cell = [math.ceil(n / cells) for n in size]
    maps = []
    for image, c in zip(x, target, strict=True):
        S = torch.zeros(size, dtype=x.dtype)
        for grid, share in zip(grids, shares, strict=True):
            large = resize(grid, [(cells + 1) * n for n in cell], order=1, mode="reflect", anti_aliasing=False)
            i, j = (int(part * n) for part, n in zip(share, cell, strict=True))
            M = torch.from_numpy(large[i : i + size[0], j : j + size[1]])
            S += model((image * M)[None])[0, c] * M / samples / p
        maps.append(S[None])
    return torch.stack(maps).detach()


def authors(net, x, target, golden):
    """On the masks that their random numbers make."""
    grid, shift = torch.tensor(golden["grid"]).double(), torch.tensor(golden["shifts"])
    masks = enlarge(grid, (shift + 0.5) / 8, 64, 64)

    def cam(score):
        return rise(net, x, score, samples=40, masks=masks)[:, 0]

    return {
        "map": cam(lambda y: y.softmax(dim=1).gather(1, target[:, None])[:, 0]),
        "map_logit": cam(target)[:, ::2, ::2],
        "masks_half": masks[:, ::4, ::4].half(),
    }


authors.tolerance = {"rtol": 1e-3, "atol": 1e-5}  # masks_half is float16
