"""Ablation-CAM: Visual Explanations for Deep Convolutional Network via Gradient-free Localization.

Desai, Ramaswamy. WACV 2020. doi:10.1109/WACV45572.2020.9093360

    w_k^c = ( y^c - y_k^c ) / y^c                        (importance of unit k)
    L^c   = ReLU( sum_k  w_k^c A^k )                     (the map)

y^c     score of class c before the softmax             y
y_k^c   the score with every cell of A^k set to 0       y_k
A^k     k-th feature map                                 A[:, k]

Differs from the paper: w is 0 where y^c is 0.
Differs from other code: where activations are negative, pytorch-grad-cam 1.5.7 sets a channel to the minimum of a batch
of copies minus 1e7. That batch includes the copies that are already ablated, so the value falls by 1e7 from each copy
to the next; every copy has one channel ablated. It and riverback run the whole network once per channel.
Good to know: a negative score reverses all signs. Only the part after `layer` runs on the ablated copies.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from methods._cost import Formula, Passes
from methods._edits import edited_scores, record_before
from methods._registry import method
from methods._torch import Target, activation, at_least_float32, ratio, score


@method(
    title="Ablation-CAM",
    cite="desai2020ablationcam",
    family="cam",
    forward=Passes(Formula("1 + K", lambda s: 1 + s.K), before=1),
    backward=0,
    signed=False,
    verified=("literal", "grad_cam"),
)
def ablation_cam(
    model: nn.Module, x: Float[Tensor, "B C H W"], target: Target, *, layer: str, chunk: int = 64
) -> Float[Tensor, "B 1 h w"]:
    """Feature maps weighted by the share of the score that is lost without each of them."""
    with torch.set_grad_enabled(x.requires_grad):
        with record_before(model, x, layer) as before:
            output, A = activation(model, x, layer)  # .., B K h w
        y = at_least_float32(score(output, target))  # B

        def ablate(A: Float[Tensor, "B K h w"], k: Int[Tensor, " k"]) -> Float[Tensor, "k B K h w"]:
            copies = A.repeat(len(k), 1, 1, 1, 1)
            copies[torch.arange(len(k), device=A.device), :, k] = 0
            return copies

        y_k = edited_scores(model, x, target, layer, ablate, A.shape[1], chunk, before)  # K B
        w = ratio(y - y_k, y).T[:, :, None, None]  # B K 1 1
        return (w * at_least_float32(A)).sum(dim=1, keepdim=True).relu()  # B 1 h w
