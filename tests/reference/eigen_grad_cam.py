"""EigenGradCAM by power iteration, and by pytorch-grad-cam, which centres, up to the sign it leaves open."""

import numpy as np
import torch
from pytorch_grad_cam import EigenGradCAM

from peers import at, grad_cam_package


def _first(O):
    """O v_1 with v_1 from power iteration on O^T O, positions x channels; sign by the summed activation."""
    O = O.numpy() / np.abs(O.numpy()).max()
    v = np.ones(O.shape[1])
    for _ in range(20000):
        v = O.T @ (O @ v)
        v /= np.linalg.norm(v)
    L = O @ v
    return L if L @ O.sum(axis=1) >= 0 else -L


def literal(model, x, target, *, layer):
    pairs = at(model, x, target, layer)
    maps = [_first((g * A).flatten(1).T).reshape(A.shape[1:]) * float((g * A).abs().max()) for A, g, _ in pairs]
    return torch.tensor(np.stack(maps))[:, None]


literal.tolerance = {"rtol": 1e-5, "atol": 1e-7}  # power iteration converges with the ratio of two singular values


def grad_cam(model, x, target, *, layer):
    raw = grad_cam_package(EigenGradCAM, model, x, target, layer)
    total = torch.stack([(g * A).sum(dim=0) for A, g, _ in at(model, x, target, layer)])[:, None]
    return torch.where((raw * total).sum(dim=(1, 2, 3), keepdim=True) < 0, -raw, raw)


grad_cam.keywords = {"center": True}
grad_cam.tolerance = {"rtol": 1e-4, "atol": 1e-5}  # it returns float32
