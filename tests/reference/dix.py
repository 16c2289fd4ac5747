"""DIX written out literally: image by image, step by step, with the whole network run each time."""

from functools import partial

import torch

from methods.dix import dix
from peers import at, grid


def _gradient_at(model, image, t, layer, v):
    """ds/dv with the patch tokens, or the positions, of the layer set to v: K h w."""
    v = v.clone().requires_grad_()

    def replace(_module, _args, out):
        out = out.clone()
        if out.ndim == 3:
            out[:, -16:] = v.flatten(1).T
        elif grid(out) is out:
            out[:] = v
        else:
            out[:] = v.permute(1, 2, 0)
        return out

    handle = model.get_submodule(layer).register_forward_hook(replace)
    s = model(image[None])[0, t]
    handle.remove()
    return torch.autograd.grad(s, v)[0]


def literal(model, x, target, *, layer, steps, chunk=32):
    """The integral as a sum over the right ends of the steps."""
    maps = []
    for b, (A, _, _) in enumerate(at(model, x, target, layer)):
        H = torch.zeros_like(A[0])
        r = torch.stack([channel.min() * torch.ones_like(channel) for channel in A])
        for i in range(1, steps + 1):
            v = r + i / steps * (A - r)
            g = _gradient_at(model, x[b], target[b], layer, v)
            for k in range(len(A)):
                H += (g[k] * v[k]).clamp(min=0) / steps
        maps.append(H[None])
    return torch.stack(maps)


def authors(net, x, target, golden):
    """DIX1, before its resize, is a sum over 5 equal points; DIX2 and DIX3 have the grid of the released code."""
    cam = partial(dix, net, x, target, layer="layer4")
    return {
        "map": 5 * cam(reference="activation"),
        "map_dix2_1024x28x28": cam(fuse_as_released=["layer3"]),
        "map_dix3_1024x28x28": cam(fuse_as_released=["layer3", "layer2"]),
    }
