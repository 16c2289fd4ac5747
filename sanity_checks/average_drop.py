"""Grad-CAM++: Improved Visual Explanations for Deep Convolutional Networks: average drop and increase in confidence.

Chattopadhay, Sarkar, Howlader, Balasubramanian. WACV 2018. arXiv:1710.11063
Average gain: Zhang, Torres, Sicre, Avrithis, Ayache. Opti-CAM. CVIU 2024. arXiv:2301.07002

    O         =  f( M x + (1 - M) b )                                                    f( M x ) where b = 0
    drop      =  100 max(0, Y - O) / Y
    increase  =  100 [ O > Y ]
    gain      =  100 max(0, O - Y) / (1 - Y)

f       softmax probability of the class                probability
Y, O    of the image and of what the map leaves of it   Y, O
M       the map of the image, rescaled to [0, 1]        M
b       value of the part that the map removes          b

Differs from the paper: it multiplies the image. Here the normalised tensor is multiplied, as in pytorch-grad-cam and in
the ADCC repository, so that hidden pixels fade to the mean colour. With baseline = the normalised value of black (a
tensor C 1 1) the image is multiplied.
Differs from other code: pytorch-grad-cam's DropInConfidence is max(0, Y - O) without the division by Y, and takes the
given map in [0, 1] as it is; times 100 / Y the two agree. The paper's averages are the means of the columns.
Good to know: read the drop together with `complexity`, the mean of M: a map that is 1 nearly everywhere loses nothing.
A constant map is taken as 1 everywhere: drop 0, increase 0, complexity 1. M does not keep the zero of the map: the most
negative pixel of a signed map becomes 0, and its zeros become grey.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from methods._torch import minmax, probability, ratio, scores
from methods.integrated_gradients import start
from sanity_checks._registry import Result, check
from sanity_checks._torch import constant, pixels


@check(
    title="Average drop",
    cite="chattopadhay2018gradcampp",
    kind="faithfulness",
    protocol=(
        "The image is multiplied by the map, rescaled to [0, 1]; "
        "the number is the share of the class probability that is lost, in per cent."
    ),
    higher_is_better=False,
    forward=2,
    runs=0,
    verified=("grad_cam", "literal", "closed form"),
)
def average_drop(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Int[Tensor, " B"],
    maps: Float[Tensor, "B K h w"],
    *,
    baseline: float | Float[Tensor, "..."] = 0.0,
) -> Result:
    """How much of the class's probability is lost if only the highlighted part is left, in per cent.

    Columns: increase and gain.

    Args:
        model: classifier.
        x: normalised images.
        target: classes.
        maps: the maps to evaluate.
        baseline: value of the removed part, a number or a tensor that broadcasts to x; 0 multiplies the normalised
            tensor, the normalised value of black multiplies the image.

    Raises:
        ValueError: a baseline of another shape.
    """
    x, M, f = x.detach(), unit(maps, x), probability(target)  # B C H W, B H W
    Y = scores(model, x[None], f)[0]  # B
    O = scores(model, masked(x, M, baseline)[None], f)[0]  # B
    return Result(
        values=100 * drop(Y, O),
        columns={
            "increase": 100 * (O > Y).to(Y.dtype),
            "gain": 100 * ratio((O - Y).clamp(min=0), 1 - Y),
            "complexity": M.mean(dim=(1, 2)),
        },
    )


def unit(maps: Float[Tensor, "B K h w"], like: Float[Tensor, "B C H W"]) -> Float[Tensor, "B H W"]:
    """M: the pixel map rescaled to [0, 1]; 1 everywhere where the map is constant."""
    flat = constant(pixels(maps, maps))[:, None, None]  # B 1 1   before resizing, which rounds
    return torch.where(flat, 1.0, minmax(pixels(maps, like)))


def masked(
    x: Float[Tensor, "B C H W"], M: Float[Tensor, "B H W"], baseline: float | Float[Tensor, "..."]
) -> Float[Tensor, "B C H W"]:
    """M x + (1 - M) b."""
    b = start(x, torch.as_tensor(baseline, dtype=x.dtype))
    M = M[:, None].to(x.dtype)
    return M * x + (1 - M) * b


def drop(Y: Float[Tensor, " B"], O: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """The share of Y that O has lost, 0 to 1."""
    return ratio((Y - O).clamp(min=0), Y)
