"""IROF: a Low Resource Evaluation Metric for Explanation Methods (iterative removal of features).

Rieger, Hansen. 2020. arXiv:2003.08747

The image is cut into superpixels S_1 .. S_L. One after the other is replaced by the mean colour, in the order of their
mean attribution, highest first:

    x^l   =  x with the first l segments filled            x^0 = x
    IROF  =  1 - 1/L  sum_l=0..L-1  ( p(x^l) + p(x^(l+1)) ) / 2 p(x^0)      the area over the curve, per segment

S       SLIC superpixels                                   segment
p       softmax probability of the class                   p
L       number of segments of an image                     L; `segments` at most

Differs from the paper: the mean colour is the data set's, 0 of a normalised image; fill="image mean" takes the image's.
Differs from other code: Quantus 0.6 sums over segments without dividing by L, so its values grow with the segmentation,
leaves p(x^0) out of the area, fills with the image's mean, asks SLIC for 100 segments, and fails on three channels.
Good to know: the area is 0 if nothing changes, near 1 if the first segment removes the class, negative if its
probability grows. Superpixels are those of the normalised image, which SLIC scales to [0, 1]. If SLIC returns more than
requested, fewer are requested. An image whose class has probability 0 gives no number.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from skimage.segmentation import slic
from torch import Tensor, nn

from methods._cost import Formula
from methods._torch import probability
from sanity_checks._registry import Result, check
from sanity_checks._torch import path, pixels, ranks
from sanity_checks.insertion_deletion import substrate


@check(
    title="IROF",
    cite="rieger2020irof",
    kind="faithfulness",
    protocol=(
        "Superpixels are replaced by the mean colour, highest mean attribution first; "
        "the number is the area over the curve of the class probability, relative to the image's."
    ),
    higher_is_better=True,
    forward=Formula("segments + 1", lambda s: s.segments + 1),
    runs=0,
    verified=("closed form", "literal"),
    quick={"segments": 50},
)
def irof(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Int[Tensor, " B"],
    maps: Float[Tensor, "B K h w"],
    *,
    segments: int = 300,
    fill: str = "mean",
    chunk: int = 8,
) -> Result:
    """How fast the probability falls as marked segments are replaced by the mean colour: the area over the curve.

    Of p(x^l) / p(x^0); NaN where p(x^0) is 0.

    Args:
        model: classifier.
        x: normalised images.
        target: classes.
        maps: the maps to evaluate.
        segments: superpixels per image, at most.
        fill: value of removed segments, a key of SUBSTRATES in insertion_deletion.
        chunk: images per forward pass.

    Raises:
        ValueError: segments below 1, or an unknown fill.
    """
    if segments < 1:
        raise ValueError(f"segments: at least one superpixel, got {segments}")
    x = x.detach()
    segment = superpixels(x, segments)  # B H W
    L = segment.amax(dim=(1, 2)) + 1  # B
    S = segment.flatten(1)  # B HW
    zero = torch.zeros(len(x), segments, device=x.device, dtype=torch.float64)
    total = zero.scatter_add(1, S, pixels(maps, x).flatten(1).double())  # B segments
    mean = total / zero.scatter_add(1, S, torch.ones_like(S, dtype=zero.dtype))  # NaN: no such segment
    order = ranks(mean.nan_to_num(-torch.inf))  # B segments
    rank = order.gather(1, S).view_as(segment)  # B H W
    l = torch.arange(segments + 1, device=x.device)
    p = path(model, x, substrate(x, fill, "fill"), rank, l, probability(target), chunk).T  # B segments+1
    curve = p / torch.where(p[:, :1] > 0, p[:, :1], torch.nan)  # flat from l = L on
    area = ((curve[:, 1:] + curve[:, :-1]) / 2).where(l[1:] <= L[:, None], 0).sum(dim=1) / L  # B
    return Result(values=1 - area, columns={"segments": L.to(p.dtype)}, curves={"p": curve}, at=tuple(map(float, l)))


def superpixels(x: Float[Tensor, "B C H W"], segments: int) -> Int[Tensor, "B H W"]:
    """Labels 0, 1, ... of SLIC superpixels, `segments` of them at most."""
    return torch.stack([torch.from_numpy(_slic(image, segments)) for image in x.detach().double().cpu()]).to(x.device)


def _slic(image: Float[Tensor, "C H W"], segments: int) -> Int[np.ndarray, "H W"]:
    wanted, found = segments, segments + 1
    labels = np.zeros(image.shape[1:], dtype=np.int64)
    while found > segments:
        labels = np.unique(slic(image.permute(1, 2, 0).numpy(), wanted, start_label=0), return_inverse=True)[1]
        found = int(labels.max()) + 1
        wanted = max(1, wanted * segments // (found + 1))
    return labels.reshape(image.shape[1:]).astype(np.int64)
