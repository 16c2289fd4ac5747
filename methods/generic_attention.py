"""Generic Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder Transformers.

Chefer, Gur, Wolf. ICCV 2021. arXiv:2103.15679, self-attention form

    R^0   = I                                            (eq. 1)
    A-    = E_h( (dy / dA * A)^+ )                       (eq. 5, mean over heads of the positive part)
    R    <- R + A- R                                     (eq. 6, for each layer)

A       attention map of a layer after the softmax       A: B heads T T
y       score of the class                               y
R       relevance of each token to each token            R: B T T; the map is the row that the head reads

Differs from the paper: no; the row is that of the class token, or the mean of patch rows for a mean-pooled model.
Differs from other code: the authors' notebook (hila-chefer/Transformer-MM-Explainability@58eaea8) is the same. The
baseline in jiaminchen-1031/transformerinterp@a76854a takes the mean over heads first and rectifies afterwards
(correlation with ours 0.99 on tests/golden); InterpretDL multiplies the means over heads and rectifies afterwards.
Good to know: class-specific; needs global attention over one grid of tokens, so Swin is refused.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from methods._cost import Passes
from methods._registry import method
from methods._torch import Target, at_least_float32, attention, derivatives, read_out, score


@method(
    title="Generic Attention Explainability",
    cite="chefer2021generic",
    family="attention",
    forward=1,
    backward=Passes(1, before=0),
    signed=False,
    verified=("literal", "numpy", "authors"),
    architectures=("vit",),
)
@torch.enable_grad()
def generic_attention(model: nn.Module, x: Float[Tensor, "B C H W"], target: Target) -> Float[Tensor, "B 1 h w"]:
    """Relevance of each patch to the score, along attention that raises the score."""
    output, maps = attention(model, x)  # .., L of B heads T T
    y = score(output, target)  # B
    dy_dA = derivatives(y, maps, create_graph=x.requires_grad)  # L of B heads T T
    R = torch.eye(maps[0].shape[-1], device=x.device, dtype=at_least_float32(maps[0]).dtype)  # T T   eq. 1
    for A, grad in zip(maps, dy_dA, strict=True):
        A_bar = (at_least_float32(grad) * at_least_float32(A)).relu().mean(dim=1)  # B T T   eq. 5
        R = R + A_bar @ R  # B T T   eq. 6
    S = read_out(model, x, R)  # B 1 h w
    return S if x.requires_grad else S.detach()
