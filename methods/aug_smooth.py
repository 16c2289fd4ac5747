"""Augmentation smoothing: any map, averaged over flipped and rescaled copies of the image.

Gildenblat and contributors. PyTorch library for CAM methods (pytorch-grad-cam), aug_smooth. 2021.

    S = 1/n  sum_i  T_i^-1 ( M( T_i( x ) ) ),  T = flip or not  x  factors  x  sizes

M       any map                                          of
T_i     mirrors the image, multiplies its values         flip, factors
        and resizes it                                   sizes
T_i^-1  mirrors the map back, and resizes it             to the grid that M has at the first of `sizes`
n       number of combinations                           6 by default

Differs from the paper: there is none. This is a feature of the package, with its defaults: mirrored or not, and
the values times 0.9, 1 and 1.1. `sizes`, which the package does not have, are scales of the image, for networks that
take several sizes.
Differs from other code: pytorch-grad-cam cuts each of the n maps at 0 and rescales it to [0, 1] before the mean, so
that each has the same weight.
Good to know: values are multiplied after normalisation, so the contrast to the data set's mean colour changes.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from methods._cost import Formula
from methods._registry import method
from methods._torch import Attribution, Target, chunks, map_over_copies, upsample
from methods.gradient import gradient

PASSES = Formula("2 · factors · sizes", lambda s: (2 if s.flip else 1) * len(s.factors) * len(s.sizes))


@method(
    title="Augmentation smoothing",
    cite="gildenblat2021pytorch",
    family="combinator",
    forward=PASSES,
    backward=PASSES,
    signed=True,
    source="package",
    verified=("literal", "grad_cam"),
)
def aug_smooth(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Target,
    *,
    of: Attribution = gradient,
    flip: bool = True,
    factors: Sequence[float] = (0.9, 1.0, 1.1),
    sizes: Sequence[float] = (1.0,),
    chunk: int = 8,
) -> Float[Tensor, "B K h w"]:
    """The map `of`, averaged over mirror images, contrasts and scales.

    Raises:
        ValueError: `factors` or `sizes` is empty, or a size is not positive.
    """
    if not len(factors) or not len(sizes) or min(sizes) <= 0:
        raise ValueError(f"factors, sizes: need at least one of each, sizes above 0, got {factors} and {sizes}")
    versions = [(mirror, factor) for mirror in ((False, True) if flip else (False,)) for factor in factors]
    maps = []
    for size in sizes:
        grid = [max(1, round(size * side)) for side in x.shape[2:]]
        x_s = x if size == 1 else F.interpolate(x, size=grid, mode="bilinear", align_corners=False)  # B C h w
        total = x.new_zeros(())
        for part in chunks(len(versions), chunk, len(x)):
            X = torch.stack([factor * (x_s.flip(-1) if mirror else x_s) for mirror, factor in versions[part]])
            M = map_over_copies(of, model, X, target)  # k B K h w   M(T_i(x))
            total = total + sum(m.flip(-1) if v[0] else m for m, v in zip(M, versions[part], strict=True))  # B K h w
        maps.append(total / len(versions))
    return torch.stack([upsample(m, maps[0]) for m in maps]).mean(dim=0)  # B K h w
