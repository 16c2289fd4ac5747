"""MoXI: Identifying Important Group of Pixels using Interactions.

Sumiyasu, Kawamoto, Kera. CVPR 2024. arXiv:2401.03785

    A_0 = {},   b_t = argmax_b  f( A_{t-1} + b ),   A_t = A_{t-1} + b_t                  (insertion)
    A_0 = {},   b_t = argmin_b  f( N - A_{t-1} - b ),   A_t = A_{t-1} + b_t              (deletion)

which is the patch of the largest self-context Shapley value first, and then that of the largest value and interaction
with the patches so far: both have the same argmax as f of the larger set.

f       score of the image with only these patches       scores
N       all patches                                      1
A_t     the t patches that were identified               A
map     1 - (t - 1) / k of the t-th patch, 0 of the rest greedy

Differs from the paper: f is the logit; the paper's is log( p / (1 - p) ), which a callable target gives. Patches are
filled with zeros, as the paper does for CNNs; fill="drop" takes away their tokens, as it does for ViTs.
Differs from other code: the authors' code (KosukeSumiyasu/MoXI) identifies all patches of 14 x 14, 19,306 passes; here
the first `k` of `segments`.
Good to know: an order, so there is no unit, and a constant score has one, too: that of the patches. The cost grows with
k times the number of patches: 14 x 14 patches are found to k = 20 in 3,730 passes.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from methods._cost import Formula
from methods._regions import Fill, Segments, greedy, greedy_steps, hiding, painted, regions, without_tokens
from methods._registry import method
from methods._torch import Target, at_least_float32, scores


@method(
    title="MoXI",
    cite="sumiyasu2024identifying",
    family="perturbation",
    forward=Formula("k · regions - k (k - 1) / 2", lambda s: greedy_steps(s.segments, s.k)[1]),
    backward=0,
    signed=False,
    verified=("literal",),
    differentiable=False,  # an order
)
@torch.no_grad()
def moxi(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Target,
    *,
    segments: Segments = 14,
    k: int | None = 20,
    curve: str = "insertion",
    fill: Fill = "zero",
    chunk: int = 8,
) -> Float[Tensor, "B 1 H W"]:
    """The order in which patches make the score highest (insertion) or, taken away, lowest (deletion).

    Raises:
        ValueError: k is below 1, curve is unknown, or as `regions`, `hiding`, `without_tokens`.
    """
    if curve not in ("insertion", "deletion"):
        raise ValueError(f"curve: must be 'insertion' or 'deletion', got {curve!r}")
    labels = regions(x, segments)
    hide = hiding(x, "zero" if fill == "drop" else fill, labels)

    def value(A: Float[Tensor, "m B R"]) -> Float[Tensor, "m B"]:
        seen, sign = (A, 1) if curve == "insertion" else (1 - A, -1)
        if fill == "drop":
            return sign * without_tokens(model, x, target, seen)
        return sign * scores(model, hide(painted(seen, labels)), target, like=x)

    return greedy(labels, k, value, chunk)[:, None].to(at_least_float32(x))  # B 1 H W
