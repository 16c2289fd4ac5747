"""Score-CAM, by torchcam, and written out literally."""

import math

import torch
from torchcam import methods as _torchcam

from methods._torch import minmax, score, upsample
from methods.score_cam import score_cam
from peers import CNN, at, on, torchcam_package


@on(*CNN, rtol=1e-6, atol=1e-8)  # its 1e-8 beside max - min
def torchcam(model, x, target, *, layer, chunk=8):
    """It rescales masks before it resizes them; the paper resizes first: hand it resized activations."""

    class ResizeFirst(_torchcam.ScoreCAM):
        def _normalize(self, cams, spatial_dims=None, eps=1e-8):
            return super()._normalize(self._upsample(cams), spatial_dims, eps)

    return torchcam_package(ResizeFirst, model, x, target, layer)


def literal(model, x, target, *, layer, chunk=8):
    """Channel by channel, with the baseline's score that cancels."""
    maps = []
    for b, (A, _, _) in enumerate(at(model, x, target, layer)):
        with torch.no_grad():
            C = []
            for k in range(len(A)):
                up = torch.nn.functional.interpolate(
                    A[k][None, None], size=x.shape[2:], mode="bilinear", align_corners=False
                )
                lo, hi = up.min(), up.max()
                H = (up - lo) / (hi - lo) if hi > lo else torch.zeros_like(up)
                difference = model(x[b : b + 1] * H) - model(torch.zeros_like(x[b : b + 1]))
                C.append(float(difference[0, target[b]]))
        total = sum(math.exp(c) for c in C)
        maps.append(sum(math.exp(c) / total * a for c, a in zip(C, A, strict=True)).clamp(min=0)[None])
    return torch.stack(maps)


def authors(net, x, target, golden):
    """The probability itself is the weight; resized and rescaled, as they do."""

    def probability(z):
        return score(z.softmax(dim=1), target)

    return {"map": minmax(upsample(score_cam(net, x, probability, layer="layer4", weights="raw"), x))}
