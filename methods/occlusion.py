"""Visualizing and Understanding Convolutional Networks.

Zeiler, Fergus. ECCV 2014. arXiv:1311.2901

A grey square moves over the image, and the score is recorded (section 4.2):

    S_u  =  mean over the windows w that contain pixel u  of  F(x) - F(x with w set to v)

F       score of the target class                       y
w       square of size x size pixels every `stride`     M
v       what the square is filled with                  value; 0 is grey, the mean colour of a normalised image

Differs from the paper: it plots F(x with w set to v) at each position of the square, and gives no size or stride.
Size 15 is PAIR's default; stride 8 makes 784 windows of a 224 x 224 image, where PAIR's stride 1 makes 44,100.
Differs from other code: PAIR sums overlapping windows without dividing by their number, which favours the centre (a
corner lies in one window). zennit's default hides everything except the window. The windows are those of captum (the
last of a row or column is cut off at the edge), but captum rounds its map to float32.
Good to know: the value of a pixel mixes the effects of all squares over it, so the map is no finer than the square.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from methods._cost import Formula
from methods._registry import method
from methods._torch import Target, chunks, scores


@method(
    title="Occlusion",
    cite="zeiler2014visualizing",
    family="perturbation",
    forward=Formula(
        "1 + places of the square",
        lambda s: 1 + len(windows(s.H, s.size, s.stride)) * len(windows(s.W, s.size, s.stride)),
    ),
    backward=0,
    signed=True,
    verified=("captum", "literal"),
)
def occlusion(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Target,
    *,
    size: int = 15,
    stride: int = 8,
    value: float = 0.0,
    chunk: int = 8,
) -> Float[Tensor, "B 1 H W"]:
    """How far the score falls while a square hides the pixel."""
    rows, cols = windows(x.shape[2], size, stride), windows(x.shape[3], size, stride)  # n_h H, n_w W
    rows, cols = rows.to(x.device), cols.to(x.device)
    n_h, n_w = len(rows), len(cols)
    (F,) = scores(model, x[None], target)  # B
    total = 0
    for part in chunks(n_h * n_w, chunk, len(x)):
        w = torch.arange(n_h * n_w, device=x.device)[part]  # k
        M = rows[w // n_w, :, None] & cols[w % n_w, None]  # k H W
        drop = F - scores(model, torch.where(M[:, None, None], value, x), target)  # k B
        total = total + torch.einsum("kb,khw->bhw", drop, M.to(drop.dtype))  # B H W
    S = total / (rows.sum(dim=0)[:, None] * cols.sum(dim=0))  # B H W   mean over the windows of each pixel
    return S[:, None]  # B 1 H W


def windows(n: int, size: int, stride: int) -> Bool[Tensor, "k n"]:
    """Which of the n pixels of a row lie in each window; the last window may extend beyond the end.

    Raises:
        ValueError: the window is larger than the image, or the stride leaves pixels out.
    """
    if not 1 <= size <= n:
        raise ValueError(f"size: the square must be 1 pixel at least and fit into the image ({n} pixels), got {size}")
    if not 1 <= stride <= size:
        raise ValueError(f"stride: must be 1 at least, and at most size = {size} to reach every pixel, got {stride}")
    first = torch.arange(0, n - size + stride, stride, device="cpu")[:, None]  # k 1
    u = torch.arange(n, device="cpu")
    return (first <= u) & (u < first + size)
