"""Full-Gradient Representation for Neural Network Visualization.

Srinivas, Fleuret. NeurIPS 2019. arXiv:1905.00780

    f(x) = ( df/dx )^T x + sum_l sum_i  ( df/dz^l_i ) b^l_i                (section 3, full-gradients)
    S_f(x) = psi( df/dx * x ) + sum_l sum_c  psi( df/dz^l_c * b^l_c )      (section 4, saliency map)

f       score of the class before the softmax           y
z^l     output of a biased layer: conv, batch norm       z
b^l     its bias; batch norm: beta - mu gamma / sigma    b
psi     |.|, min-max to [0, 1] over the layer, bilinear resize to the image       psi

Differs from the paper: psi of a constant layer is 0. The bias of the last linear layer is omitted: it is no map.
Differs from other code: the authors (idiap/fullgrad-saliency@7c106b3) add 1e-6 to the maximum in psi; pytorch-grad-cam
and riverback rescale by channel, miss subclasses of BatchNorm2d, and pair biases with gradients by position in two
lists.
Good to know: the first equation is exact on ReLU networks (see `full_gradients`). SiLU, GELU and layer norm have
implicit biases, which the sum does not include.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from methods._calls import run
from methods._registry import method
from methods._rules import rules
from methods._torch import Target, at_least_float32, derivatives, ratio, score


@torch.enable_grad()
def full_gradients(
    model: nn.Module, x: Float[Tensor, "B C H W"], target: Target
) -> tuple[Float[Tensor, "B C H W"], list[Float[Tensor, "B ..."]]]:
    """The terms of the first equation: (df/dx * x, [df/dz^l * b^l for each biased layer, B C h w or B N]).

    Raises:
        ValueError: the model has no convolution, or computes attention.
    """
    terms: list[Tensor | None] = []
    handles = []

    def keep(z: Tensor, b: Tensor | None) -> Tensor:
        if b is not None:
            at = len(terms)
            terms.append(None)  # filled in the backward pass, even if z has been overwritten in place
            handles.append(z.register_hook(lambda df_dz: terms.__setitem__(at, at_least_float32(df_dz) * b)))
        return z

    def conv2d(op: Any, input: Tensor, weight: Tensor, bias: Tensor | None = None, *args: Any, **kwargs: Any) -> Tensor:
        return keep(op(input, weight, bias, *args, **kwargs), None if bias is None else bias[:, None, None])

    def linear(op: Any, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return keep(op(input, weight, bias), bias)

    def batch_norm(
        op: Any, input: Tensor, mu: Tensor | None, var: Tensor | None, weight: Tensor | None = None,
        bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
    ) -> Tensor:  # fmt: skip
        if mu is None or var is None:  # of weights (weight standardisation); of images it depends on the batch
            if input.ndim == 4:
                raise ValueError("model: full-gradients need batch norms with running statistics")
            return op(input, mu, var, weight, bias, training, momentum, eps)
        b = (0 if bias is None else bias) - mu * (1 if weight is None else weight) / (var + eps).sqrt()
        return keep(op(input, mu, var, weight, bias, training, momentum, eps), b[:, None, None])

    def refuse(op: Any, *args: Any, **kwargs: Any) -> Tensor:
        raise ValueError("model: full-gradients are defined for convolutional networks, this one computes attention")

    graph = x.requires_grad
    X = x if graph else x.detach().requires_grad_()
    try:
        with rules(required=("conv2d",), conv2d=conv2d, linear=linear, batch_norm=batch_norm, attention=refuse):
            y = score(run(model, X), target)  # B
        (df_dx,) = derivatives(y, [X], create_graph=graph)  # B C H W
    finally:
        for handle in handles:
            handle.remove()
    found = [t for t in terms if t is not None]
    if wrong := [t for t in found if len(t) != len(x)]:
        raise ValueError(
            f"model: runs layers on {len(wrong[0])} rows for {len(x)} images, so a bias belongs to no image"
        )
    return at_least_float32(df_dx) * x, found


def psi(a: Float[Tensor, "B K h w"], size: tuple[int, int]) -> Float[Tensor, "B 1 H W"]:
    """|a|, min-max over all channels and positions of an image, resized with aligned corners as in the authors' code.

    The sum over the channels comes before the resizing, which is linear, so that 1 map is resized instead of K.
    """
    a, K = a.abs(), a.shape[1]
    lo, hi = a.amin(dim=(1, 2, 3), keepdim=True), a.amax(dim=(1, 2, 3), keepdim=True)  # B 1 1 1
    a = ratio(a.sum(dim=1, keepdim=True) - K * lo, hi - lo)  # B 1 h w   = sum_k (a_k - lo) / (hi - lo)
    return F.interpolate(a, size=size, mode="bilinear", align_corners=True)


@method(
    title="FullGrad",
    cite="srinivas2019fullgrad",
    family="gradient",
    forward=1,
    backward=1,
    signed=False,
    verified=("literal", "authors"),
    architectures=("cnn",),
    satisfies=("completeness",),
)
def full_grad(model: nn.Module, x: Float[Tensor, "B C H W"], target: Target) -> Float[Tensor, "B 1 H W"]:
    """The contributions of the image and of every bias to the score, summed over the layers at full resolution."""
    at_x, at_biases = full_gradients(model, x, target)  # B C H W, L of B K h w or B N
    S, size = x.new_zeros(()), (x.shape[2], x.shape[3])
    for a in (at_x, *(b for b in at_biases if b.ndim == 4)):
        S = S + psi(a, size)  # B 1 H W   section 4
    return S
