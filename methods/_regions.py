"""What black-box methods share: the regions of an image, and the image with some of it hidden. No equation of a paper.

A mask M is 1 where the image is seen and 0 where it is hidden; between them the two are mixed.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from skimage.segmentation import felzenszwalb, quickshift, slic
from torch import Tensor, nn
from torch.nn import functional as F

from methods._calls import here, run
from methods._layers import probe
from methods._torch import Target, at_least_float32, chunks, match_format, ratio, score, scores, tile

# g: a grid of g x g cells; a name below; a label of each pixel (H W or B H W); or what labels an image H W 3 in [0, 1].
Segments = int | str | Tensor | Callable[[Any], Any]
SEGMENTATIONS: dict[str, Callable[[Any], Any]] = {
    "quickshift": lambda image: quickshift(image, kernel_size=4, max_dist=200, ratio=0.2, rng=0),  # pip's lime
    "slic": lambda image: slic(image, n_segments=50, compactness=10),
    "felzenszwalb": lambda image: felzenszwalb(image, scale=250, sigma=0.8, min_size=150),
}
# A name below, a number, or a tensor that broadcasts to the images.
Fill = str | float | Tensor
FILLS = ("zero", "mean", "blur", "noise", "inpaint")


def regions(x: Float[Tensor, "B C H W"], segments: Segments) -> Int[Tensor, "B H W"]:
    """The number 0 .. R - 1 of the region of each pixel; R may differ between the images.

    Args:
        x: images. For a segmentation each is rescaled to [0, 1]; other than three channels become grey.
        segments: see `Segments`.

    Raises:
        ValueError: segments is unknown, or its labels are no whole numbers of the right shape.
    """
    H, W = x.shape[2:]
    if isinstance(segments, int):
        if not 1 <= segments <= min(H, W):
            raise ValueError(f"segments: a grid needs 1 to {min(H, W)} cells in a row, got {segments}")
        i, j = (torch.arange(n, device=x.device) * segments // n for n in (H, W))
        return (i[:, None] * segments + j).expand(len(x), H, W)
    if isinstance(segments, Tensor):
        if segments.is_floating_point() or segments.shape not in ((H, W), (len(x), H, W)):
            what = f"{segments.dtype} {tuple(segments.shape)}"
            raise ValueError(f"segments: labels must be whole numbers H W or B H W ({len(x)}, {H}, {W}), got {what}")
        labels = segments.to(x.device).expand(len(x), H, W)
    else:
        if isinstance(segments, str) and segments not in SEGMENTATIONS:
            raise ValueError(f"segments: must be one of {', '.join(SEGMENTATIONS)}, got {segments!r}")
        label = SEGMENTATIONS[segments] if isinstance(segments, str) else segments
        found = [np.asarray(label(picture(image))) for image in x]
        if any(a.shape != (H, W) or a.dtype.kind not in "iub" for a in found):
            what = f"{found[0].dtype} {found[0].shape}"
            raise ValueError(f"segments: the function must return whole numbers of shape ({H}, {W}), got {what}")
        labels = torch.stack([torch.from_numpy(a.astype(np.int64)) for a in found]).to(x.device)
    return torch.stack([a.unique(return_inverse=True)[1] for a in labels])


def picture(image: Float[Tensor, "C H W"]) -> Float[np.ndarray, "H W 3"]:
    """The image rescaled to [0, 1], as libraries of image processing want it; other than three channels become grey."""
    a = at_least_float32(image.detach()).cpu().double()
    a = a if len(a) == 3 else a.mean(dim=0).expand(3, -1, -1)
    return ratio(a - a.min(), a.max() - a.min()).permute(1, 2, 0).numpy()


def count(labels: Int[Tensor, "B H W"]) -> list[int]:
    """R, the number of regions of each image."""
    return [int(n) + 1 for n in labels.flatten(1).amax(dim=1)]


def drawn(labels: Int[Tensor, "B H W"], draw: Callable[[int], Float[np.ndarray, "n R"]]) -> Float[Tensor, "n B R"]:
    """What `draw` gives for the number of regions of each image; rows and columns that an image does not have are 0.

    Images with as many regions get the same numbers, whatever else is in the batch.
    """
    R = count(labels)
    of = {r: torch.from_numpy(draw(r)) for r in sorted(set(R))}
    n = max(len(z) for z in of.values())
    return torch.stack([F.pad(of[r], (0, max(R) - r, 0, n - len(of[r]))) for r in R], dim=1)


def painted(phi: Float[Tensor, "*n B R"], labels: Int[Tensor, "B H W"]) -> Float[Tensor, "*n B H W"]:
    """The value of its region at each pixel."""
    at = labels.flatten(1).expand(*phi.shape[:-1], -1)
    return phi.to(labels.device).gather(-1, at).unflatten(-1, labels.shape[1:])


def hiding(
    x: Float[Tensor, "B C H W"], fill: Fill, labels: Int[Tensor, "B H W"] | None = None, seed: int = 0
) -> Callable[[Float[Tensor, "n B H W"]], Float[Tensor, "n B C H W"]]:
    """A function of masks: the images seen through them.

    Args:
        x: images.
        fill: what is seen where an image is hidden. "zero" (the mean colour of a normalised image); "mean" colour of
            each region, or of the image if there are no regions; "blur" with sigma 10 of 224 pixels; "noise" with
            the mean and deviation of the image; "inpaint" from the pixels that are seen; a number; or a tensor.
        labels: of the regions.
        seed: of the noise.

    Raises:
        ValueError: fill is unknown, or does not broadcast to the images.
    """
    a = at_least_float32(x)
    if isinstance(fill, str) and fill not in FILLS:
        raise ValueError(f"fill: must be one of {', '.join(FILLS)}, a number or a tensor, got {fill!r}")
    if fill == "inpaint":
        return lambda M: _inpaint(a.expand(len(M), *a.shape), M[:, :, None].to(a)).to(x.dtype)
    if fill == "mean":
        v = _mean_colour(a, labels)
    elif fill == "blur":
        v = blurred(a, min(x.shape[2:]) * 10 / 224)
    elif fill == "noise":
        rng = torch.Generator(x.device).manual_seed(seed)
        noise = torch.randn(x.shape[1:], generator=rng, device=x.device, dtype=a.dtype)
        v = a.mean(dim=(2, 3), keepdim=True) + a.std(dim=(2, 3), keepdim=True) * noise
    else:
        v = torch.as_tensor(0.0 if fill == "zero" else fill, device=x.device, dtype=a.dtype)
        try:
            v = v.expand_as(a)
        except RuntimeError:
            raise ValueError(f"fill: {tuple(v.shape)} does not broadcast to images {tuple(x.shape)}") from None
    return lambda M: torch.lerp(v, a, M[:, :, None].to(a)).to(x.dtype)


def _mean_colour(a: Float[Tensor, "B C H W"], labels: Int[Tensor, "B H W"] | None) -> Float[Tensor, "B C H W"]:
    if labels is None:
        return a.mean(dim=(2, 3), keepdim=True).expand_as(a)
    at = labels.flatten(1)[:, None].expand(-1, a.shape[1], -1)  # B C HW
    sums = a.new_zeros(*a.shape[:2], max(count(labels)))  # B C R
    mean = sums.scatter_add(2, at, a.flatten(2)) / sums.scatter_add(2, at, torch.ones_like(a).flatten(2)).clamp(min=1)
    return mean.gather(2, at).view_as(a)


def _inpaint(a: Float[Tensor, "n B C H W"], M: Float[Tensor, "n B 1 H W"]) -> Float[Tensor, "n B C H W"]:
    """Push and pull (Gortler et al. 1996): hidden pixels from a coarser image, which is made of seen pixels alone."""

    def pull(v: Float[Tensor, "m C h w"], w: Float[Tensor, "m 1 h w"]) -> Float[Tensor, "m C h w"]:
        if max(v.shape[2:]) == 1:
            return v
        below = F.avg_pool2d(w, 2, ceil_mode=True)
        colour = ratio(F.avg_pool2d(w * v, 2, ceil_mode=True), below.expand(-1, v.shape[1], -1, -1))
        coarse = pull(colour, (4 * below).clamp(max=1))
        return torch.lerp(F.interpolate(coarse, size=v.shape[2:], mode="bilinear", align_corners=False), v, w)

    return pull(a.flatten(0, 1), M.flatten(0, 1)).view_as(a)


def blurred(a: Float[Tensor, "*B H W"], sigma: float, edge: str = "reflect") -> Float[Tensor, "*B H W"]:
    """Gaussian blur of `sigma` pixels, cut off at 4 sigma; outside the image are its mirror image or (`zero`) zeros."""
    return _gaussian(sigma, a.shape[-2], edge).to(a) @ a @ _gaussian(sigma, a.shape[-1], edge).to(a).T


def _gaussian(sigma: float, n: int, edge: str) -> Float[Tensor, "n n"]:
    """The matrix that blurs a row of n pixels."""
    reach = int(np.ceil(4 * sigma))
    d = torch.arange(-reach, reach + 1, dtype=torch.float64, device="cpu")
    g = torch.exp(-0.5 * (d / max(sigma, 1e-9)) ** 2)
    at = torch.arange(n, device="cpu")[:, None] + d.long()  # n 2 reach + 1
    g = (g / g.sum()).expand(at.shape) * ((at >= 0) & (at < n) if edge == "zero" else 1)
    period = max(2 * (n - 1), 1)
    at = at.clamp(0, n - 1) if edge == "zero" else torch.minimum(at % period, period - at % period).clamp(max=n - 1)
    return torch.zeros(n, n, dtype=torch.float64, device="cpu").scatter_add(1, at, g)


def masked_scores(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Target,
    hide: Callable[[Float[Tensor, "n B H W"]], Float[Tensor, "n B C H W"]],
    masks: Callable[[slice], Float[Tensor, "n B H W"]],
    n: int,
    chunk: int,
) -> Float[Tensor, "n B"]:
    """The scores of n versions of each image, seen through masks that are made when they are needed."""
    return torch.cat([scores(model, hide(masks(part)), target, like=x) for part in chunks(n, chunk, len(x))])


def sampled_scores(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Target,
    labels: Int[Tensor, "B H W"],
    draw: Callable[[int], Float[np.ndarray, "n R"]],
    fill: Fill,
    seed: int,
    chunk: int,
) -> tuple[Float[Tensor, "n B R"], Float[Tensor, "n B"]]:
    """(z, f): which regions are seen in each sample, as `drawn`, and the score of the image with only these."""
    z, hide = drawn(labels, draw), hiding(x, fill, labels, seed)
    seen = z.to(at_least_float32(x).dtype)  # as the images; not every device has float64
    return z, masked_scores(model, x, target, hide, lambda i: painted(seen[i], labels), len(z), chunk)


def without_tokens(
    model: nn.Module, x: Float[Tensor, "B C H W"], target: Target, seen: Float[Tensor, "m B R"]
) -> Float[Tensor, "m B"]:
    """The scores of a ViT of timm that gets only the tokens of the patches where `seen` is 1; all sets have as many.

    Raises:
        ValueError: the model has no place where patches can be dropped, or the regions are not its patches.
    """
    m, B, R = seen.shape
    place = getattr(model, "patch_drop", None)
    if not isinstance(place, nn.Module):
        raise ValueError("fill: 'drop' takes tokens away from a ViT of timm (its `patch_drop`); use another fill here")
    cells = seen.flatten(0, 1).nonzero()[:, 1].view(m * B, -1)  # mB n

    def drop(_module: nn.Module, _args: Any, tokens: Float[Tensor, "mB T D"]) -> Float[Tensor, "mB t D"]:
        found = probe(model, x).tokens
        if found is None or len(found.cells) != R:
            patches = "none" if found is None else f"{found.h} x {found.w}"
            raise ValueError(f"segments: 'drop' needs the model's patches as regions ({patches}), got {R} regions")
        patch = torch.tensor(found.cells, device=x.device)
        others = [t for t in range(tokens.shape[1]) if t not in set(found.cells)]  # the class token, registers
        kept = torch.cat([torch.tensor(others, device=x.device).long().expand(m * B, -1), patch[cells]], dim=1)
        return tokens.gather(1, kept[..., None].expand(-1, -1, tokens.shape[2]))

    probe(model, x)  # before the hook
    handle = place.register_forward_hook(here(drop))
    try:
        output = run(model, match_format(x, x.expand(m, *x.shape).flatten(0, 1)))
    finally:
        handle.remove()
    return at_least_float32(score(output, tile(target, m))).unflatten(0, (m, B))


def greedy(
    labels: Int[Tensor, "B H W"],
    k: int | None,
    value: Callable[[Float[Tensor, "m B R"]], Float[Tensor, "m B"]],
    chunk: int,
) -> Float[Tensor, "B H W"]:
    """Sets of regions that grow by the region of the highest value of the larger set, k times (None: all regions).

    Args:
        labels: of the regions.
        k: how many are found.
        value: of m sets of each image: 1 for a region in the set, 0 for the others.
        chunk: m times B is at most that, if B is.

    Returns:
        1 - (t - 1) / k at the region that was found t-th, 0 at those that were not.

    Raises:
        ValueError: k is below 1.
    """
    if k is not None and k < 1:
        raise ValueError(f"k: at least one region must be found, got {k}")
    n = torch.tensor(count(labels), device=labels.device)  # B
    R, first = int(n.max()), n if k is None else n.clamp(max=k)  # B
    taken = torch.arange(R, device=labels.device) >= n[:, None]  # B R   regions that the image does not have
    S, place = torch.zeros_like(taken).float(), torch.zeros_like(taken).float()  # B R, B R
    for t in range(int(first.max())):
        left = taken.int().argsort(dim=1, stable=True)[:, : R - t]  # B R - t
        parts = (left[:, part].T[..., None] for part in chunks(R - t, chunk, len(n)))  # m B 1
        gain = torch.cat([value(S.expand(len(b), -1, -1).scatter(2, b, 1)) for b in parts])  # R - t B
        gain = gain.masked_fill(taken.gather(1, left).T, -torch.inf)
        best = left.gather(1, gain.argmax(dim=0)[:, None])  # B 1
        new = ~taken.gather(1, best) & (t < first)[:, None]  # B 1
        place = torch.where(new, place.scatter(1, best, (1 - t / first.float())[:, None]), place)
        S, taken = torch.where(new, S.scatter(1, best, 1), S), taken.scatter(1, best, True)
    return painted(place, labels)


def greedy_steps(segments: Segments, k: int | None) -> tuple[int, int]:
    """R, and how many sets `greedy` asks the value of."""
    R = usual_count(segments)
    k = min(k or R, R)
    return R, k * R - k * (k - 1) // 2


def usual_count(segments: Segments) -> int:
    """R, for the declared passes: of a grid or labels exactly, of a segmentation about 50."""
    return segments**2 if isinstance(segments, int) else int(segments.max()) + 1 if isinstance(segments, Tensor) else 50
