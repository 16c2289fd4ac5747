"""FullGrad, by module hooks, layer by layer, with the authors' post-processing."""

import torch
from torch import nn

from helpers import not_in_place
from methods.full_grad import full_grad
from peers import on


@on("relu", "silu_se")
def literal(model, x, target):
    """One image at a time; biases of nn.Conv2d and nn.BatchNorm2d, each beside the gradient at its own output."""
    model, maps = not_in_place(model), []
    for b in range(len(x)):
        image, kept, handles = x[b : b + 1].clone().requires_grad_(), [], []
        for m in model.modules():
            if isinstance(m, nn.BatchNorm2d):
                bias = m.bias - m.running_mean * m.weight / torch.sqrt(m.running_var + m.eps)
            elif isinstance(m, nn.Conv2d) and m.bias is not None:
                bias = m.bias
            else:
                continue
            handles.append(m.register_forward_hook(lambda _m, _a, out, bias=bias: kept.append((out, bias))))
        y = model(image)[0, target[b]]
        for handle in handles:
            handle.remove()
        gradients = torch.autograd.grad(y, [image, *(out for out, _ in kept)])
        terms = [gradients[0] * image]
        terms += [g * bias.view(1, -1, 1, 1) for g, (_, bias) in zip(gradients[1:], kept, strict=True)]
        total = torch.zeros_like(x[b, :1])
        for term in terms:
            term = term.detach().abs()
            term = (term - term.min()) / (term.max() - term.min())
            up = nn.functional.interpolate(term, size=x.shape[2:], mode="bilinear", align_corners=True)
            total += up.sum(dim=1)
        maps.append(total)
    return torch.stack(maps)


def authors(net, x, target, golden):
    return {"map": full_grad(net, x, target)}
