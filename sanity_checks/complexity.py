"""Evaluating and Aggregating Feature-based Model Explanations: complexity.

Bhatt, Weller, Moura. IJCAI 2020. arXiv:2005.00631

    P(i)  =  |g_i| / sum_j |g_j|
    mu_C  =  - sum_i  P(i) ln P(i)                                                       (entropy, in nats)

g_i     the map at pixel i                              g
P       fractional contribution of the pixel            P

Differs from the paper: a pixel is one number, the map's sum over channels. A zero map has no P: it counts as constant.
Differs from other code: Quantus adds 1e-12 inside the logarithm and is NaN for a zero map. scipy.stats.entropy agrees.
Good to know: ln n for a constant map of n pixels, 0 for a single pixel. It does not change with the scale of the map.
It is taken at the resolution of the map, and doubling the sides adds 2 ln 2. The column `relative` divides by ln n, but
enlarging a map still changes it. The model is not used: a blank map with one wrong pixel scores best.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from methods._torch import ratio
from sanity_checks._registry import Result, check
from sanity_checks._torch import pixels


@check(
    title="Complexity",
    cite="bhatt2020evaluating",
    kind="complexity",
    protocol="The number is the entropy, in nats, of the map's absolute values taken as shares of their sum.",
    higher_is_better=False,
    forward=0,
    runs=0,
    verified=("quantus", "literal", "closed form"),
)
def complexity(maps: Float[Tensor, "B K h w"]) -> Result:
    """On how many pixels the map is spread: the entropy of |map|.

    It is 0 for one pixel and ln n for n equal ones.

    Args:
        maps: the maps to evaluate.

    Raises:
        ValueError: maps are not B K h w, or not finite.
    """
    g = pixels(maps, maps).abs().double().flatten(1)  # B n
    n = g.shape[1]
    total = g.sum(dim=1, keepdim=True)  # B 1
    P = torch.where(total == 0, 1 / n, ratio(g, total))  # B n
    mu = torch.special.entr(P).sum(dim=1)  # B
    return Result(values=mu, columns={"relative": mu / max(math.log(n), 1e-12)})
