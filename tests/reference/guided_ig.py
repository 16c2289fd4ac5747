"""Guided IG, by its authors (PAIR), and written out literally."""

import math
from unittest import mock

import numpy as np
import torch
from saliency.core import INPUT_OUTPUT_GRADIENTS, GuidedIG


def saliency(model, x, target, *, baseline=None, steps=200, fraction=0.25, max_dist=0.02):
    quantile = np.quantile

    def old_quantile(a, q, interpolation):  # the keyword's name before NumPy 2.4
        return quantile(a, q, method=interpolation)

    maps = []
    for b in range(len(x)):

        def gradients(X, call_model_args, expected_keys, b=b):
            X = torch.tensor(X).to(x).requires_grad_()
            return {INPUT_OUTPUT_GRADIENTS: torch.autograd.grad(model(X)[:, target[b]].sum(), X)[0].double().numpy()}

        start = torch.zeros_like(x[b]) if baseline is None else baseline.to(x).expand_as(x)[b]
        given = {"x_baseline": start.numpy(), "x_steps": steps, "fraction": fraction, "max_dist": max_dist}
        with mock.patch.object(np, "quantile", old_quantile):
            maps.append(torch.tensor(GuidedIG().GetMask(x[b].detach().numpy(), gradients, **given)))
    return torch.stack(maps)


def literal(model, x, target, *, baseline=None, steps=200, fraction=0.25, max_dist=0.02):
    """One image, one step and one feature at a time, on the values of the features themselves."""
    maps = []
    for b in range(len(x)):
        start = torch.zeros_like(x[b]) if baseline is None else baseline.to(x).expand_as(x)[b]
        end, begin = x[b].flatten().tolist(), start.flatten().tolist()
        n, at = len(end), list(begin)
        attr, whole = [0.0] * n, sum(abs(end[i] - begin[i]) for i in range(n))
        for t in range(1, steps + 1):
            point = torch.tensor(at, dtype=x.dtype).view_as(x[b]).requires_grad_()
            (g,) = torch.autograd.grad(model(point[None])[0, target[b]], point)
            g = g.flatten().tolist()
            lower, upper = max(t / steps - max_dist, 0), min(t / steps + max_dist, 1)
            edge = [begin[i] + upper * (end[i] - begin[i]) for i in range(n)]
            before, budget = list(at), (1 - t / steps) * whole
            for i in range(n):
                if abs(at[i] - begin[i]) < lower * abs(end[i] - begin[i]):
                    at[i] = begin[i] + lower * (end[i] - begin[i])
            finished = {i for i in range(n) if end[i] == begin[i] or at[i] == edge[i]}
            while True:
                left = sum(abs(end[i] - at[i]) for i in range(n))
                if left - budget <= 1e-9 * whole:
                    break
                ranked = sorted(math.inf if i in finished else abs(g[i]) for i in range(n))
                threshold = ranked[math.floor(fraction * (n - 1))]
                S = [i for i in range(n) if i not in finished and abs(g[i]) <= threshold]
                reach = sum(abs(edge[i] - at[i]) for i in S)
                gamma = (left - budget) / reach
                if gamma >= 1:
                    finished |= set(S)
                for i in S:
                    at[i] = edge[i] if gamma >= 1 else at[i] + gamma * (edge[i] - at[i])
            for i in range(n):
                attr[i] += g[i] * (at[i] - before[i])
        maps.append(torch.tensor(attr, dtype=x.dtype).view_as(x[b]))
    return torch.stack(maps)
