"""Shared by the tests: methods with small keywords, images and classes."""

import functools
import importlib.util
import inspect
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from methods import _layers
from methods._layers import default_layer

SMALL = {"samples": 3, "steps": 4, "size": 12, "stride": 8, "chunk": 4, "segments": 4, "designs": 4, "k": 2}
BLOCKS = torch.eye(16).view(16, 4, 4).repeat_interleave(8, 1).repeat_interleave(8, 2)  # 4 x 4 regions of 32 px
HALVES = torch.stack([torch.ones(32, 32).tril(), torch.ones(32, 32).triu()])  # ... and two that overlap them
SEGMENTS = torch.cat([BLOCKS, HALVES]).bool()
CLASSES = torch.tensor([1, 4, 7])


def images(n=3, h=32, w=32, dtype=torch.float64):
    return torch.randn(n, 3, h, w, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


PROBES = {}  # name in nets.MAKE: what a probe of it found


def last_layer(model):
    """The default layer. What a probe finds does not depend on the weights, so that of one `net` serves all."""
    x = images(1, dtype=next(model.parameters()).dtype)
    share_probe(model, x)
    if getattr(model, "made_as", None):
        PROBES[model.made_as] = _layers.probe(model, x)
    return default_layer(model, x)


def share_probe(model, x):
    """Let a `net` know what the probe of another `net` of its name found."""
    found = PROBES.get(getattr(model, "made_as", None))
    if found and x.shape[1:] == (3, 32, 32):
        _layers.known(model)[x.shape[1:], x.dtype, x.device] = found


def in_turn(cases, ids, by):
    """The cases of a product of methods with networks, layers, chunks ..., for parametrize; most marked `exhaustive`.

    One rule for all such products. Cases that are equal in `by` are one subject: the n-th subject keeps its n-th case,
    counted round. Then every other value of a case that has not been met keeps the first case that has it. So the
    default run has each method and each network, and each layer and each chunk, at least once; pytest -m exhaustive
    has all that is left.

    Args:
        cases: tuples of arguments.
        ids: as for parametrize.
        by: what a case is about, as a function of its arguments: the method, or the method and the kind of network.
    """

    def values(case):
        return {(axis, getattr(v, "name", v)) for axis, v in enumerate(case)}

    subjects = {}
    for i, case in enumerate(cases):
        subjects.setdefault(by(*case), []).append(i)
    kept = {of_one[n % len(of_one)] for n, of_one in enumerate(subjects.values())}
    met = set().union(*(values(cases[i]) for i in kept))
    for i, case in enumerate(cases):
        if not values(case) <= met:
            kept.add(i)
            met |= values(case)
    marks = [() if i in kept else pytest.mark.exhaustive for i in range(len(cases))]
    return [pytest.param(*case, id=name, marks=m) for case, name, m in zip(cases, ids, marks, strict=True)]


def small(m, **fill):
    """SMALL and `fill`, as far as the method has such keywords; XRAI's segments are no regions: `masks_of`."""
    return {k: v for k, v in (SMALL | fill).items() if k in m.params and (k, m.name) != ("segments", "xrai")}


def bound(m, model, **fill):
    """f(model, x, target) of a method, with its required keywords filled in and few samples; f.keywords has them."""
    keywords = small(m, **{"layer": last_layer(model)} | fill)

    def f(model, x, target):
        share_probe(model, x)
        return m.fn(model, x, target, **keywords, **masks_of(m, len(x)))

    f.keywords = keywords
    return f


def masks_of(m, n):
    """XRAI's segments are masks, one set for each of n images; the other methods take a number of cells from SMALL."""
    return {"segments": [SEGMENTS] * n} if m.name == "xrai" else {}


def hooks(model):
    return sum(len(k._forward_hooks) + len(k._forward_pre_hooks) + len(k._backward_hooks) for k in model.modules())


class FirstConvolution(TorchFunctionMode):
    """Images through the first convolution, and images whose gradient arrives there; a hook would change the passes."""

    def __init__(self, model):
        super().__init__()
        self.weight = next(p for p in model.parameters() if p.ndim == 4)
        self.forward = self.backward = 0

    def note(self, g):
        self.backward += len(g)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func is F.conv2d and args[1] is self.weight:
            self.forward += len(out)
            if out.requires_grad:
                out.register_hook(self.note)
        return out


def not_in_place(model):
    """The same function without in-place operations: captum and pytorch-grad-cam keep what hooks see, un-cloned."""
    for m in model.modules():
        if getattr(m, "inplace", False):
            m.inplace = False
    return model


def few_networks(monkeypatch):
    """Two steps of a cascade with one seed, in a quick run."""
    from sanity_checks import CHECKS

    few = replace(CHECKS["model_randomization"], quick={"seeds": 1, "points": 2})
    monkeypatch.setitem(CHECKS, "model_randomization", few)


@functools.cache
def references(name):
    """The public functions of tests/reference/<name>.py."""
    path = Path(__file__).parent / "reference" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"reference_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    public = inspect.getmembers(module, inspect.isfunction)
    return {n: f for n, f in public if f.__module__ == module.__name__ and not n.startswith("_")}
