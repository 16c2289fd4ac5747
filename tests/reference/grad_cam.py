"""Grad-CAM, by captum, pytorch-grad-cam and torchcam, and written out literally."""

import torch
from captum.attr import LayerGradCam
from pytorch_grad_cam import GradCAM
from torchcam import methods as _torchcam

from peers import CNN, at, grad_cam_package, on, torchcam_package


def literal(model, x, target, *, layer):
    """Equations 1 and 2 with every sum as a loop."""
    maps = []
    for A, g, _ in at(model, x, target, layer):
        K, h, w = A.shape
        A, g = A.tolist(), g.tolist()
        L = [[0.0] * w for _ in range(h)]
        for k in range(K):
            alpha = sum(g[k][i][j] for i in range(h) for j in range(w)) / (h * w)
            for i in range(h):
                for j in range(w):
                    L[i][j] += alpha * A[k][i][j]
        maps.append([[[max(v, 0.0) for v in row] for row in L]])
    return torch.tensor(maps, dtype=x.dtype)


@on(*CNN)
def captum(model, x, target, *, layer):
    return LayerGradCam(model, model.get_submodule(layer)).attribute(x, target, relu_attributions=True)


def grad_cam(model, x, target, *, layer):
    return grad_cam_package(GradCAM, model, x, target, layer).relu()


@on(*CNN)
def torchcam(model, x, target, *, layer):
    return torchcam_package(_torchcam.GradCAM, model, x, target, layer)
