"""SmoothGrad-Squared, sample by sample, and by captum fed with the same noise."""

import importlib.util
from pathlib import Path

import torch

_spec = importlib.util.spec_from_file_location("_smooth", Path(__file__).with_name("smooth_grad.py"))
_smooth = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_smooth)


def literal(model, x, target, *, samples, noise=0.15, seed=0, chunk=8):
    total = torch.zeros_like(x)
    for eps in _smooth._draws(x, samples, noise, seed):
        for b in range(len(x)):
            total[b] += _smooth._gradient(model, x[b] + eps[b], target[b]) ** 2 / samples
    return total


def captum(model, x, target, **keywords):
    return _smooth.captum(model, x, target, nt_type="smoothgrad_sq", **keywords)
