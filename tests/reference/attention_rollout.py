"""Attention rollout from attention modules run by hand, in torch loops and in NumPy matrices."""

import numpy as np
import torch

from methods.attention_rollout import attention_rollout


def _attention(model, x):
    """softmax(QK^T / sqrt d) of every block, from its qkv layer and its own input: B heads T T."""
    maps, handles = [], []

    def read(module, args):
        qkv = module.qkv(args[0]).unflatten(2, (3, module.num_heads, -1))
        q, k = qkv[:, :, 0].transpose(1, 2), qkv[:, :, 1].transpose(1, 2)
        maps.append((q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(dim=-1).detach())

    for block in model.blocks:
        handles.append(block.attn.register_forward_pre_hook(read))
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return maps


def _row(model, R):
    """Patch columns of the row that the head reads: T T -> 1 4 4."""
    P = model.num_prefix_tokens
    row = R[0] if model.global_pool == "token" else R[P:].mean(0)
    return row[P:].reshape(1, 4, 4)


def literal(model, x, target):
    maps = [A.mean(dim=1) for A in _attention(model, x)]
    T, out = maps[0].shape[-1], []
    for b in range(len(x)):
        rollout = [[1.0 * (i == j) for j in range(T)] for i in range(T)]
        for W in maps:
            A = [[0.5 * float(W[b, i, j]) + 0.5 * (i == j) for j in range(T)] for i in range(T)]
            A = [[a / sum(row) for a in row] for row in A]  # rows sum to 1
            rollout = [[sum(A[i][k] * rollout[k][j] for k in range(T)) for j in range(T)] for i in range(T)]
        out.append(_row(model, torch.tensor(rollout, dtype=x.dtype)))
    return torch.stack(out)


def numpy(model, x, target):
    out = []
    for b in range(len(x)):
        layers = [A[b].mean(dim=0).numpy() for A in _attention(model, x)]
        R = np.linalg.multi_dot([(A + np.eye(len(A))) / 2 for A in reversed(layers)])
        out.append(torch.tensor(_row(model, R)))
    return torch.stack(out)


def authors(net, x, target, golden):
    """Chefer et al.'s baseline: Abnar and Zuidema's own code is for text."""
    return {"map": attention_rollout(net, x, target)[:, 0]}
