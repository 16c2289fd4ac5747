"""Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks.

Wang, Wang, Du, Yang, Zhang, Ding, Mardziel, Hu. CVPR Workshop 2020. arXiv:1910.01279

    Proportion  =  sum_{(i, j) in bbox} L_ij  /  ( sum_{(i, j) in bbox} L_ij  +  sum_{(i, j) not in bbox} L_ij )

    mu_w        =  Proportion / ( |bbox| / |image| )

L       map, its positive part                     a
bbox    the object                                 mask
mu_w    the same, divided by what a constant map gets: area-normalised mass
        (Kohlbrenner et al. IJCNN 2020. arXiv:1910.09840)

Differs from the paper: any mask, not only a box. The paper omits images with several boxes or with an object that
covers half of the image or more; here every image counts, and the `area` column has the size. A map without a positive
value scores 0.
Differs from other code: where a map is signed, Quantus' RelevanceMassAccuracy divides by a sum in which positive and
negative parts cancel, and leaves 0 to 1. For mu_w Quantus' weighted AttributionLocalisation multiplies by the area
where the paper divides, and its number depends on the batch.
Good to know: chance is the `area` column: what a constant map gets, and noise on average. The positive part is taken
of the resized channel sum, so opposite signs in two channels cancel first; `relevance_mass` has other poolings.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from methods._torch import ratio
from sanity_checks._registry import Result, check
from sanity_checks._torch import pixels


@check(
    title="Energy-based pointing game",
    cite="wang2020scorecam",
    kind="localization",
    protocol="The share of the map's positive part that lies on the object; chance is the object's share of the image.",
    higher_is_better=True,
    forward=0,
    runs=0,
    verified=("quantus", "literal"),
)
def energy_pointing_game(maps: Float[Tensor, "B K h w"], mask: Bool[Tensor, "B H W"]) -> Result:
    """How much of the positive map lies on the object.

    NaN without an object.

    Args:
        maps: the maps to evaluate.
        mask: where the object is.
    """
    return mass(pixels(maps, mask), mask)


def mass(a: Float[Tensor, "B H W"], mask: Bool[Tensor, "B H W"]) -> Result:
    """The share of the positive part of `a` inside the mask, with its columns; NaN where a mask is empty."""
    a = a.clamp(min=0).double()  # B H W
    a = ratio(a, a.amax(dim=(1, 2), keepdim=True))  # sums neither overflow nor vanish
    proportion = ratio((a * mask).sum(dim=(1, 2)), a.sum(dim=(1, 2)))  # B
    area = mask.double().mean(dim=(1, 2))  # B
    missing = area == 0
    return Result(
        values=proportion.masked_fill(missing, torch.nan),
        columns={
            "mu_w": ratio(proportion, area).masked_fill(missing, torch.nan),
            "area": area.masked_fill(missing, torch.nan),
        },
    )
