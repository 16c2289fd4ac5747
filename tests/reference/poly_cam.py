"""Poly-CAM, written out literally after the authors' code: no package has it."""

import numpy as np
import torch
from torch.nn.functional import interpolate

from methods.poly_cam import poly_cam
from peers import at

SHALLOWER = {  # the last layer of each finer grid, shallow to deep
    "layer2": ["layer1"],
    "layer3": ["layer1"],
    "layer4": ["layer1", "layer3"],
    "layer4.bn2": ["layer1", "layer3"],
    "norm": ["patch_embed"],
}


def _resized(a, size):
    return interpolate(a[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]


def literal(model, x, target, *, layer, layers=None, variant="+-", percentile=0.1, confidence="probability", chunk=8):
    """Image by image, layer by layer and channel by channel."""

    def f(image, c):
        with torch.no_grad():
            logits = model(image[None])[0]
        return float(logits[c]) if confidence == "score" else float(logits[c].exp() / logits.exp().sum())

    names = [*(SHALLOWER.get(layer, []) if layers is None else layers), layer]
    activations = {name: [A for A, _, _ in at(model, x, target, name)] for name in names}
    maps = []
    for b, (image, c) in enumerate(zip(x, target, strict=True)):
        P = None
        for name in reversed(names):
            S = 0
            for a in activations[name][b]:
                lo, hi = np.percentile(a.numpy(), [percentile, 100 - percentile])
                M = _resized(((a - lo) / max(hi, 1e-12)).clamp(0, 1), image.shape[1:])
                kept, lost = f(image * M, c), f(image, c) - f(image * (1 - M), c)
                S = S + {"+": kept, "-": max(lost, 0), "+-": max(kept + lost, 0)}[variant] * a
            S = S.clamp(min=0)
            if P is not None:
                norm = _resized(_resized(S, P.shape), S.shape)
                S = torch.where(norm > 0, S / torch.where(norm > 0, norm, 1), 0) * _resized(P, S.shape)
            P = S
        maps.append(P[None])
    return torch.stack(maps)


def authors(net, x, target, golden):
    """The layers that their search finds; map_script_layers has one more on the deepest grid."""
    layers = ["relu", "layer1", "layer2"]

    def theirs(**keywords):
        return poly_cam(net, x, target, layer="layer4", **{"layers": layers} | keywords)

    P = theirs()
    lo, hi = P.flatten(1).quantile(torch.tensor([0.001, 0.999]), dim=1)[:, :, None, None, None]
    rescaled = ((P - lo) / hi).clamp(0, 1)  # as they rescale activations
    resized = interpolate(rescaled, size=x.shape[2:], mode="bilinear", align_corners=False)
    return {
        "map": P,
        "map_plus": theirs(variant="+"),
        "map_minus": theirs(variant="-"),
        "map_script_layers": theirs(layers=[*layers, "layer3"]),
        "map_returned": resized[..., ::2, ::2],
    }
