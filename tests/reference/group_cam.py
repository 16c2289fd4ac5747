"""Group-CAM, written out literally after the authors' code: no package has it."""

import math

import numpy as np
import torch
from torch.nn.functional import interpolate

from methods._torch import minmax
from methods.group_cam import group_cam
from peers import at


def _blurred(image, kernel, sigma):
    """C H W, pixel by pixel: a window of shifted copies, indices reflected at the borders without the border twice."""
    reach = kernel // 2
    weight = [math.exp(-(d**2) / (2 * sigma**2)) for d in range(-reach, reach + 1)]

    def mirror(i, n):
        while not 0 <= i < n:
            i = -i if i < 0 else 2 * (n - 1) - i
        return i

    def along_rows(image):
        out = torch.zeros_like(image)
        for i in range(image.shape[1]):
            for d, v in zip(range(-reach, reach + 1), weight, strict=True):
                out[:, i] += v / sum(weight) * image[:, mirror(i + d, image.shape[1])]
        return out

    return along_rows(along_rows(image).transpose(1, 2)).transpose(1, 2)


def literal(
    model, x, target, *, layer, groups=32, theta=70.0, kernel=51, sigma=50.0, confidence="probability", chunk=8
):
    """Group by group and image by image."""

    def p_c(image, c):
        with torch.no_grad():
            logits = model(image[None])[0]
        return float(logits[c]) if confidence == "score" else float(logits[c].exp() / logits.exp().sum())

    maps = []
    for image, c, (A, g, _) in zip(x, target, at(model, x, target, layer), strict=True):
        hidden = _blurred(image, kernel, sigma)
        size = math.ceil(len(A) / groups)
        L = torch.zeros(1, *x.shape[2:], dtype=x.dtype)
        for first in range(0, len(A), size):
            m = sum(g[k].mean() * A[k] for k in range(first, min(first + size, len(A)))).clamp(min=0)
            threshold = np.percentile(m.numpy(), theta)
            m = torch.tensor([[v if v > threshold else 0.0 for v in row] for row in m.tolist()], dtype=x.dtype)
            M = interpolate(m[None, None], size=x.shape[2:], mode="bilinear", align_corners=False)[0]
            if M.max() == M.min():
                continue
            M = (M - M.min()) / (M.max() - M.min())
            L += (p_c(image * M + hidden * (1 - M), c) - p_c(hidden, c)) * M
        maps.append(L.clamp(min=0))
    return torch.stack(maps)


def authors(net, x, target, golden):
    """Rescaled, as they do. Their classes: for one of the others the map is 0 throughout, and they return None."""
    net, x = net.double(), x.double()  # small differences of probabilities: float32 leaves 1e-5 of the largest value
    classes = torch.as_tensor(golden["target"])
    return {
        "map": minmax(group_cam(net, x, classes, layer="layer4", groups=8)),
        "map_groups32": minmax(group_cam(net, x, classes, layer="layer4", groups=32)),  # more groups than channels
    }
