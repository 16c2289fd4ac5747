"""Thirteen functions that explain nothing, as a user might bring them: none may be said to respond.

Each knows something of the network (its weights, how sure it is, its class), but none knows where the network looks.
"""

import hashlib

import torch
from torch.nn import functional as F

from methods.grad_cam import grad_cam


def edges(x):
    """Magnitude of the differences of neighbours in the grey image."""
    grey = F.pad(x.mean(dim=1, keepdim=True), (0, 1, 0, 1), mode="replicate")
    across, down = grey[..., :-1, 1:] - grey[..., :-1, :-1], grey[..., 1:, :-1] - grey[..., :-1, :-1]
    return torch.hypot(across, down)


def variance(x):
    """Local variance of the grey image."""
    grey = x.mean(dim=1, keepdim=True)
    mean = F.avg_pool2d(grey, 9, 1, 4, count_include_pad=False)
    return F.avg_pool2d((grey - mean) ** 2, 9, 1, 4, count_include_pad=False)


def blob(x, v=0.0, u=0.0, width=0.5):
    """A Gaussian around (v, u), of one image."""
    rows, columns = (torch.linspace(-1, 1, n, dtype=x.dtype) for n in x.shape[2:])
    return torch.exp(-((rows[:, None] - v) ** 2 + (columns - u) ** 2) / (2 * width**2))[None]


def seed_of(*things):
    """A number that any change of the things changes: tensors, modules, or what has a string."""
    digest = hashlib.sha256()
    for thing in things:
        for t in thing.parameters() if isinstance(thing, torch.nn.Module) else [thing]:
            plain = t.detach().flatten()[:99].double().numpy().tobytes() if isinstance(t, torch.Tensor) else str(t)
            digest.update(plain if isinstance(plain, bytes) else plain.encode())
    return int.from_bytes(digest.digest()[:6], "big")


def noise(seed, h, w):
    """Standard normal numbers, 1 h w."""
    return torch.randn(1, h, w, generator=torch.Generator().manual_seed(seed))


def is_top(model, x, target):
    """Whether the target is the network's class, B 1 1 1."""
    with torch.no_grad():
        return (model(x).argmax(dim=1) == target)[:, None, None, None]


def edges_times_logit(model, x, target):
    with torch.no_grad():
        return edges(x) * model(x).gather(1, target[:, None])[..., None, None]


def noise_of_weights(model, x, target):
    return noise(seed_of(model), *x.shape[2:]).expand(len(x), 1, -1, -1)


def noise_of_weights_and_class(model, x, target):
    return torch.stack([noise(seed_of(model, c.item()), *x.shape[2:]) for c in target])


def noise_of_weights_class_and_image(model, x, target):
    return torch.stack([noise(seed_of(model, c.item(), v), *x.shape[2:]) for c, v in zip(target, x, strict=True)])


def blob_of_class(model, x, target):
    places = (torch.rand(2, generator=torch.Generator().manual_seed(int(c))) * 2 - 1 for c in target)
    return torch.stack([blob(x, *place.tolist(), 0.3) for place in places])


def centre(model, x, target):
    return blob(x).expand(len(x), 1, -1, -1)


def variance_alone(model, x, target):
    return variance(x)


def constant(model, x, target):
    return torch.ones_like(x[:, :1])


def edges_with_signs_of_weights(model, x, target):
    return edges(x) * noise(seed_of(model), *x.shape[2:]).sign()


def minus_grad_cam(model, x, target, *, layer=None):
    return -grad_cam(model, x, target, layer=layer)


def centre_and_noise(model, x, target):
    coarse = torch.stack([noise(seed_of(model, c.item(), v), 7, 7) for c, v in zip(target, x, strict=True)])
    return 3 * blob(x) + F.interpolate(coarse, x.shape[2:], mode="bilinear").to(x.dtype)


def variance_where_sure(model, x, target):
    with torch.no_grad():
        p = model(x).softmax(dim=1).gather(1, target[:, None])[..., None, None]
    sure = (p > 0.2) & is_top(model, x, target)
    return torch.where(sure, variance(x), noise_of_weights_and_class(model, x, target).abs().to(x.dtype))


def variance_upside_down(model, x, target):
    a = variance(x)
    return torch.where(is_top(model, x, target), a, a.amax(dim=(1, 2, 3), keepdim=True) - a)


ATTACKS = (
    edges_times_logit, noise_of_weights, noise_of_weights_and_class, noise_of_weights_class_and_image, blob_of_class,
    centre, variance_alone, constant, edges_with_signs_of_weights, minus_grad_cam, centre_and_noise,
    variance_where_sure, variance_upside_down,
)  # fmt: skip
