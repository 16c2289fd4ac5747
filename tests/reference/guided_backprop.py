"""Guided backpropagation, by captum, and by hand through the layers of the test network."""

import torch
from captum.attr import GuidedBackprop
from torch import nn

from helpers import not_in_place
from peers import on


@on("relu", "relu_module")  # captum hooks nn.ReLU modules only
def captum(model, x, target):
    return GuidedBackprop(not_in_place(model)).attribute(x, target)


def literal(model, x, target):
    """Figure 1c with the masks of each ReLU kept by hand: replace every ReLU by a linear map with that rule."""
    model = not_in_place(model)

    class Guided(torch.autograd.Function):
        @staticmethod
        def forward(ctx, f):
            ctx.f = f
            return f.clamp(min=0)

        @staticmethod
        def backward(ctx, R):
            return torch.tensor(
                [
                    r if f > 0 and r > 0 else 0.0
                    for f, r in zip(ctx.f.flatten().tolist(), R.flatten().tolist(), strict=True)
                ],
                dtype=R.dtype,
            ).view_as(R)

    class Layer(nn.Module):
        def forward(self, x):
            return Guided.apply(x)

    for m in list(model.modules()):
        for name, child in m.named_children():
            if isinstance(child, nn.ReLU):
                setattr(m, name, Layer())
    x = x.clone().requires_grad_()
    return torch.autograd.grad(model(x).gather(1, target[:, None]).sum(), x)[0]
