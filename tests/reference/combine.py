"""The product of a gradient map and a CAM, by hand."""

import torch

from peers import at


def literal(model, x, target, *, layer):
    maps = []
    for b, (A, g, _) in enumerate(at(model, x, target, layer)):
        image = x[b].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model(image[None])[0, target[b]], image)
        L = sum(g[k].mean() * A[k] for k in range(len(A))).clamp(min=0)
        L = torch.nn.functional.interpolate(L[None, None], size=x.shape[2:], mode="bilinear", align_corners=False)[0, 0]
        maps.append(torch.stack([gradient[c] * L for c in range(3)]))
    return torch.stack(maps)
