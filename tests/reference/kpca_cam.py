"""KPCA-CAM by power iteration on a kernel matrix filled pair by pair, and by pytorch-grad-cam (scikit-learn)."""

import math

import numpy as np
import torch
from pytorch_grad_cam import KPCA_CAM

from peers import at, grad_cam_package


def literal(model, x, target, *, layer):
    maps = []
    for A, _, _ in at(model, x, target, layer):
        O = A.flatten(1).T.numpy()
        n, channels = O.shape
        rows = [row - O.mean(axis=0) for row in O]
        K = np.array([[math.tanh(float(a @ b) / channels + 1) for b in rows] for a in rows])
        K = np.array([[K[i, j] - K[i].mean() - K[:, j].mean() + K.mean() for j in range(n)] for i in range(n)])
        shift = (
            np.abs(K).sum(axis=1).max()
        )  # makes all eigenvalues positive, so that the largest is the largest in size
        u = np.cos(np.arange(n) ** 2)
        for _ in range(20000):
            u = K @ u + shift * u
            u /= np.linalg.norm(u)
        L = math.sqrt(u @ K @ u) * u
        maps.append(torch.tensor(L if L @ O.sum(axis=1) >= 0 else -L).view(1, *A.shape[1:]))
    return torch.stack(maps)


literal.tolerance = {"rtol": 1e-5, "atol": 1e-7}  # power iteration converges with the ratio of two eigenvalues


def grad_cam(model, x, target, *, layer):
    """Up to the sign that it leaves open."""
    raw = grad_cam_package(KPCA_CAM, model, x, target, layer)
    total = torch.stack([A.sum(dim=0) for A, _, _ in at(model, x, target, layer)])[:, None]
    return torch.where((raw * total).sum(dim=(1, 2, 3), keepdim=True) < 0, -raw, raw)


grad_cam.tolerance = {"rtol": 1e-4, "atol": 1e-6}  # it returns float32
