"""Revisiting The Evaluation of Class Activation Mapping for Explainability: ADCC.

Poppi, Cornia, Baraldi, Cucchiara. CVPR Workshop 2021. arXiv:2104.10252

    coherency   =  ( Pearson( CAM(x M), CAM(x) ) + 1 ) / 2
    complexity  =  mean |M|
    drop        =  max(0, Y - O) / Y
    ADCC        =  3 / ( 1 / coherency  +  1 / (1 - complexity)  +  1 / (1 - drop) )

CAM     the method, for the same class                  of
M       the map CAM(x), rescaled to [0, 1]              M
x M     the explanation map                             xM
Y, O    softmax probability of the class at x and x M   Y, O

Differs from the paper: no.
Differs from other code: the authors' repository (aimagelab/ADCC) takes one image and a map that is already in [0, 1].
A coherency that is not a number (one map is constant) is 0 there and here.
Good to know: the harmonic mean is 0 if one part has its worst value. The constant map, taken as 1 everywhere, has drop
0 but complexity 1, so ADCC 0. Coherency requires only the same map again: a map that ignores the image, such as a
centred Gaussian, has coherency 1 and so a high ADCC. `average_drop` measures the effect of the mask.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from methods._torch import Attribution, probability, scores
from sanity_checks._registry import Result, check
from sanity_checks._torch import constant, correlation, explain, pixels
from sanity_checks.average_drop import drop, masked, unit


@check(
    title="ADCC",
    cite="poppi2021revisiting",
    kind="faithfulness",
    protocol=(
        "The image is multiplied by the map and explained again; the number is the harmonic mean of how similar the "
        "two maps are, how little of the image the map keeps, and how much of the class probability remains."
    ),
    higher_is_better=True,
    forward=2,
    runs=1,
    verified=("literal", "closed form"),
)
def adcc(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Int[Tensor, " B"],
    maps: Float[Tensor, "B K h w"],
    of: Attribution,
    *,
    baseline: float | Float[Tensor, "..."] = 0.0,
) -> Result:
    """Whether a map is stable, simple and sufficient at once: coherency, complexity and drop in one number.

    Their harmonic mean, of 1 - complexity and 1 - drop; the three are columns.

    Args:
        model: classifier.
        x: normalised images.
        target: classes.
        maps: the maps to evaluate, which `of` gives for x.
        of: the method.
        baseline: value of the removed part, a number or a tensor that broadcasts to x; 0 multiplies the normalised
            tensor, the normalised value of black multiplies the image.

    Raises:
        ValueError: a baseline of another shape.
    """
    x, M, f = x.detach(), unit(maps, x), probability(target)  # B C H W, B H W
    xM = masked(x, M, baseline)  # B C H W
    again = explain(of, model, xM, target)  # B K h w   CAM(x M)
    rho = correlation(pixels(maps, x).flatten(1), pixels(again, x).flatten(1))  # B
    flat = constant(pixels(maps, maps)) | constant(pixels(again, again))  # B
    Y, O = (scores(model, X[None], f)[0].double() for X in (x, xM))  # B
    parts = torch.stack(
        [
            torch.where(flat, 0.0, (rho + 1) / 2),
            1 - M.double().mean(dim=(1, 2)),
            1 - drop(Y, O),
        ]
    ).clamp(0, 1)  # 3 B
    coherency, simplicity, kept = parts
    zero = (parts == 0).any(dim=0)  # B
    return Result(
        values=torch.where(zero, 0.0, 3 / (1 / parts.masked_fill(zero, 1)).sum(dim=0)),
        columns={"coherency": coherency, "complexity": 1 - simplicity, "drop": 1 - kept},
    )
