"""One map from many layers: LayerCAM's fusion, for any CAM. LayerCAM: Exploring Hierarchical Class Activation Maps.

Jiang, Zhang, Hou, Cheng, Wei. IEEE Transactions on Image Processing 2021. doi:10.1109/TIP.2021.3089943

    S_l = M_l / max M_l                                  (the map of each layer, to its own maximum)
    S_l = tanh( gamma M_l / max M_l ),  gamma = 2        (instead, for shallow layers)
    M   = max_l  upsample( S_l )                         (the maximum over layers, position by position)

M_l     map of layer l                                   of, called with `layer`
S_l     the same on a common scale                       S
gamma   how much weak evidence is raised                 gamma

Differs from the paper: all layers except `layer`, the deepest, are shallow. Maps are divided by max |M_l|, so that
signed maps keep their sign. Any CAM can replace LayerCAM, and how="mean" or "product" can replace the maximum. The
result is on the finest grid of the layers.
Differs from other code: torchcam's LayerCAM.fuse_cams scales the deepest layer by tanh, too; it and pytorch-grad-cam
first shift each map to a minimum of 0 (scale="minmax"). For several layers pytorch-grad-cam takes the mean, at the size
of the image and without tanh.
Good to know: for a ViT, which has one grid, name `layers`; the default there is `layer` alone. Elsewhere the default is
the last stage on each finer grid, then `layer`; the declared cost counts one for each halving of the grid (ResNet).
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from methods._cost import Formula, Passes
from methods._layers import finer_layers
from methods._registry import method
from methods._torch import Target, at_least_float32, minmax, ratio, upsample
from methods.layer_cam import layer_cam

HOW = {"max": torch.amax, "mean": torch.mean, "product": torch.prod}
LAYERS = Formula("layers", lambda s: 1 + ((s.H // s.h).bit_length() - 2 if s.layers is None else len(s.layers)))


@method(
    title="CAM fused over layers",
    cite="jiang2021layercam",
    family="combinator",
    forward=LAYERS,
    backward=Passes(LAYERS, before=0),
    signed=False,
    verified=("literal", "torchcam", "grad_cam"),
)
def fuse(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Target,
    *,
    layer: str,
    layers: Sequence[str] | None = None,
    of: Callable[..., Tensor] = layer_cam,
    how: str = "max",
    scale: str = "max",
    gamma: float | None = 2.0,
) -> Float[Tensor, "B 1 h w"]:
    """The maps of `layers`, all shallower, and of `layer`, on one scale and on one grid.

    Raises:
        ValueError: how or scale is unknown.
    """
    if how not in HOW or scale not in ("max", "minmax", "none"):
        raise ValueError(
            f"how, scale: must be one of {', '.join(HOW)} and one of max, minmax, none, got {how!r} and {scale!r}"
        )
    layers = finer_layers(model, layer, x) if layers is None else layers
    S = []
    for name in (*layers, layer):
        M = at_least_float32(of(model, x, target, layer=name))  # B 1 h_l w_l
        M = ratio(M, M.abs().amax(dim=(2, 3), keepdim=True)) if scale == "max" else M
        M = minmax(M) if scale == "minmax" else M
        S.append(M if gamma is None or len(S) == len(layers) else torch.tanh(gamma * M))
    finest = max(S, key=lambda M: M[0, 0].numel())
    return HOW[how](torch.stack([upsample(M, finest) for M in S]), dim=0)  # B 1 h w
