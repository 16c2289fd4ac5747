"""Finer-CAM: Spotting the Difference Reveals Finer Details for Visual Explanation.

Zhang, Gu, Chowdhury, Mai, Carlyn, Berger-Wolf, Su, Chao. CVPR 2025. arXiv:2501.11309

    D = the T classes whose scores are nearest to y^c                    (similar classes)
    u = y^c - gamma  sum_{d in D}  p_d y^d,  p_d = 1 / T                 (what is explained: `finer`, for any method)
    L = CAM( u )                                                         (any CAM, of u instead of y^c)

y^c     score of class c before the softmax             y
y^d     scores of similar classes, ranked by |y^c - y^d| z_d
T       how many of them                                 references; or the classes themselves, B T
gamma   strength of the comparison                       gamma
CAM     the host                                         of, called with `layer`

Differs from the paper: its text was not available. Summaries of it agree on y^c - gamma y^d. The mean over the three
nearest classes and gamma = 0.6 come from an early commit of the authors' code (its setting "aggregate").
Differs from other code: the authors' head (Imageomics/Finer-CAM@564ad2c) has no "aggregate". There, and in
pytorch-grad-cam, p_d = softmax over D of y^d, not held fixed in the gradient, and gamma = 1 (weights="softmax",
gamma=1.0: correlation 0.95 and 0.14 with the default on tests/golden). torchcam is the same as here.
Good to know: a callable target must return a score that is comparable to a logit, since it is compared with the logits;
the class with the nearest logit counts as c itself. The difference is taken before the host's ReLU, in one pass.
gamma = 0 gives the host's map.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from methods._calls import logits_of
from methods._cost import Passes
from methods._registry import method
from methods._torch import Target, score
from methods.grad_cam import grad_cam


def finer(
    target: Target, *, gamma: float = 0.6, references: int | Int[Tensor, "_ T"] = 3, weights: str = "mean"
) -> Callable[[Float[Tensor, "B N"]], Float[Tensor, " B"]]:
    """The difference between a class and the classes most similar to it: a target for any method.

    Raises:
        ValueError: references is below 1, or weights unknown.
    """
    if isinstance(references, int) and references < 1:
        raise ValueError(f"references: must be 1 or more similar classes, or classes B T, got {references}")
    if weights not in ("mean", "softmax"):
        raise ValueError(f"weights: must be 'mean' or 'softmax' (the authors' head), got {weights!r}")

    def u(output: Any) -> Float[Tensor, " B"]:
        z, y, D = logits_of(output), score(output, target), references  # B N, B
        if isinstance(D, int):
            distance = (z - y[:, None]).detach().abs()  # B N
            if isinstance(target, Tensor):
                distance.scatter_(1, target[:, None], -1)  # c itself comes first, also in a tie
            D = distance.argsort(dim=1, stable=True)[:, 1 : D + 1]  # B T
        D = D.repeat(len(z) // len(D), 1)  # B T   the given classes, for each copy of the batch
        if len(D) != len(z) or D.shape[1] == 0:
            raise ValueError(
                f"references: must be classes B T to compare with, got {tuple(D.shape)} for {len(z)} images"
            )
        z_d = z.gather(1, D)  # B T
        p = z_d.softmax(dim=1) if weights == "softmax" else torch.full_like(z_d, 1 / D.shape[1])  # B T
        return y - gamma * (p * z_d).sum(dim=1)  # B

    return u


@method(
    title="Finer-CAM",
    cite="zhang2025finercam",
    family="cam",
    forward=1,
    backward=Passes(1, before=0),
    signed=False,
    source="authors' code",
    verified=("literal", "grad_cam", "torchcam", "authors"),
)
def finer_cam(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Target,
    *,
    layer: str,
    of: Callable[..., Tensor] = grad_cam,
    gamma: float = 0.6,
    references: int | Int[Tensor, "_ T"] = 3,
    weights: str = "mean",
) -> Float[Tensor, "B 1 h w"]:
    """Where `layer` holds evidence for the target, but not for the classes most like it, by the CAM `of`."""
    return of(model, x, finer(target, gamma=gamma, references=references, weights=weights), layer=layer)  # B 1 h w
