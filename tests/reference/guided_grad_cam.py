"""Guided Grad-CAM, by captum, and as the product of captum's two maps, resized by hand."""

import torch
from captum.attr import GuidedBackprop, GuidedGradCam, LayerGradCam

from helpers import not_in_place
from peers import on


@on("relu", "relu_module")  # captum hooks nn.ReLU modules only
def captum(model, x, target, *, layer):
    model = not_in_place(model)
    return GuidedGradCam(model, model.get_submodule(layer)).attribute(x, target, interpolate_mode="bilinear")


@on("relu", "relu_module")
def literal(model, x, target, *, layer):
    """Bilinear resizing with half-pixel centres, pixel by pixel."""
    model = not_in_place(model)
    guided = GuidedBackprop(model).attribute(x, target)
    L = LayerGradCam(model, model.get_submodule(layer)).attribute(x, target, relu_attributions=True).detach()
    (h, w), (H, W) = L.shape[2:], x.shape[2:]
    out = torch.zeros_like(x)
    for i in range(H):
        for j in range(W):
            u, v = max((i + 0.5) * h / H - 0.5, 0), max((j + 0.5) * w / W - 0.5, 0)
            i0, j0 = int(u), int(v)
            i1, j1, a, c = min(i0 + 1, h - 1), min(j0 + 1, w - 1), u - i0, v - j0
            top = (1 - c) * L[:, 0, i0, j0] + c * L[:, 0, i0, j1]
            bottom = (1 - c) * L[:, 0, i1, j0] + c * L[:, 0, i1, j1]
            out[:, :, i, j] = guided[:, :, i, j] * ((1 - a) * top + a * bottom)[:, None]
    return out
