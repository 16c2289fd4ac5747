"""CAMERAS: Enhanced Resolution And Sanity preserving Class Activation Mapping for image saliency.

Jalwana, Akhtar, Bennamoun, Mian. CVPR 2021. arXiv:2106.10649

    x_t   = x resized to the t-th size (bicubic; the first is that of x)    (T sizes)
    T_c   = sizes at which the top class is that of x                       (kept)
    A     = 1/|T_c| sum_{t in T_c}  Up( A_t )                               (mean activation, on the image's grid)
    g     = 1/|T_c| sum_{t in T_c}  Up( d y^c(x_t) / dA_t )                 (mean gradient, on the image's grid)
    L     = ReLU( sum_k  A^k * g^k )                                        (the map, on the image's grid)

y^c     score of the explained class                    target
A_t     output of the layer at size t                   A[t]
T       number of sizes, from one to the next           steps, stride (pixels of height)
T_c     per image                                       kept

Differs from the paper: sizes (224, 324, ... 924 for an image of 224), bicubic resizing and what is kept follow the
authors' code (VisMIL/CAMERAS@8ef2d13).
Differs from other code: the authors' code keeps every size if it is given a class (keep="all"). Only without a class
does it keep the sizes that agree (keep="agreeing"). It rescales L to [0, 1], and takes one square image.
Good to know: the kept sizes are chosen for each image separately. The eight sizes together have 61 times the pixels of
the first. A model that takes images of one size only is refused, so `attribute` refuses transformers; for a ViT that
was built with dynamic_img_size=True, call this function directly.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from methods._calls import logits_of
from methods._cost import Passes
from methods._registry import method
from methods._torch import Target, activation_and_gradient, at_least_float32, score


@method(
    title="CAMERAS",
    cite="jalwana2021cameras",
    family="cam",
    forward="steps",
    backward=Passes("steps", before=0),
    signed=False,
    verified=("literal", "authors"),
    architectures=("cnn",),  # most transformers take images of one size only
)
def cameras(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Target,
    *,
    layer: str,
    steps: int = 8,
    stride: int = 100,
    keep: str = "agreeing",
) -> Float[Tensor, "B 1 H W"]:
    """Activations times gradients, both averaged over sizes of the image.

    Raises:
        ValueError: steps or stride is below 1, keep is unknown, or the model does not take a size.
    """
    if steps < 1 or stride < 1:
        raise ValueError(f"steps, stride: need at least one size and at least one pixel, got {steps} and {stride}")
    if keep not in ("agreeing", "all"):
        raise ValueError(f"keep: must be 'agreeing' (sizes with the top class of the image) or 'all', got {keep!r}")
    (H, W), top, A, g = x.shape[2:], [], [], []

    def y(output: Any) -> Float[Tensor, " B"]:
        top.append(logits_of(output).argmax(dim=1))
        return score(output, target)

    for t in range(steps):
        size = H + t * stride, round(W * (H + t * stride) / H)
        x_t = x if t == 0 else interpolate(at_least_float32(x), size, mode="bicubic").to(x.dtype)  # B C h w
        try:
            _, A_t, g_t = activation_and_gradient(model, x_t, y, layer)  # B, B K h w, B K h w
        except (AssertionError, RuntimeError, ValueError) as e:
            if t == 0 or isinstance(e, torch.OutOfMemoryError):
                raise
            size = f"{size[0]} x {size[1]} ({e})"
            raise ValueError(f"model: takes {H} x {W} images, but not {size}; a timm ViT needs dynamic_img_size") from e
        A.append(A_t)
        g.append(g_t)
    kept = (torch.stack(top) == top[0]) | (keep == "all")  # T B
    R = torch.cat([rows(a, H) * k[:, None, None] for a, k in zip(A, kept, strict=True)], dim=2)
    R = (R / kept.sum(dim=0)[:, None, None])[:, None]  # B 1 H sum(h)   the mean over T_c, and Up along a column
    L = torch.zeros_like(x[:, :1], dtype=A[0].dtype)  # B 1 H W
    for k in torch.arange(A[0].shape[1], device=x.device).split(128):  # channels
        mean_A, mean_g = (R @ torch.cat([columns(a[:, k], W) for a in v], dim=2) for v in (A, g))  # B k H W
        L = L + (mean_A * mean_g).sum(dim=1, keepdim=True)  # B 1 H W
    return L.relu()  # B 1 H W


def columns(a: Float[Tensor, "B k h w"], W: int) -> Float[Tensor, "B k h W"]:
    """Up along each row."""
    return interpolate(a, (a.shape[2], W), mode="bilinear")


def rows(a: Float[Tensor, "B K h w"], H: int) -> Float[Tensor, "H h"]:
    """Up along each column, as a matrix."""
    unit = torch.eye(a.shape[2], dtype=a.dtype, device=a.device)
    return interpolate(unit[None, None], (H, len(unit)), mode="bilinear")[0, 0]
