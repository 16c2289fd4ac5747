"""Finer-CAM of Grad-CAM, written out literally, and by pytorch-grad-cam and torchcam in their conventions."""

import numpy as np
import torch
from pytorch_grad_cam import FinerCAM
from torchcam import methods as _torchcam

from helpers import not_in_place
from methods.finer_cam import finer_cam
from peers import CNN, at, grid, on, torchcam_package


def literal(model, x, target, *, layer):
    """One gradient for the class and one for each of the three like it, combined at the end."""
    maps = []
    with torch.no_grad():
        logits = model(x)
    for b, c in enumerate(target.tolist()):
        z = logits[b].tolist()
        similar = sorted((d for d in range(len(z)) if d != c), key=lambda d: abs(z[d] - z[c]))[:3]
        image = x[b : b + 1]
        ((A, g, _),) = at(model, image, [c], layer)
        for d in similar:
            g = g - 0.6 / 3 * at(model, image, [d], layer)[0][1]
        maps.append(sum(g[k].mean() * A[k] for k in range(len(A))).clamp(min=0)[None])
    return torch.stack(maps)


def grad_cam(model, x, target, *, layer):
    """Image by image: it takes one class for all."""
    model, maps = not_in_place(model), []
    cam = FinerCAM(model, [model.get_submodule(layer)], reshape_transform=grid)
    get_cam_image = cam.base_cam.get_cam_image

    def keep(*args):
        maps.append(get_cam_image(*args))
        return maps[-1]

    cam.base_cam.get_cam_image = keep  # before it cuts at 0, resizes and rescales
    for b, c in enumerate(target.tolist()):
        cam(x[b : b + 1], target_idx=c)
    return torch.as_tensor(np.stack(maps)).relu()


grad_cam.keywords = {"weights": "softmax", "gamma": 1.0}
grad_cam.tolerance = {"rtol": 1e-6, "atol": 1e-9}  # its 1e-9 beside the sum of the probabilities


@on(*CNN)
def torchcam(model, x, target, *, layer):
    return torchcam_package(_torchcam.FinerCAM, model, x, target, layer)


def authors(net, x, target, golden):
    def theirs(alpha):  # our gamma
        return finer_cam(net, x, target, layer="layer4", gamma=alpha, weights="softmax")

    return {"map": theirs(1.0), "map_alpha06": theirs(0.6)}
