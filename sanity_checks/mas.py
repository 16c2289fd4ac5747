"""Attribution Quality Metrics with Magnitude Alignment: MAS.

Walker, Simon, Chen, Ewetz. IJCAI 2024. doi:10.24963/ijcai.2024/59

Insertion and deletion, corrected by how well the sizes of the attributions agree with the response:

    r_k   =  ( p_k - p_b ) / ( p(x) - p_b ),  clipped to [0, 1], made monotone      normalised response
    d_k   =  share of the attribution in the first k pixels (1 - that share in deletion)
    S_k   =  r_k - |d_k - r_k|   (insertion)        r_k + |d_k - r_k|   (deletion),  clipped to [0, 1], min-max
    MAS   =  AUC(S insertion)  -  AUC(S deletion)

p_k     softmax probability of the class with k pixels inserted or deleted     insertion_deletion
p_b     the same without any pixel of the image                                first (insertion), last (deletion)
d       of |a|, the channels summed                                            density

Differs from the paper: its text was not available; this is the authors' code
(chasewalker26/Magnitude-Aligned-Scoring@9006740).
Differs from other code: the substrate of insertion is that of the RISE repository (see insertion_deletion), theirs is
blurred a little more (sigma 11 instead of 5, in the same kernel of 11 pixels: both are nearly a box).
Good to know: pixels are ordered by |a|, as there. Where the response or the score is the same at all points, the curve
is a straight line, with area 1/2, as there. A map of zeros counts as spread evenly.
"""

from math import ceil

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from methods._cost import Formula
from methods._torch import ratio
from sanity_checks._registry import Result, check
from sanity_checks._torch import pixels
from sanity_checks.insertion_deletion import auc, insertion_deletion, width


@check(
    title="MAS",
    cite="walker2024attribution",
    kind="faithfulness",
    protocol=(
        "Insertion and deletion curves are lowered and raised where the share of the attribution differs from the "
        "share of the response; the number is the area of insertion minus that of deletion."
    ),
    higher_is_better=True,
    forward=Formula("2 · (⌈H · W / step⌉ + 1)", lambda s: 2 * (ceil(s.H * s.W / width(s.step, s.H * s.W)) + 1)),
    runs=0,
    verified=("literal", "closed form"),
    quick={"step": 1 / 28},
)
def mas(
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
    """Whether the score rises and falls as the sizes of the attributions say: insertion minus deletion, corrected.

    Args:
        model: classifier.
        x: normalised images.
        target: classes.
        maps: the maps to evaluate.
        step: pixels per point of the curves; below 1, their share of the image.
        deletion: substrate of deletion, a key of SUBSTRATES in insertion_deletion.
        insertion: substrate of insertion.
        chunk: images per forward pass.

    Raises:
        ValueError: step is not above 0, or an unknown substrate.
    """
    a = pixels(maps, x).abs()  # B H W
    a = torch.where(a.amax(dim=(1, 2), keepdim=True) > 0, a, 1.0)
    options = {"step": step, "deletion": deletion, "insertion": insertion, "chunk": chunk}
    found = insertion_deletion(model, x, target, a[:, None], **options)
    into, out = found.curves["insertion"], found.curves["deletion"]  # B points
    d = density(a)[:, [round(share * a[0].numel()) for share in found.at]]  # B points
    r_in = ratio(into - into[:, :1], into[:, -1:] - into[:, :1]).clamp(0, 1).cummax(dim=1).values
    r_out = 1 - ratio(out[:, :1] - out, out[:, :1] - out[:, -1:])  # 1 where nothing changes, as r_in is 0
    r_out = r_out.clamp(0, 1).cummin(dim=1).values
    line = torch.linspace(0, 1, len(found.at), dtype=d.dtype, device=d.device)
    s_in = stretched(r_in - (d - r_in).abs(), line)
    s_out = stretched(r_out + (1 - d - r_out).abs(), line.flip(0))
    i, o = auc(s_in), auc(s_out)
    return Result(
        values=i - o,
        columns={"insertion": i, "deletion": o},
        curves={"insertion": s_in, "deletion": s_out},
        at=found.at,
    )


def density(a: Float[Tensor, "B H W"]) -> Float[Tensor, "B n"]:
    """The share of the attribution in the first 0, 1, ... HW pixels, highest first."""
    total = a.double().flatten(1).sort(dim=1, descending=True).values.cumsum(dim=1)
    return torch.cat([torch.zeros_like(total[:, :1]), total / total[:, -1:]], dim=1)


def stretched(s: Float[Tensor, "B n"], line: Float[Tensor, " n"]) -> Float[Tensor, "B n"]:
    """Clipped to [0, 1] and stretched over it; `line` where it is constant."""
    s = s.clamp(0, 1)
    low, high = s.amin(dim=1, keepdim=True), s.amax(dim=1, keepdim=True)
    return torch.where(high > low, ratio(s - low, high - low), line.to(s.dtype))
