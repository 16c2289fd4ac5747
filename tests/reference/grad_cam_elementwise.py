"""Element-wise Grad-CAM, by pytorch-grad-cam, and written out literally."""

import torch
from pytorch_grad_cam import GradCAMElementWise

from peers import at, grad_cam_package


def literal(model, x, target, *, layer):
    maps = []
    for A, g, _ in at(model, x, target, layer):
        K, h, w = A.shape
        A, g = A.tolist(), g.tolist()
        maps.append([[[sum(max(g[k][i][j] * A[k][i][j], 0.0) for k in range(K)) for j in range(w)] for i in range(h)]])
    return torch.tensor(maps, dtype=x.dtype)


def grad_cam(model, x, target, *, layer):
    return grad_cam_package(GradCAMElementWise, model, x, target, layer)
