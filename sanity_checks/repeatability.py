"""Is the map the same in a second run? This is the first question of a reviewer, and the ceiling of all other checks.

Tomsett, Harborne, Chakraborty, Gurram, Preece. Sanity Checks for Saliency Metrics. AAAI 2020. arXiv:1912.01451

    q = rho( |M_1(x)|, |M_2(x)| )         M_1, M_2: two runs of the method, with different seeds where it has one

rho     Spearman's correlation                           similarity.spearman
M       the method                                       of; a functools.partial with `seed` runs with seed + 1 too

Differs from the paper: it asks how reliable metrics are over images and raters; this is test-retest on one image.
Differs from other code: none known.
Good to know: a stochastic method with too few samples repeats badly; then all its other numbers are unreliable.
"""

from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from methods._torch import Attribution
from sanity_checks._registry import Result, check
from sanity_checks._torch import explain
from sanity_checks.similarity import spearman


@check(
    title="Repeatability",
    cite="tomsett2020sanity",
    kind="robustness",
    protocol="The method runs twice, with another seed where it has one; the number is the rank correlation.",
    higher_is_better=True,
    forward=0,
    runs=2,
    verified=("closed form",),
)
@torch.no_grad()
def repeatability(model: nn.Module, x: Float[Tensor, "B C H W"], target: Int[Tensor, " B"], of: Attribution) -> Result:
    """Whether a second run gives the same map: rank correlation of the two.

    1 for equal maps, also constant ones. Column `bitwise`: 1 if they are equal.

    Args:
        model: classifier.
        x: normalised images.
        target: classes.
        of: the method.
    """
    seed = of.keywords.get("seed") if isinstance(of, partial) else None
    again = of if seed is None else partial(of, seed=seed + 1)
    a, b = (explain(f, model, x, target).abs().sum(dim=1).flatten(1) for f in (of, again))  # B hw
    equal = (a == b).all(dim=1)
    rho = torch.where(equal, 1.0, spearman(a, b).nan_to_num(0.0))  # one of two constant: nothing is repeated
    return Result(values=rho, columns={"bitwise": equal.double()})
