"""Recipro-CAM: Fast gradient-free visual explanations for convolutional neural networks.

Byun, Lee. arXiv 2022; CVPR workshop 2024 as ReciproCAM: Lightweight Gradient-free Class Activation Map for Post-hoc
Explanations. arXiv:2209.14074

    F_n  = F * M_n,   M_n(u) = [ u = n ]                 (the layer's output at position n, 0 elsewhere)
    Y_n  = softmax( head( F_n ) )_c                      (the score from that position alone)
    L^c  = ( Y - min Y ) / ( max Y - min Y )             (the map: the score of each position, rescaled)

F       output of the layer, all channels                A
n       one of the h w positions                         a number 0 ... h w - 1
head    the network after the layer                      runs in edited_scores
c       class                                            target

Differs from the paper: follows the authors' code (sybyun/ReciproCAM@bfbf22c). A constant map is 0.
Differs from other code: that code uses gaussian=False; it contains both branches, but never takes the other one. Their
earlier code (OpenVINO's training extensions) uses gaussian=True: the features at n, pasted over the 3 x 3 neighbourhood
of n times 1/4, 1/8 and 1/16.
Good to know: a callable target gets probabilities; softmax=False takes the logits, also for a class. A single
position is an unusual input: after average pooling it counts 1 / (h w), so that all probabilities are similar.
In a transformer the class and register tokens do not change. If the score does not depend on the layer, the map is 0.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from methods._calls import probabilities
from methods._cost import Formula, Passes
from methods._edits import edited_scores, record_before
from methods._registry import method
from methods._torch import Target, activation, minmax, score


@method(
    title="Recipro-CAM",
    cite="byun2024reciprocam",
    family="cam",
    forward=Passes(Formula("1 + h · w", lambda s: 1 + s.h * s.w), before=1),
    backward=0,
    signed=False,
    source="authors' code",
    verified=("literal", "authors"),
)
def recipro_cam(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Target,
    *,
    layer: str,
    gaussian: bool = False,
    softmax: bool = True,
    chunk: int = 64,
) -> Float[Tensor, "B 1 h w"]:
    """The score of each position of `layer`, with all other positions set to 0."""

    def probability(output: Any) -> Float[Tensor, " n"]:
        return score(probabilities(output), target)

    with torch.set_grad_enabled(x.requires_grad):
        with record_before(model, x, layer) as before:
            _, A = activation(model, x, layer)  # B K h w
        h, w = A.shape[2:]
        i, j = torch.arange(h, device=x.device), torch.arange(w, device=x.device)

        def mosaic(A: Float[Tensor, "B K h w"], n: Int[Tensor, " n"]) -> Float[Tensor, "n B K h w"]:
            di, dj = (i - (n // w)[:, None]).abs(), (j - (n % w)[:, None]).abs()  # n h, n w   distance to position n
            steps = (di[:, :, None] + dj[:, None]).to(A.dtype)  # n h w
            near = (di[:, :, None] <= 1) & (dj[:, None] <= 1)
            M = near * 0.25 * 0.5**steps if gaussian else (steps == 0).to(A.dtype)  # n h w
            here = A.flatten(2)[:, :, n].permute(2, 0, 1)  # n B K   the features at position n
            return here[..., None, None] * M[:, None, None].to(A.dtype)  # n B K h w

        p = probability if softmax else target
        Y = edited_scores(model, x, p, layer, mosaic, h * w, chunk, before)  # hw B
        return minmax(Y.T.unflatten(1, (1, h, w)))  # B 1 h w
