"""From a map to a mask, and from a mask to boxes: the last step of weakly supervised localisation.

    M  =  1[ A > t ]

A      one number per pixel                             a
t      threshold of each image, by one of RULES         rule, level

    cam        t = level * max A; below 0 nothing   0.2: Zhou et al. CVPR 2016. arXiv:1512.04150
                                                    0.15: Selvaraju et al. ICCV 2017. arXiv:1610.02391
    range      t = min A + level * (max A - min A)  0.2 here; Choe et al., CVPR 2020, try all. arXiv:2001.07437
    mean       t = mean A                           Chefer, Gur, Wolf. CVPR 2021. arXiv:2012.09838
    otsu       t splits A into the two classes      Otsu. IEEE Trans. SMC 9, 1979; 256 bins
               with the largest variance between
    quantile   a share `level` of A lies above t    0.05: Simonyan et al. 2014. arXiv:1312.6034

A box is x0 y0 x1 y1: columns and rows of its first and of its last pixel. So a box of one pixel is x y x y, and its
sides are x1 - x0 + 1 and y1 - y0 + 1. Components are 8-connected.
Maps come from `pixels(maps, x)`: channels summed, resized bilinearly to the image.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from skimage.filters import threshold_otsu
from torch import Tensor

from sanity_checks._boxes import box_iou, components
from sanity_checks._torch import pixels

__all__ = ["RULES", "box_iou", "boxes", "masks", "pixels"]


def masks(a: Float[Tensor, "B H W"], *, rule: str = "cam", level: float | None = None) -> Bool[Tensor, "B H W"]:
    """The pixels strictly above each image's threshold.

    Args:
        a: maps, one number per pixel.
        rule: a key of RULES.
        level: the parameter of the rule; None for the value in the table above.

    Raises:
        ValueError: an unknown rule, a level outside 0 to 1 or for a rule without level, or maps that are not finite.
    """
    if rule not in RULES:
        raise ValueError(f"rule: must be one of {', '.join(RULES)}, got {rule!r}")
    default, t = RULES[rule]
    if level is not None and (default is None or not 0 <= level <= 1):
        raise ValueError(f"level: {'must be 0 to 1' if default is not None else f'{rule!r} has none'}, got {level}")
    if not a.isfinite().all():
        raise ValueError("a: must be finite, got NaN or infinity")
    return a > t(a.detach().flatten(1), (default or 0.0) if level is None else level)[:, None, None]


def boxes(
    a: Float[Tensor, "B H W"] | Bool[Tensor, "B H W"],
    level: float | None = None,
    *,
    rule: str = "cam",
    keep: str = "largest",
) -> list[Int[Tensor, "n 4"]]:
    """Bounding boxes of the components of each image, most pixels first; none if the mask is empty.

    Args:
        a: maps, or masks.
        level: see `masks`.
        rule: see `masks`.
        keep: "largest" component, or "all".

    Raises:
        ValueError: keep is neither, or see `masks`.
    """
    if keep not in ("largest", "all"):
        raise ValueError(f"keep: must be 'largest' or 'all', got {keep!r}")
    found = []
    for M in (a if a.dtype == torch.bool else masks(a, rule=rule, level=level)).cpu().numpy():
        labels, rectangles = components(M)
        order = np.argsort(-np.bincount(labels.ravel())[1:], kind="stable")
        found.append(torch.from_numpy(rectangles[order[:1] if keep == "largest" else order]).to(a.device))
    return found


def _otsu(a: Float[Tensor, "B n"], _: float) -> Float[Tensor, " B"]:
    return a.new_tensor([float(threshold_otsu(row)) for row in a.cpu().numpy()])


def _quantile(a: Float[Tensor, "B n"], level: float) -> Float[Tensor, " B"]:
    n = a.shape[1]
    return a.sort(dim=1).values[:, max(0, n - 1 - round(level * n))]  # round(level * n) pixels come after it


RULES: dict[str, tuple[float | None, Callable[[Tensor, float], Tensor]]] = {  # (level, t of maps B n)
    "cam": (0.2, lambda a, level: level * a.amax(dim=1)),
    "range": (0.2, lambda a, level: a.amin(dim=1).lerp(a.amax(dim=1), level)),
    "mean": (None, lambda a, _: a.amin(dim=1) + (a - a.amin(dim=1, keepdim=True)).mean(dim=1)),  # flat: t is exact
    "otsu": (None, _otsu),
    "quantile": (0.05, _quantile),
}
