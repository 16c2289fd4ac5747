"""Top-down Neural Attention by Excitation Backprop.

Zhang, Bargal, Lin, Brandt, Shen, Sclaroff. IJCV 2018 (ECCV 2016). arXiv:1608.00507

    hit       =  1[ min_{v in GT} |u* - v| < margin ],    u* = argmax_u A_u
    accuracy  =  mean over classes of  Hits / (Hits + Misses)

A      map                                      a
GT     pixels of the object                     mask
u*     the highest pixel                        peak
margin 15 pixels of the image                   margin

Differs from the paper: the number is a hit per image; `accuracy` computes the paper's number from the hits of a data
set. If several pixels are highest (a CAM whose peak is at the border; a map of zeros), the number is the share of them
that hit, which is the mean of a random choice. The `chance` column is the share of all pixels that would hit; a
constant map scores exactly that. The margin is in pixels of `mask`: use the original size of the image, as in the
paper. The paper also omits objects that PASCAL VOC marks as difficult.
Differs from other code: the rule is that of TorchRay: a distance strictly below the margin. TorchRay takes one highest
pixel, and with margin=0 nothing hits; here the pixels of the object still count. Quantus has no margin, counts a hit if
any of several highest pixels is on the object, and a hit on an empty mask.
Good to know: at 32 x 32 pixels use margin=0: chance is high for large objects and small images. The centre of the image
hits 69.6 % in VOC07 (TorchRay's table).
"""

import torch
from jaxtyping import Bool, Float, Int
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from sanity_checks._registry import Result, check
from sanity_checks._torch import pixels


@check(
    title="Pointing game",
    cite="zhang2018topdown",
    kind="localization",
    protocol="Whether the highest pixel of the map lies on the object, or less than 15 pixels away; 1 is a hit.",
    higher_is_better=True,
    forward=0,
    runs=0,
    verified=("literal",),
)
def pointing_game(maps: Float[Tensor, "B K h w"], mask: Bool[Tensor, "B H W"], *, margin: float = 15.0) -> Result:
    """Whether the largest value of the map lies on the object.

    1 or 0; NaN without an object.

    Args:
        maps: the maps to evaluate.
        mask: where the object is.
        margin: pixels; a hit is nearer than this.

    Raises:
        ValueError: the margin is negative.
    """
    if margin < 0:
        raise ValueError(f"margin: must be 0 pixels or more, got {margin}")
    a = pixels(maps, mask)  # B H W
    peak = a == a.amax(dim=(1, 2), keepdim=True)  # B H W
    near = torch.stack([_near(m, margin) for m in mask])  # B H W
    hit = (peak & near).sum(dim=(1, 2)) / peak.sum(dim=(1, 2))  # B
    missing = ~mask.flatten(1).any(dim=1)
    return Result(
        values=hit.masked_fill(missing, torch.nan),
        columns={"chance": near.float().mean(dim=(1, 2)).masked_fill(missing, torch.nan)},
    )


def accuracy(hits: Float[Tensor, " B"], target: Int[Tensor, " B"]) -> float:
    """The paper's number for a data set: the mean over classes of the hit rate of each class; NaN hits do not count."""
    there = ~hits.isnan()
    rates = [hits[there & (target == c)].mean() for c in target[there].unique()]
    return float(torch.stack(rates).mean()) if rates else float("nan")


def _near(m: Bool[Tensor, "H W"], margin: float) -> Bool[Tensor, "H W"]:
    if not m.any():
        return m
    distance = torch.from_numpy(distance_transform_edt(~m.cpu().numpy())).to(m.device)  # to the nearest object pixel
    return m | (distance < margin)
