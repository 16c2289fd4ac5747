"""SmoothGrad, sample by sample, and by captum fed with the same noise."""

import torch
from captum.attr import NoiseTunnel, Saliency


def _draws(x, samples, noise, seed):
    """Noise tensors, shared by the batch; sigma per image."""
    rng = torch.Generator().manual_seed(seed)
    sigma = torch.stack([noise * (image.max() - image.min()) for image in x])
    for _ in range(samples):
        n = torch.randn(x.shape[1:], generator=rng, dtype=x.dtype)
        yield torch.stack([s * n for s in sigma])


def _gradient(model, image, t):
    image = image.clone().requires_grad_()
    return torch.autograd.grad(model(image[None])[0, t], image)[0]


def literal(model, x, target, *, samples, noise=0.15, seed=0, chunk=8):
    total = torch.zeros_like(x)
    for eps in _draws(x, samples, noise, seed):
        for b in range(len(x)):
            total[b] += _gradient(model, x[b] + eps[b], target[b]) / samples
    return total


def captum(model, x, target, *, samples, noise=0.15, seed=0, chunk=8, nt_type="smoothgrad"):
    """captum draws one tensor for all samples and images: hand it ours, sample-major within each image."""
    eps = torch.stack(list(_draws(x, samples, noise, seed)), dim=1).flatten(0, 1)
    normal, torch.normal = torch.normal, lambda mean, std: eps
    try:
        saliency = Saliency(model)
        return NoiseTunnel(saliency).attribute(x, nt_type=nt_type, nt_samples=samples, target=target, abs=False)
    finally:
        torch.normal = normal
