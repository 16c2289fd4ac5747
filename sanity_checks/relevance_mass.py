"""CLEVR-XAI: A benchmark dataset for the ground truth evaluation of neural network explanations.

Arras, Osman, Samek. Information Fusion 81, 2022. arXiv:2003.07258

    Mass Accuracy  =  sum_{p in GT} R_p  /  sum_p R_p,        R_p = pool( R_p1, ..., R_pK ) >= 0

R_pk    relevance of pixel p in channel k               maps
pool    reduces them to one number >= 0                 pooling, a key of POOLINGS
GT      pixels of the object                            mask

Differs from the paper: it shows several poolings for each method and prefers none; the default is the one that the
authors' tables list first. A map that is zero after pooling scores 0.
Differs from other code: the authors' code has the first six poolings. Quantus' RelevanceMassAccuracy does not pool: it
sums over the channels with their signs, in one ratio, which can be outside [0, 1] for a signed map. Relation to the
energy game of Score-CAM: with pooling "sum,pos" the two are the same number, and both use the same function, `mass`.
Good to know: poolings with a norm count negative relevance as relevance, squares emphasise the few highest pixels, and
with "sum,..." channels can cancel. A map of one channel has four different poolings: |a|, a^2, and both of max(a, 0).
Channels are resized bilinearly before they are pooled.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from methods._torch import ratio
from sanity_checks._registry import Result, check
from sanity_checks._torch import pixels
from sanity_checks.energy_pointing_game import mass

POOLINGS: dict[str, Callable[[Tensor], Tensor]] = {  # B K H W -> B H W
    "max-norm": lambda R: R.abs().amax(dim=1),
    "l2-norm,sq": lambda R: R.square().sum(dim=1),
    "l2-norm": lambda R: R.norm(dim=1),
    "l1-norm": lambda R: R.abs().sum(dim=1),
    "sum,abs": lambda R: R.sum(dim=1).abs(),
    "sum,pos": lambda R: R.sum(dim=1).clamp(min=0),
    "pos,sum": lambda R: R.clamp(min=0).sum(dim=1),
    "pos,max-norm": lambda R: R.clamp(min=0).amax(dim=1),
    "pos,l2-norm": lambda R: R.clamp(min=0).norm(dim=1),
    "pos,l2-norm,sq": lambda R: R.clamp(min=0).square().sum(dim=1),
}


@check(
    title="Relevance mass accuracy",
    cite="arras2022clevrxai",
    kind="localization",
    protocol=(
        "The share of the map that lies on the object, once the channels of a pixel are pooled to a number that is "
        "not negative; chance is the object's share of the image."
    ),
    higher_is_better=True,
    forward=0,
    runs=0,
    verified=("quantus", "literal"),
)
def relevance_mass(maps: Float[Tensor, "B K h w"], mask: Bool[Tensor, "B H W"], *, pooling: str = "max-norm") -> Result:
    """How much of the map, pooled over channels, lies on the object.

    NaN without an object. Columns as in `energy_pointing_game`.

    Args:
        maps: the maps to evaluate.
        mask: where the object is.
        pooling: a key of POOLINGS.

    Raises:
        ValueError: an unknown pooling.
    """
    return mass(pool(maps, mask, pooling), mask)


def pool(maps: Float[Tensor, "B K h w"], mask: Bool[Tensor, "B H W"], pooling: str) -> Float[Tensor, "B H W"]:
    """One number that is not negative per pixel: each channel resized to the mask, then pooled.

    Raises:
        ValueError: an unknown pooling.
    """
    if pooling not in POOLINGS:
        raise ValueError(f"pooling: must be one of {', '.join(map(repr, POOLINGS))}, got {pooling!r}")
    R = [pixels(maps[:, k : k + 1], mask) for k in range(maps.shape[1])]  # K times B H W
    R = torch.stack(R, dim=1).double()
    return POOLINGS[pooling](ratio(R, R.abs().amax(dim=(1, 2, 3), keepdim=True)))  # squares do not overflow
