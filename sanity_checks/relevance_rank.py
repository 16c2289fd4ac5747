"""CLEVR-XAI: A benchmark dataset for the ground truth evaluation of neural network explanations.

Arras, Osman, Samek. Information Fusion 81, 2022. arXiv:2003.07258

    P_top-K        =  { p_1, ..., p_K | R_p1 > R_p2 > ... > R_pK },    K = |GT|
    Rank Accuracy  =  | P_top-K  and  GT | / |GT|

    top-k intersection  =  | P_top-k  and  GT | / k,    k the same for every image
    (Theiner, Mueller-Budack, Ewerth. WACV 2022. arXiv:2104.14995)

R      relevance of each pixel                          a
GT     pixels of the object                             mask
K      number of pixels, highest first                  k

Differs from the paper: it pools channels to numbers >= 0 before it ranks; a `pooling` of `relevance_mass` does so too.
The default, "sum", is the signed sum over channels: above 0 it gives the order of "sum,pos", and below 0 it still gives
an order. If several pixels have the value at the K-th place, the expected number of hits counts, as for a random
choice; in the authors' code and Quantus the sort of numpy decides.
Differs from other code: otherwise none. Quantus' default k for the top-k intersection, 1000 pixels, is kept.
Good to know: chance is the `area` column, for both. A constant map scores exactly that. Ties decide for a map that is 0
on most pixels (ReLU, gradients of a sparse network). If an image has fewer than k pixels, k is all of them, and the
top-k intersection is the area.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sanity_checks._registry import Result, check
from sanity_checks._torch import pixels
from sanity_checks.relevance_mass import pool


@check(
    title="Relevance rank accuracy",
    cite="arras2022clevrxai",
    kind="localization",
    protocol=(
        "The share of the K highest pixels that lies on the object, K being its size; "
        "chance is the object's share of the image."
    ),
    higher_is_better=True,
    forward=0,
    runs=0,
    verified=("quantus", "literal"),
)
def relevance_rank(
    maps: Float[Tensor, "B K h w"], mask: Bool[Tensor, "B H W"], *, pooling: str = "sum", k: int = 1000
) -> Result:
    """How many of the highest pixels lie on the object, taking as many as the object has.

    Rank accuracy; the top-k intersection is a column; NaN without an object.

    Args:
        maps: the maps to evaluate.
        mask: where the object is.
        pooling: "sum", or a key of `relevance_mass.POOLINGS`.
        k: pixels of the top-k intersection.

    Raises:
        ValueError: k below 1, or an unknown pooling.
    """
    if k < 1:
        raise ValueError(f"k: at least one pixel, got {k}")
    a = pixels(maps, mask) if pooling == "sum" else pool(maps, mask, pooling)
    size = mask.sum(dim=(1, 2))  # B
    missing = size == 0
    columns = {"top_k": share(a, mask, torch.full_like(size, k)), "area": mask.double().mean(dim=(1, 2))}
    return Result(
        values=share(a, mask, size).masked_fill(missing, torch.nan),
        columns={name: column.masked_fill(missing, torch.nan) for name, column in columns.items()},
    )


def share(a: Float[Tensor, "B H W"], mask: Bool[Tensor, "B H W"], k: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Of each image's k highest pixels, the share inside the mask; ties at the k-th count by expectation."""
    a, mask = a.flatten(1), mask.flatten(1)  # B n
    k = k.clamp(1, a.shape[1])[:, None]  # B 1
    v = a.sort(dim=1, descending=True).values.gather(1, k - 1)  # B 1   the k-th value
    above, at = a > v, a == v  # B n
    drawn = (k - above.sum(dim=1, keepdim=True)) / at.sum(dim=1, keepdim=True).double()  # B 1   of the tied
    return ((above + drawn * at) * mask).sum(dim=1) / k[:, 0]
