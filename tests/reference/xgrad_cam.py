"""XGrad-CAM, by pytorch-grad-cam and torchcam, and written out literally."""

import torch
from pytorch_grad_cam import XGradCAM
from torchcam import methods as _torchcam

from peers import CNN, at, grad_cam_package, on, torchcam_package

# both add 1e-7 or 1e-8 to a sum of activations that can be small
EPSILON = {"rtol": 1e-4, "atol": 1e-6}


def literal(model, x, target, *, layer):
    maps = []
    for F, g, _ in at(model, x, target, layer):
        M = torch.zeros_like(F[0])
        for k in range(len(F)):
            total = F[k].sum()
            alpha = sum(F[k, i, j] / total * g[k, i, j] for i in range(F.shape[1]) for j in range(F.shape[2]))
            M += (alpha if total != 0 else 0) * F[k]
        maps.append(M.clamp(min=0)[None])
    return torch.stack(maps)


@on(**EPSILON)
def grad_cam(model, x, target, *, layer):
    return grad_cam_package(XGradCAM, model, x, target, layer).relu()


@on(*CNN, **EPSILON)
def torchcam(model, x, target, *, layer):
    return torchcam_package(_torchcam.XGradCAM, model, x, target, layer)
