"""Concise Explanations of Neural Networks using Adversarial Training: sparseness.

Chalasani, Chen, Chowdhury, Jha, Wu. ICML 2020. arXiv:1810.06583

    G  =  1 - 2 sum_k  v_(k) / ||v||_1  ( d - k + 1/2 ) / d                              (Gini index)

v_(k)   |map| of the k-th pixel, smallest first         v
d       number of pixels                                d

Differs from the paper: a pixel is one number, the map's sum over channels.
Differs from other code: Quantus adds 1e-7 to v, which matters only for maps of that size. Its form
sum (2k - d - 1) v_(k) / (d sum v) is the same number.
Good to know: 0 for a constant map and, by definition here, for a zero map; 1 - 1/d for a single pixel. It does not
change with the scale of the map. It is taken at the map's own resolution and grows with it: compare maps of one size
only. The model is not used: white noise has 0.41, a blank map with one wrong pixel nearly 1.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from methods._torch import ratio
from sanity_checks._registry import Result, check
from sanity_checks._torch import pixels


@check(
    title="Sparseness",
    cite="chalasani2020concise",
    kind="complexity",
    protocol="The number is the Gini index of the map's absolute values: 0 if all are equal, near 1 for one pixel.",
    higher_is_better=True,
    forward=0,
    runs=0,
    verified=("quantus", "literal", "closed form"),
)
def sparseness(maps: Float[Tensor, "B K h w"]) -> Result:
    """How few pixels carry the map: the Gini index of |map|.

    Args:
        maps: the maps to evaluate.

    Raises:
        ValueError: maps are not B K h w, or not finite.
    """
    v = pixels(maps, maps).abs().double().flatten(1).sort(dim=1).values  # B d
    d = v.shape[1]
    k = torch.arange(1, d + 1, device=v.device)  # d
    G = (ratio(v, v.sum(dim=1, keepdim=True)) * (2 * k - d - 1) / d).sum(dim=1)  # B   1 - 2 sum .. where v is not zero
    return Result(values=G)
