"""Meaningful perturbation written out literally, image by image, with torch's own Adam; and the authors' masks."""

import numpy as np
import torch
from PIL import Image, ImageFilter
from scipy.ndimage import gaussian_filter1d

from methods.meaningful_perturbation import meaningful_perturbation


def _blur(n, sigma):
    """The matrix of scipy's blur of a row, mirrored at its ends."""
    return torch.from_numpy(gaussian_filter1d(np.eye(n), sigma, axis=0, mode="mirror", radius=int(np.ceil(4 * sigma))))


def literal(model, x, target, *, steps=300, seed=0):
    H, W = x.shape[2:]
    maps = []
    for image, c in zip(x, target, strict=True):
        m = torch.full((H // 8, W // 8), 0.5, dtype=x.dtype, requires_grad=True)
        null = _blur(H, H * 10 / 224) @ image @ _blur(W, W * 10 / 224).T
        wide, wide_null = (torch.nn.functional.pad(v[None], (0, 4, 0, 4), mode="replicate")[0] for v in (image, null))
        adam, rng = torch.optim.Adam([m], lr=0.1), torch.Generator().manual_seed(seed)
        for _ in range(steps):
            i, j = torch.randint(4, (2,), generator=rng).tolist()
            large = torch.kron(m, torch.ones(8, 8, dtype=x.dtype))
            M = _blur(H, 5) @ large @ _blur(W, 5).T
            Phi = M * wide[:, i : i + H, j : j + W] + (1 - M) * wide_null[:, i : i + H, j : j + W]
            loss = model(Phi[None])[0, c] + 1e-4 * (1 - m).abs().sum()
            for a in range(H // 8):
                for b in range(W // 8):
                    down = m[a + 1, b] - m[a, b] if a + 1 < H // 8 else 0 * m[a, b]
                    right = m[a, b + 1] - m[a, b] if b + 1 < W // 8 else 0 * m[a, b]
                    loss = loss + 1e-2 * (down**2 + right**2 + 1e-24) ** 1.5
            adam.zero_grad()
            loss.backward()
            adam.step()
            m.data.clamp_(0, 1)
        maps.append((1 - _blur(H, 5) @ torch.kron(m, torch.ones(8, 8, dtype=x.dtype)) @ _blur(W, 5).T).detach()[None])
    return torch.stack(maps)


literal.only = {"elu", "gelu_ln", "vit"}  # Adam's first steps are the sign of the gradient: no kinks of ReLU
literal.tolerance = {"rtol": 0, "atol": 1e-6}  # Adam divides by small gradients


def authors(net, x, target, golden):
    """Without the blur of the mask, from their random start; the image is theirs, in 8 bits, and so is its blur."""
    rgb = np.round((x * 0.125 + 0.5).clamp(0, 1).numpy() * 255).astype(np.uint8)
    blur = [np.array(Image.fromarray(a.transpose(1, 2, 0)).filter(ImageFilter.GaussianBlur(10))) for a in rgb]

    def normal(a):
        return (torch.from_numpy(a).float() / 255 - 0.5) / 0.125

    start = torch.from_numpy(np.random.RandomState(0).rand(8, 8)).float().expand(2, 1, 8, 8)
    got = meaningful_perturbation(
        net,
        normal(rgb),
        lambda y: y.softmax(dim=1).gather(1, target[:, None])[:, 0],
        steps=20,
        blur=0.0,
        jitter=0,
        fill=normal(np.stack(blur).transpose(0, 3, 1, 2)),
        start=start,
    )
    return {"map_no_blur": 1 - got[:, 0, ::8, ::8]}


authors.tolerance = {"rtol": 0, "atol": 2e-4}  # their roughness has a floor in its gradient
