"""RandomCAM: feature maps with random weights, a control. Published as code, in pytorch-grad-cam (Gildenblat, 2021).

    w_k ~ U(-1, 1)                                       (one number per channel)
    L   = sum_k  w_k A^k                                 (the map)

A^k     k-th feature map                                 A[:, k]
w_k     its weight, drawn again for every seed           w[k]

Differs from the paper: there is none. The equation is the package's own.
Differs from other code: pytorch-grad-cam draws other weights for every image of a batch, from NumPy's global state,
then cuts at 0 and rescales to [0, 1]; here one draw is shared by the batch, and the sign is kept.
Good to know: this is not an explanation but a control that an explanation must beat. Where the feature maps look like
the objects of the image, any weighting of them does. Average a score over several seeds.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from methods._registry import method
from methods._torch import Target, activation, at_least_float32


@method(
    title="RandomCAM",
    cite="gildenblat2021pytorch",
    family="cam",
    forward=1,
    backward=0,
    signed=True,
    source="package",
    verified=("literal", "grad_cam"),
    fails={"random_logit": "uses no class: the same map for every target"},
)
def random_cam(
    model: nn.Module, x: Float[Tensor, "B C H W"], target: Target, *, layer: str, seed: int = 0
) -> Float[Tensor, "B 1 h w"]:
    """The feature maps of `layer` summed with random weights."""
    with torch.set_grad_enabled(x.requires_grad):
        A = at_least_float32(activation(model, x, layer)[1])  # B K h w
        rng = torch.Generator(x.device).manual_seed(seed)
        w = 2 * torch.rand(A.shape[1], generator=rng, device=x.device, dtype=torch.float32).to(A) - 1  # K   U(-1, 1)
        return (w[:, None, None] * A).sum(dim=1, keepdim=True)  # B 1 h w
