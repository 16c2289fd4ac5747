"""VarGrad, by its definition, and by captum fed with the same noise."""

import importlib.util
from pathlib import Path

import torch

_spec = importlib.util.spec_from_file_location("_smooth", Path(__file__).with_name("smooth_grad.py"))
_smooth = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_smooth)


def literal(model, x, target, *, samples, noise=0.15, seed=0, chunk=8):
    maps = [
        torch.stack([_smooth._gradient(model, x[b] + eps[b], target[b]) for b in range(len(x))])
        for eps in _smooth._draws(x, samples, noise, seed)
    ]
    mean = sum(maps) / samples
    return sum((m - mean) ** 2 for m in maps) / samples


def captum(model, x, target, **keywords):
    return _smooth.captum(model, x, target, nt_type="vargrad", **keywords)
