"""Evaluating the Visualization of What a Deep Neural Network Has Learned.

Samek, Binder, Montavon, Lapuschkin, Müller. IEEE TNNLS 2017. arXiv:1509.06321

Regions r_1 .. r_L of the image are replaced one by one, the most (MoRF) or the least (LeRF) relevant first:

    x^(k)  =  g(x^(k-1), r_k)                            x^(0) = x
    AOPC   =  1/(L+1)  sum_k=0..L  f(x^(0)) - f(x^(k))
    ABPC   =  1/(L+1)  sum_k=0..L  f(x_LeRF^(k)) - f(x_MoRF^(k))   =   AOPC_MoRF - AOPC_LeRF

r_k     squares of 9 x 9 pixels that do not overlap      region
        relevance of a region: the sum of the map        R
g       fills a region with uniform noise                fill
L       number of regions replaced                       steps
f       score of the class, before the softmax           y; its probability if `softmax`

Differs from the paper: if the side of an image is no multiple of the region, the last regions are smaller. The noise
spans the minimum to the maximum of each channel, since a normalised image has no known bounds. It is drawn 10 times, as
in the paper; the curves are the means.
Differs from other code: Quantus' RegionPerturbation returns f(x^(0)) - f(x^(k)) from k = 1 on, of 8 x 8 patches filled
with the image's minimum, and pads other sizes; its Selectivity returns f(x^(k)). Its PixelFlipping orders C H W
elements. With region = 1 this is pixel flipping over pixels.
Good to know: do not compare ABPC between models: it is in units of the logit; `softmax` bounds it by 1. A constant map
has ABPC 0, since both orders are then by position. "blur" removes far less information than noise.
"""

from math import ceil

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from methods._cost import Formula
from methods._torch import probability
from sanity_checks._registry import Result, check
from sanity_checks._torch import path, pixels, ranks
from sanity_checks.insertion_deletion import SUBSTRATES, substrate


@check(
    title="Pixel flipping",
    cite="samek2017evaluating",
    kind="faithfulness",
    protocol=(
        "Regions of the image are replaced by noise, most or least relevant first; "
        "the number is the area between the two curves of the class score."
    ),
    higher_is_better=True,
    forward=Formula(
        "2 · repeats · (steps + 1)",
        lambda s: (
            2
            * (s.repeats if s.fill == "uniform" else 1)
            * (min(s.steps, ceil(s.H / s.region) * ceil(s.W / s.region)) + 1)
        ),
    ),
    runs=0,
    verified=("quantus", "literal"),
    quick={"steps": 50, "repeats": 1},
)
def pixel_flipping(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Int[Tensor, " B"],
    maps: Float[Tensor, "B K h w"],
    *,
    region: int = 9,
    steps: int = 100,
    fill: str = "uniform",
    repeats: int = 10,
    softmax: bool = False,
    seed: int = 0,
    chunk: int = 8,
) -> Result:
    """How much faster the score falls if the most relevant regions are replaced first than if the least relevant are.

    ABPC; AOPC of both orders are columns, f(x^(k)) are curves.

    Args:
        model: classifier.
        x: normalised images.
        target: classes.
        maps: the maps to evaluate.
        region: side of a region in pixels.
        steps: L, at most the number of regions.
        fill: "uniform" noise, or a key of SUBSTRATES in insertion_deletion.
        repeats: draws of the noise.
        softmax: f is the softmax probability instead of the logit.
        seed: of the noise.
        chunk: images per forward pass.

    Raises:
        ValueError: region, steps or repeats below 1, or an unknown fill.
    """
    if min(region, steps, repeats) < 1:
        raise ValueError(f"region, steps, repeats: each must be 1 or more, got {region}, {steps} and {repeats}")
    if fill not in ("uniform", *SUBSTRATES):
        raise ValueError(f"fill: must be uniform or one of {', '.join(SUBSTRATES)}, got {fill!r}")
    x = x.detach()
    R = F.avg_pool2d(pixels(maps, x)[:, None], region, ceil_mode=True, divisor_override=1)[:, 0]  # B h w   sums
    n = R[0].numel()
    counts = torch.arange(min(steps, n) + 1, device=x.device)  # L+1
    y = probability(target) if softmax else target
    filled = _uniform(x, repeats, seed) if fill == "uniform" else [substrate(x, fill)]

    def curve(order: Int[Tensor, "B h w"]) -> Float[Tensor, "B n"]:
        rank = order.repeat_interleave(region, 1).repeat_interleave(region, 2)[:, : x.shape[2], : x.shape[3]]  # B H W
        return torch.stack([path(model, x, g, rank, counts, y, chunk) for g in filled]).mean(dim=0).T  # B L+1

    morf, lerf = curve(ranks(R)), curve(ranks(-R))
    return Result(
        values=(lerf - morf).mean(dim=1),  # ABPC
        columns={
            "aopc_morf": (morf[:, :1] - morf).mean(dim=1),
            "aopc_lerf": (lerf[:, :1] - lerf).mean(dim=1),
        },
        curves={"morf": morf, "lerf": lerf},
        at=tuple(k / n for k in counts.tolist()),
    )


def _uniform(x: Float[Tensor, "B C H W"], repeats: int, seed: int) -> list[Float[Tensor, "B C H W"]]:
    """Noise between each channel's minimum and maximum; every draw C H W is shared by the batch."""
    rng = torch.Generator().manual_seed(seed)
    lo, hi = x.amin(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True)  # B C 1 1
    return [lo + (hi - lo) * torch.rand(x.shape[1:], generator=rng).to(x) for _ in range(repeats)]
