"""Sanity Checks for Saliency Maps: maps against edges of the image.

Adebayo, Gilmer, Muelly, Goodfellow, Hardt, Kim. NeurIPS 2018. arXiv:1810.03292

    s  =  max over controls c of  | rho( |M(x)|, |c(x)| ) |        c: uses no network    (section 5.2, figure 1)

M       the method's map                                 maps
c       edges, local variance, |x|, a centred Gaussian   _controls.IMAGE_ONLY
rho     Spearman's correlation, at the image's size      similarity.py

Differs from the paper: it shows an edge detector beside the maps and calls them similar by eye; here the similarity is
measured, and with three controls more.
Differs from other code: none known.
Good to know: evidence may well lie on edges, or in the middle of a photograph: a large number is a warning, no verdict.
The number of a method says something beside that of another method on the same images.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sanity_checks._controls import CONTROLS, IMAGE_ONLY
from sanity_checks._registry import Result, check
from sanity_checks._torch import pixels
from sanity_checks.similarity import spearman


@check(
    title="Similarity to controls",
    cite="adebayo2018sanity",
    kind="randomization",
    protocol=(
        "The map is compared with four maps that use no network (edges, local variance, the image, a centred "
        "Gaussian); the number is the largest rank correlation, by size."
    ),
    higher_is_better=False,
    forward=0,
    runs=0,
    verified=("closed form",),
)
def control_similarity(x: Float[Tensor, "B C H W"], maps: Float[Tensor, "B K h w"]) -> Result:
    """Whether the map looks like one that uses no network: the largest size of its rank correlation with four of them.

    0 for a constant map.

    Args:
        x: normalised images.
        maps: the maps to evaluate.

    Returns:
        Columns: the signed correlation with each control.
    """
    a, rho = pixels(maps.abs(), x).flatten(1), {}  # B HW
    for name in IMAGE_ONLY:
        c = CONTROLS[name][1](0)(nn.Identity(), x, torch.zeros(len(x), dtype=torch.int64))
        rho[name] = spearman(a, pixels(c.abs(), x).flatten(1)).nan_to_num(0.0).double()
    return Result(values=torch.stack([v.abs() for v in rho.values()]).amax(dim=0), columns=rho)
