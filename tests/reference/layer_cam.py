"""LayerCAM, by pytorch-grad-cam and torchcam, and written out literally."""

import torch
from pytorch_grad_cam import LayerCAM
from torchcam import methods as _torchcam

from peers import CNN, at, grad_cam_package, on, torchcam_package


def literal(model, x, target, *, layer):
    maps = []
    for A, g, _ in at(model, x, target, layer):
        K, h, w = A.shape
        M = torch.zeros(1, h, w, dtype=x.dtype)
        for i in range(h):
            for j in range(w):
                M[0, i, j] = max(sum(max(float(g[k, i, j]), 0.0) * float(A[k, i, j]) for k in range(K)), 0.0)
        maps.append(M)
    return torch.stack(maps)


def grad_cam(model, x, target, *, layer):
    return grad_cam_package(LayerCAM, model, x, target, layer).relu()


@on(*CNN)
def torchcam(model, x, target, *, layer):
    return torchcam_package(_torchcam.LayerCAM, model, x, target, layer).relu()
