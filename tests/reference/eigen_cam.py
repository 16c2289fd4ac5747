"""Eigen-CAM by power iteration, and by pytorch-grad-cam, which centres, up to the sign it leaves open."""

import numpy as np
import torch
from pytorch_grad_cam import EigenCAM

from peers import at, grad_cam_package, principal


def literal(model, x, target, *, layer):
    maps = [principal(A.flatten(1).T).reshape(A.shape[1:]) for A, g, _ in at(model, x, target, layer)]
    return torch.tensor(np.stack(maps))[:, None]


literal.tolerance = {"rtol": 1e-5, "atol": 1e-7}  # power iteration converges with the ratio of two singular values


def grad_cam(model, x, target, *, layer):
    """Compared with center=True: see test_reference for the call."""
    raw = grad_cam_package(EigenCAM, model, x, target, layer)
    total = torch.stack([A.sum(dim=0) for A, _, _ in at(model, x, target, layer)])[:, None]
    return torch.where((raw * total).sum(dim=(1, 2, 3), keepdim=True) < 0, -raw, raw)


grad_cam.keywords = {"center": True}
grad_cam.tolerance = {"rtol": 1e-4, "atol": 1e-4}  # it returns float32
