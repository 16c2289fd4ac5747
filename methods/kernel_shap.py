"""A Unified Approach to Interpreting Model Predictions (Kernel SHAP).

Lundberg, Lee. NeurIPS 2017. arXiv:1705.07874

    phi    =  argmin  sum_z  pi(z) ( f(z) - f(0) - phi . z )^2,   where  sum_i phi_i = f(1) - f(0)
    pi(z)  =  (R - 1) / ( C(R, |z|) |z| (R - |z|) )                                       (theorem 2)

solved by projection (P = I - 11'/R takes out the sum; Z, W: the drawn z and their weights):

    phi  =  (P Z' W Z P)^+  P Z' W ( f(z) - f(0) - |z| Delta / R )  +  Delta / R,    Delta = f(1) - f(0)

z       which of the R regions are seen, 0 or 1 each     z
f(z)    score of the image with only these seen          f
C       binomial coefficient                             math.comb
phi     map: the Shapley value of each region            phi

Differs from the paper: by default z is drawn by leverage (Musco and Witter, ICLR 2025, arXiv:2410.01917): without
replacement, with its complement, and every size |z| about equally often; its weight is pi over the probability q that
it was drawn. sampling="kernel" draws z, with its complement, in proportion to pi. Leverage sampling needs fewer passes
for the same error (figures/fig_convergence). Given 2^R - 2 samples or more, all z run and phi is exact.
Differs from other code: the sum is exact, as in `shap`; captum weights z = 0 and 1 by 1e6. The authors' leverage code
(rtealwitter/leverageshap) draws a random number of samples; here each size gets its expected number, rounded at random.
Good to know: the values sum to f(1) - f(0) over regions, for any number of samples. 1002 passes; xplique's default is
800, and its values need not sum.
"""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from methods._coalitions import draw, expected
from methods._cost import Formula
from methods._regions import Fill, Segments, count, painted, regions, sampled_scores
from methods._registry import method
from methods._torch import Target


@method(
    title="Kernel SHAP",
    cite="lundberg2017unified",
    family="perturbation",
    forward=Formula("2 + samples", lambda s: 2 + s.samples // 2 * 2),
    backward=0,
    signed=True,
    verified=("literal", "captum"),
    satisfies=("completeness",),
)
def kernel_shap(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Target,
    *,
    segments: Segments = "slic",
    samples: int = 1000,
    sampling: str = "leverage",
    fill: Fill = "mean",
    seed: int = 0,
    chunk: int = 8,
) -> Float[Tensor, "B 1 H W"]:
    """The Shapley value of each region: its mean effect on the score over all orders in which regions appear.

    Raises:
        ValueError: samples is below 2, sampling is unknown, or as `regions`, `hiding`.
    """
    if samples < 2 or sampling not in ("leverage", "kernel"):
        raise ValueError(f"samples, sampling: need 2 and 'leverage' or 'kernel', got {samples} and {sampling!r}")
    labels = regions(x, segments)
    z, f = sampled_scores(
        model, x, target, labels, partial(draw, samples, sampling, seed), fill, seed, chunk
    )  # n B R, n B   the first two are f(0) and f(1)
    Delta, phi = f[1] - f[0], f.new_zeros(z.shape[1:])  # B, B R
    for b, R in enumerate(count(labels)):
        Z, size = z[:, b, :R], z[:, b].sum(dim=1)  # n R, n
        P = torch.eye(R, dtype=z.dtype, device="cpu") - 1 / R  # R R
        ZW = P @ Z.T * weights(samples, sampling, R)[size.long()]  # R n
        solve = torch.linalg.pinv(ZW @ Z @ P, hermitian=True) @ ZW  # R n
        phi[b, :R] = solve.to(f) @ (f[:, b] - f[0, b] - size.to(f) * Delta[b] / R) + Delta[b] / R
    return painted(phi, labels)[:, None]  # B 1 H W


def weights(samples: int, sampling: str, R: int) -> Float[Tensor, " n"]:
    """Pi / q for |z| = 0 .. R, up to a factor; 0 for the whole image and for nothing, which are exact."""
    w = torch.zeros(R + 1, dtype=torch.float64, device="cpu")
    for s, a in enumerate(expected(samples, R), start=1):
        w[s] = w[R - s] = 1.0 if sampling == "kernel" else 1 / (s * (R - s) * a * (1 + (2 * s == R)))
    return w
