"""Making Sense of Dependence: Efficient Black-box Explanations Using Dependence Measure.

Novello, Fel, Vigouroux. NeurIPS 2022. arXiv:2206.06219

    HSIC_i     =  1 / N^2  tr( K_i H L H ),      H = I - 11' / N                      (estimator of the HSIC)
    K_i(a, b)  =  1 - ( z_ai - z_bi )^2                                               (1 where both rows agree on i)
    L(a, b)    =  exp( - ( f(z_a) - f(z_b) )^2 / ( 2 sigma^2 ) )

z       which of the R regions are seen, 0 or 1 each:    z
        N rows of a Latin hypercube, rounded
f(z)    score of the image with only these seen          f
sigma   width of the kernel on scores                    sigma
N       number of rows                                   samples

Since z is 0 or 1, K_i is (1 + s_i s_i') / 2 with s_i = 2 z_i - 1, and the trace is s_i' H L H s_i / 2.

Differs from the paper: the equations are those of the authors' code. f is the logit, which a callable target replaces.
Differs from other code: the authors' code (paulnovello/HSIC-Attribution-Method, and xplique) divides by N, and takes
the median of the scores themselves as sigma, so that a constant added to the score changes the map
(width="scores"); here sigma is the median of |f(z_a) - f(z_b)|. Their hypercube has 2 R columns and N / 2 rows.
Good to know: N passes, whatever R is. How much the score depends on the region, whatever the direction: never negative.
"""

from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import qmc
from torch import Tensor, nn

from methods._regions import Fill, Segments, painted, regions, sampled_scores
from methods._registry import method
from methods._torch import Target


@method(
    title="HSIC attribution",
    cite="novello2022making",
    family="perturbation",
    forward="samples",
    backward=0,
    signed=False,
    verified=("literal",),
    source="authors' code",
)
def hsic_attribution(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Target,
    *,
    segments: Segments = 8,
    samples: int = 500,
    width: str = "distances",
    fill: Fill = "zero",
    seed: int = 0,
    chunk: int = 8,
) -> Float[Tensor, "B 1 H W"]:
    """How much the score depends on whether each region is seen.

    Raises:
        ValueError: samples is below 2, width is unknown, or as `regions`, `hiding`.
    """
    if samples < 2 or width not in ("distances", "scores"):
        raise ValueError(f"samples, width: need 2 and 'distances' or 'scores', got {samples} and {width!r}")
    labels = regions(x, segments)
    z, f = sampled_scores(model, x, target, labels, partial(draw, samples, seed), fill, seed, chunk)  # N B R, N B
    d = f.T[:, :, None] - f.T[:, None, :]  # B N N
    pairs = torch.triu_indices(samples, samples, offset=1, device=f.device)
    sigma = (d[:, pairs[0], pairs[1]].abs() if width == "distances" else f.T).median(dim=1).values  # B
    sigma = torch.where(sigma == 0, 1, sigma)[:, None, None]
    L = torch.exp(-(d**2) / (2 * sigma**2))  # B N N
    HLH = L - L.mean(dim=1, keepdim=True) - L.mean(dim=2, keepdim=True) + L.mean(dim=(1, 2), keepdim=True)
    s = (2 * z - 1).transpose(0, 1).to(f)  # B N R
    HSIC = (s * (HLH @ s)).sum(dim=1) / (2 * samples**2)  # B R
    return painted(HSIC.clamp(min=0), labels)[:, None]  # B 1 H W   below 0 is rounding


def draw(samples: int, seed: int, R: int) -> Float[np.ndarray, "N R"]:
    """Each region is seen in half of the rows."""
    return qmc.LatinHypercube(R, rng=np.random.default_rng(seed)).random(samples).round()
