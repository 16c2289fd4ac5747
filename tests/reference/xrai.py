"""XRAI, by its authors (PAIR), and written out literally."""

import numpy as np
import torch
from captum.attr import IntegratedGradients
from saliency.core import XRAI, XRAIParameters
from skimage.morphology import dilation, disk
from skimage.segmentation import felzenszwalb
from skimage.transform import resize


def saliency(model, x, target, *, attribution=None, segments=None, steps=100, min_pixel_diff=50, chunk=8):
    maps, parameters = [], XRAIParameters()
    parameters.experimental_params["min_pixel_diff"] = min_pixel_diff
    for b in range(len(x)):
        image, A = x[b].detach(), 0
        if attribution is None:
            for end in (image.min(), image.max()):
                given = {"n_steps": steps, "method": "riemann_right", "target": target[b]}
                A = A + IntegratedGradients(model).attribute(image[None], end.expand_as(image)[None], **given)[0] / 2
        else:
            A = attribution[b]
        mask = XRAI().GetMask(
            image.movedim(0, -1).numpy(),
            None,
            base_attribution=A.detach().movedim(0, -1).numpy(),
            segments=None if segments is None else list(segments[b].numpy()),
            extra_parameters=parameters,
        )
        maps.append(torch.tensor(mask)[None])
    return torch.stack(maps)


def literal(model, x, target, *, attribution=None, segments=None, steps=100, min_pixel_diff=50, chunk=8):
    """Algorithm 1 on sets of pixels, one region at a time."""
    maps = []
    for b in range(len(x)):
        image = x[b].detach()
        A = torch.zeros_like(image) if attribution is None else attribution[b]
        for start in (image.min(), image.max()) if attribution is None else ():
            for k in range(1, steps + 1):
                point = (start + k / steps * (image - start)).requires_grad_()
                (gradient,) = torch.autograd.grad(model(point[None])[0, target[b]], point)
                A = A + (image - start) * gradient / steps / 2
        A = {u: float(max(A[:, u[0], u[1]])) for u in np.ndindex(*image.shape[1:])}
        if segments is None:
            picture = image.movedim(0, -1).numpy()
            picture = 2 * (picture - picture.min()) / (picture.max() - picture.min()) - 1
            picture = resize(picture, (224, 224), order=3, mode="constant", anti_aliasing=True)
            masks = []
            for scale in (50, 100, 150, 250, 500, 1200):
                labels = felzenszwalb(picture, scale=scale, sigma=0.8, min_size=150).astype(float)
                labels = resize(labels, image.shape[1:], order=0, mode="constant", anti_aliasing=False)
                masks += [dilation(labels == label, disk(5)) for label in np.unique(labels)]
        else:
            masks = segments[b].numpy()
        left = [{(int(i), int(j)) for i, j in np.argwhere(mask)} for mask in masks]
        out, uncovered = {}, set(A)
        while left := [s & uncovered for s in left if len(s & uncovered) >= min_pixel_diff]:
            gain, best = max((sum(A[u] for u in s) / len(s), -k) for k, s in enumerate(left))
            out |= dict.fromkeys(left[-best], gain)
            uncovered -= left[-best]
        out |= {u: sum(A[v] for v in uncovered) / len(uncovered) for u in uncovered}
        maps.append(torch.tensor([out[u] for u in A], dtype=x.dtype).view(1, *image.shape[1:]))
    return torch.stack(maps)
