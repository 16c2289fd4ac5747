"""HiResCAM, by pytorch-grad-cam and captum, and written out literally."""

import torch
from captum.attr import LayerGradientXActivation
from pytorch_grad_cam import HiResCAM

from helpers import not_in_place
from peers import CNN, at, grad_cam_package, on


def literal(model, x, target, *, layer):
    return torch.stack([sum(g[f] * A[f] for f in range(len(A)))[None] for A, g, _ in at(model, x, target, layer)])


def grad_cam(model, x, target, *, layer):
    return grad_cam_package(HiResCAM, model, x, target, layer)


@on(*CNN)
def captum(model, x, target, *, layer):
    model = not_in_place(model)
    product = LayerGradientXActivation(model, model.get_submodule(layer)).attribute(x, target)
    return product.sum(dim=1, keepdim=True).detach()
