"""SS-CAM, by torchcam fed with our noise, and written out literally."""

import math

import torch
from torchcam import methods as _torchcam

from peers import CNN, at, on, torchcam_package


def _noise(K, samples, noise, seed, like):
    """delta_ik, samples x K tensors H W: drawn channel by channel."""
    rng = torch.Generator().manual_seed(seed)
    drawn = [
        [noise * torch.randn(like.shape[2:], generator=rng, dtype=like.dtype) for _ in range(samples)] for _ in range(K)
    ]
    return [torch.stack([drawn[k][i] for k in range(K)]) for i in range(samples)]


@on(*CNN, rtol=1e-6, atol=1e-8)  # its 1e-8 beside max - min
def torchcam(model, x, target, *, layer, samples=35, noise=2.0, seed=0, chunk=8):
    """It rescales masks before it resizes them, as its Score-CAM does: hand it resized activations, and our noise."""

    class Drawn:
        left = None

        def sample(self, size):
            if self.left is None:
                self.left = _noise(size[1], samples, noise, seed, x)
            return self.left.pop(0).expand(size)

    class ResizeFirst(_torchcam.SSCAM):
        def _normalize(self, cams, spatial_dims=None, eps=1e-8):
            return super()._normalize(self._upsample(cams), spatial_dims, eps)

        def _init_score_weights(self, *args):
            self._distrib = Drawn()
            return super()._init_score_weights(*args)

    return torchcam_package(ResizeFirst, model, x, target, layer, num_samples=samples)


def literal(model, x, target, *, layer, samples=35, noise=2.0, seed=0, chunk=8):
    """Channel by channel and sample by sample, with the baseline's score that cancels."""
    maps = []
    for b, (A, _, _) in enumerate(at(model, x, target, layer)):
        delta = _noise(len(A), samples, noise, seed, x)
        with torch.no_grad():
            C = []
            for k in range(len(A)):
                up = torch.nn.functional.interpolate(
                    A[k][None, None], size=x.shape[2:], mode="bilinear", align_corners=False
                )
                lo, hi = up.min(), up.max()
                H = (up - lo) / (hi - lo) if hi > lo else torch.zeros_like(up)
                total = 0.0
                for i in range(samples):
                    noisy = model(x[b : b + 1] * (H + delta[i][k]))
                    total += float((noisy - model(torch.zeros_like(x[b : b + 1])))[0, target[b]])
                C.append(total / samples)
        norm = sum(math.exp(c) for c in C)
        maps.append(sum(math.exp(c) / norm * a for c, a in zip(C, A, strict=True)).clamp(min=0)[None])
    return torch.stack(maps)
