"""Believe The HiPe: Hierarchical Perturbation for Fast, Robust, and Model-Agnostic Saliency Mapping.

Cooper, Arandjelovic, Harrison. Pattern Recognition 2022. arXiv:2103.05108

    S(u)  =  sum_d  sum_{w in W_d, u in w}  ReLU( f(x) - f( x with w hidden ) )          (sum over depths and windows)
    W_d   =  windows of 2 x 2 cells, at every cell, whose largest S so far is at least T
    T     =  ( min_u S(u) + max_u S(u) ) / 2                                             (mid-range)

f       score of the explained class                     f, scores
w       window of 2 x 2 cells; a cell is halved at       windows
        each depth; windows at the edge have fewer
S       map; at the first depth 0, so all windows run    S
T       threshold: "mid-range", or the mean of S         threshold

Differs from the paper: f is the logit, which a callable target replaces.
Differs from other code: the authors' code (jessicamarycooper/Hierarchical-Perturbation@bc600d5) with perturbation
"fade" is this with fill="zero". Its "mean" fills blocks of floor(H / cells) pixels, which end before the last pixels
of the image, and adds the effect to windows that do not; here both are the same pixels.
Good to know: the number of passes depends on the image: few where one small thing decides, and at most all windows of
all depths (1459 of a 224 x 224 image). Effects are never negative, so what speaks against the class is not seen.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from methods._cost import Formula
from methods._regions import Fill, hiding
from methods._registry import method
from methods._torch import Target, at_least_float32, chunks, scores


@method(
    title="HiPe",
    cite="cooper2022believe",
    family="perturbation",
    forward=Formula("1 + windows", lambda s: 1 + sum((c + 1) ** 2 for c in depths(s.H, s.W)), at_most=True),
    backward=0,
    signed=False,
    verified=("literal", "authors"),
    differentiable=False,  # which windows run jumps
)
@torch.no_grad()
def hipe(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Target,
    *,
    threshold: str = "mid-range",
    fill: Fill = "mean",
    chunk: int = 8,
) -> Float[Tensor, "B 1 H W"]:
    """How far the score falls while windows are hidden: large ones first, smaller ones where it falls far.

    Raises:
        ValueError: threshold is unknown, the image is too small, or as `hiding`.
    """
    if threshold not in ("mid-range", "mean"):
        raise ValueError(f"threshold: must be 'mid-range' or 'mean', got {threshold!r}")
    (B, _, H, W), a = x.shape, at_least_float32(x)
    (f,) = scores(model, x[None], target)  # B
    S, without = torch.zeros_like(a[:, 0]), None if fill == "mean" else hiding(x, fill)  # B H W

    def hide(window: Float[Tensor, "k B H W"]) -> Float[Tensor, "k B C H W"]:
        if without:
            return without(1 - window)
        mean = torch.einsum("kbhw,bchw->kbc", window, a) / window.sum(dim=(2, 3))[:, :, None]  # of the window
        return torch.lerp(a, mean[..., None, None], window[:, :, None]).to(x.dtype)

    for cells in depths(H, W):
        rows, cols = (axis.to(a) for axis in (spans(H, cells), spans(W, cells)))  # cells + 1 H, cells + 1 W
        n = cells + 1
        low, high = S.amin(dim=(1, 2)), S.amax(dim=(1, 2))  # B, B
        T = (low + high) / 2 if threshold == "mid-range" else S.mean(dim=(1, 2))  # B
        most = ((S[:, None] * rows[:, :, None]).amax(dim=2)[:, :, None] * cols).amax(dim=3)  # B n n   of each window
        kept = (most >= T[:, None, None]).flatten(1)  # B nn
        order = kept.int().argsort(dim=1, descending=True, stable=True)  # B nn   windows that run come first
        for k in chunks(int(kept.sum(dim=1).max()), chunk, B):
            w, runs = order[:, k].T, kept.gather(1, order[:, k]).T  # k B, k B
            window = rows[w // n][..., None] * cols[w % n][:, :, None]  # k B H W
            drop = (f - scores(model, hide(window), target, like=x)).relu() * runs  # k B
            S = S + torch.einsum("kb,kbhw->bhw", drop, window)
    return S[:, None]  # B 1 H W


def depths(H: int, W: int) -> list[int]:
    """The number of cells in a row at each depth: from log2 of the shorter side, doubled while cells have 4 pixels.

    Raises:
        ValueError: the image is smaller than 8 pixels.
    """
    side = min(H, W)
    if side < 8:
        raise ValueError(f"x: images must have 8 pixels at least in both directions, got {H} x {W}")
    cells = [2 * (math.ceil(math.log2(side)) // 2)]
    while 2 * cells[-1] <= side / 4:
        cells.append(2 * cells[-1])
    return cells


def spans(n: int, cells: int) -> Bool[Tensor, "k n"]:
    """Which of the n pixels of a row lie in each window of two cells; the first and the last have one."""
    cell = torch.arange(n, device="cpu") * cells // n
    first = torch.arange(-1, cells, device="cpu")[:, None]
    return (first <= cell) & (cell < first + 2)
