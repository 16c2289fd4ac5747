"""ROC-AUC of a map as a pixel classifier.

Fawcett: An introduction to ROC analysis. Pattern Recognition Letters 27, 2006. doi:10.1016/j.patrec.2005.10.010
For attribution maps against segmentation masks: Kapishnikov, Bolukbasi, Viegas, Terry. ICCV 2019. arXiv:1906.02825

    TPR(t)  =  | A > t and GT | / |GT|,    FPR(t)  =  | A > t and not GT | / |not GT|
    AUC     =  int TPR dFPR  =  P( A_u > A_v )  +  P( A_u = A_v ) / 2,    u from GT, v not

A       map                                        a
GT      pixels of the object                       mask
u, v    pixels drawn at random                     all pairs, through their ranks

Differs from the paper: none known.
Differs from other code: none; it is scikit-learn's, image by image. Quantus' AUC is the same on maps of one channel.
Good to know: chance is 0.5, whatever the size of the object, and a constant map scores exactly that. All pixels of the
background have the same weight, so for a small object 0.95 can still be a poor mask: see `average_precision`.
"""

import torch
from jaxtyping import Bool, Float
from sklearn.metrics import roc_auc_score
from torch import Tensor

from sanity_checks._registry import Result, check
from sanity_checks._torch import pixels


@check(
    title="ROC-AUC of pixels",
    cite="fawcett2006introduction",
    kind="localization",
    protocol="The probability that a pixel of the object is higher than one of the background; chance is 0.5.",
    higher_is_better=True,
    forward=0,
    runs=0,
    verified=("quantus", "literal"),
)
def roc_auc(maps: Float[Tensor, "B K h w"], mask: Bool[Tensor, "B H W"]) -> Result:
    """Whether object pixels have larger values than background: the area under the ROC curve.

    NaN without an object or without background.

    Args:
        maps: the maps to evaluate.
        mask: where the object is.
    """
    a = pixels(maps, mask).flatten(1).double()  # B n
    both = [m.any() and not m.all() for m in mask]  # B
    found = [
        float(roc_auc_score(m.flatten().cpu(), row.cpu())) if ok else torch.nan
        for row, m, ok in zip(a, mask, both, strict=True)
    ]
    return Result(values=a.new_tensor(found))
