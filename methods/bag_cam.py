"""Bagging Regional Classification Activation Maps for Weakly Supervised Object Localization.

Zhu, Chen, Jin, You, Lu. ECCV 2022. arXiv:2207.07818

    G = d log( y^c ) / dA                                (with guided ReLUs between A and the score)
    L = sum_k  ReLU( GAP( G^k * A^k + 1 ) * G^k * A^k )  (the localizers of all positions, bagged)

y^c     score of class c before the softmax             y
A^k     k-th feature map                                 A[:, k]
GAP     mean over the positions                          .mean

Differs from the paper: follows the authors' released code (zh460045050/BagCAMs@0fab958, libs/cams/bagcams.py), whose
formula this is. The gradient of log y starts as 1 / y, also for a negative score, and as 0 where y is 0.
Differs from other code: the authors' code resizes L to the image and rescales it to [0, 1]. riverback omits the
logarithm and the guided ReLUs.
Good to know: a model without any ReLU is refused: use guided=False, which takes the plain gradient. After the last ReLU
of the network there is nothing to guide.
"""

import contextlib
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from methods._cost import Passes
from methods._registry import method
from methods._rules import relu_backward
from methods._torch import Target, activation_and_gradient, score
from methods.guided_backprop import guided as guided_rule


@method(
    title="BagCAM",
    cite="zhu2022bagcam",
    family="cam",
    forward=1,
    backward=Passes(1, before=0),
    signed=False,
    needs="relu",
    architectures=("cnn",),
    source="authors' code",
    verified=("literal", "authors"),
)
def bag_cam(
    model: nn.Module, x: Float[Tensor, "B C H W"], target: Target, *, layer: str, guided: bool = True
) -> Float[Tensor, "B 1 h w"]:
    """One localizer per position of `layer`, all of them summed."""

    def log_y(output: Any) -> Float[Tensor, " n"]:
        y = score(output, target)
        return torch.where(y == 0, 1, y).abs().log()

    with relu_backward(guided_rule) if guided else contextlib.nullcontext():
        _, A, G = activation_and_gradient(model, x, log_y, layer)  # B, B K h w, B K h w
    w = (G * A + 1).mean(dim=(2, 3), keepdim=True)  # B K 1 1
    return (w * G * A).relu().sum(dim=1, keepdim=True)  # B 1 h w
