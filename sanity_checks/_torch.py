"""PyTorch code that checks share: maps as pixel scores, orders, and scores along a path. No equation of a paper."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from methods._torch import Attribution, Target, at_least_float32, chunks, scores, upsample


def pixels(maps: Float[Tensor, "B K h w"], like: Tensor) -> Float[Tensor, "B H W"]:
    """One signed number per pixel: channels summed, resized bilinearly to the grid of `like` (images or masks).

    Raises:
        ValueError: maps are not B K h w for the B images, or not finite.
    """
    check_maps(maps, like)
    a = at_least_float32(maps.detach()).sum(dim=1, keepdim=True)  # B 1 h w
    A = upsample(a, torch.empty(len(like), 1, *like.shape[-2:], dtype=a.dtype, device=a.device))  # B 1 H W
    low, high = a.amin(dim=(2, 3), keepdim=True), a.amax(dim=(2, 3), keepdim=True)
    return A.clamp(low, high)[:, 0]  # a constant map stays constant: rounding must not rank pixels


@torch.enable_grad()
def explain(of: Attribution, model: nn.Module, x: Float[Tensor, "B C H W"], target: Target) -> Float[Tensor, "B K h w"]:
    """The maps of the method, outside any graph; gradients are on inside, in any mode of the caller.

    Raises:
        ValueError: the method did not return B K h w, or not finite.
    """
    maps = of(model, x, target).detach()
    check_maps(maps, x)
    return maps


def check_maps(maps: Tensor, like: Tensor) -> None:
    """Raise a ValueError unless maps are B K h w for the B images in `like`, and finite."""
    if maps.ndim != 4 or len(maps) != len(like):
        raise ValueError(f"maps: must be B K h w for {len(like)} images, got {tuple(maps.shape)}")
    if not maps.isfinite().all():
        raise ValueError("maps: must be finite, got NaN or infinity")


def ranks(a: Float[Tensor, "B *n"]) -> Int[Tensor, "B *n"]:
    """The rank of each element in its image, 0 for the highest; ties are ordered by position."""
    order = a.flatten(1).argsort(dim=1, descending=True, stable=True)  # B n
    places = torch.arange(order.shape[1], device=a.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places).view_as(a)


def constant(a: Float[Tensor, "B *n"]) -> Bool[Tensor, " B"]:
    """Whether the map of each image is the same everywhere, so that it gives no ranking."""
    a = a.flatten(1)
    return a.amax(dim=1) == a.amin(dim=1)


def is_top(p: Float[Tensor, "B N"], target: Int[Tensor, " B"]) -> Bool[Tensor, " B"]:
    """Whether the class has the highest probability; of a single logit, whether it is above one half."""
    return p.argmax(dim=1) == target if p.shape[1] > 1 else p[:, 0] > 0.5


def path(
    model: nn.Module,
    start: Float[Tensor, "B C H W"],
    end: Float[Tensor, "B C H W"],
    rank: Int[Tensor, "B H W"],
    counts: Int[Tensor, " n"] | Int[Tensor, "n B"],
    target: Int[Tensor, " B"] | Callable[[Tensor], Tensor],
    chunk: int,
) -> Float[Tensor, "n B"]:
    """The score of n images between start and end: the k-th takes the pixels of rank below counts[k] from `end`."""
    Y = []
    counts = counts.to(rank.device).expand(len(start), -1).T if counts.ndim == 1 else counts.to(rank.device)  # n B
    for k in chunks(len(counts), chunk, len(start)):
        done = rank < counts[k, :, None, None]  # k B H W
        Y.append(scores(model, torch.where(done[:, :, None], end, start), target))  # k B
    return torch.cat(Y)


def correlation(a: Float[Tensor, "*B n"], b: Float[Tensor, "*B n"]) -> Float[Tensor, "*B"]:
    """Pearson's correlation over the last axis, in float64; 0 where one of the two is constant."""
    a, b = a.double(), b.double()
    flat = (a.amax(dim=-1) == a.amin(dim=-1)) | (b.amax(dim=-1) == b.amin(dim=-1))
    a, b = a - a.mean(dim=-1, keepdim=True), b - b.mean(dim=-1, keepdim=True)
    return torch.where(flat, 0.0, (a * b).sum(dim=-1) / torch.where(flat, 1.0, a.norm(dim=-1) * b.norm(dim=-1)))
