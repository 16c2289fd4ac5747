"""How a tensor inside the network holds a grid of places of the image, and that grid as B K h w."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from methods import _trace
from methods._trace import IMAGE, place


class Layout(NamedTuple):
    """How a layer's output holds a grid of h x w cells: B K h w, B h w K, B T K ..."""

    ndim: int
    batch: int  # the axis of images
    channel: int  # the axis of channels; all other axes are positions
    h: int
    w: int
    cells: tuple[int, ...] | None  # which positions the cells are, row by row; None: the positions are h x w, all cells


def to_grid(out: Tensor, at: Layout) -> Float[Tensor, "B K h w"]:
    """A layer's output as B K h w; tokens that belong to no cell, such as a class token, are left out."""
    a = out.movedim((at.batch, at.channel), (0, 1))
    return a if at.cells is None else _taken(a.flatten(2), at.cells).unflatten(2, (at.h, at.w))


def from_grid(A: Float[Tensor, "nB K h w"], out: Tensor, at: Layout) -> Tensor:
    """The inverse of `to_grid`, for n copies of the batch; other tokens come from `out`. May share memory with A."""
    if at.cells is not None:
        base = out.movedim((at.batch, at.channel), (0, -1))  # B ... K
        tokens = base.flatten(1, -2).repeat(len(A) // len(base), 1, 1)  # nB T K
        tokens = _written(tokens, A.flatten(2).transpose(1, 2), at.cells)
        A = tokens.unflatten(1, base.shape[1:-1]).movedim(-1, 1)  # nB K ...
    return A.movedim((0, 1), (at.batch, at.channel))


def _run_of(cells: tuple[int, ...]) -> slice | None:
    """The cells as a slice, if they are one range."""
    first, end = cells[0], cells[-1] + 1
    return slice(first, end) if cells == tuple(range(first, end)) else None


def _taken(a: Float[Tensor, "B K T"], cells: tuple[int, ...]) -> Float[Tensor, "B K hw"]:
    run = _run_of(cells)
    return a[:, :, run] if run else a[:, :, torch.tensor(cells, device=a.device)]


def _written(base: Float[Tensor, "B T K"], new: Float[Tensor, "B hw K"], cells: tuple[int, ...]) -> Tensor:
    run = _run_of(cells)
    if run:
        return torch.cat([base[:, : run.start], new, base[:, run.stop :]], dim=1)
    return base.index_copy(1, torch.tensor(cells, device=base.device), new.to(base.dtype))


def layout_of(out: Tensor, B: int) -> Layout | str:
    """How a tensor holds B images, by the places of its elements; or why it holds no grid."""
    shape = f"its output ({tuple(out.shape)})"
    z = place(out)
    if z is None:
        return f"{shape} could not be followed from the image"
    z = _trace.together(_trace.slim(z))
    image = (z.real / IMAGE).round()
    axes = [d for d in range(z.ndim) if _trace.varies(z, d)]
    images = [d for d in axes if _trace.varies(image + 0j, d)]
    positions = [d for d in axes if d not in images]
    if not positions and out.ndim == 4 and 1 in (out.shape[2] * out.shape[3], out.shape[1] * out.shape[2]):
        positions = [2, 3] if out.shape[2] * out.shape[3] == 1 else [1, 2]  # a grid of one cell
    if not positions:
        return f"{shape} has no spatial grid; it must be B K h w, B h w K or B T K"
    batch = images[0] if images else 0
    rows = image.movedim(batch, 0).flatten(1).nan_to_num(-1).amax(dim=1)
    if len(images) > 1 or out.shape[batch] != B or rows.tolist() != [*range(B)] or batch in positions:
        return f"{shape} holds parts of images (windows) or another batch: {out.shape[batch]} rows for {B} images"
    rest = [d for d in range(z.ndim) if d not in positions and d != batch]
    if len(positions) == 1 and len(rest) == 2 and out.ndim == 4:  # a grid of one row or one column
        size_one = [d for d in rest if out.shape[d] == 1 and d != 1]
        rest = [d for d in rest if d != (size_one or [None])[0]]
    if len(rest) != 1:
        return f"{shape} has no spatial grid with one axis of channels; it must be B K h w, B h w K or B T K"
    channel = rest[0]
    p = z.movedim((batch, channel), (0, 1))[0, 0]
    found = raster(p.flatten())
    if found is None:
        return f"{shape} holds its positions in no order of rows and columns"
    h, w, cells = found
    whole = cells == tuple(range(p.numel())) and p.numel() == h * w
    return Layout(out.ndim, batch, channel, h, w, None if whole and tuple(p.shape) == (h, w) else cells)


def raster(p: Tensor) -> tuple[int, int, tuple[int, ...]] | None:
    """(h, w, where each cell is, row by row) of places that form a grid; None if they do not."""
    known = (~p.isnan()).nonzero().flatten()
    (h, i), (w, j) = (_lines(v[known]) for v in (p.real % IMAGE, p.imag))
    order = (i * w + j).argsort()
    if h * w != len(known) or not torch.equal((i * w + j)[order], torch.arange(h * w, device=p.device)):
        return None
    return h, w, tuple(known[order].tolist())


def _lines(v: Tensor) -> tuple[int, Tensor]:
    """How many rows (or columns) there are, and the number of that of each place.

    Within a row places may differ a little, since padding has no place: a tenth of the largest step ends a row.
    """
    values, number = (v * 64).round().unique(return_inverse=True)
    steps = values.diff()
    line = torch.cat([steps.new_zeros(1), (steps > 0.1 * steps.max()).cumsum(0)]) if len(steps) else values * 0
    return int(line[-1]) + 1, line[number].long()
