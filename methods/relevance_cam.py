"""Relevance-CAM: Your Model Already Knows Where To Look.

Lee, Kim, Park, Eo, Hwang. CVPR 2021.

    R^N_t = 1,  R^N_n = -1 / N  for n != t               (contrastive start: the target class against all others)
    R^l   = LRP with the z+ rule from R^N down to layer l
    w_k   = 1/Z  sum_ij  R^l_kij                          (weight of a feature map: its mean relevance)
    L     = sum_k  w_k A^k                                (the map)

N       number of classes; t the explained one           y.shape[1]
R^l     relevance of the layer's output, K h w           R
A^k     k-th feature map of layer l                      A[:, k]
Z       number of positions                              h * w, taken by .mean

Differs from the paper: the formulas, and the sign of the map, are those of the authors' code. For a callable target,
the derivative with respect to the logits replaces the 1; it is contrasted in the same way.
Differs from other code: the authors' code (mongeoroo/Relevance-CAM@49b03bd) adds the bias of a convolution, twice, to
the sum of its z+ rule (ResNet's convolutions have none); here a bias gets no relevance. As in their code, batch norm
passes R on unchanged, and a residual sum a + b divides R in the ratio a : b (all rules: _lrp.py). zennit merges batch
norm into the convolution before it.
Good to know: R^N adds up to 1 / N, so maps show contrast. Defined for convolutions, linear layers, ReLU, batch norm,
pooling and sums: squeeze-and-excitation, SiLU, GELU, layer norm and attention after the layer are refused.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from methods._calls import logits_of
from methods._cost import Passes
from methods._flow import refuse_others
from methods._lrp import PASSING, z_plus
from methods._registry import method
from methods._torch import Target, activation, at_least_float32, score


@torch.enable_grad()
def relevance(
    model: nn.Module, x: Float[Tensor, "B C H W"], target: Target, layer: str
) -> tuple[Float[Tensor, "B K h w"], Float[Tensor, "B K h w"]]:
    """(R, A): the contrastive relevance of the output of `layer`, and that output.

    Raises:
        ValueError: the network after the layer has an operation without a rule.
    """
    graph = x.requires_grad
    with z_plus() as nodes:
        output, A = activation(model, x, layer)  # .., B K h w
        logits = logits_of(output)  # B N
        refuse_others(logits, A, nodes, PASSING, "LRP", layer)
        (t,) = torch.autograd.grad(score(output, target).sum(), logits, create_graph=graph)  # B N   1 at the class
        start = t - (t.sum(dim=1, keepdim=True) - t) / t.shape[1]  # B N
        (R,) = torch.autograd.grad(logits, A, start, create_graph=graph)  # B K h w
    return at_least_float32(R), at_least_float32(A if graph else A.detach())


@method(
    title="Relevance-CAM",
    cite="lee2021relevance",
    family="cam",
    forward=1,
    backward=Passes(1, before=0),
    signed=True,
    needs="rule",
    architectures=("cnn", "swin"),
    source="authors' code",
    verified=("literal", "zennit", "authors"),
)
def relevance_cam(
    model: nn.Module, x: Float[Tensor, "B C H W"], target: Target, *, layer: str
) -> Float[Tensor, "B 1 h w"]:
    """Feature maps weighted by the relevance that arrives at each of them."""
    R, A = relevance(model, x, target, layer)  # B K h w
    w = R.mean(dim=(2, 3), keepdim=True)  # B K 1 1
    return (w * A).sum(dim=1, keepdim=True)  # B 1 h w
