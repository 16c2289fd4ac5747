"""What passes cost: a whole pass and a pass of the tail, each measured in torch alone.

seconds of the passes  =  those before the layer * a whole pass  +  the others * a pass of the tail
"""

import contextlib
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_map
from torch.utils.benchmark import timer

from _clock import Clock, Timed
from _passes import Pass
from methods._cost import Cost
from methods._edits import outwards
from methods._layers import finer_layers
from methods._torch import activation
from methods.refine_cam import modules_before


class Price(NamedTuple):
    """What a price is of: a pass of so many images."""

    kind: str  # "forward"; "backward"; "gradient": both
    images: int
    size: tuple[int, int] | None = None  # as in `Pass`
    tail: bool = False  # from the layer on, or back to it


def whole_pass(model: nn.Module, x: Float[Tensor, "B C H W"], kind: str, clock: Clock = timer) -> float:
    """Seconds of a pass from the image on, in torch alone; of "backward", those of the gradient after it."""
    start, backward = clock(), kind != "forward"
    with torch.set_grad_enabled(backward):
        x = x.detach().requires_grad_(backward)
        y = model(x)[:, 0].sum()
        start = clock() if kind == "backward" else start
        if backward:
            torch.autograd.grad(y, x)
    return clock() - start


def tail_pass(
    model: nn.Module, x: Float[Tensor, "B C H W"], n: int, layer: str, kind: str, clock: Clock = timer
) -> float:
    """Seconds of a pass of n images from `layer` on, in torch alone; of "backward", those of the gradient back to it.

    The batch enters the network, and its output at the layer is repeated, which is part of the time: it is the input of
    the tail. Where a branch around the layer makes the sizes disagree, the input of the block around it is repeated
    instead, or of the one around that, at last the images: then the pass is a whole one.
    """
    for place in outwards(layer):
        try:
            return _tail_pass(model, x, n, layer, place, kind, clock)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            if not place:
                raise
    raise AssertionError


def _tail_pass(
    model: nn.Module, x: Float[Tensor, "B C H W"], n: int, layer: str, place: str, kind: str, clock: Clock
) -> float:
    """`tail_pass` with the copies made at `place`: the layer, or a block around it."""
    start, many, kept = 0.0, torch.arange(n, device=x.device) % len(x), []

    def repeat(a: Any) -> Any:  # noqa: ANN401 also what is no tensor
        batch = isinstance(a, Tensor) and a.ndim > 1 and len(a) == len(x) < n
        return a.index_select(0, many) if batch else a

    def enter(_module: nn.Module, args: Any, kwargs: Any) -> Any:  # noqa: ANN401
        nonlocal start
        start = clock()
        return tree_map(repeat, (args, kwargs))

    def leave(_module: nn.Module, _args: Any, out: Tensor) -> Tensor:  # noqa: ANN401
        nonlocal start
        start = clock() if place == layer else start
        out = repeat(out)
        if kind == "forward":
            return out
        torch.set_grad_enabled(True)  # from here on; the block below restores what was
        kept[:] = [out.detach().requires_grad_()]
        return kept[0].clone()  # in-place operations may follow

    with contextlib.ExitStack() as stack:
        if place != layer:
            stack.callback(model.get_submodule(place).register_forward_pre_hook(enter, with_kwargs=True).remove)
        stack.callback(model.get_submodule(layer).register_forward_hook(leave).remove)
        stack.enter_context(torch.no_grad())
        logits = model(x)
    if len(logits) != n:
        raise RuntimeError(f"layer: {layer!r}: {n} images went in, {len(logits)} rows came out")
    if kind == "backward":
        start = clock()
        torch.autograd.grad(logits[:, 0].sum(), kept)
    return clock() - start


def needed(passes: Sequence[Pass], batch: int) -> list[Price]:
    """The prices of these passes, and of a forward pass and a gradient of the whole batch."""
    found = [Price("forward", batch), Price("gradient", batch)]
    for p in passes:
        if p.before:
            found.append(Price("forward", p.before, p.size))
            found += [Price("gradient", p.before, p.size)] if p.kind == "backward" else []
        if p.total > p.before:
            found.append(Price(p.kind, p.total - p.before, p.size, tail=True))
    return list(dict.fromkeys(found))


def plain(
    model: nn.Module, x: Float[Tensor, "B C H W"], wanted: Sequence[Price], layers: Sequence[str] = ()
) -> dict[Price, Timed]:
    """Jobs that measure prices.

    Args:
        model: a classifier.
        x: the batch.
        wanted: what is measured.
        layers: where the tail starts: the mean over several; none: at the image, for methods without a layer.
    """
    jobs: dict[Price, Timed] = {}
    for price in wanted:
        batch = F.interpolate(x, price.size) if price.size else x
        if price.tail and layers:
            jobs[price] = partial(
                _mean, [partial(tail_pass, model, batch, price.images, k, price.kind) for k in layers]
            )
        else:
            batch = batch[torch.arange(price.images, device=x.device) % len(batch)]
            jobs[price] = partial(whole_pass, model, batch, price.kind)
    return jobs


def _mean(jobs: Sequence[Timed], clock: Clock = timer) -> float:
    return fmean(job(clock) for job in jobs)


def cost_of(passes: Sequence[Pass], prices: Mapping[Price, float]) -> float:
    """Seconds that the passes take by themselves, at these prices."""
    total = 0.0
    for kind, before, images, size in passes:
        if before:
            whole = prices[Price("forward", before, size)]
            total += whole if kind == "forward" else prices[Price("gradient", before, size)] - whole
        if images > before:
            total += prices[Price(kind, images - before, size, tail=True)]
    return total


def tail_layers(
    name: str, model: nn.Module, x: Float[Tensor, "B C H W"], keywords: Mapping[str, Any]
) -> tuple[str, ...]:
    """Where the passes of the tail start: at `layer`, or in equal parts at several layers."""
    layer, layers = keywords.get("layer"), keywords.get("layers")
    if layer is None:
        return ()
    image = (x.shape[1], x.shape[2], x.shape[3])
    if name == "fuse":  # a gradient that ends at each
        return (*(finer_layers(model, layer, image) if layers is None else layers), layer)
    if name == "refine_cam":  # one gradient, to the first
        return (*(modules_before(model, layer, image) if layers is None else layers), layer)[:1]
    return (layer,)


def expected_passes(cost: Cost, batch: int, chunk: int) -> list[Pass]:
    """The passes that are declared, for all of a batch: whole ones in its size, those of the tail `chunk` at a time."""
    passes = []
    for kind, images in (("forward", cost.forward), ("backward", cost.backward)):
        passes += [Pass(kind, batch, batch)] * images.before
        left, most = images.tail * batch, max(1, chunk // batch) * batch
        passes += [Pass(kind, 0, min(most, left - done)) for done in range(0, left, most)]
    return passes


def sizes(
    model: nn.Module, x: Float[Tensor, "B C H W"], layer: str | None, layers: Sequence[str] | None = None
) -> dict[str, int]:
    """What `Method.cost` may need: C, H, W, K, h, w of the layer; depth, channels of it and `layers` (None: stages)."""
    found = dict(zip("CHW", x.shape[1:], strict=True))
    if layer:
        at = [*(finer_layers(model, layer, x.shape[1:]) if layers is None else layers), layer]
        with torch.no_grad():
            grids = [activation(model, x[:1], name)[1].shape[1:] for name in at]
        found |= dict(zip("Khw", grids[-1], strict=True)) | {"depth": len(at), "channels": sum(K for K, _, _ in grids)}
    return found
