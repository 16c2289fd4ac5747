"""LIFT-CAM: Towards Better Explanations of Class Activation Mapping.

Jung, Oh. ICCV 2021. arXiv:2102.05228

    g(a)    = b_0 + sum_k  alpha_k a_k,  a in {0, 1}^K    (the score, explained by which feature maps are present)
    alpha_k = sum_ij  C( A^k_ij ),  reference A = 0       (DeepLIFT's contributions approximate the SHAP values alpha)
    L       = ReLU( sum_k  alpha_k A^k )                  (the map)

A^k     k-th feature map                                 A[:, k]
C       contribution = multiplier * (A - 0), by DeepLIFT's Rescale rule in the network F after the layer     m * A
F       that network                                     logits

Differs from the paper: no. Its F is a pooling and a classifier; here F is the whole part after `layer`.
Differs from other code: the authors' code (Hyungsik-Jung/LIFT-CAM@dcc8715) builds F for torchvision's VGG-16 and
ResNet-50, calls captum's DeepLift, and resizes L. Captum loses the rule for max pooling next to a ReLU or with
overlapping windows (its sum is then not F(A) - F(0)), and has no rule for GELU, SiLU or hardswish.
Good to know: sum_k alpha_k = F(A) - F(0). After average pooling and one linear layer alpha_k = w_k GAP(A^k), which
is the SHAP value and Ablation-CAM's weight times the score. The rule covers elementwise functions only: products of
activations (squeeze-and-excitation), layer norm or attention after the layer are refused; so are ConvNeXt and ViT.
A callable target is replaced by its derivative with respect to the logits.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from methods._calls import logits_of
from methods._cost import Passes
from methods._edits import Edit, run_edited
from methods._flow import refuse_others
from methods._registry import method
from methods._rescale import PASSING, rescale
from methods._torch import Target, at_least_float32, score


@torch.enable_grad()
def coefficients(
    model: nn.Module, x: Float[Tensor, "B C H W"], target: Target, layer: str
) -> tuple[Float[Tensor, "B K"], Float[Tensor, "B K h w"]]:
    """(alpha, A): the contribution of each feature map to the score, and the maps.

    Raises:
        ValueError: the network after the layer has an operation without a rule.
    """
    B, graph = len(x), x.requires_grad
    pair = Edit(layer, lambda A: torch.stack([A, torch.zeros_like(A)]), 2)  # 2 B K h w   with the maps, without
    with rescale() as nodes:
        output, _, V = run_edited(model, x, [pair], record=True)  # .., B K h w, 2B K h w
        logits = logits_of(output)  # 2B N
        refuse_others(logits, V, nodes, PASSING, "DeepLIFT's Rescale", layer)
        (dy,) = torch.autograd.grad(score(logits[:B], target).sum(), logits, create_graph=graph)  # 2B N   0 below
        (m,) = torch.autograd.grad(logits, V, dy, create_graph=graph)  # 2B K h w
    A = V[:B] if graph else V[:B].detach()  # B K h w
    return at_least_float32(m[:B] * A).sum(dim=(2, 3)), at_least_float32(A)  # B K, B K h w


@method(
    title="LIFT-CAM",
    cite="jung2021liftcam",
    family="cam",
    forward=Passes(2, before=1),
    backward=Passes(2, before=0),
    signed=False,
    needs="rule",
    architectures=("cnn", "swin"),
    verified=("literal", "captum", "authors"),
    satisfies=("completeness",),
)
def lift_cam(model: nn.Module, x: Float[Tensor, "B C H W"], target: Target, *, layer: str) -> Float[Tensor, "B 1 h w"]:
    """Feature maps weighted by the contribution of their presence to the score."""
    alpha, A = coefficients(model, x, target, layer)  # B K, B K h w
    return (alpha[:, :, None, None] * A).sum(dim=1, keepdim=True).relu()  # B 1 h w
