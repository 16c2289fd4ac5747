"""Fast Axiomatic Attribution for Neural Networks (keep and remove masks).

Hesse, Schaub-Meyer, Roth. NeurIPS 2021. arXiv:2111.07668

Part of the image is left, the rest is blurred. With P = max(s a, 0) the positive (s = 1) or negative (s = -1) part of
the map, or P = |a|, and N pixels of which N+ have P > 0,

    k(q)    =  min( floor(q N), N+ )
    keep    =  area over q of the output where the k highest of P are left           KPM  KNM  KAM
    remove  =  area over q of the output where the k lowest of P > 0 are left        RPM  RNM  RAM

a       the map, channels summed                           a
q       0.01 .. 1, 16 fractions in geometric progression   fractions
output  for positive and negative: logit of the class; for absolute: 1 if the class is the top class, else 0

Higher is better for KPM, RNM and KAM, lower for RPM, KNM and RAM. The number per image is KPM - RPM: the value of the
order of the positive pixels, 0 for a meaningless order.

Differs from the paper: it reports the six numbers; KPM - RPM is ours.
Differs from other code: not from the authors', whose Gaussian of kernel 51 and "sigma 41" has the standard deviation
41 sqrt(2). Their random baseline is uniform noise minus 0.5.
Good to know: do not compare the area between models: it is in logits, over q from 0.01 to 1. Pixels of the other sign
or of value 0 are never left, so with few positive pixels k stops early. A zero map scores 0.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from methods._calls import probabilities
from methods._cost import Formula
from sanity_checks._registry import Result, check
from sanity_checks._torch import is_top, path, pixels, ranks
from sanity_checks.insertion_deletion import substrate


@check(
    title="Keep and remove masks",
    cite="hesse2021fast",
    kind="faithfulness",
    protocol=(
        "The highest or the lowest positive pixels are left in a blurred image; "
        "the number is the area under the class logit of the first minus that of the second, over the fraction left."
    ),
    higher_is_better=True,
    forward=Formula("6 · fractions", lambda s: 6 * len(s.fractions)),
    runs=0,
    verified=("literal", "closed form"),
    quick={"fractions": (0.01, 0.03, 0.1, 0.3, 1.0)},
)
def keep_remove(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Int[Tensor, " B"],
    maps: Float[Tensor, "B K h w"],
    *,
    fractions: Sequence[float] = tuple(np.geomspace(0.01, 1, 16).tolist()),
    fill: str = "wide blur",
    chunk: int = 8,
) -> Result:
    """How long the output stays if marked regions are kept, and how soon it goes if they are removed: KPM - RPM.

    The six areas are columns, the outputs curves.

    Args:
        model: classifier.
        x: normalised images.
        target: classes.
        maps: the maps to evaluate.
        fractions: shares of pixels left, ascending.
        fill: value of the other pixels, a key of SUBSTRATES in insertion_deletion.
        chunk: images per forward pass.

    Raises:
        ValueError: fewer than two fractions, not ascending or outside [0, 1], or an unknown fill.
    """
    q = torch.tensor(fractions, dtype=torch.float64)
    if len(q) < 2 or q.min() < 0 or q.max() > 1 or (q.diff() <= 0).any():
        raise ValueError(f"fractions: two ascending shares or more, from 0 to 1, got {tuple(fractions)}")

    def hits(output: Any) -> Float[Tensor, " B"]:
        p = probabilities(output)
        return is_top(p, target).to(p.dtype)

    x, a = x.detach(), pixels(maps, x)  # B H W
    blurred = substrate(x, fill, "fill")
    quota = (q * a[0].numel()).long().to(x.device)[:, None]  # n 1   floor(q N)
    curves = {}
    for name, P, y in (("pm", a.clamp(min=0), target), ("nm", (-a).clamp(min=0), target), ("am", a.abs(), hits)):
        N = (P > 0).sum(dim=(1, 2))  # B
        k = torch.minimum(quota, N)  # n B
        highest = ranks(P)  # B H W
        lowest = torch.where(P > 0, N[:, None, None] - 1 - highest, a[0].numel())  # B H W
        for mask, rank in (("k", highest), ("r", lowest)):
            curves[mask + name] = path(model, blurred, x, rank, k, y, chunk).T  # B n
    areas = {name: torch.trapezoid(curve.double(), q.to(x.device)).to(curve.dtype) for name, curve in curves.items()}
    return Result(values=areas["kpm"] - areas["rpm"], columns=areas, curves=curves, at=tuple(q.tolist()))
