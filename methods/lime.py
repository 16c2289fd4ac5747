"""LIME. "Why Should I Trust You?": Explaining the Predictions of Any Classifier.

Ribeiro, Singh, Guestrin. KDD 2016. arXiv:1602.04938

    L(f, g, pi)  =  sum_z  pi(z) ( f(z) - g(z) )^2,   g(z) = b + beta . z        (eq. 2: a linear g, fitted locally)
    pi(z)        =  exp( - D(z, 1)^2 / sigma^2 )                                  (section 3.3)

z       which of the R regions are seen, 0 or 1 each     z
f(z)    score of the image with only these seen          f
D       cosine distance to the whole image, z = 1        D
sigma   width of the neighbourhood                       width
beta    map: the weight of each region                   beta

Differs from the paper: it selects K regions with Lasso; here beta has all regions, and minimises L + alpha |beta|^2.
This, the square root of pi, the segmentation and the default numbers are those of the authors' code for images (pip's
lime). sampling="glime" is GLIME (Tan, Tian, Li, NeurIPS 2023): D^2 is the number of hidden regions, and z is drawn from
pi instead of weighted by it: each region is seen with probability 1 / (1 + exp(-1 / sigma^2)).
Differs from other code: f is the logit, which a callable target replaces; pip's lime explains probabilities.
Good to know: the regions decide the map. Any segmentation can be given (DSEG-LIME is `segments=` with masks of a
segmentation network); see Pihlgren and Framling (arXiv:2409.04116). alpha shrinks beta when f is small or R is large.
1000 passes, as pip's lime; xplique's default is 150.
"""

import math
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from methods._regions import Fill, Segments, count, painted, regions, sampled_scores
from methods._registry import method
from methods._torch import Target

WIDTHS = {"lime": 0.25, "glime": 3.0}  # of the authors' codes; D is a cosine distance in one and a count in the other


@method(
    title="LIME",
    cite="ribeiro2016should",
    family="perturbation",
    forward="samples",
    backward=0,
    signed=True,
    verified=("literal", "lime"),
)
def lime(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Target,
    *,
    segments: Segments = "quickshift",
    samples: int = 1000,
    sampling: str = "lime",
    width: float | None = None,
    alpha: float = 1.0,
    fill: Fill = "mean",
    seed: int = 0,
    chunk: int = 8,
) -> Float[Tensor, "B 1 H W"]:
    """Weights of a linear model of the score, in which regions are seen or hidden.

    Raises:
        ValueError: samples is below 1, sampling is unknown, width or alpha is not positive, or as `regions`, `hiding`.
    """
    if samples < 1 or sampling not in WIDTHS:
        raise ValueError(f"samples, sampling: need 1 at least and 'lime' or 'glime', got {samples} and {sampling!r}")
    sigma = WIDTHS[sampling] if width is None else width
    if sigma <= 0 or alpha <= 0:
        raise ValueError(f"width, alpha: must be positive, got {sigma} and {alpha}")
    labels = regions(x, segments)
    p = 0.5 if sampling == "lime" else 1 / (1 + math.exp(-(sigma**-2)))
    z, f = sampled_scores(model, x, target, labels, partial(draw, samples, p, seed), fill, seed, chunk)  # n B R, n B
    D = 1 - (z.sum(dim=2) / torch.tensor(count(labels))).sqrt()  # n B   cosine distance of z and 1
    pi = torch.exp(-((D / sigma) ** 2)).sqrt() if sampling == "lime" else torch.ones_like(D)  # n B
    Z = z - (pi[..., None] * z).sum(dim=0) / pi.sum(dim=0)[:, None]  # n B R   so b needs no column
    ZW = torch.einsum("nbr,nb->brn", Z, pi)  # B R n
    A = ZW @ Z.transpose(0, 1) + alpha * torch.eye(z.shape[2], dtype=z.dtype, device="cpu")  # B R R
    beta = torch.einsum("brn,nb->br", torch.linalg.solve(A, ZW).to(f), f)  # B R   minimises L + alpha |beta|^2
    return painted(beta, labels)[:, None]  # B 1 H W


def draw(samples: int, p: float, seed: int, R: int) -> Float[np.ndarray, "n R"]:
    """Each region is seen with probability p; the first sample is the whole image."""
    z = np.random.default_rng(seed).random((samples, R)) < p
    z[0] = True
    return z.astype(float)
