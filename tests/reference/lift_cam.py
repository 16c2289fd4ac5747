"""LIFT-CAM, by captum's DeepLift on the network behind the layer, and written out literally."""

import torch
from captum.attr import DeepLift
from torch import nn

from helpers import not_in_place
from methods.lift_cam import lift_cam
from nets import Block
from peers import at, on

TAILS = {"layer1": 1, "layer2": 2, "layer3": 3, "layer4": 4}


class _Behind(nn.Module):
    """The network of tests/nets.py behind one of its layers, out of its own modules; `x += shortcut` out of place."""

    def __init__(self, model, layer):
        super().__init__()
        self.blocks = nn.Sequential(*[getattr(model, f"layer{i}") for i in range(TAILS[layer] + 1, 5)])
        self.norm, self.fc = model.norm, model.fc

    def forward(self, A):
        return self.fc(self.norm(self.blocks(A).mean((2, 3))))


def _map(model, x, target, layer, contributions):
    maps = []
    for b, (A, _, _) in enumerate(at(model, x, target, layer)):
        C = contributions(A, b)  # K h w
        maps.append(sum(float(C[k].sum()) * A[k] for k in range(len(A))).clamp(min=0)[None])
    return torch.stack(maps)


@on("relu", "relu_module", "elu")
def captum(model, x, target, *, layer):
    model = not_in_place(model)
    for m in model.modules():
        if isinstance(m, Block):
            m.inplace = False
    lift = DeepLift(_Behind(model, layer))

    def contributions(A, b):
        return lift.attribute(A[None], torch.zeros_like(A[None]), target=int(target[b]))[0].detach()

    return _map(model, x, target, layer, contributions)


@on("relu", "elu", "silu_se", "swin")
def literal(model, x, target, *, layer):
    """Where only a pooling and a linear layer follow: what the score loses without one number of the layer."""

    def contributions(A, b):
        def score(v):
            def put(_module, _args, out):
                return (v if out.shape[1] == len(v) else v.permute(1, 2, 0))[None]

            handle = model.get_submodule(layer).register_forward_hook(put)
            with torch.no_grad():
                y = float(model(x[b : b + 1])[0, target[b]])
            handle.remove()
            return y

        C = torch.zeros_like(A)
        for place in torch.cartesian_prod(*(torch.arange(n) for n in A.shape)).tolist():
            alone = torch.zeros_like(A)
            alone[tuple(place)] = A[tuple(place)]
            C[tuple(place)] = score(alone) - score(torch.zeros_like(A))
        return C

    return _map(model, x, target, layer, contributions)


def authors(net, x, target, golden):
    return {"map": lift_cam(net, x, target, layer="layer4")}
