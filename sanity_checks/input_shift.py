"""The (Un)reliability of Saliency Methods (input invariance).

Kindermans, Hooker, Adebayo, Alber, Schutt, Dahne, Erhan, Kim. 2017, in Explainable AI 2019. arXiv:1711.00867

    f_2( x + m ) = f_1( x )       for every x                          (section 2.1)
    q = max | M(f_1, x) - M(f_2, x + m) |  /  max | M(f_1, x) |        (0: input invariant)

m       a constant shift of the input                    shift, in units of the normalised image
f_2     f_1 after a subtraction of m                     a hook on a copy of the model

Differs from the paper: it folds m into the bias of the first layer; with zero padding that is another function at the
border (the padding is not shifted). A subtraction before the network is exact for every network, and is the same as
normalising images inside the model. Logits are compared first, and a mismatch is an error. Everything is in float64: in
float32, rounding sometimes moves the input of a ReLU past zero, which changes a gradient too much.
Differs from other code: Quantus 0.6 shifts every element except the first and folds nothing, so it compares two
different functions.
Good to know: the gradient passes. Methods that multiply by the input or have a fixed baseline fail. If the baseline is
shifted too (partial(integrated_gradients, baseline=m)), Integrated Gradients passes.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from methods._calls import copy_of
from methods._torch import Attribution, ratio
from sanity_checks._registry import Result, check
from sanity_checks._torch import explain


@check(
    title="Input shift",
    cite="kindermans2019unreliability",
    kind="axiom",
    protocol=(
        "The image is shifted by a constant and the network subtracts it again, so that it computes the same; "
        "the number is the largest change of the map, as a share of its maximum."
    ),
    higher_is_better=False,
    forward=2,
    runs=2,
    verified=("closed form",),
)
@torch.no_grad()
def input_shift(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Int[Tensor, " B"],
    of: Attribution,
    *,
    shift: float = 1.0,
) -> Result:
    """Whether the map changes when a constant is added to the image and taken away by the network's first bias.

    Largest change relative to the map's largest value; column `passes`: 1 where it is below 1e-4.

    Args:
        model: classifier.
        x: normalised images.
        target: classes.
        of: the method.
        shift: m.

    Raises:
        ValueError: the logits of the shifted network differ (by more than 1e-9 of the largest): no test is possible.
    """
    f1, x = copy_of(model).double(), x.double()
    f2 = copy_of(f1)
    f2.register_forward_pre_hook(lambda _module, args: (args[0] - shift, *args[1:]))
    y1, y2 = f1(x), f2(x + shift)
    if (y1 - y2).abs().max() > 1e-9 * y1.abs().max():
        raise ValueError(f"shift: {shift} is too large for {x.dtype}: the shifted network's logits differ")
    a, b = explain(of, f1, x, target), explain(of, f2, x + shift, target)
    q = ratio((a - b).abs().flatten(1).amax(dim=1), a.abs().flatten(1).amax(dim=1)).double()
    return Result(values=q, columns={"passes": (q < 1e-4).double()})
