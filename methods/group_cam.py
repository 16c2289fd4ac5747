"""Group-CAM: Group Score-Weighted Visual Explanations for Deep Convolutional Networks.

Zhang, Rao, Yang. 2021. arXiv:2103.13859

    w_k   = GAP( d y^c / dA^k )                                      (weights, as in Grad-CAM)
    m_l   = ReLU( sum_{k in group l}  w_k A^k )                      (initial mask of group l)
    m_l   = m_l where m_l > percentile_theta( m_l ), 0 elsewhere     (de-noised; authors' code)
    M_l   = s( Up( m_l ) ),  s(.) = min-max to [0, 1]                (mask)
    I_l   = M_l * I + (1 - M_l) * blur( I )                          (hidden pixels are blurred)
    s_l   = p_c( I_l ) - p_c( blur( I ) )                            (confidence gained over the blurred image)
    L     = ReLU( sum_l  s_l M_l )                                   (the map, on the image's grid)

y^c, p_c   score of class c, its softmax probability    target, p_c
A^k        k-th feature map                             A[:, k]
G          number of groups of neighbouring channels    groups
theta      percentile of a mask's positions             theta
blur       Gaussian blur, reflected at the borders      kernel (pixels), sigma

Differs from the paper: follows the authors' code as of wofmanaf/Group-CAM@0b61fdd, cam/groupcam.py: the percentile is
of each mask before it is resized, theta = 70; the blur is 51 pixels wide with sigma = 50; p_c is a probability.
Differs from other code: that file rescales L to [0, 1] and returns None where it is constant. The file of that name at
their head (@ffd807b) is another method, without percentile: correlation 0.87 and 0.64 with ours on tests/golden. Their
groupcam_faster.py (@0b61fdd) takes one percentile over all of its 16 groups and subtracts no p_c( blur( I ) ).
Good to know: a callable target gets the logits for w and the probabilities for p_c; with confidence="score" it gets the
logits both times. Groups follow the order of the channels, which has no meaning; if there are fewer channels than
groups, each channel is a group.
"""

from math import ceil
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from methods._calls import probabilities
from methods._cost import Formula, Passes
from methods._registry import method
from methods._torch import Target, activation_and_gradient, at_least_float32, chunks, minmax, score, scores, upsample


@method(
    title="Group-CAM",
    cite="zhang2021groupcam",
    family="cam",
    forward=Formula("2 + ⌈K / ⌈K / groups⌉⌉", lambda s: 2 + ceil(s.K / ceil(s.K / s.groups))),
    backward=Passes(1, before=0),
    signed=False,
    source="authors' code",
    verified=("literal", "authors"),
)
def group_cam(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Target,
    *,
    layer: str,
    groups: int = 32,
    theta: float = 70.0,
    kernel: int = 51,
    sigma: float = 50.0,
    confidence: str = "probability",
    chunk: int = 8,
) -> Float[Tensor, "B 1 H W"]:
    """Groups of Grad-CAM's weighted feature maps, each weighted by the confidence gained when it is shown.

    Raises:
        ValueError: groups, theta, kernel or sigma is out of range, or confidence is unknown.
    """
    if groups < 1 or not 0 <= theta <= 100:
        raise ValueError(f"groups, theta: need at least one group and theta in [0, 100], got {groups} and {theta}")
    if kernel < 1 or kernel % 2 == 0 or sigma <= 0:
        raise ValueError(f"kernel, sigma: must be an odd number of pixels and positive, got {kernel} and {sigma}")
    if confidence not in ("probability", "score"):
        raise ValueError(f"confidence: must be 'probability' (the authors' code) or 'score', got {confidence!r}")

    def p_c(output: Any) -> Float[Tensor, " n"]:
        return score(probabilities(output), target)

    p = p_c if confidence == "probability" else target
    with torch.set_grad_enabled(x.requires_grad):
        _, A, g = activation_and_gradient(model, x, target, layer)  # B, B K h w, B K h w
        w = g.mean(dim=(2, 3), keepdim=True)  # B K 1 1
        m = torch.stack([group.sum(dim=1) for group in (w * A).chunk(groups, dim=1)], dim=1).relu()  # B G h w
        t = m.flatten(2).quantile(theta / 100, dim=2)[:, :, None, None]  # B G 1 1
        m = torch.where(m > t, m, 0)  # B G h w
        I, (H, W) = at_least_float32(x), x.shape[2:]
        rows, cols = blur(H, kernel, sigma).to(I), blur(W, kernel, sigma).to(I)  # H H, W W
        I_ = rows @ I @ cols.T  # B C H W   blur( I )
        p_blur, L = scores(model, I_[None], p, like=x), x.new_zeros(())  # 1 B
        for part in chunks(m.shape[1], chunk, len(x)):
            M = minmax(upsample(m[:, part], x)).transpose(0, 1)[:, :, None]  # l B 1 H W
            s = scores(model, M * I + (1 - M) * I_, p, like=x) - p_blur  # l B
            L = L + (s[:, :, None, None, None] * M).sum(dim=0)  # B 1 H W
        return L.relu()  # B 1 H W


def blur(n: int, kernel: int, sigma: float) -> Float[Tensor, "n n"]:
    """The matrix that blurs a row of n pixels with a normalised Gaussian window; borders are reflected."""
    d = torch.arange(kernel, dtype=torch.float64, device="cpu") - kernel // 2
    weight = torch.exp(-0.5 * (d / sigma) ** 2)  # kernel
    period = max(2 * (n - 1), 1)
    j = (torch.arange(n, device="cpu")[:, None] + d.long()) % period  # n kernel
    j = torch.minimum(j, period - j)  # ... 2 1 | 0 1 2 ... n - 1 | n - 2 ...
    return torch.zeros(n, n, dtype=torch.float64, device="cpu").scatter_add(1, j, (weight / weight.sum()).expand(n, -1))
