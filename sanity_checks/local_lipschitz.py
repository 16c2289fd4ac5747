"""On the Robustness of Interpretability Methods: the local Lipschitz estimate.

Alvarez-Melis, Jaakkola. ICML Workshop 2018. arXiv:1806.08049

    L( x )  =  max_{x' in N(x)}  || f_expl( x ) - f_expl( x' ) ||_2  /  || x - x' ||_2        (eq. 2)

f_expl  the method, for the same class                  of; f_expl(x) is `maps`
N(x)    a neighbourhood of x                            x + delta, the neighbours of max_sensitivity
||.||   Euclidean norm of all numbers                   norm

Differs from the paper: it searches the maximum by Bayesian optimisation; here it is the largest of `samples` draws, as
in all code, so a lower bound. Maps are in their own units, as the paper has them.
Differs from other code: Quantus 0.6 adds normal noise of standard deviation 0.1 and draws 200; with the same neighbours
the two agree.
Good to know: it has the units of the map: a map times 2 has twice the estimate, so compare methods by `relative`, which
divides by || f_expl(x) ||. A map that never changes has 0, the best value. Grows with the resolution of the map.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from methods._torch import Attribution, at_least_float32
from sanity_checks._registry import Result, check
from sanity_checks._torch import check_maps
from sanity_checks.max_sensitivity import neighbours, norm


@check(
    title="Local Lipschitz estimate",
    cite="alvarezmelis2018robustness",
    kind="robustness",
    protocol=(
        "Noise is added to the image and the map is made again; the number is the largest change of the map over the "
        "change of the image."
    ),
    higher_is_better=False,
    forward=0,
    runs="samples",
    verified=("quantus", "closed form"),
    quick={"samples": 5},
)
def local_lipschitz(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Int[Tensor, " B"],
    maps: Float[Tensor, "B K h w"],
    of: Attribution,
    *,
    radius: float = 0.1,
    samples: int = 200,
    seed: int = 0,
    chunk: int = 8,
) -> Result:
    """How much the map changes, at most, for each unit of change of the image nearby.

    Args:
        model: classifier.
        x: normalised images.
        target: classes.
        maps: the maps to evaluate, which `of` gives for x.
        of: the method.
        radius: of the neighbourhood, uniform noise in units of each image's max - min.
        samples: neighbours of each image.
        seed: of the neighbours.
        chunk: images per call of the method.

    Returns:
        Column `relative`: divided by the norm of the map; NaN for a map of zeros.

    Raises:
        ValueError: samples is below 1, the radius is not positive, or the method's maps have another shape than `maps`.
    """
    check_maps(maps, x)
    x, e = x.detach(), at_least_float32(maps.detach())  # B C H W, B K h w
    ratios = []
    for delta, _, moved in neighbours(model, x, target, e, of, radius, samples, seed, chunk):
        size = norm(delta)  # k B; 0 for an image of one colour, whose neighbours are itself
        ratios.append(norm(moved - e) / torch.where(size == 0, 1.0, size))
    L, scale = torch.cat(ratios).amax(dim=0), norm(e)  # B
    return Result(values=L, columns={"relative": torch.where(scale == 0, torch.nan, L / scale)})
