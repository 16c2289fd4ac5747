"""Towards better understanding of Gradient-based Attribution Methods for Deep Neural Networks.

Ancona, Ceolini, Oztireli, Gross. ICLR 2018. arXiv:1711.06104

    sum_(i in S) R_i  =  f(x) - f(x with x_S := 0)    for all S with |S| = n             (sensitivity-n)
    PCC(n)            =  corr_S of the two sides, over random S with |S| = n             (the metric)

f       score of the class (its logit)                  scores
R       the map, one number per pixel                   R
S       a random subset of n pixels                     S, the same ones for every image
n       from 1 to about 80 % of the pixels              n, spaced evenly in log n
PCC     Pearson's correlation over the subsets          curve

Differs from the paper: it plots the curve; the number here is its mean over n, so small sets count as much as large
ones. A feature is a pixel with all of its channels. Removed pixels become `baseline`, 0 as in the paper: in a
normalised image that is the mean colour.
Differs from other code: Quantus' SensitivityN is another measure. It removes elements highest first instead of random
subsets, compares the attribution of each step with the fall accumulated so far, and correlates across images. So its
number depends on the batch, and the exact map of a linear model need not score 1.
Good to know: all n are exact for a linear f: the map (x - b) w scores 1 at each. n = HW would be completeness, with one
subset only. A constant map scores 0.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from methods._cost import Formula
from methods._torch import scores
from methods.integrated_gradients import start
from sanity_checks._registry import Result, check
from sanity_checks._torch import constant, correlation, pixels
from sanity_checks.faithfulness_correlation import removed, subsets


@check(
    title="Sensitivity-n",
    cite="ancona2018towards",
    kind="faithfulness",
    protocol=(
        "Random sets of n pixels are removed, for n from 1 to 80 % of the image; the number is the correlation of the "
        "map's sum in the set with the fall of the logit, averaged over n."
    ),
    higher_is_better=True,
    forward=Formula("1 + points · samples", lambda s: 1 + s.points * s.samples),
    runs=0,
    verified=("literal", "closed form"),
    quick={"points": 4, "samples": 16},
)
def sensitivity_n(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Int[Tensor, " B"],
    maps: Float[Tensor, "B K h w"],
    *,
    points: int = 16,
    samples: int = 100,
    baseline: float | Float[Tensor, "..."] = 0.0,
    seed: int = 0,
    chunk: int = 8,
) -> Result:
    """Whether the attribution of subsets of n pixels predicts the fall of the score when they are removed.

    The correlation, for all sizes n.

    Args:
        model: classifier.
        x: normalised images.
        target: classes.
        maps: the maps to evaluate.
        points: sizes n, the points of the curve.
        samples: subsets of each size.
        baseline: value of removed pixels, a number or a tensor that broadcasts to x; 0 is the mean colour.
        seed: of the subsets.
        chunk: images per forward pass.

    Raises:
        ValueError: more points than there are sizes, fewer than two samples, or a baseline of another shape.
    """
    x, R = x.detach(), pixels(maps, x).flatten(1)  # B C H W, B HW
    b = start(x, torch.as_tensor(baseline, dtype=x.dtype))  # B C H W
    rng = torch.Generator().manual_seed(seed)
    f = scores(model, x[None], target)  # 1 B
    flat = constant(pixels(maps, maps))  # B
    n, curve = sizes(R.shape[1], points), []
    for size in n:
        S = subsets(R.shape[1], size, samples, rng).to(x.device)  # samples HW
        drop = f - removed(model, x, b, target, S.view(-1, *x.shape[2:]), chunk)  # samples B
        pcc = correlation((S.double() @ R.double().T).T, drop.T)  # B
        curve.append(torch.where(flat, 0.0, pcc))
    curve = torch.stack(curve, dim=1)  # B points
    return Result(values=curve.mean(dim=1), curves={"correlation": curve}, at=tuple(map(float, n)))


def sizes(pixels: int, points: int) -> list[int]:
    """Distinct sizes from 1 to 80 % of the pixels, evenly spaced in their logarithm as far as whole numbers allow."""
    most = int(0.8 * pixels)
    if not 2 <= points <= most:
        raise ValueError(f"points: must be 2 at least, and at most 80 % of {pixels} pixels, got {points}")
    even = [most ** (k / (points - 1)) for k in range(points)]
    return [max(k + 1, int(size + 0.5)) for k, size in enumerate(even)]
