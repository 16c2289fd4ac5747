"""CAMs as Shapley Value-based Explainers (ShapleyCAM).

Cai. The Visual Computer 2025. arXiv:2501.06261

    w^c = GAP( g - 1/2 H A ),  g = du^c / dA,  H = d^2 u^c / dA^2       (the Shapley value of A, to second order)
    L^c = ReLU( sum_k  w_k^c A^k )                                      (the map: weights="mean")
    L^c = sum_k  ReLU( ( g - 1/2 H A )^k A^k )                          (the author's repository: weights="elementwise")
    u^c = z^c + log softmax(z)^c                                        (ReST, the paper's utility function: `rest`)

u^c     utility: the score that is explained            the target; a class: its logit; rest(class): ReST
A^k     k-th feature map                                 A[:, k]
H A     Hessian times activation, one more backward pass after the layer         HA
GAP     mean over the positions                          .mean

Differs from the paper: its text was not available. w (the default) and ReST are as the author merged them into
pytorch-grad-cam. The caller chooses the utility: a class means its logit, as in all methods here; for the paper's
utility call shapley_cam(model, x, rest(classes), layer=...).
Differs from other code: pytorch-grad-cam counts class tokens among the features in H A, and raises on tokens when it
sums; here only the tokens of the grid count. The author's own repository (caihuaiguang/pytorch-shapley-cam@ee02cce)
uses the elementwise form: on tests/golden with ReST, its correlation with the default is 0.83 and 0.82 at
layer4, -0.10 and -0.04 at layer2.
Good to know: if only ReLUs and linear layers come after the layer, H = 0 for a logit. The map is then Grad-CAM (or
Grad-CAM element-wise), and only ReST makes a difference. Attention runs unfused here, since the fused kernels have no
second derivative. In a loss the map needs the third derivative of the score. PyTorch's layer norm computes it wrongly,
so it is replaced by elementary operations there.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from methods._calls import logits_of
from methods._cost import Passes
from methods._registry import method
from methods._rules import rules
from methods._torch import Target, activation, activation_and_gradient, at_least_float32, double_backward, score


def rest(classes: Int[Tensor, " B"]) -> Callable[[Any], Float[Tensor, " B"]]:
    """ReST, a target for any method: u = z^c + log p^c. Its gradient does not vanish, neither at p^c = 1 nor at 0."""

    def u(output: Any) -> Float[Tensor, " B"]:
        z = logits_of(output)  # B N
        log_p = z.log_softmax(dim=1) if z.shape[1] > 1 else logsigmoid(z)  # B N
        return score(z, classes) + score(log_p, classes)

    return u


def layer_norm(
    op: Any, a: Tensor, shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5, *_: Any
) -> Tensor:
    """`torch.layer_norm` from operations whose derivatives of every order are correct."""
    axes = tuple(range(-len(shape), 0))
    b = at_least_float32(a)
    b = b - b.mean(dim=axes, keepdim=True)
    b = b * (b.square().mean(dim=axes, keepdim=True) + eps).rsqrt()
    b = (b if weight is None else b * weight) + (0 if bias is None else bias)
    return b.to(a.dtype)


@method(
    title="ShapleyCAM",
    cite="cai2025cams",
    family="cam",
    forward=1,
    backward=Passes(1, before=0),
    signed=False,
    source="package",
    verified=("literal", "grad_cam", "authors"),
)
@torch.enable_grad()
def shapley_cam(
    model: nn.Module, x: Float[Tensor, "B C H W"], target: Target, *, layer: str, weights: str = "mean"
) -> Float[Tensor, "B 1 h w"]:
    """Grad-CAM with each weight corrected for the curvature of the score.

    Raises:
        ValueError: weights is unknown.
    """
    if weights not in ("mean", "elementwise"):
        raise ValueError(f"weights: must be 'mean' or 'elementwise' (the author's repository), got {weights!r}")
    graph = x.requires_grad
    with double_backward(True), rules(required=(), layer_norm=layer_norm) if graph else contextlib.nullcontext():
        output, A = activation(model, x, layer)  # .., B K h w
        y = score(output, target)  # B
        (g,) = torch.autograd.grad(y.sum(), A, create_graph=True, allow_unused=True)  # B K h w
        if g is None or not g.any():
            activation_and_gradient(model, x, target, layer)  # raises where no position can change the score
        HA = torch.autograd.grad(g, A, A, create_graph=graph, allow_unused=True)[0] if g.requires_grad else None
    d = at_least_float32(g) if HA is None else at_least_float32(g) - at_least_float32(HA) / 2  # B K h w
    if weights == "elementwise":
        L = (d * at_least_float32(A)).relu().sum(dim=1, keepdim=True)  # B 1 h w
    else:
        w = d.mean(dim=(2, 3), keepdim=True)  # B K 1 1
        L = (w * at_least_float32(A)).sum(dim=1, keepdim=True).relu()  # B 1 h w
    return L if graph else L.detach()
