"""Axiomatic Attribution for Deep Networks: implementation invariance.

Sundararajan, Taly, Yan. ICML 2017. arXiv:1703.01365

    f_2( x ) = f_1( x )  for every x     implies     M(f_2, x) = M(f_1, x)               (section 2.2)
    q  =  min over f_2 of  rho( M(f_1, x), M(f_2, x) )          1: invariant

M       the method                                       of
f_2     the same function with other weights             _same_function.twins
rho     Spearman's correlation, at the maps' own size    spearman, of the map summed over its channels

Two networks are functionally equivalent if their outputs are equal for all inputs. The twins: convolutions scaled by 2
or 1/2 before a batch norm that takes it back; hidden channels in another order; each weight times 1 + 1e-6 or 1 - 1e-6
(this one is the same function only up to rounding, but it exists for every network). The first two are compared with
the network in float64 on noise before they are used.

Differs from the paper: it states the axiom and proves it for its method; here it is measured.
Differs from other code: none known.
Good to know: a map that was made from the weights themselves, for example noise seeded by them, fails. Most methods
pass with 1 up to rounding. Rules that look at layers one by one (LRP, DeepLIFT) can fail honestly: the axiom is not
theirs. Stochastic methods need a fixed seed.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from methods._torch import Attribution
from sanity_checks._registry import Result, check
from sanity_checks._same_function import twins
from sanity_checks._torch import explain
from sanity_checks.similarity import spearman

TWINS = ("rescaled", "permuted", "nudged")


@check(
    title="Implementation invariance",
    cite="sundararajan2017axiomatic",
    kind="axiom",
    protocol=(
        "The weights are changed so that the network computes the same (channels permuted, layers scaled, weights "
        "times 1 + 1e-6); the number is the lowest rank correlation of the maps before and after."
    ),
    higher_is_better=True,
    forward=0,
    runs=4,
    verified=("closed form",),
)
@torch.no_grad()
def implementation_invariance(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Int[Tensor, " B"],
    of: Attribution,
    *,
    seed: int = 0,
) -> Result:
    """Whether the map stays the same when the network computes the same with other weights: rank correlation.

    The lowest of the twins; each twin is a column, NaN where the architecture has no place for it. 1 for equal maps,
    also constant ones; 0 where only one of the two is constant.

    Args:
        model: classifier.
        x: normalised images.
        target: classes.
        of: the method; it runs with the same seed every time.
        seed: of the twins.
    """
    a = explain(of, model, x, target).sum(dim=1).flatten(1)  # B hw
    columns = {name: torch.full((len(x),), torch.nan, dtype=torch.float64, device=x.device) for name in TWINS}
    for name, twin in twins(model, x, seed):
        b = explain(of, twin, x, target).sum(dim=1).flatten(1)  # B hw
        columns[name] = torch.where((a == b).all(dim=1), 1.0, spearman(a, b).nan_to_num(0.0)).double()
    values = torch.stack([v.nan_to_num(1.0) for v in columns.values()]).amin(dim=0)
    return Result(values=values, columns=columns)
