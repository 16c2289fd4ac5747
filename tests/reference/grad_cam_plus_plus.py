"""Grad-CAM++, by pytorch-grad-cam without its epsilon, and written out literally."""

import math

import torch
from pytorch_grad_cam import GradCAMPlusPlus

from peers import at, grad_cam_package


def literal(model, x, target, *, layer):
    """Equation 19 as printed, exp(S) divided out at the end."""
    maps = []
    for A, g, S in at(model, x, target, layer):
        L = torch.zeros_like(A[0])
        for k in range(len(A)):
            total, w = float(A[k].sum()), 0.0
            for d in g[k].flatten().tolist():
                if d != 0:
                    alpha = d**2 / (2 * d**2 + total * d**3)
                    w += alpha * max(math.exp(S) * d, 0.0)
            L += w / math.exp(S) * A[k]
        maps.append(L.clamp(min=0)[None])
    return torch.stack(maps)


def grad_cam(model, x, target, *, layer):
    """Its 1e-6 drowns in scores a million times larger: alpha depends on the scale of the score, so undo it in A."""

    class WithoutEpsilon(GradCAMPlusPlus):
        def get_cam_weights(self, input_tensor, target_layers, targets, activations, grads):
            scale = 1e6  # g -> scale g and A -> A / scale leave eq. 19 alone but for the epsilon
            args = (input_tensor, target_layers, targets, activations / scale, grads * scale)
            return super().get_cam_weights(*args) / scale

    return grad_cam_package(WithoutEpsilon, model, x, target, layer).relu()


grad_cam.tolerance = {"rtol": 1e-3, "atol": 1e-7}  # what is left of its epsilon where g is tiny
