"""Passes of a network, counted during a call: whole ones, and those of the tail, the part after a layer alone.

A whole pass starts at the image. A pass of the tail starts at a layer: on edited versions of its output, or as a
gradient that ends there.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple
from unittest import mock

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from methods import _layers


class Pass(NamedTuple):
    """One call of a model, or one gradient, as `counting` sees it."""

    kind: str  # "forward" or "backward"
    before: int  # images through the part of the network before the layer
    total: int  # images through the classifier; the others ran through the tail alone
    size: tuple[int, int] | None = None  # (H, W) of the images; None: that of the batch


class FirstOperation(TorchFunctionMode):
    """Reports images through the first convolution or linear layer, and images whose gradient arrives there.

    A hook on that layer would change what is timed: for a caller's hooks, methods run the network before a layer every
    time, not once, and for each row of a batch.
    """

    def __init__(self, model: nn.Module, forward: Callable[[int], None], backward: Callable[[int], None]) -> None:
        super().__init__()
        self.weight = next(m.weight for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear))
        self.forward, self.backward = forward, backward

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        out = func(*args, **(kwargs or {}))
        if func in (F.conv2d, F.linear) and args[1] is self.weight:
            self.forward(len(out))
            if out.requires_grad:
                out.register_hook(lambda g: self.backward(len(g)))
        return out


@contextlib.contextmanager
def counting(model: nn.Module, x: Float[Tensor, "B C H W"]) -> Iterator[list[Pass]]:
    """Every forward and backward pass of `model` within the block, in order; `x` is the batch, looked at before."""
    _layers.probe(model, x)
    seen: list[Pass] = []
    entered, size, run = 0, None, model.forward

    def call(images: Tensor) -> Tensor:
        nonlocal entered, size
        entered, (h, w) = 0, images.shape[2:]
        size = None if (h, w) == tuple(x.shape[2:]) else (h, w)
        return run(images)

    def forward(images: int) -> None:
        nonlocal entered
        entered += images

    def backward(images: int) -> None:
        last = max((i for i, p in enumerate(seen) if p.kind == "backward"), default=None)
        if last is None:  # of something else than a score
            seen.append(Pass("backward", images, 0, size))
        else:
            seen[last] = seen[last]._replace(before=seen[last].before + images)

    head = model.get_classifier()  # type: ignore[operator]
    classify = head.forward

    def classified(features: Tensor) -> Tensor:
        out = classify(features)
        seen.append(Pass("forward", entered, len(out), size))
        return out

    handle = head.register_full_backward_hook(lambda _m, _i, g: seen.append(Pass("backward", 0, len(g[0]), size)))
    try:
        with (
            mock.patch.object(model, "forward", call),
            mock.patch.object(head, "forward", classified),  # no hook: with a caller's hooks, methods run more
            FirstOperation(model, forward, backward),
        ):
            yield seen
    finally:
        handle.remove()


class Count(NamedTuple):
    """Images for each image of the batch, (forward, backward)."""

    passes: tuple[float, float]  # through the classifier
    before: tuple[float, float]  # through the part before the layer


def count(passes: Sequence[Pass], batch: int) -> Count:
    """What was counted, to compare with what `Method.cost` promises."""
    forward, backward = ([p for p in passes if p.kind == kind] for kind in ("forward", "backward"))
    return Count(
        (sum(p.total for p in forward) / batch, sum(p.total for p in backward) / batch),
        (sum(p.before for p in forward) / batch, sum(p.before for p in backward) / batch),
    )
