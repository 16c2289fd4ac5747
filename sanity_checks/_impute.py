"""Noisy linear imputation, the linear systems of ROAD (equation in road.py): direct on the CPU, batched elsewhere."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import sparse
from scipy.sparse.linalg import splu
from torch import Tensor
from torch.nn import functional as F

CLOSE = 1e-8  # residual of the batched solver, relative to the right side
DIRECT, DIAGONAL = 1 / 6, 1 / 12  # weights of neighbours


def impute(
    x: Float[Tensor, "B C H W"],
    mask: Bool[Tensor, "B H W"],
    noise: float | Float[Tensor, " C"] = 0.01,
    seed: int = 0,
) -> Float[Tensor, "B C H W"]:
    """Noisy linear imputation of the pixels in mask.

    The draw of the noise, C H W, is shared by the batch.

    Raises:
        ValueError: a mask that leaves no pixel to impute from.
    """
    if mask.flatten(1).all(dim=1).any():
        raise ValueError("mask: must leave at least one pixel of each image to impute from")
    filled = (factorised if x.device.type == "cpu" else iterated)(x.double(), mask).to(x)
    N = torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(seed)).to(x)  # C H W
    scale = noise[:, None, None] if isinstance(noise, Tensor) else noise
    return torch.where(mask[:, None], filled + scale * N, x)


def factorised(x: Float[Tensor, "B C H W"], mask: Bool[Tensor, "B H W"]) -> Float[Tensor, "B C H W"]:
    """One sparse factorisation for all channels of an image."""
    w = _weights(x.shape[2], x.shape[3])
    A = (sparse.diags_array(w.sum(axis=1)) - w).tocsr()  # HW HW   A x = 0 where x is the mean of its neighbours
    out = x.flatten(2).transpose(1, 2).numpy().copy()  # B HW C
    for image, u in zip(out, mask.flatten(1).numpy(), strict=True):
        if u.any():
            solver = splu(
                A[u][:, u].tocsc(),  # symmetric and positive definite
                permc_spec="MMD_AT_PLUS_A",
                diag_pivot_thresh=0.0,
                options={"SymmetricMode": True},
            )
            image[u] = solver.solve(w[u][:, ~u] @ image[~u])
    return torch.from_numpy(np.ascontiguousarray(out.transpose(0, 2, 1))).view_as(x)


def iterated(x: Float[Tensor, "B C H W"], mask: Bool[Tensor, "B H W"]) -> Float[Tensor, "B C H W"]:
    """The same by conjugate gradients, all images at once, on the device of x; no library here solves such batches."""
    C, M = x.shape[1], mask[:, None].to(x)  # B 1 H W
    k = x.new_tensor([[DIAGONAL, DIRECT, DIAGONAL], [DIRECT, 0, DIRECT], [DIAGONAL, DIRECT, DIAGONAL]])
    around = lambda v: F.conv2d(v, k.expand(v.shape[1], 1, 3, 3), padding=1, groups=v.shape[1])  # noqa: E731
    degree = around(torch.ones_like(M))  # B 1 H W
    inside = lambda v, u: (v * u).sum(dim=(2, 3), keepdim=True)  # noqa: E731  B C 1 1
    b = M * around((1 - M) * x)
    v, r = torch.zeros_like(x), b / degree.sqrt()  # preconditioned: v is the solution times the root of the degree
    p, rr = r, inside(r, r)
    goal = CLOSE**2 * rr
    for _ in range(10 * C * x.shape[2] * x.shape[3]):
        if (rr <= goal).all():
            break
        Ap = M * (p - around(p / degree.sqrt()) / degree.sqrt())
        alpha = rr / inside(p, Ap).clamp(min=torch.finfo(x.dtype).tiny)
        v, r = v + alpha * p, r - alpha * Ap
        new = inside(r, r)
        p, rr = r + (new / rr.clamp(min=torch.finfo(x.dtype).tiny)) * p, new
    return torch.where(mask[:, None], v / degree.sqrt(), x)


def _weights(h: int, w: int) -> sparse.csr_array:
    """HW HW: 1/6 between direct neighbours, 1/12 between diagonal ones."""
    Th, Tw = (sparse.eye_array(n, k=1) + sparse.eye_array(n, k=-1) for n in (h, w))  # direct neighbours on a line
    Ih, Iw = sparse.eye_array(h), sparse.eye_array(w)
    return sparse.csr_array((sparse.kron(Th, Iw) + sparse.kron(Ih, Tw)) * DIRECT + sparse.kron(Th, Tw) * DIAGONAL)
