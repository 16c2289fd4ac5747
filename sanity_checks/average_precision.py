"""Average precision of a map as a pixel classifier.

Chefer, Gur, Wolf: Transformer Interpretability Beyond Attention Visualization. CVPR 2021. arXiv:2012.09838
(segmentation of ImageNet images by maps: mAP)

    AP  =  sum_k ( R_k - R_k-1 ) P_k,    P_k, R_k: precision and recall of the pixels with A >= t_k

A       map                                        a
t_k     its different values, highest first        all of them

Differs from the paper: its code pools two sets of scores: the map, scaled to 0 ... 1, for the object, and one minus the
map for the background. The AP of these 2 H W scores is the column `two_classes`; the number here is for the object
only.
Differs from other code: none; it is scikit-learn's, without interpolation. PxAP (Choe et al. 2020; see `wsol`) pools
the pixels of a data set, in 1000 bins. In the paper's code a constant map, scaled, is 0 under both classes; here one of
them is 1.
Good to know: chance is the `area` column: a constant map scores exactly that, noise a little more on few pixels. The
two-class number is high for small objects with any map, since most pixels are background.
"""

import torch
from jaxtyping import Bool, Float
from sklearn.metrics import average_precision_score
from torch import Tensor

from methods._torch import minmax
from sanity_checks._registry import Result, check
from sanity_checks._torch import pixels


@check(
    title="Average precision of pixels",
    cite="chefer2021transformer",
    kind="localization",
    protocol=(
        "The precision of the highest pixels, averaged over the recall of the object; "
        "chance is the object's share of the image."
    ),
    higher_is_better=True,
    forward=0,
    runs=0,
    verified=("literal",),
)
def average_precision(maps: Float[Tensor, "B K h w"], mask: Bool[Tensor, "B H W"]) -> Result:
    """Whether the map ranks the object's pixels above all others: average precision.

    NaN without an object.

    Args:
        maps: the maps to evaluate.
        mask: where the object is.
    """
    a = pixels(maps, mask).double()  # B H W
    both = torch.stack([1 - minmax(a), minmax(a)], dim=1)  # B 2 H W
    values = {
        "": ap(a, mask),
        "two_classes": ap(both, torch.stack([~mask, mask], dim=1)),
        "area": mask.double().mean(dim=(1, 2)),
    }
    values = {name: v.masked_fill(~mask.flatten(1).any(dim=1), torch.nan) for name, v in values.items()}
    return Result(values=values.pop(""), columns=values)


def ap(score: Float[Tensor, "B *n"], label: Bool[Tensor, "B *n"]) -> Float[Tensor, " B"]:
    """Average precision of each image's scores; NaN where no label is true."""
    found = [
        float(average_precision_score(y.flatten().cpu(), s.flatten().cpu())) if y.any() else torch.nan
        for s, y in zip(score, label, strict=True)
    ]
    return score.new_tensor(found)
