"""Axiomatic Attribution for Deep Networks: completeness.

Sundararajan, Taly, Yan. ICML 2017. arXiv:1703.01365

    sum_i A_i  =  f(x) - f(x')                                                           (the axiom)
    value      =  | sum_i A_i  -  ( f(x) - f(x') ) |  /  | f(x) - f(x') |

f       score of the class (its logit)                  scores
A       the map, all channels and positions             A
x'      baseline                                        x_

Differs from the paper: the axiom is an equation; here the number is the distance from it. The paper accepts a sum
within 5 %, and takes more steps until it is reached.
Differs from other code: Quantus' Completeness requires equality of floating-point numbers, which exact maps fail.
captum's convergence delta is the gap with its sign, for its own maps.
Good to know: pass the baseline that the method used. 0.05 is within 5 %. The sum is over the map as the method returns
it; an enlarged map has another sum. For a map that does not claim completeness the number has no meaning, since its
unit differs; a zero map has 1. NaN where f(x) = f(x'), since there is nothing to distribute; `gap` is still a number.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from methods._torch import scores
from methods.integrated_gradients import start
from sanity_checks._registry import Result, check
from sanity_checks._torch import check_maps


@check(
    title="Completeness",
    cite="sundararajan2017axiomatic",
    kind="axiom",
    protocol=(
        "The map's sum is compared with the logit of the image minus that of the baseline; "
        "the number is the difference, relative to the latter."
    ),
    higher_is_better=False,
    forward=2,
    runs=0,
    verified=("captum", "closed form"),
)
def completeness(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Int[Tensor, " B"],
    maps: Float[Tensor, "B K h w"],
    *,
    baseline: float | Float[Tensor, "..."] = 0.0,
) -> Result:
    """Whether the map sums to the change of the score that it explains: the gap, as a share of that change.

    The absolute gap is a column.

    Args:
        model: classifier.
        x: normalised images.
        target: classes.
        maps: the maps to evaluate.
        baseline: x', a number or a tensor that broadcasts to x; 0 is the mean colour.

    Raises:
        ValueError: a baseline of another shape.
    """
    x = x.detach()
    check_maps(maps, x)
    x_ = start(x, torch.as_tensor(baseline, dtype=x.dtype))  # B C H W
    A = maps.detach().double().sum(dim=(1, 2, 3))  # B
    f, f_ = (scores(model, X[None], target)[0].double() for X in (x, x_))  # B
    gap = (A - (f - f_)).abs()  # B
    return Result(
        values=torch.where(f == f_, torch.nan, gap / (f - f_).abs()),
        columns={"gap": gap},
    )
