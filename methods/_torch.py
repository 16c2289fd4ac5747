"""The torch machinery that methods share: scores, gradients, and activations at a layer. The maths is in the methods.

Nothing here outlives the call it serves: hooks and modes are context managers, gradients come from
`torch.autograd.grad`, and the model's parameters, buffers, flags and `.grad` are left alone.
A map is part of the autograd graph exactly when `x.requires_grad`.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map

from methods import _layers
from methods._replay import Replay
from methods._rules import attention_maps

# What is explained: a class per image, or a score computed from the logits (contrastive, multi-label, probability).
Target = Int[Tensor, " B"] | Callable[[Float[Tensor, "B N"]], Float[Tensor, " B"]]
# Every method is one of these once its keywords are bound: partial(grad_cam, layer="layer4").
Attribution = Callable[[nn.Module, Float[Tensor, "B C H W"], Target], Float[Tensor, "B K h w"]]


def score(logits: Float[Tensor, "B N"], target: Target) -> Float[Tensor, " B"]:
    """y: the one number per image that is explained.

    Raises:
        ValueError: a callable target did not return one score per image.
    """
    if isinstance(target, Tensor):
        return logits.gather(1, target[:, None]).squeeze(1)
    y = target(logits)
    if not isinstance(y, Tensor) or y.shape != logits.shape[:1]:
        got = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(f"target: must map logits {tuple(logits.shape)} to one score per image, got {got}")
    return y


def tile(target: Target, n: int) -> Int[Tensor, " nB"] | Callable[[Tensor], Tensor]:
    """The target of n copies of the batch, stacked as (n B): a callable sees each copy of its batch by itself."""
    if isinstance(target, Tensor):
        return target.repeat(n)
    return lambda logits: torch.cat([score(copy, target) for copy in logits.chunk(n)])


def at_least_float32(a: Tensor) -> Tensor:
    """Half precision becomes float32; float32 and float64 stay."""
    return a.float() if a.dtype in (torch.float16, torch.bfloat16) else a


def stored_as(x: Float[Tensor, "B C H W"] | None, X: Float[Tensor, "m C H W"]) -> Float[Tensor, "m C H W"]:
    """X with the data type of x, and in its order in memory: without it a CNN on channels_last images slows down."""
    if x is None:
        return X
    last = x.is_contiguous(memory_format=torch.channels_last)
    return X.to(x.dtype).contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def scores(
    model: nn.Module,
    X: Float[Tensor, "n B C H W"],
    target: Target,
    like: Float[Tensor, "B C H W"] | None = None,
) -> Float[Tensor, "n B"]:
    """The score y of n versions of each image, in one forward pass; the model sees them `stored_as` those of `like`."""
    n, B = X.shape[:2]
    with torch.set_grad_enabled(X.requires_grad):
        y = score(model(stored_as(like, X.flatten(0, 1))), tile(target, n))  # nB
        return at_least_float32(y).unflatten(0, (n, B))


def twice(graph: bool) -> contextlib.AbstractContextManager[Any]:
    """Where a gradient is to be part of a graph: attention run in the block has a second derivative; fused has none."""
    return sdpa_kernel(SDPBackend.MATH) if graph else contextlib.nullcontext()


@torch.enable_grad()
def gradients(
    model: nn.Module,
    X: Float[Tensor, "n B C H W"],
    target: Target,
    like: Float[Tensor, "B C H W"] | None = None,
) -> Float[Tensor, "n B C H W"]:
    """dy/dx at n versions of each image, in one forward and one backward pass; `like` as in `scores`."""
    n, graph = X.shape[0], X.requires_grad
    X = X if graph else X.detach().requires_grad_()  # n B C H W
    with twice(graph):
        y = score(model(stored_as(like, X.flatten(0, 1))), tile(target, n))  # nB
    (dy_dX,) = torch.autograd.grad(y.sum(), X, create_graph=graph)
    return at_least_float32(dy_dX)


def each(
    of: Attribution, model: nn.Module, X: Float[Tensor, "n B C H W"], target: Target
) -> Float[Tensor, "n B K h w"]:
    """The map `of` at n versions of each image, as one batch."""
    n, B = X.shape[:2]
    return of(model, X.flatten(0, 1), tile(target, n)).unflatten(0, (n, B))


def chunks(n: int, chunk: int, batch: int) -> Iterator[slice]:
    """Slices of range(n) such that slice x batch is at most `chunk` images, and never less than one batch.

    Raises:
        ValueError: chunk is below 1.
    """
    if chunk < 1:
        raise ValueError(f"chunk: the number of images per forward pass must be 1 or more, got {chunk}")
    step = max(1, chunk // batch)
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


def noisy(
    x: Float[Tensor, "B C H W"], samples: int, noise: float, seed: int, chunk: int
) -> Iterator[Float[Tensor, "k B C H W"]]:
    """Noisy copies x + N(0, sigma^2) in chunks, `samples` in all; sigma = noise * (max - min) of each image.

    Each standard normal tensor C H W is drawn once and shared by the batch: what happens to an image depends on neither
    its neighbours nor the chunks.

    Raises:
        ValueError: samples is below 1, or noise negative.
    """
    if samples < 1 or noise < 0:
        raise ValueError(f"samples, noise: need at least one sample and noise >= 0, got {samples} and {noise}")
    rng = torch.Generator(x.device).manual_seed(seed)
    a = at_least_float32(x)
    sigma = noise * (a.amax(dim=(1, 2, 3), keepdim=True) - a.amin(dim=(1, 2, 3), keepdim=True))  # B 1 1 1
    for part in chunks(samples, chunk, len(x)):
        N = [torch.randn(x.shape[1:], generator=rng, device=x.device, dtype=a.dtype) for _ in range(samples)[part]]
        yield (a + sigma * torch.stack(N)[:, None]).to(x.dtype)  # k B C H W


def submodule(model: nn.Module, layer: str) -> nn.Module:
    """The module of that dotted name.

    Raises:
        ValueError: there is none.
    """
    try:
        return model.get_submodule(layer)
    except AttributeError:
        raise ValueError(f"layer: the model has no {layer!r}; model.named_modules() lists what it has") from None


@contextlib.contextmanager
def _at(model: nn.Module, layer: str, replace: Callable[[Tensor], Tensor]) -> Iterator[list[int]]:
    """Within the block the output of `layer` is what `replace` makes of it; errors name the layer.

    Raises:
        ValueError: there is no such layer, or it did not run exactly once.
    """
    runs: list[int] = []

    def hook(_module: nn.Module, _args: Any, out: Tensor) -> Tensor:
        runs.append(1)
        try:
            return replace(out)
        except ValueError as e:
            raise ValueError(f"layer: {layer!r}: {e}") from e

    handle = submodule(model, layer).register_forward_hook(hook)
    try:
        yield runs
    finally:
        handle.remove()
    if len(runs) != 1:
        raise ValueError(f"layer: {layer!r} ran {len(runs)} times in one forward pass; it must run exactly once")


def activation(
    model: nn.Module, x: Float[Tensor, "B C H W"], layer: str
) -> tuple[Float[Tensor, "B N"], Float[Tensor, "B K h w"]]:
    """Run `model` once: (logits, A = output of `layer` as a grid), in one autograd graph.

    Everything behind the layer is computed from A, so dy/dA is the gradient there whatever the layout. Before the layer
    no graph is recorded unless `x.requires_grad`, and none at all where gradients are off.
    """
    kept: list[Tensor] = []
    recording = torch.is_grad_enabled()

    def read(out: Tensor) -> Tensor:
        at = _layers.layout(out, (x.shape[2], x.shape[3]), model)
        A = _layers.to_grid(out, at)
        if recording and not x.requires_grad:
            torch.set_grad_enabled(True)  # from here on; the block below restores what was
            A = A.detach().requires_grad_()
        kept.append(A)
        return _layers.from_grid(A.clone(), out, at)  # in-place operations follow (timm: `x += shortcut`)

    graph = recording and x.requires_grad
    with _at(model, layer, read), torch.set_grad_enabled(graph), twice(graph):
        logits = model(x)
    return logits, kept[0]


def _last(model: nn.Module) -> tuple[nn.Module, ...]:
    """The last linear layer, or where two give the logits together (DeiT) both."""
    last = model.get_classifier() if hasattr(model, "get_classifier") else [*model.modules()][-1]  # type: ignore[operator]
    return last if isinstance(last, tuple) else (last,)


def head(model: nn.Module, logits: Float[Tensor, "B N"], A: Float[Tensor, "B K h w"]) -> Float[Tensor, "N K"]:
    """Weights of the last linear layer, where it turns the mean of A over positions into the logits.

    Raises:
        ValueError: the logits are not that: another layer is needed, or the model has another kind of head.
    """
    linear, *more = _last(model)
    if not more and isinstance(linear, nn.Linear) and linear.in_features == A.shape[1]:
        again = F.linear(A.mean(dim=(2, 3)), linear.weight, linear.bias)
        near = 1e-3 if A.dtype in (torch.float32, torch.float64) else 0.1
        if again.shape == logits.shape and (again - logits).abs().max() <= near * logits.abs().max():
            return linear.weight
    raise ValueError(
        "layer: its mean over positions, through the model's last linear layer, does not give the logits; "
        "this method needs the layer before global average pooling, in a network that ends in one linear layer"
    )


def reached(model: nn.Module, x: Float[Tensor, "B C H W"], layer: str, g: Tensor | None) -> Tensor:
    """g, the gradient at `layer`, which may be zero where the score happens to be flat.

    Raises:
        ValueError: the layer is not on the way to the score, or no position of its grid can change a score, whatever
            the weights (the patch tokens behind the last attention of a class-token model).
    """
    if g is not None and g.any():
        return g
    found = _layers.probe(model, x.shape[1:])
    if g is None or (found.architecture != "cnn" and layer not in found.candidates):
        raise ValueError(
            f"layer: no position of {layer!r} can change the score (its gradient is exactly zero); "
            f"choose an earlier one, such as {_layers.default_layer(model, x.shape[1:])!r}"
        )
    return g


@torch.enable_grad()
def activation_and_gradient(
    model: nn.Module, x: Float[Tensor, "B C H W"], target: Target, layer: str
) -> tuple[Float[Tensor, " B"], Float[Tensor, "B K h w"], Float[Tensor, "B K h w"]]:
    """y, A^k and dy / dA^k_ij: the score, the output of `layer`, and the gradient of the score there.

    Raises:
        ValueError: as `reached`.
    """
    logits, A = activation(model, x, layer)  # B N, B K h w
    y = score(logits, target)  # B
    (dy_dA,) = torch.autograd.grad(y.sum(), A, create_graph=x.requires_grad, allow_unused=True)  # B K h w
    dy_dA = reached(model, x, layer, dy_dA)
    if not x.requires_grad:
        y, A = y.detach(), A.detach()
    return at_least_float32(y), at_least_float32(A), at_least_float32(dy_dA)


def _run_behind(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    layer: str,
    n: int,
    replace: Callable[[Float[Tensor, "B K h w"]], Float[Tensor, "n B K h w"]],
    owners: list[str] | None = None,
    passes: Replay | None = None,
) -> Float[Tensor, "nB N"]:
    """The logits with the output of `layer` replaced by n versions of it; only what comes behind it runs n times.

    A hook at the layer returns a larger batch than it got. Where a branch around the layer still holds one batch, and
    the sizes disagree, the copies are made at the input of the block around the layer instead, or of the one around
    that, at last of the whole network: `owners`, from which those that failed are removed. `passes` replays what is the
    same in each pass.
    """
    B = len(x)
    owners = _outwards(layer) if owners is None else owners
    passes = Replay() if passes is None else passes

    def write(out: Tensor) -> Tensor:
        passes.stop()
        at = _layers.layout(out, (x.shape[2], x.shape[3]), model)
        E = _layers.from_grid(replace(_layers.to_grid(out[:B], at)).flatten(0, 1), out[:B], at)
        return E.clone() if E.requires_grad and E._is_view() else E  # in-place operations follow

    def copy(a: Any) -> Any:
        return torch.cat([a] * n) if isinstance(a, Tensor) and a.ndim > 1 and len(a) == B else a

    def repeat(_module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        passes.stop()
        return tree_map(copy, (args, kwargs))

    while True:
        try:
            with contextlib.ExitStack() as stack:
                if owners[0] != layer:
                    owner = model.get_submodule(owners[0])
                    stack.callback(owner.register_forward_pre_hook(repeat, with_kwargs=True).remove)
                stack.enter_context(_at(model, layer, write))
                stack.enter_context(torch.set_grad_enabled(torch.is_grad_enabled()))  # `replace` may switch it on
                stack.enter_context(passes)
                passes.start()
                logits = model(x)
            if len(logits) == n * B:
                return logits
            raise RuntimeError(f"layer: {layer!r}: {n} versions of {B} images went in, {len(logits)} rows came out")
        except torch.OutOfMemoryError:
            raise
        except Exception as e:
            if passes.replaying:  # not the operations on the tape
                passes.enabled = False
            elif not isinstance(e, RuntimeError) or len(owners) == 1:
                raise
            else:  # batch sizes disagree
                owners.pop(0)
                passes.reset()


def _outwards(layer: str) -> list[str]:
    """The layer, the blocks around it from the inside out, and '' for the model."""
    return [layer.rsplit(".", i)[0] for i in range(layer.count(".") + 1)] + [""]


def edited_scores(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Target,
    layer: str,
    edit: Callable[..., Float[Tensor, "k B K h w"]],  # returns memory of its own
    n: int,
    chunk: int | None = None,
) -> Float[Tensor, "n B"]:
    """The score y with the output A of `layer` replaced by each of n edited versions of it.

    `edit(A)` makes all of them at once. With `chunk`, the number of images per forward pass, `edit(A, k)` makes those
    with the numbers k, a few at a time. The network up to `layer` runs once on x, and only the rest on the n copies.
    """
    numbers = torch.arange(n, device=x.device)
    owners, passes, y = _outwards(layer), Replay(), at_least_float32(x.new_zeros(n, len(x)))
    behind = {submodule(model, layer), *_last(model)}  # hooks there run in every pass; a caller's others are to do so
    passes.enabled = not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules() if m not in behind)
    with torch.set_grad_enabled(x.requires_grad):
        for k in [numbers] if chunk is None else [numbers[part] for part in chunks(n, chunk, len(x))]:
            replace = edit if chunk is None else lambda A, k=k: edit(A, k)
            logits = _run_behind(model, x, layer, len(k), replace, owners, passes)
            y_k = score(logits, tile(target, len(k)))  # (k B)
            y[k] = y_k.unflatten(0, (len(k), len(x))).to(y.dtype)  # kept in one place, or the heap is scattered
    return y


def versions(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    layer: str,
    edit: Callable[[Float[Tensor, "B K h w"]], Float[Tensor, "n B K h w"]],
    n: int,
) -> tuple[Float[Tensor, "nB N"], Float[Tensor, "n B K h w"]]:
    """(logits, V): the output of `layer` replaced by n edited versions V of it, in one autograd graph.

    As `activation`: everything behind the layer is computed from V, and no graph is recorded before it unless
    `x.requires_grad`.
    """
    kept: list[Tensor] = []

    def replace(A: Tensor) -> Tensor:
        V = edit(A)  # n B K h w
        if not x.requires_grad:
            torch.set_grad_enabled(True)  # from here on; `_run_behind` restores what was
            V = V.detach().requires_grad_()
        kept[:] = [V]
        return V

    with torch.set_grad_enabled(x.requires_grad):
        logits = _run_behind(model, x, layer, n, replace)
    return logits, kept[0]


def attention(
    model: nn.Module, x: Float[Tensor, "B C H W"]
) -> tuple[Float[Tensor, "B N"], list[Float[Tensor, "B heads T T"]]]:
    """Run `model` once: (logits, the attention map A^l of every layer after its softmax), in one autograd graph.

    Raises:
        ValueError: the model has no global attention over one grid of tokens (a CNN; windows, as in Swin).
    """
    kept: list[Tensor] = []

    def keep(A: Tensor) -> Tensor:
        A = A if A.requires_grad or not torch.is_grad_enabled() else A.requires_grad_()
        if A.shape[-2] > 1:  # one query is attention pooling
            kept.append(A)
        return A

    with attention_maps(keep):
        logits = model(x)
    if not kept:
        raise ValueError("model: computes no attention map (softmax over four-dimensional scores); is it a ViT?")
    B, T = x.shape[0], kept[0].shape[-1]
    if any(A.shape[0] != B or A.shape[-2:] != (T, T) for A in kept):
        shapes = sorted({tuple(A.shape) for A in kept})
        raise ValueError(f"model: attention must be global over one grid of tokens (B heads T T), got maps {shapes}")
    return logits, kept


def read_out(model: nn.Module, x: Float[Tensor, "B C H W"], R: Float[Tensor, "B T T"]) -> Float[Tensor, "B 1 h w"]:
    """Relevance of each patch to the token(s) that the head reads, on the patch grid; prefix columns are left out."""
    P, h, w = _layers.token_grid(R.shape[-1], (x.shape[2], x.shape[3]), getattr(model, "num_prefix_tokens", 0))
    row = R[:, _layers.pooled_rows(model, P)].mean(dim=1)  # B T
    return row[:, None, P:].unflatten(2, (h, w))  # B 1 h w


def upsample(a: Float[Tensor, "B K h w"], like: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H W"]:
    """Bilinear resize of a map to the grid of an image (half-pixel centres); the identity when it is there already."""
    if a.shape[-2:] == like.shape[-2:]:
        return a
    return F.interpolate(at_least_float32(a), size=like.shape[-2:], mode="bilinear", align_corners=False)


def minmax(a: Float[Tensor, "*B h w"]) -> Float[Tensor, "*B h w"]:
    """(a - min) / (max - min) over each h w; 0 where a map is constant."""
    lo, hi = a.amin(dim=(-2, -1), keepdim=True), a.amax(dim=(-2, -1), keepdim=True)
    return ratio(a - lo, hi - lo)


def ratio(a: Tensor, b: Tensor) -> Tensor:
    """The ratio a / b, and 0 (with gradient 0) where b is 0."""
    zero = b == 0
    return torch.where(zero, 0, a / torch.where(zero, 1, b))


@torch.enable_grad()
def edited_gradients(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Target,
    edits: Sequence[tuple[str, Callable[[Float[Tensor, "m K h w"]], Float[Tensor, "n m K h w"]], int]],
) -> tuple[Float[Tensor, "m K h w"], Float[Tensor, "n m K h w"], Float[Tensor, "n m K h w"]]:
    """A, V and dy/dV: the output of a layer, n edited versions of it, and the gradient of the score at each.

    `edits` holds (layer, edit, n) in execution order, mostly one. Each multiplies the batch by its n, new copies first,
    so the last one gets m = B times the n of those before it, and A, V and dy/dV are there. The network up to a layer
    runs once on what it got; where a branch around a layer makes batch sizes disagree, on all copies, as in
    `edited_scores`. Where x is in no graph, none is recorded before the last layer.

    Raises:
        ValueError: as `reached`.
    """
    B, graph, n = x.shape[0], x.requires_grad, math.prod(n for _, _, n in edits)
    kept: list[Tensor] = []

    def write(k: int) -> Callable[[Tensor], Tensor]:
        edit, m = edits[k][1], B * math.prod(n for _, _, n in edits[:k])

        def replace(out: Tensor) -> Tensor:
            size = len(out)  # m, or n B where the whole network runs on all copies
            at = _layers.layout(out, (x.shape[2], x.shape[3]), model)
            A = at_least_float32(_layers.to_grid(out[:m], at).clone())  # m K h w
            V = edit(A).flatten(0, 1)  # n m K h w, flat
            if k == len(edits) - 1:
                if not graph:
                    torch.set_grad_enabled(True)  # from here on; the block below restores what was
                    V = V.detach().requires_grad_()
                kept[:] = A, V
            E = V.to(out.dtype, copy=True)  # in-place operations follow
            E = E.repeat(size // len(E), 1, 1, 1) if size > len(E) else E
            return _layers.from_grid(E, out[:m], at)

        return replace

    def run(copies: Tensor) -> Tensor:
        with contextlib.ExitStack() as stack:
            for k, (layer, _, _) in enumerate(edits):
                stack.enter_context(_at(model, layer, write(k)))
            stack.enter_context(torch.set_grad_enabled(graph))
            stack.enter_context(twice(graph))
            logits = model(copies)
            if len(logits) != n * B:
                raise RuntimeError(f"layer: {edits[-1][0]!r}: {n} versions of {B} images gave {len(logits)} rows")
            return score(logits, tile(target, n))  # n B, flat

    try:
        y = run(x)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # a shortcut around a layer holds fewer copies than the layer's branch
        y = run(x.repeat(n, 1, 1, 1))
    (A, V), layer = kept, edits[-1][0]
    dy_dV = torch.autograd.grad(y.sum(), V, create_graph=graph, allow_unused=True)[0] if y.requires_grad else None
    dy_dV = reached(model, x, layer, dy_dV)
    V = V if graph else V.detach()
    return A, V.unflatten(0, (-1, len(A))), dy_dV.unflatten(0, (-1, len(A)))
