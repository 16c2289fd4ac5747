"""CAMERAS, written out literally after the authors' code: no package has it."""

import torch
from torch.nn.functional import interpolate

from methods._torch import minmax
from methods.cameras import cameras
from peers import at


def literal(model, x, target, *, layer, steps=8, stride=100, keep="agreeing"):
    """Image by image, with both means on the image's grid."""
    maps = []
    for image, c in zip(x[:, None], target[:, None], strict=True):
        A_sum, g_sum, n = 0, 0, 0
        for t in range(steps):
            h = image.shape[2] + t * stride
            w = round(image.shape[3] * h / image.shape[2])
            other = interpolate(image, size=(h, w), mode="bicubic", align_corners=False) if t else image
            if keep == "all" or model(other).argmax() == model(image).argmax():
                ((A, g, _),) = at(model, other, c, layer)
                A_sum = A_sum + interpolate(A[None], size=image.shape[2:], mode="bilinear", align_corners=False)
                g_sum = g_sum + interpolate(g[None], size=image.shape[2:], mode="bilinear", align_corners=False)
                n += 1
        L = sum(a / n * b / n for a, b in zip(A_sum[0], g_sum[0], strict=True))
        maps.append(L.clamp(min=0)[None])
    return torch.stack(maps)


def authors(net, x, target, golden):
    """Sizes 64, 92, ... 260; they rescale the map. Without a class they take the top one, and the sizes that agree."""
    top = torch.as_tensor(golden["target_top_class"])
    return {
        "map": minmax(cameras(net, x, target, layer="layer4", stride=28, keep="all")),
        "map_top_class": minmax(cameras(net, x, top, layer="layer4", stride=28, keep="agreeing")),
    }
