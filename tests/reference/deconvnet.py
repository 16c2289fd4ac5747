"""DeconvNet, by captum, and by hand through the layers of the test network."""

import torch
from captum.attr import Deconvolution
from torch import nn

from helpers import not_in_place
from peers import on


@on("relu", "relu_module")  # captum hooks nn.ReLU modules only
def captum(model, x, target):
    return Deconvolution(not_in_place(model)).attribute(x, target)


def literal(model, x, target):
    """Section 2.1: replace every ReLU by a linear map with that rule."""
    model = not_in_place(model)

    class Rectified(torch.autograd.Function):
        @staticmethod
        def forward(ctx, f):
            return f.clamp(min=0)

        @staticmethod
        def backward(ctx, R):
            return torch.tensor(
                [r if r > 0 else 0.0 for r in R.flatten().tolist()],
                dtype=R.dtype,
            ).view_as(R)

    class Layer(nn.Module):
        def forward(self, x):
            return Rectified.apply(x)

    for m in list(model.modules()):
        for name, child in m.named_children():
            if isinstance(child, nn.ReLU):
                setattr(m, name, Layer())
    x = x.clone().requires_grad_()
    return torch.autograd.grad(model(x).gather(1, target[:, None]).sum(), x)[0]
