"""Opti-CAM, written out literally: image by image, with torch's own Adam."""

import torch
from torch.nn.functional import interpolate

from methods._torch import minmax, upsample
from methods.opti_cam import opti_cam
from peers import at


def literal(model, x, target, *, layer, steps=50, lr=0.1, objective="plain"):
    maps = []
    for image, c, (A, _, y) in zip(x, target, at(model, x, target, layer), strict=True):
        u = torch.full((len(A),), 0.5, dtype=x.dtype, requires_grad=True)
        adam = torch.optim.Adam([u], lr=lr)

        def combined(A=A, u=u):
            weights = u.exp() / u.exp().sum()
            return sum(w * channel.clamp(min=0) for w, channel in zip(weights, A, strict=True))

        for _ in range(steps):
            S = interpolate(combined()[None, None], size=x.shape[2:], mode="bilinear", align_corners=False)[0]
            S = (S - S.min()) / (S.max() - S.min())
            f = model((image * S)[None])[0, c]
            adam.zero_grad()
            (y - f if objective == "plain" else (y - f).abs()).backward()
            adam.step()
        maps.append(combined().detach()[None])
    return torch.stack(maps)


def authors(net, x, target, golden):
    """Resized and rescaled, as they do; image by image, since they stop each one at a step of its own."""

    def theirs(steps, **keywords):
        maps = [
            opti_cam(net, image, c, layer="layer4", steps=T, **keywords)
            for image, c, T in zip(x.split(1), target.split(1), steps, strict=True)
        ]
        return minmax(upsample(torch.cat(maps), x))

    return {
        "map": theirs((50, 50)),
        "map_norm": theirs((10, 5), objective="norm"),
        "map_class_defaults": theirs((40, 20), objective="norm", lr=0.01)[..., ::2, ::2],
    }


# Adam's steps take rounding on: on the second image ours in float64 is 2e-3 from ours and from theirs in float32, which
# are 5e-5 apart. One step more or less of map_norm is 2e-2.
authors.tolerance = {"rtol": 0, "atol": 4e-3}
