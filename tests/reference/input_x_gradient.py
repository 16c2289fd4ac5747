"""Gradient x input, by captum, and written out literally."""

import torch
from captum.attr import InputXGradient


def captum(model, x, target):
    return InputXGradient(model).attribute(x, target)


def literal(model, x, target):
    maps = []
    for image, t in zip(x, target, strict=True):
        image = image.clone().requires_grad_()
        model(image[None])[0, t].backward()
        maps.append(torch.stack([image[c] * image.grad[c] for c in range(3)]).detach())
    return torch.stack(maps)
