"""Integrated Gradients, by captum, and written out literally."""

import numpy as np
import torch
from captum.attr import IntegratedGradients


def captum(model, x, target, *, baseline=None, steps=50, rule="right", chunk=8):
    if baseline is None:
        baseline = torch.zeros(())
    method = {"gauss_legendre": "gausslegendre"}.get(rule, f"riemann_{rule}")
    baseline = baseline.to(x).expand_as(x)
    return IntegratedGradients(model).attribute(x, baseline, target, n_steps=steps, method=method)


def literal(model, x, target, *, baseline=None, steps=50, rule="right", chunk=8):
    """Equation 3, one image and one step at a time; the gradient of each of the other rules' points likewise."""
    maps = []
    for b in range(len(x)):
        start = torch.zeros_like(x[b]) if baseline is None else baseline.to(x).expand_as(x)[b]
        total = torch.zeros_like(x[b])
        for k in range(1, steps + 1):
            alpha, weight = (
                {"right": k / steps, "left": (k - 1) / steps, "middle": (k - 0.5) / steps}.get(rule),
                1 / steps,
            )
            if rule == "gauss_legendre":  # roots r of the Legendre polynomial P, weights 2 / ((1 - r^2) P'(r)^2)
                P = np.polynomial.Legendre.basis(steps)
                r = np.sort(P.roots())[k - 1]
                alpha, weight = (1 + r) / 2, 1 / ((1 - r**2) * P.deriv()(r) ** 2)
            point = (start + float(alpha) * (x[b] - start)).detach().requires_grad_()
            (gradient,) = torch.autograd.grad(model(point[None])[0, target[b]], point)
            total = total + float(weight) * gradient
        maps.append((x[b] - start) * total)
    return torch.stack(maps)
