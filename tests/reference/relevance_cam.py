"""Relevance-CAM, by zennit on the network behind the layer, and written out literally."""

import torch
from torch import nn
from zennit.composites import LayerMapComposite
from zennit.layer import Sum
from zennit.rules import Norm, Pass, ZPlus
from zennit.types import Activation, AvgPool, BatchNorm, Convolution, Linear

from helpers import not_in_place
from methods.relevance_cam import relevance_cam
from peers import at, on


class _Residual(nn.Module):
    """A block of tests/nets.py whose sum is a module of its own, for zennit to see."""

    def __init__(self, block):
        super().__init__()
        self.block, self.sum = block, Sum()

    def forward(self, x):
        b = self.block
        branch = b.bn2(b.conv2(b.act1(b.bn1(b.conv1(x)))))
        return b.act2(self.sum(torch.stack([branch, b.downsample(x)], dim=-1)))


def _behind(model, layer):
    blocks = [_Residual(getattr(model, f"layer{i}")) for i in range(int(layer[-1]) + 1, 5)]
    return nn.Sequential(*blocks, nn.AvgPool2d(4), nn.Flatten(), model.fc)


@on("relu", "relu_module", "relu6", "elu", rtol=1e-5, atol=1e-9)  # it divides by z + 1e-12
def zennit(model, x, target, *, layer):
    z_plus, norm = ZPlus(stabilizer=1e-12, zero_params=["bias"]), Norm(stabilizer=1e-12)
    layers = [(Convolution, z_plus), (Linear, z_plus), (AvgPool, norm), (Sum, norm), (BatchNorm, Pass())]
    behind = _behind(not_in_place(model), layer)
    maps = []
    with LayerMapComposite([*layers, (Activation, Pass())]).context(behind) as ruled:
        for b, (A, _, _) in enumerate(at(model, x, target, layer)):
            A = A[None].requires_grad_()
            logits = ruled(A)
            start = torch.full_like(logits, -1 / logits.shape[1])
            start[0, target[b]] = 1
            (R,) = torch.autograd.grad(logits, A, start)
            maps.append((R.mean(dim=(2, 3), keepdim=True) * A).sum(dim=1).detach())
    return torch.stack(maps)


@on("relu", "elu", "silu_se", "swin")
def literal(model, x, target, *, layer):
    """Number by number, where only a pooling and a linear layer follow."""
    W = model.get_classifier().weight.detach()
    N, maps = len(W), []
    for b, (A, _, _) in enumerate(at(model, x, target, layer)):
        a = A.mean(dim=(1, 2))
        relevance = torch.zeros_like(a)
        for n in range(N):
            z = [max(float(a[k] * W[n, k]), 0.0) for k in range(len(a))]
            for k in range(len(a)):
                relevance[k] += z[k] / sum(z) * (1.0 if n == target[b] else -1 / N)
        L = torch.zeros_like(A[0])
        for k in range(len(a)):
            positive = A[k].clamp(min=0)
            R = positive / positive.sum() * relevance[k] if positive.any() else torch.zeros_like(A[k])
            L += R.mean() * A[k]
        maps.append(L[None])
    return torch.stack(maps)


def authors(net, x, target, golden):
    """In float64: the quotients of the z+ rule take float32's rounding on, to 3e-5 of the largest value at layer2."""
    net, x = net.double(), x.double()
    return {
        "map": relevance_cam(net, x, target, layer="layer4"),
        "map_layer3": relevance_cam(net, x, target, layer="layer3"),
        "map_layer2": relevance_cam(net, x, target, layer="layer2"),
    }
