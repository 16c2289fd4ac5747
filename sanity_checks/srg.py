"""Decoupling Pixel Flipping and Occlusion Strategy for Consistent XAI Benchmarks: symmetric relevance gain, SRG.

Blücher, Vielhaben, Strodthoff. TMLR 2024. arXiv:2401.06454

    PF_o  =  mean over n = 0 .. R  of  p( x without the first n superpixels in the order o )
    SRG   =  PF_LIF  -  PF_MIF                           LIF, MIF: least and most influential first

p       probability of the class                         y
R       number of superpixels                            R
        influence of a superpixel: the mean of the map   phi
x without ...  an imputer fills them                     hide

One order alone depends on the imputer: what is outside the data pulls both curves down alike. Their difference does
not, or much less. So it is measured with several imputers here, and the number is their mean.

Differs from the paper: superpixels are scikit-image's SLIC, about 50; the imputers are the region's own mean colour and
inpainting (methods/_regions.py), where the paper has five, one of them a diffusion model.
Differs from other code: the authors' code (bluecher31/pixel-flipping) integrates over the share of pixels that are
gone; here steps are superpixels, `points` of them from none to all.
Good to know: the same map with the opposite sign has minus this SRG. Chance is 0, for any imputer. A map that is
constant on the superpixels has an order by position.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from methods._cost import Formula
from methods._regions import Segments, count, hiding, painted, regions
from methods._torch import chunks, probability, scores
from sanity_checks._registry import Result, check
from sanity_checks._torch import pixels, ranks


@check(
    title="Symmetric relevance gain",
    cite="blucher2024decoupling",
    kind="faithfulness",
    protocol=(
        "Superpixels are replaced one after the other, the least and the most influential first; the number is the "
        "difference of the mean probabilities, averaged over two imputers."
    ),
    higher_is_better=True,
    forward=Formula("2 · points · fills", lambda s: 2 * s.points * len(s.fills)),
    runs=0,
    verified=("literal", "closed form"),
    quick={"points": 9},
)
def srg(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Int[Tensor, " B"],
    maps: Float[Tensor, "B K h w"],
    *,
    segments: Segments = "slic",
    fills: Sequence[str] = ("mean", "inpaint"),
    points: int = 26,
    chunk: int = 8,
) -> Result:
    """How much longer the class stays if the least influential superpixels go first than if the most influential do.

    Args:
        model: classifier.
        x: normalised images.
        target: classes.
        maps: the maps to evaluate.
        segments: superpixels, see `Segments` in methods/_regions.py.
        fills: imputers, of FILLS there.
        points: numbers of superpixels that are gone, evenly spread from none to all.
        chunk: images per forward pass.

    Returns:
        Columns: SRG with each fill by its name, and `lif` and `mif`, means over the fills.

    Raises:
        ValueError: no fills, points below 2, or as `regions` and `hiding`.
    """
    if not fills or points < 2:
        raise ValueError(f"fills, points: at least one fill and 2 points, got {tuple(fills)} and {points}")
    x, labels = x.detach(), regions(x, segments)
    R = count(labels)
    inside = torch.nn.functional.one_hot(labels.flatten(1), max(R)).double()  # B HW R
    sums = pixels(maps, x).flatten(1).double()[:, None] @ inside  # B 1 R
    phi = sums[:, 0] / inside.sum(dim=1).clamp(min=1)  # B R
    there = torch.arange(max(R), device=x.device) < torch.tensor(R, device=x.device)[:, None]  # B R
    gone = torch.linspace(0, 1, points, device=x.device)[:, None] * torch.tensor(R, device=x.device)  # points B
    curves: dict[str, Tensor] = {}
    for fill in fills:
        hide = hiding(x, fill, labels)
        for order, sign in (("lif", -1), ("mif", 1)):
            rank = ranks(torch.where(there, sign * phi, -torch.inf))  # B R   0: first to go
            y = []
            for k in chunks(points, chunk, len(x)):
                seen = (rank >= gone[k].round()[..., None]).to(x.dtype)  # k B R
                y.append(scores(model, hide(painted(seen, labels)), probability(target), like=x))  # k B
            curves[f"{order}, {fill}"] = torch.cat(y).T  # B points
    gains = {f: (curves[f"lif, {f}"] - curves[f"mif, {f}"]).mean(dim=1) for f in fills}  # B
    means = {o: torch.stack([curves[f"{o}, {f}"].mean(dim=1) for f in fills]).mean(dim=0) for o in ("lif", "mif")}
    return Result(
        values=means["lif"] - means["mif"],
        columns=gains | means,
        curves=curves,
        at=tuple(k / (points - 1) for k in range(points)),
    )
