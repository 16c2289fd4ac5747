"""CAM, by torchcam, and written out literally."""

import torch
from torchcam.methods import CAM

from peers import CNN, at, on, torchcam_package


@on(*CNN)
def torchcam(model, x, target, *, layer):
    return torchcam_package(CAM, model, x, target, layer, fc_layer="fc")


def literal(model, x, target, *, layer):
    """Equation 2 with its sum as a loop."""
    W = model.get_classifier().weight.detach()
    maps = []
    for t, (A, _, _) in zip(target, at(model, x, target, layer), strict=True):
        M = torch.zeros_like(A[0])
        for k in range(len(A)):
            M += W[t, k] * A[k]
        maps.append(M[None])
    return torch.stack(maps)
