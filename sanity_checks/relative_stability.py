"""Rethinking Stability for Attribution-based Explanations: relative input and output stability, RIS and ROS.

Agarwal, Johnson, Pawelczyk, Krishna, Saxena, Zitnik, Lakkaraju. ICLR Workshop 2022. arXiv:2203.06877

    RIS  =  max_x'  || ( e_x - e_x' ) / e_x ||  /  max( || ( x - x' ) / x ||, eps )
    ROS  =  max_x'  || ( e_x - e_x' ) / e_x ||  /  max( || h(x) - h(x') ||, eps )

x'      neighbours of x with the same predicted class       x + delta, the neighbours of max_sensitivity
e_x     the map, for the same class                         e
h       logits                                              h
||.||   Euclidean norm of all numbers; the division is element by element, where e_x or x is 0 by eps

Differs from the paper: ROS divides by the change of the logits, as in the paper; its third measure, of a hidden layer
(RRS), is left out, since it depends on which layer is chosen. Neighbours are uniform noise in the L_inf ball.
Differs from other code: Quantus 0.6 returns NaN for an image as soon as one neighbour has another predicted class; here
such neighbours are left out, and the image has no number only if none is left. With the same neighbours the two agree.
Good to know: the division by each number of the map makes the value large where a map has numbers near 0, whatever the
rest does. Values range over many orders of magnitude: compare medians or logarithms of methods on the same images.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from methods._calls import logits
from methods._cost import Formula
from methods._torch import Attribution, at_least_float32
from sanity_checks._registry import Result, check
from sanity_checks._torch import check_maps
from sanity_checks.max_sensitivity import neighbours, norm


@check(
    title="Relative stability",
    cite="agarwal2022rethinking",
    kind="robustness",
    protocol=(
        "Noise is added to the image where it does not change the predicted class, and the map is made again; the "
        "number is the largest relative change of the map over the relative change of the image."
    ),
    higher_is_better=False,
    forward=Formula("samples + 1", lambda s: s.samples + 1),
    runs="samples",
    verified=("quantus", "closed form"),
    quick={"samples": 5},
)
def relative_stability(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Int[Tensor, " B"],
    maps: Float[Tensor, "B K h w"],
    of: Attribution,
    *,
    radius: float = 0.05,
    samples: int = 50,
    eps: float = 1e-6,
    seed: int = 0,
    chunk: int = 8,
) -> Result:
    """How much more the map changes than the image, at most, each relative to itself: RIS.

    Column `output`: ROS, relative to the change of the logits. NaN if no neighbour has the same predicted class.

    Args:
        model: classifier.
        x: normalised images.
        target: classes.
        maps: the maps to evaluate, which `of` gives for x.
        of: the method.
        radius: of the noise, in units of each image's max - min.
        samples: neighbours of each image.
        eps: the least denominator, and what stands for a zero.
        seed: of the neighbours.
        chunk: images per call of the method.

    Raises:
        ValueError: samples is below 1, radius or eps is not positive, or the method's maps have another shape.
    """
    if eps <= 0:
        raise ValueError(f"eps: must be above 0, got {eps}")
    check_maps(maps, x)
    x, e = x.detach(), at_least_float32(maps.detach())  # B C H W, B K h w
    with torch.no_grad():
        h = logits(model, x)  # B N
    ris, ros = [], []
    for delta, X, moved in neighbours(model, x, target, e, of, radius, samples, seed, chunk):
        with torch.no_grad():
            H = logits(model, X).unflatten(0, (len(delta), len(x)))  # k B N
        change = norm((moved - e) / torch.where(e == 0, eps, e))  # k B
        same = H.argmax(dim=2) == h.argmax(dim=1)  # k B
        size = norm(delta / torch.where(x == 0, eps, at_least_float32(x))).clamp(min=eps)  # k B
        output = torch.linalg.vector_norm((H - h).double(), dim=2).clamp(min=eps)  # k B
        ris.append(torch.where(same, change / size, -torch.inf))
        ros.append(torch.where(same, change / output, -torch.inf))
    values, column = (torch.cat(v).amax(dim=0) for v in (ris, ros))  # B
    return Result(
        values=torch.where(values == -torch.inf, torch.nan, values),
        columns={"output": torch.where(column == -torch.inf, torch.nan, column)},
    )
