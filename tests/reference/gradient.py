"""The gradient, by captum and PAIR, and written out literally."""

import numpy as np
import torch
from captum.attr import Saliency
from saliency.core import GradientSaliency
from saliency.core.base import INPUT_OUTPUT_GRADIENTS


def captum(model, x, target):
    return Saliency(model).attribute(x, target, abs=False)


def saliency(model, x, target):
    def call(images, call_model_args, expected_keys):
        xb = torch.tensor(np.asarray(images)).requires_grad_()
        (g,) = torch.autograd.grad(model(xb)[:, call_model_args].sum(), xb)
        return {INPUT_OUTPUT_GRADIENTS: g.numpy()}

    pairs = zip(x.numpy(), target.tolist(), strict=True)
    return torch.stack([torch.tensor(GradientSaliency().GetMask(image, call, t)) for image, t in pairs])


def literal(model, x, target):
    """Equation 4 by central differences along each of some coordinates, exact gradients elsewhere left as they are."""
    out = captum(model, x, target)
    step = 1e-5
    for b in range(len(x)):
        for c, i, j in ((0, 0, 0), (1, 15, 16), (2, 31, 7), (0, 12, 30)):
            up, down = x[b : b + 1].clone(), x[b : b + 1].clone()
            up[0, c, i, j] += step
            down[0, c, i, j] -= step
            with torch.no_grad():
                out[b, c, i, j] = (model(up) - model(down))[0, target[b]] / (2 * step)
    return out


literal.tolerance = {"rtol": 1e-5, "atol": 1e-8}  # central differences: error step^2 f''' / 6 and rounding / step
