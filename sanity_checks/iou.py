"""Intersection over union of a thresholded map with the object.

Chefer, Gur, Wolf: Transformer Interpretability Beyond Attention Visualization. CVPR 2021. arXiv:2012.09838
(segmentation of ImageNet images by maps: pixel accuracy and mIoU)

    M    =  1[ A > t ]
    IoU  =  | M and GT | / | M or GT |

A      map                                                  a
t      threshold: the mean of the map in the paper          rule, level: see localize.RULES
M      predicted object                                     M
GT     object                                               mask

Differs from the paper: one number per image. The paper's code sums intersections and unions over the data set, and
averages object and background; per image these are the columns `background_iou`, `mean_iou` and `pixel_accuracy`.
Differs from other code: none known.
Good to know: the threshold decides. To compare methods, choose the threshold of each on other images:
`iou(maps, mask, rule="range", level=best_threshold(other_maps, other_mask))`. The best threshold for the scored images
themselves gives an upper bound, not a result. The curve has the IoU at each level of "range". A mask of all pixels
scores the object's share of the image.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from methods._torch import ratio
from sanity_checks._registry import Result, check
from sanity_checks._torch import pixels
from sanity_checks.localize import masks

LEVELS = tuple(k / 100 for k in range(100))  # of the curve


@check(
    title="Intersection over union",
    cite="chefer2021transformer",
    kind="localization",
    protocol="Overlap of the object with the pixels where the map is above its mean, as a share of their union.",
    higher_is_better=True,
    forward=0,
    runs=0,
    verified=("literal",),
)
def iou(
    maps: Float[Tensor, "B K h w"], mask: Bool[Tensor, "B H W"], *, rule: str = "mean", level: float | None = None
) -> Result:
    """How well the map, cut at a threshold, covers the object: intersection over union.

    NaN without an object.

    Args:
        maps: the maps to evaluate.
        mask: where the object is.
        rule: rule for the threshold, a key of `localize.RULES`.
        level: the rule's parameter; None for its default.

    Raises:
        ValueError: an unknown rule, or a level that it does not have.
    """
    a = pixels(maps, mask)  # B H W
    M = masks(a, rule=rule, level=level)  # B H W
    object_, background = overlap(M, mask), overlap(~M, ~mask)
    columns = {
        "pixel_accuracy": (mask == M).double().mean(dim=(1, 2)),
        "background_iou": background,
        "mean_iou": (object_ + background) / 2,
    }
    missing = ~mask.flatten(1).any(dim=1)
    return Result(
        values=object_.masked_fill(missing, torch.nan),
        columns={name: column.masked_fill(missing, torch.nan) for name, column in columns.items()},
        curves={"iou": sweep(a, mask).masked_fill(missing[:, None], torch.nan)},
        at=LEVELS,
    )


def best_threshold(maps: Float[Tensor, "B K h w"], mask: Bool[Tensor, "B H W"]) -> float:
    """The level of rule "range" with the highest mean IoU over these images; use it on other images.

    Raises:
        ValueError: no image has an object.
    """
    curve = sweep(pixels(maps, mask), mask)[mask.flatten(1).any(dim=1)]
    if not len(curve):
        raise ValueError("mask: no image has an object to choose a threshold by")
    return LEVELS[int(curve.mean(dim=0).argmax())]


def sweep(a: Float[Tensor, "B H W"], mask: Bool[Tensor, "B H W"]) -> Float[Tensor, "B n"]:
    """IoU at each of LEVELS of rule "range"."""
    return torch.stack([overlap(masks(a, rule="range", level=level), mask) for level in LEVELS], dim=1)


def overlap(M: Bool[Tensor, "B H W"], mask: Bool[Tensor, "B H W"]) -> Float[Tensor, " B"]:
    """|M and mask| / |M or mask|; 1 where both are empty."""
    both, either = (m.sum(dim=(1, 2)).double() for m in (M & mask, M | mask))  # B, B
    return torch.where(either == 0, 1.0, ratio(both, either))
