"""Look at the Variance! Efficient Black-box Explanations with Sobol-based Sensitivity Analysis.

Fel, Cadene, Chalvidal, Cord, Vigouroux, Serre. NeurIPS 2021. arXiv:2111.04138

    S_Ti  =  E_{z ~i}[ V_{z_i}( f(z) | z ~i ) ] / V( f(z) )                            (definition 2: total index)
    S_Ti ~=  1 / (2 N V)  sum_j ( f(A_j) - f(C_j^(i)) )^2                              (eq. 5: Jansen's estimator)

z       how much of each of the R regions is seen, in    A, C
        [0, 1], uniform and independent
f(z)    score of the image seen through z                f
A, B    N quasi-random rows of R numbers each            A, B
C^(i)   A, with column i from B                          C
V       variance of f(A)                                 V
N       number of rows                                   designs

Differs from the paper: f is the logit, which a callable target replaces.
Differs from other code: the authors' code and xplique use Sobol's sequence as it is; here it is scrambled with `seed`
(Owen), which keeps its evenness and is unbiased. They also run f(B), which this estimator does not use. The map has one
value for each region; theirs is resized.
Good to know: how much the region moves the score, alone and with others, whatever the direction: never negative, and
the indices sum to 1 or more. `designs` of 32 on 64 regions are 2080 passes, 2112 in xplique.
"""

from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import qmc
from torch import Tensor, nn

from methods._cost import Formula
from methods._regions import Fill, Segments, drawn, hiding, masked_scores, painted, regions, usual_count
from methods._registry import method
from methods._torch import Target, at_least_float32, ratio


@method(
    title="Sobol attribution",
    cite="fel2021look",
    family="perturbation",
    forward=Formula("designs · (regions + 1)", lambda s: s.designs * (usual_count(s.segments) + 1)),
    backward=0,
    signed=False,
    verified=("literal",),
    source="authors' code",
)
def sobol_attribution(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Target,
    *,
    segments: Segments = 8,
    designs: int = 32,
    fill: Fill = "zero",
    seed: int = 0,
    chunk: int = 8,
) -> Float[Tensor, "B 1 H W"]:
    """The share of the score's variance that each region takes part in, as regions fade at random.

    Raises:
        ValueError: designs is no power of two above 1, or as `regions`, `hiding`.
    """
    if designs < 2 or designs & (designs - 1):
        raise ValueError(f"designs: Sobol's sequence is even for powers of two only (2, 4, 8 ...), got {designs}")
    labels, N = regions(x, segments), designs
    A, B = (
        drawn(labels, partial(draw, N, seed, half)).to(at_least_float32(x).dtype) for half in (0, 1)
    )  # N B R, N B R
    R = A.shape[2]

    def masks(rows: slice) -> Float[Tensor, "k B H W"]:
        row = torch.arange(N * (R + 1), device="cpu")[rows]
        i = row // N - 1  # -1: A; else the column from B
        column = torch.arange(R, device="cpu") == i[:, None]  # k R
        return painted(torch.where(column[:, None], B[row % N], A[row % N]), labels)

    y = masked_scores(model, x, target, hiding(x, fill, labels, seed), masks, N * (R + 1), chunk)
    f_A, f_C = y[:N], y[N:].unflatten(0, (R, N))  # N B, R N B
    V = f_A.var(dim=0)  # B
    S_T = ratio(((f_A - f_C) ** 2).sum(dim=1), (2 * N * V).expand(R, -1))  # R B   eq. 5
    return painted(S_T.T, labels)[:, None]  # B 1 H W


def draw(designs: int, seed: int, half: int, R: int) -> Float[np.ndarray, "N R"]:
    """A (half 0) or B (half 1): the first or last R columns of a scrambled Sobol sequence."""
    rows = qmc.Sobol(2 * R, scramble=True, rng=np.random.default_rng(seed)).random(designs)
    return np.split(rows, 2, axis=1)[half]
