"""Quantifying Attention Flow in Transformers.

Abnar, Zuidema. ACL 2020. arXiv:2005.00928

    A       = 0.5 W_att + 0.5 I                          (section 3, residual connection; rows sum to 1)
    A~(l_i) = A(l_i) A~(l_{i-1}),  A~(l_0) = A(l_0)      (eq. 1, attention rollout)

W_att   attention map of a layer, mean over its heads    W: B T T
A~      attention from the last layer to the input       rollout: B T T
T       tokens: class and other prefix tokens, patches   the map is the row that the head reads, patches only

Differs from the paper: no; the row is that of the class token, or the mean of patch rows for a mean-pooled model.
Differs from other code: Chefer et al.'s baseline (hila-chefer/Transformer-Explainability@c3e578f, generate_rollout) is
the same and can start at a later block; the rollout in their ViT_LRP.py omits the row normalisation. vit-explain
divides columns instead of rows and drops small attention of the first image only.
Good to know: it uses no class and no gradient, so the map is the same for every target.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from methods._registry import method
from methods._torch import Target, at_least_float32, attention, read_out


@method(
    title="Attention Rollout",
    cite="abnar2020quantifying",
    family="attention",
    forward=1,
    backward=0,
    signed=False,
    verified=("literal", "numpy", "authors"),
    architectures=("vit",),
    fails={"random_logit": "uses no class: the same map for every target"},
)
def attention_rollout(model: nn.Module, x: Float[Tensor, "B C H W"], target: Target) -> Float[Tensor, "B 1 h w"]:
    """How much of each patch reaches the token that the head reads, by attention alone."""
    with torch.set_grad_enabled(x.requires_grad):
        _, maps = attention(model, x)  # L of B heads T T
        W = [at_least_float32(W_att).mean(dim=1) for W_att in maps]  # L of B T T
        I = torch.eye(W[0].shape[-1], device=x.device, dtype=W[0].dtype)
        rollout = I  # T T
        for W_att in W:
            rollout = (0.5 * W_att + 0.5 * I) @ rollout  # B T T   eq. 1
        return read_out(model, x, rollout)  # B 1 h w
