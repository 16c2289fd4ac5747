"""IS-CAM, by torchcam, and written out literally."""

import math

import torch
from torchcam import methods as _torchcam

from peers import CNN, at, on, torchcam_package


@on(*CNN, rtol=1e-6, atol=1e-8)  # its 1e-8 beside max - min
def torchcam(model, x, target, *, layer, steps=10, path="sum", chunk=8):
    """It rescales masks before it resizes them, as its Score-CAM does: hand it resized activations."""

    class ResizeFirst(_torchcam.ISCAM):
        def _normalize(self, cams, spatial_dims=None, eps=1e-8):
            return super()._normalize(self._upsample(cams), spatial_dims, eps)

    return torchcam_package(ResizeFirst, model, x, target, layer, num_samples=steps)


def literal(model, x, target, *, layer, steps=10, path="sum", chunk=8):
    """Channel by channel and point by point, with the baseline's score that cancels."""
    maps = []
    for b, (A, _, _) in enumerate(at(model, x, target, layer)):
        image = x[b : b + 1]
        with torch.no_grad():
            C = []
            for k in range(len(A)):
                up = torch.nn.functional.interpolate(
                    A[k][None, None], size=x.shape[2:], mode="bilinear", align_corners=False
                )
                lo, hi = up.min(), up.max()
                H = (up - lo) / (hi - lo) if hi > lo else torch.zeros_like(up)
                M, total = torch.zeros_like(image), 0.0
                for j in range(1, steps + 1):
                    M = M + j / steps * image * H if path == "sum" else j / steps * image * H
                    total += float((model(M) - model(torch.zeros_like(image)))[0, target[b]])
                C.append(total / steps)
        norm = sum(math.exp(c) for c in C)
        maps.append(sum(math.exp(c) / norm * a for c, a in zip(C, A, strict=True)).clamp(min=0)[None])
    return torch.stack(maps)
