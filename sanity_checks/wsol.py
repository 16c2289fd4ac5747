"""Evaluating Weakly Supervised Object Localization Methods Right.

Choe, Oh, Lee, Chun, Akata, Shim. CVPR 2020. arXiv:2001.07437 (V2: TPAMI 2022, arXiv:2007.04178)

    BoxAcc(tau, delta)  =  1/N sum_n  1[ IoU( box(s(X_n), tau), B_n ) >= delta ]
    MaxBoxAcc           =  max_tau BoxAcc(tau, 0.5)                            box: of the largest contour
    MaxBoxAccV2         =  mean over delta = 0.3, 0.5, 0.7 of max_tau BoxAcc   box: the best of all contours
    PxAP                =  sum_l PxPrec(tau_l) ( PxRec(tau_l) - PxRec(tau_l-1) )    pixels of all images pooled

s(X)   map, 224 x 224, scaled to 0 ... 1           s
tau    thresholds 0, 0.001, ...                    tau
delta  overlap that counts                         DELTAS
B      boxes of the object                         B

A data set has a best tau; an image has none. So the number is the mean over delta of the hits of an image by V2 at one
`threshold`; `max_box_acc` and `px_ap` compute the paper's numbers from the curves of any set of images.
Differs from the paper: the threshold of 0.2 is that of Zhou et al. (2016). Without `boxes`, B is one box around the
mask. Maps are resized bilinearly, in the authors' code bicubically. Its PxAP omits pixels that are marked "ignore".
Differs from other code: none otherwise. As in the authors' code, the map is truncated to uint8; a pixel counts above
int(tau * max); a box is one pixel too long to the right and down (not at the border), while overlaps count both ends; a
constant map has the box of pixel 0, 0; V2 also tries the contours of holes; and the largest contour is the polygon with
the largest area. Contours come from scipy's components, not from OpenCV: see `_boxes`.
Good to know: a Gaussian in the middle has a MaxBoxAccV2 of 52.5 on ImageNet, CAM of a ResNet-50 63.7: show both.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from methods._torch import minmax, ratio
from sanity_checks._boxes import around, box_iou, boxes_above
from sanity_checks._registry import Result, check
from sanity_checks._torch import pixels

DELTAS = (0.3, 0.5, 0.7)


@check(
    title="Weakly supervised object localization",
    cite="choe2020evaluating",
    kind="localization",
    protocol="Whether a box around a region above the threshold fits the object: mean hits at IoU 0.3, 0.5 and 0.7.",
    higher_is_better=True,
    forward=0,
    runs=0,
    verified=("literal",),
    quick={"interval": 0.02, "size": 64},
)
def wsol(
    maps: Float[Tensor, "B K h w"],
    mask: Bool[Tensor, "B H W"],
    *,
    threshold: float = 0.2,
    interval: float = 0.001,
    size: int = 224,
    boxes: Sequence[Tensor] | None = None,
) -> Result:
    """How well boxes drawn around the map find the object, at one threshold and at the best.

    Hits, with the curves of MaxBoxAcc, MaxBoxAccV2 and PxAP; NaN without an object.

    Args:
        maps: the maps to evaluate.
        mask: where the object is.
        threshold: tau of `values`.
        interval: step between the thresholds of the curves.
        size: side in pixels to which maps and masks are resized.
        boxes: true boxes of each image, m 4, as x0 y0 x1 y1 in pixels of the mask; None: one around the mask.

    Raises:
        ValueError: threshold or interval outside 0 to 1, size below 2, or not one set of boxes per image.
    """
    if not (0 <= threshold < 1 and 0 < interval < 1 and size > 1):
        raise ValueError(f"threshold, interval, size: below 1, above 0, 2 or more; got {threshold}, {interval}, {size}")
    if boxes is not None and len(boxes) != len(mask):
        raise ValueError(f"boxes: one set for each of {len(mask)} images, got {len(boxes)}")
    s = minmax(pixels(maps, torch.zeros(len(mask), size, size, device=mask.device)).double())  # B size size
    T = F.interpolate(mask[:, None].float(), (size, size))[:, 0] > 0.5  # B size size   nearest
    scale = size / np.array([mask.shape[2], mask.shape[1]] * 2)  # 4
    tau = np.array([*np.arange(0, 1, interval), 1.0])  # n
    overlaps, above = [], []
    for i, (s_i, T_i) in enumerate(zip(s.cpu().numpy(), T.cpu().numpy(), strict=True)):
        B = around(mask[i].cpu().numpy()) if boxes is None else boxes[i].cpu().numpy()
        overlaps.append(fit(s_i, np.array([*tau, threshold]), np.floor(B * scale)))
        above.append([(len(v) - np.searchsorted(np.sort(v), tau)) / T_i.size for v in (s_i[T_i], s_i[~T_i])])
    iou = torch.from_numpy(np.stack(overlaps)).to(s)  # B 2 n+1
    positives = torch.from_numpy(np.array(above)).to(s)  # B 2 n
    curves = {
        "iou_largest": iou[:, 0, :-1],
        "iou_any": iou[:, 1, :-1],
        "true_positives": positives[:, 0],  # as shares of the image
        "false_positives": positives[:, 1],
    }
    largest, best = iou[:, :, -1].T  # B, B
    hits = torch.stack([best >= delta for delta in DELTAS]).double().mean(dim=0)  # B
    return Result(
        values=hits.masked_fill(best.isnan(), torch.nan),
        columns={"largest": (largest >= 0.5).double().masked_fill(best.isnan(), torch.nan), "iou": best},
        curves=curves,
        at=tuple(tau.tolist()),
        facts=max_box_acc(curves) | {"PxAP": px_ap(curves)},
    )


def max_box_acc(*curves: Mapping[str, Float[Tensor, "_ n"]]) -> dict[str, float]:
    """MaxBoxAcc and MaxBoxAccV2, 0 to 1, over all images of the curves of one or several runs."""
    largest, best = (torch.cat([c[name][:, :-1] for c in curves]) for name in ("iou_largest", "iou_any"))  # N n-1
    there = ~best.isnan().any(dim=1)
    hits = [largest[there] >= 0.5, *(best[there] >= delta for delta in DELTAS)]
    v1, *v2 = (float(hit.double().mean(dim=0).max()) for hit in hits)
    return {"MaxBoxAcc": v1, "MaxBoxAccV2": sum(v2) / len(v2)}


def px_ap(*curves: Mapping[str, Float[Tensor, "_ n"]]) -> float:
    """PxAP, 0 to 1, over all images of the curves of one or several runs."""
    tp, fp = (torch.cat([c[f"{t}_positives"] for c in curves]).sum(dim=0).flip(0) for t in ("true", "false"))  # n
    precision, recall = ratio(tp, tp + fp), tp / tp[-1]  # highest threshold first
    return float((precision * recall.diff(prepend=recall.new_zeros(1))).sum())


def fit(s: Float[np.ndarray, "H W"], tau: Float[np.ndarray, " n"], B: Float[np.ndarray, "m 4"]) -> np.ndarray:
    """IoU with the best of B at each threshold, 2 n: of the largest contour's box, and of the best of all boxes."""
    if not len(B):
        return np.full((2, len(tau)), np.nan)
    image = (s * 255).astype(np.uint8)
    levels, where = np.unique((tau * image.max()).astype(int), return_inverse=True)
    found = []
    for level in levels:
        rectangles, largest = boxes_above(image, int(level))
        iou = box_iou(rectangles, B).max(axis=1)
        found.append((iou[largest], iou.max()))
    return np.array(found)[where].T
