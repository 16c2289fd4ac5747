"""FEM, written out literally, and by pytorch-grad-cam in its own convention."""

import torch
from pytorch_grad_cam import FEM

from peers import at, grad_cam_package


def literal(model, x, target, *, layer):
    """Number by number."""
    maps = []
    for A, _, _ in at(model, x, target, layer):
        K, h, w = A.shape
        L = torch.zeros(1, h, w, dtype=A.dtype)
        for k in range(K):
            values = A[k].flatten().tolist()
            mu = sum(values) / (h * w)
            sigma = (sum((v - mu) ** 2 for v in values) / (h * w)) ** 0.5
            for i in range(h):
                for j in range(w):
                    L[0, i, j] += mu if float(A[k, i, j]) > mu + 2 * sigma else 0.0
        maps.append(L)
    return torch.stack(maps)


def grad_cam(model, x, target, *, layer):
    """It weighs the feature maps by the share of strong positions."""
    return grad_cam_package(FEM, model, x, target, layer)


grad_cam.keywords = {"weights": "share"}
