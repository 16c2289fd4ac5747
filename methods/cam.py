"""Learning Deep Features for Discriminative Localization.

Zhou, Khosla, Lapedriza, Oliva, Torralba. CVPR 2016. arXiv:1512.04150

    M_c(x, y) = sum_k  w_k^c f_k(x, y)                   (eq. 2)

f_k     k-th feature map before global average pooling   A[:, k]
w_k^c   weight of class c for unit k                     w; for a callable target sum_c (dy / dS_c) w^c
M_c     coarse map, on the grid of f                     returned

Differs from the paper: no.
Differs from other code: riverback and others rescale to [0, 1]; here a negative sign marks evidence against c.
Good to know: the model must end in average pooling and one linear layer. This is checked on the values: a head with a
norm, a hidden layer or another pooling is refused. The mean of the map plus the bias is the logit.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from methods._calls import logits_of
from methods._registry import method
from methods._torch import Target, activation, at_least_float32, head, score


@method(
    title="CAM",
    cite="zhou2016learning",
    family="cam",
    forward=1,
    backward=0,
    signed=True,
    needs="linear head",
    architectures=("cnn", "swin"),
    verified=("literal", "torchcam"),
    satisfies=("completeness",),
)
@torch.enable_grad()
def cam(model: nn.Module, x: Float[Tensor, "B C H W"], target: Target, *, layer: str) -> Float[Tensor, "B 1 h w"]:
    """The classifier's weights applied at each position of `layer`, the last layer before the pooling."""
    output, f = activation(model, x, layer)  # .., B K h w
    S = logits_of(output)  # B N
    W = head(model, x, S, f)  # N K
    (dy_dS,) = torch.autograd.grad(
        score(output, target).sum(), S, create_graph=x.requires_grad
    )  # B N, one-hot for a class
    w = at_least_float32(dy_dS @ W)  # B K
    M = (w[:, :, None, None] * at_least_float32(f)).sum(dim=1, keepdim=True)  # B 1 h w   eq. 2
    return M if x.requires_grad else M.detach()
