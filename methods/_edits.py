"""Run the network on edited activations: a layer's output is replaced, and the part after the layer runs on that.

A hook at the layer receives a batch and returns n edited versions of it, as a larger batch. The part before the layer
runs only once: within one pass, because the copies are made after it; over several passes, because its operations are
recorded and their results are returned again (`Replay`).
"""

import contextlib
import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

from methods import _grids, _layers
from methods._calls import here, run
from methods._shared import rows_of
from methods._torch import (
    Target,
    at_least_float32,
    chunks,
    double_backward,
    layer_hook,
    require_gradient,
    rows,
    score,
    submodule,
    tile,
)


class Replay(TorchFunctionMode):
    """In `with replay:` an operation between `start` and `stop` is recorded the first time and replayed after that.

    A forward pass is a list of operations. Up to the layer the list is the same each time, so a second pass gets the
    results of the first. Only tensors that are still referenced at the layer are kept, such as its input or a shortcut
    around it. A replayed pass gets a tensor without data in place of every other tensor; an operation that is not on
    the tape fails on it.

    If a pass does not repeat the operations on the tape, it raises an error, here or in the operation that is not on
    the tape. If `replaying` is True then, the caller must set `enabled` to False and run the pass again.
    """

    def __init__(self, enabled: bool = True) -> None:
        super().__init__()
        self.enabled = enabled  # False: every pass is computed in full
        self.reset()

    def reset(self) -> None:
        """Forget what was recorded."""
        self.tape: list[tuple[Any, Any]] = []  # (operation, what it returned)
        self.versions: list[tuple[Tensor, int]] = []  # of the kept tensors, to detect in-place operations
        self.end = ""  # the place where it was stopped
        self.batch = 0  # images in the pass
        self.recorded = self.replaying = False  # replaying: this pass, or the last one, used the tape
        self.next: int | None = None  # position on the tape; None: compute as usual

    def start(self, batch: int) -> None:
        """Call this before a forward pass of so many images."""
        self.next = None
        changed = any(t.is_inference() or t._version != version for t, version in self.versions)
        if not self.recorded or changed or batch != self.batch:
            self.reset()
        self.batch = batch
        self.replaying = self.enabled and self.recorded
        self.next = 0 if self.enabled else None

    def stop(self, place: str) -> None:
        """Call this where passes begin to differ, at a layer or block. It does nothing once a pass has stopped."""
        recording, self.next = self.next is not None and not self.recorded, None
        if recording:
            used_up = torch.empty(0, device="meta")

            def alive(out: Any) -> Any:
                return out if not isinstance(out, weakref.ref) else used_up if out() is None else out()

            self.tape = [(op, tree_map(alive, out)) for op, out in self.tape]
            kept = {id(t): t for _, out in self.tape for t in tree_flatten(out)[0] if isinstance(t, Tensor)}
            self.versions = [(t, 0 if t.is_inference() else t._version) for t in kept.values()]
            self.recorded, self.end = True, place

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.next is None:
            return func(*args, **(kwargs or {}))
        if self.recorded:
            if self.next == len(self.tape) or self.tape[self.next][0] != func:
                raise RuntimeError("the operations before the layer are not the same in each forward pass")
            self.next += 1
            return self.tape[self.next - 1][1]
        out = func(*args, **(kwargs or {}))
        self.tape.append((func, tree_map(lambda o: weakref.ref(o) if isinstance(o, Tensor) else o, out)))
        return out


def replay_before(model: nn.Module, x: Float[Tensor, "B C H W"], layer: str) -> Replay:
    """For passes that differ only after `layer`. A caller's hooks before the layer disable it: they must always run."""
    after = {submodule(model, name) for name in (layer, *_layers.probe(model, x).head)}
    return Replay(not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules() if m not in after))


@contextlib.contextmanager
def record_before(model: nn.Module, x: Float[Tensor, "B C H W"], layer: str) -> Iterator[Replay]:
    """Record the part before `layer` during the one forward pass of this block, for later passes on edited activations.

    Yields the argument `before` of `edited_scores`.
    """
    before = replay_before(model, x, layer)

    def stop(out: Tensor) -> Tensor:
        before.stop(layer)
        return out

    starts = model.register_forward_pre_hook(here(lambda _module, args: before.start(len(args[0]))))
    try:
        with layer_hook(model, layer, stop), before:
            yield before
    finally:
        starts.remove()


class Edit(NamedTuple):
    """n edited versions of a layer's output: `make(A)`, m K h w -> n m K h w, which shares no memory with A."""

    layer: str
    make: Callable[..., Tensor]
    n: int


class Edited(NamedTuple):
    """The result of a run: what the model returned, and at the last edited layer its output A and the versions V."""

    output: Any  # nB rows
    A: Float[Tensor, "m K h w"]
    V: Float[Tensor, "nm K h w"]


def run_edited(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    edits: Sequence[Edit],
    *,
    record: bool = False,
    before: Replay | None = None,
    owners: list[str] | None = None,
    layouts: Sequence[_grids.Layout] | None = None,
) -> Edited:
    """Run the network with the output of one or several layers replaced by edited versions of it.

    Each edit multiplies the batch by its n; the copies are the first axis. So the output of the last edited layer has
    m = B times the n of all edits before it. A branch around the first layer may still hold a single batch, so that the
    sizes disagree. Then the copies are made earlier: at the input of the block around that layer, then of the next
    outer block, and in the end of the whole network.

    Args:
        model: a classifier.
        x: images.
        edits: in execution order; usually one.
        record: compute everything after the last layer from V, in one autograd graph. If x needs no gradient, no graph
            is recorded before that layer.
        before: replays the part before the first layer, which is the same in each pass.
        owners: places where copies can be made, see `outwards`; places that failed are removed, for the next call.
        layouts: of the layers, if they are known.

    Raises:
        RuntimeError: the network does not return n rows of logits for each image.
    """
    B, n, graph = len(x), math.prod(edit.n for edit in edits), x.requires_grad
    owners = outwards(edits[0].layer) if owners is None else owners
    layouts = [_layers.layout(model, edit.layer, x) for edit in edits] if layouts is None else layouts
    before = Replay(enabled=False) if before is None else before
    kept: list[Tensor] = []

    def write(k: int) -> Callable[[Tensor], Tensor]:
        m = B * math.prod(edit.n for edit in edits[:k])

        def replace(out: Tensor) -> Tensor:
            before.stop(edits[0].layer)
            at, size = layouts[k], out.shape[layouts[k].batch]  # m, or n B if the copies were made earlier
            A = _grids.to_grid(out, at)[:m]  # m K h w
            A = A.clone() if record else A  # it is returned; `out` may be overwritten in place
            V = edits[k].make(A).flatten(0, 1)  # n m K h w, flat
            if k == len(edits) - 1:
                if record and not graph:
                    torch.set_grad_enabled(True)  # from here on; the block below restores the mode
                    V = V.detach().requires_grad_()
                kept[:] = A, V
            E = V.to(out.dtype)
            E = E.repeat(size // len(E), 1, 1, 1) if size > len(E) else E
            new = _grids.from_grid(E, out.narrow(at.batch, 0, m), at)
            return new.clone() if V.requires_grad else new  # in-place operations follow, which a view would hand to V

        return replace

    def repeat(_module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        before.stop(owners[0])
        copies = lambda a: torch.cat([a] * n) if isinstance(a, Tensor) and a.ndim > 1 and len(a) == B else a  # noqa: E731
        return tree_map(copies, (args, kwargs))

    while True:
        try:
            with contextlib.ExitStack() as stack:
                start = model.register_forward_pre_hook(here(lambda _module, args: before.start(len(args[0]))))
                stack.callback(start.remove)
                if owners[0] != edits[0].layer:
                    owner = model.get_submodule(owners[0])
                    stack.callback(owner.register_forward_pre_hook(here(repeat), with_kwargs=True).remove)
                for k, edit in enumerate(edits):
                    stack.enter_context(layer_hook(model, edit.layer, write(k)))
                stack.enter_context(torch.set_grad_enabled(graph))
                stack.enter_context(double_backward(graph and record))
                stack.enter_context(before)
                output = run(model, x)
            if rows(output) == n * B:
                return Edited(output, *kept)
            layer = edits[-1].layer
            raise RuntimeError(f"layer: {layer!r}: {n} versions of {B} images went in, {rows(output)} rows came out")
        except torch.OutOfMemoryError:
            raise
        except Exception as e:
            if before.replaying and before.next is not None:  # the operations differ from the tape
                before.enabled, before.next = False, None
            elif before.replaying and before.end != owners[0]:  # a tape for a later place may lack what this one needs
                before.reset()
            elif not isinstance(e, RuntimeError) or len(owners) == 1:
                raise
            else:  # batch sizes disagree
                owners.pop(0)


def outwards(layer: str) -> list[str]:
    """The layer, then the blocks around it from the inside to the outside, then '' for the model."""
    return [layer, *_layers.blocks_around(layer), ""]


def edited_scores(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Target,
    layer: str,
    edit: Callable[..., Float[Tensor, "k B K h w"]],
    n: int,
    chunk: int | None = None,
    before: Replay | None = None,
) -> Float[Tensor, "n B"]:
    """The score y for each of n edited versions of the output A of `layer`.

    Without `chunk`, `edit(A)` makes all versions at once. With `chunk`, the number of images per forward pass,
    `edit(A, k)` makes only the versions with the numbers k. The result must not share memory with A, and depends on
    nothing else that has rows: A has one for each different image. The part up to `layer` runs once on x, or not at all
    if it was recorded (`before`); only the part after it runs on the n copies.
    """
    numbers, B = torch.arange(n, device=x.device), len(x)
    owners, at, y = outwards(layer), [_layers.layout(model, layer, x)], at_least_float32(x.new_zeros(n, B))
    before = replay_before(model, x, layer) if before is None else before
    shared = rows_of(x)
    x = shared.fewer(x)  # U C H W
    with torch.set_grad_enabled(x.requires_grad):
        for k in [numbers] if chunk is None else [numbers[part] for part in chunks(n, chunk, B)]:
            make = edit if chunk is None else lambda A, k=k: edit(A, k)
            output = run_edited(model, x, [Edit(layer, make, len(k))], before=before, owners=owners, layouts=at).output
            y_k = score(shared._replace(n=len(k)).every(output), tile(target, len(k)))  # (k B)
            y[k] = y_k.unflatten(0, (len(k), B)).to(y.dtype)  # one buffer, to avoid memory fragmentation
    return y


@torch.enable_grad()
def edited_gradients(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Target,
    edits: Sequence[tuple[str, Callable[[Float[Tensor, "m K h w"]], Float[Tensor, "n m K h w"]], int]],
    before: Replay | None = None,
) -> tuple[Float[Tensor, "m K h w"], Float[Tensor, "n m K h w"], Float[Tensor, "n m K h w"]]:
    """A, V and dy/dV: the output of a layer, n edited versions of it, and the gradient of the score at each version.

    `edits` holds (layer, edit, n) in execution order, usually one. A, V and dy/dV belong to the last one. Each edit
    gets A in float32 or float64.

    Raises:
        ValueError: as `require_gradient`.
    """
    full = [Edit(layer, lambda A, make=make: make(at_least_float32(A)), n) for layer, make, n in edits]
    output, A, V = run_edited(model, x, full, record=True, before=before)
    graph, y = x.requires_grad, score(output, tile(target, math.prod(n for _, _, n in edits)))  # n B, flat
    dy_dV = torch.autograd.grad(y.sum(), V, create_graph=graph, allow_unused=True)[0] if y.requires_grad else None
    dy_dV = require_gradient(model, x, edits[-1][0], dy_dV)
    V = V if graph else V.detach()
    return at_least_float32(A), V.unflatten(0, (-1, len(A))), dy_dV.unflatten(0, (-1, len(A)))
