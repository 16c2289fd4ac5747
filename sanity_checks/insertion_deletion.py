"""RISE: Randomized Input Sampling for Explanation of Black-box Models.

Petsiuk, Das, Saenko. BMVC 2018. arXiv:1806.07421

    x_k   =  x with its k highest pixels set to b(x)         (deletion;  algorithm 1 of the paper)
    x_k   =  b(x) with its k highest pixels set to x         (insertion)
    AUC   =  1/n  sum_k  ( f(x_k) + f(x_k+1) ) / 2           (k = 0, step, 2 step, ... HW)

f       softmax probability of the class                     probability
b(x)    value of a removed pixel                             substrate, one for each direction
k       number of pixels, highest first                      counts

Differs from the paper: only in the main number, insertion - deletion; both are columns.
Differs from other code: none if `step`, `deletion` and `insertion` are those of the RISE repository: zeros after
normalisation, and a "blur of sigma 5" that is an 11 x 11 kernel made by scipy with reflection, nearly a box, applied
with zeros around the normalised image ("rise"). "blur" is a true Gaussian of standard deviation 5 with reflection;
"wide blur" is that of the keep and remove masks. Ties are broken by position here; RISE flips an unstable sort. The
RISE demo uses steps of 224 pixels (225 points), its tables 224 * 8. Quantus' pixel flipping orders C H W elements, not
pixels.
Good to know: compare with noise of the same smoothness, since any smooth map scores well.
"""

from math import ceil

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn
from torch.nn import functional as F

from methods._cost import Formula
from methods._torch import probability
from sanity_checks._registry import Result, check
from sanity_checks._torch import path, pixels, ranks


@check(
    title="Insertion and deletion",
    cite="petsiuk2018rise",
    kind="faithfulness",
    protocol=(
        "Pixels are removed from the image, or put into a blurred one, highest first; "
        "the number is the area under the class probability of insertion minus that of deletion."
    ),
    higher_is_better=True,
    forward=Formula("2 · (⌈H · W / step⌉ + 1)", lambda s: 2 * (ceil(s.H * s.W / width(s.step, s.H * s.W)) + 1)),
    runs=0,
    verified=("literal",),
    quick={"step": 1 / 28},  # 224 * 8 of 224 x 224 pixels
)
def insertion_deletion(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Int[Tensor, " B"],
    maps: Float[Tensor, "B K h w"],
    *,
    step: int | float = 224,
    deletion: str = "mean",
    insertion: str = "rise",
    chunk: int = 8,
) -> Result:
    """How fast the score rises as marked pixels are shown, and falls as they are hidden: the difference of the areas.

    Insertion AUC minus deletion AUC; both are columns and curves.

    Args:
        model: classifier.
        x: normalised images.
        target: classes.
        maps: the maps to evaluate.
        step: pixels per point of the curves; below 1, their share of the image.
        deletion: substrate of deletion, a key of SUBSTRATES.
        insertion: substrate of insertion.
        chunk: images per forward pass.

    Raises:
        ValueError: step is not above 0, or an unknown substrate.
    """
    if step <= 0:
        raise ValueError(f"step: pixels per point, or a share below 1, above 0; got {step}")
    x, n = x.detach(), x.shape[2] * x.shape[3]
    rank = ranks(pixels(maps, x))  # B H W
    counts = torch.tensor([*range(0, n, width(step, n)), n], device=x.device)  # points
    f = probability(target)
    out = path(model, x, substrate(x, deletion, "deletion"), rank, counts, f, chunk).T  # B points
    into = path(model, substrate(x, insertion, "insertion"), x, rank, counts, f, chunk).T  # B points
    d, i = auc(out), auc(into)
    return Result(
        values=i - d,
        columns={"insertion": i, "deletion": d},
        curves={"insertion": into, "deletion": out},
        at=tuple(k / n for k in counts.tolist()),
    )


def auc(curve: Float[Tensor, "B n"]) -> Float[Tensor, " B"]:
    """Area under a curve over [0, 1] by the trapezoid rule, all steps of one width (as RISE)."""
    return (curve.sum(dim=1) - (curve[:, 0] + curve[:, -1]) / 2) / (curve.shape[1] - 1)


def substrate(x: Float[Tensor, "B C H W"], kind: str, argument: str = "substrate") -> Float[Tensor, "B C H W"]:
    """The values of removed pixels, from SUBSTRATES.

    Raises:
        ValueError: no such substrate; the message begins with `argument`, the keyword of the caller.
    """
    if kind not in SUBSTRATES:
        raise ValueError(f"{argument}: must be one of {', '.join(SUBSTRATES)}, got {kind!r}")
    return SUBSTRATES[kind](x.detach())


def width(step: int | float, n: int) -> int:
    """Pixels per point: `step`, or this share of n pixels if it is below 1."""
    return int(step) if step >= 1 else max(1, round(step * n))


def gaussian_blur(x: Float[Tensor, "B C H W"], sigma: float, radius: int) -> Float[Tensor, "B C H W"]:
    """A Gaussian cut off at `radius` pixels (or at the end of the image), reflected at the borders."""
    r, C = min(radius, x.shape[2] - 1, x.shape[3] - 1), x.shape[1]
    k = torch.exp(-(torch.arange(-r, r + 1, device=x.device, dtype=x.dtype) ** 2) / (2 * sigma**2))
    k = k / k.sum()
    x = F.conv2d(F.pad(x, (0, 0, r, r), mode="reflect"), k[:, None].expand(C, 1, -1, 1), groups=C)
    return F.conv2d(F.pad(x, (r, r, 0, 0), mode="reflect"), k[None].expand(C, 1, 1, -1), groups=C)


def _rise_blur(x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    dirac = np.zeros((11, 11))
    dirac[5, 5] = 1
    k = torch.from_numpy(gaussian_filter(dirac, 5)).to(x)  # reflected at the kernel's own edge: nearly a box
    C = x.shape[1]
    return F.conv2d(x, k.expand(C, 1, 11, 11), padding=5, groups=C)


SUBSTRATES = {
    "mean": torch.zeros_like,  # normalised images: the data set's mean colour
    "image mean": lambda x: x.mean(dim=(2, 3), keepdim=True).expand_as(x),
    "rise": _rise_blur,
    "blur": lambda x: gaussian_blur(x, 5.0, 20),
    "wide blur": lambda x: gaussian_blur(x, 41 * 2**0.5, 25),  # "sigma 41" of exp(-(u / 2 sigma)^2)
}
