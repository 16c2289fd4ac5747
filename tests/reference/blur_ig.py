"""Blur IG, by its authors (PAIR), and written out literally."""

import math

import torch
from saliency.core import INPUT_OUTPUT_GRADIENTS, BlurIG


def saliency(model, x, target, *, steps=100, max_sigma=50.0, grad_step=0.01, chunk=8):
    maps = []
    for b in range(len(x)):

        def gradients(X, call_model_args, expected_keys, b=b):
            X = torch.tensor(X).to(x).movedim(-1, 1).requires_grad_()  # H W C in, C H W for the model
            (g,) = torch.autograd.grad(model(X)[:, target[b]].sum(), X)
            return {INPUT_OUTPUT_GRADIENTS: g.movedim(1, -1).numpy()}

        image = x[b].detach().movedim(0, -1).numpy()
        mask = BlurIG().GetMask(image, gradients, max_sigma=max_sigma, steps=steps, grad_step=grad_step, batch_size=1)
        maps.append(torch.tensor(mask).movedim(-1, 0))
    return torch.stack(maps)


def literal(model, x, target, *, steps=100, max_sigma=50.0, grad_step=0.01, chunk=8):
    """The Riemann sum, one image and one step at a time; the blur shifts and adds."""

    def blur_rows(image, sigma):
        radius = int(4 * sigma + 0.5)
        weight = [math.exp(-(d**2) / (2 * sigma**2)) if d else 1.0 for d in range(-radius, radius + 1)]
        H, out = image.shape[1], torch.zeros_like(image)
        for d in range(-radius, radius + 1):
            for i in range(H):
                if 0 <= i + d < H:
                    out[:, i] += weight[d + radius] / sum(weight) * image[:, i + d]
        return out

    def blur(image, sigma):
        return blur_rows(blur_rows(image, sigma).transpose(1, 2), sigma).transpose(1, 2)

    maps = []
    for b in range(len(x)):
        image, total = x[b].detach(), torch.zeros_like(x[b])
        for i in range(steps):
            sigma = i * max_sigma / steps
            L = blur(image, sigma)
            slope = (blur(image, sigma + grad_step) - L) / grad_step
            L = L.requires_grad_()
            (gradient,) = torch.autograd.grad(model(L[None])[0, target[b]], L)
            total = total - gradient * slope * max_sigma / steps
        maps.append(total)
    return torch.stack(maps)
