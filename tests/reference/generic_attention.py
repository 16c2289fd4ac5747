"""Generic attention explainability on timm's un-fused attention, in loops and in NumPy matrices."""

import numpy as np
import torch

from methods.generic_attention import generic_attention


def _attention_and_gradient(model, x, target):
    """A and dy/dA of every block, from hooks on `attn_drop` with fused attention off: what users of timm do."""
    maps, handles = [], []
    for block in model.blocks:
        block.attn.fused_attn = False
        handles.append(block.attn.attn_drop.register_forward_hook(lambda _m, _a, out: maps.append(out)))
    y = model(x).gather(1, target[:, None]).sum()
    for handle in handles:
        handle.remove()
    return [(A.detach(), g) for A, g in zip(maps, torch.autograd.grad(y, maps), strict=True)]


def _row(model, R):
    """Patch columns of the row that the head reads: T T -> 1 4 4."""
    P = model.num_prefix_tokens
    row = R[0] if model.global_pool == "token" else R[P:].mean(0)
    return row[P:].reshape(1, 4, 4)


def literal(model, x, target):
    layers = _attention_and_gradient(model, x, target)
    T, out = layers[0][0].shape[-1], []
    for b in range(len(x)):
        R = torch.eye(T, dtype=x.dtype)
        for A, g in layers:
            heads = A.shape[1]
            A_bar = torch.zeros(T, T, dtype=x.dtype)
            for i in range(T):
                for j in range(T):
                    A_bar[i, j] = sum(max(float(g[b, h, i, j] * A[b, h, i, j]), 0.0) for h in range(heads)) / heads
            R = R + A_bar @ R
        out.append(_row(model, R))
    return torch.stack(out)


def numpy(model, x, target):
    layers = _attention_and_gradient(model, x, target)
    out = []
    for b in range(len(x)):
        R = np.eye(layers[0][0].shape[-1])
        for A, g in layers:
            R = (np.eye(len(R)) + np.clip((A[b] * g[b]).numpy(), 0, None).mean(axis=0)) @ R
        out.append(torch.tensor(_row(model, R)))
    return torch.stack(out)


def authors(net, x, target, golden):
    return {"map": generic_attention(net, x, target)[:, 0]}
