"""On quantitative aspects of model interpretability.

Nguyen, Rodriguez Martinez. 2020. arXiv:2007.07584

    e_i   =  E_(X_i ~ p) [ ( f(x) - f(x with x_i := X_i) )^2 ]
    rho   =  Spearman's correlation of |a_i| and e_i over the features i                 (monotonicity)

f       score of the class (its logit)                  scores
i       a feature: a square of the image                i, n in all
a_i     attribution of the feature                      a, the map summed over the square
p       other values of the feature                     X, the image's own pixels in random places; or `baseline`
E       mean over draws                                 mean over `samples`

Differs from the paper: a feature is a square of 16 x 16 pixels, since single pixels (size=1) would cost H W forward
passes per draw. The definition does not fix p; here it is the distribution of the image's own colours.
Differs from other code: Quantus takes single elements of C H W, or groups of them in the order of the map (each method
then has different features). It draws one uniform number in [0, 1] for a whole feature, and divides e_i by f(x)^2,
which changes no rank. With size=1, one channel and one fixed baseline the two agree.
Good to know: e_i has no sign, so the sign of a_i is not used: a map and its negative score the same. For a linear f,
e_i is w_i^2 E(x_i - X_i)^2: the map (x - b) w scores 1 if p is the point b (baseline=b), not if p is broad. Squares
have equal sizes as far as possible: with different sizes noise would score above 0. A constant map scores 0.
"""

from math import ceil

import torch
from jaxtyping import Float, Int
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.nn import functional as F

from methods._cost import Formula
from methods._torch import chunks, scores
from methods.integrated_gradients import start
from sanity_checks._registry import Result, check
from sanity_checks._torch import constant, correlation, pixels


@check(
    title="Monotonicity correlation",
    cite="nguyen2020quantitative",
    kind="faithfulness",
    protocol=(
        "Each square of the image is replaced by other colours of the image; the number is the rank correlation of "
        "the map's sum in the square, without sign, with the mean squared change of the logit."
    ),
    higher_is_better=True,
    forward=Formula(
        "1 + cells · samples",
        lambda s: 1 + ceil(s.H / s.size) * ceil(s.W / s.size) * (s.samples if s.baseline is None else 1),
    ),
    runs=0,
    verified=("quantus", "literal", "closed form"),
    quick={"size": 28, "samples": 2},
)
def monotonicity_correlation(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Int[Tensor, " B"],
    maps: Float[Tensor, "B K h w"],
    *,
    size: int = 16,
    samples: int = 10,
    baseline: float | Float[Tensor, "..."] | None = None,
    seed: int = 0,
    chunk: int = 8,
) -> Result:
    """Whether squares with large attributions are those on which the score depends: rank correlation.

    Args:
        model: classifier.
        x: normalised images.
        target: classes.
        maps: the maps to evaluate.
        size: longest side of a square, in pixels; the image is cut as evenly as whole pixels allow.
        samples: draws of each feature.
        baseline: the only other value of a feature, a number or a tensor that broadcasts to x; None: the image.
        seed: of the draws.
        chunk: images per forward pass.

    Raises:
        ValueError: size or samples is below 1, size leaves one square only, or a baseline of another shape.
    """
    H, W = x.shape[2:]
    n_h, n_w = (-(-n // size) if size > 0 else 0 for n in (H, W))
    if n_h * n_w < 2 or samples < 1:
        raise ValueError(f"size, samples: need two squares and one draw at least, got {size} and {samples}")
    x, n = x.detach(), n_h * n_w
    row, col = torch.arange(H, device=x.device) * n_h // H, torch.arange(W, device=x.device) * n_w // W
    feature = row[:, None] * n_w + col  # H W
    rows, cols = F.one_hot(row, n_h).double(), F.one_hot(col, n_w).double()  # H n_h, W n_w
    a = (rows.T @ pixels(maps, x).double() @ cols).flatten(1)  # B n
    if baseline is None:
        rng = torch.Generator().manual_seed(seed)
        places = torch.stack([torch.randperm(H * W, generator=rng) for _ in range(samples)]).to(x.device)
        X = x.flatten(2)[:, :, places].unflatten(3, (H, W)).movedim(2, 0)  # samples B C H W
    else:
        X = start(x, torch.as_tensor(baseline, dtype=x.dtype))[None]  # 1 B C H W
    f, total = scores(model, x[None], target), []
    for part in chunks(n * len(X), chunk, len(x)):
        k = torch.arange(n * len(X), device=x.device)[part]  # feature by feature, draw by draw
        M = feature == (k // len(X))[:, None, None]  # k H W
        total.append((f - scores(model, torch.where(M[:, None, None], X[k % len(X)], x), target)) ** 2)  # k B
    e = torch.cat(total).double().unflatten(0, (n, len(X))).mean(dim=1).T  # B n
    rank_a, rank_e = (torch.from_numpy(rankdata(t.cpu().numpy(), axis=1)).to(x.device) for t in (a.abs(), e))
    rho = correlation(rank_a, rank_e)  # B
    return Result(values=torch.where(constant(pixels(maps, maps)), 0.0, rho))
