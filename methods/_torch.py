"""PyTorch code that methods share: scores, gradients and activations at a layer. The equations are in the methods.

No function here leaves a trace: hooks and modes are context managers, gradients come from `torch.autograd.grad`, and
the model's parameters, buffers, flags and `.grad` do not change.
A map is part of the autograd graph exactly if `x.requires_grad`.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from methods import _grids, _layers
from methods._calls import (
    at_least_float32,
    first_tensor,
    here,
    logits_of,
    map_tensors,
    probabilities,
    run,
    tensors_of,
    with_tensor,
)
from methods._rules import attention_maps
from methods._shared import ALL, Rows, rows_of

# The explained score: a class per image, or a function of what the model returns (contrastive, multi-label, dense).
Target = Int[Tensor, " B"] | Callable[[Any], Float[Tensor, " B"]]
# Every method has this type after its keywords are bound: partial(grad_cam, layer="layer4").
Attribution = Callable[[nn.Module, Float[Tensor, "B C H W"], Target], Float[Tensor, "B K h w"]]


def score(output: Any, target: Target) -> Float[Tensor, " B"]:
    """y: the number that is explained, one per image.

    Args:
        output: what the model returned; a class is one of its logits, a callable target gets all of it.
        target: see `Target`.

    Raises:
        ValueError: the output has no logits, or a callable target did not return one score per image.
    """
    if isinstance(target, Tensor):
        logits = logits_of(output)  # B N
        if target.shape != logits.shape[:1]:
            raise ValueError(f"model: returned logits {tuple(logits.shape)} for {len(target)} images")
        return logits.gather(1, target[:, None]).squeeze(1)
    y = target(output)
    B = rows(output)
    if not isinstance(y, Tensor) or y.shape != (B,):
        got = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
        what = f"logits {tuple(output.shape)}" if isinstance(output, Tensor) else "what the model returns"
        raise ValueError(f"target: must map {what} to one score per image, got {got}")
    return y


def probability(target: Int[Tensor, " B"]) -> Callable[[Tensor], Tensor]:
    """A target for `scores`: the softmax probability of a class per image, in float32 at least; see `probabilities`."""
    return lambda output: probabilities(output).gather(1, target[:, None])[:, 0]


def rows(output: Any) -> int:
    """How many images what a model returned is about."""
    tensors = tensors_of(output)
    if not tensors or not tensors[0].ndim:
        raise ValueError(f"model: returned {type(output).__name__} without a tensor that has one row for each image")
    return len(tensors[0])


def tile(target: Target, n: int) -> Int[Tensor, " nB"] | Callable[[Tensor], Tensor]:
    """The target for n copies of the batch, stacked as (n B); a callable gets each copy of the batch separately."""
    if isinstance(target, Tensor):
        return target.repeat(n)

    def each(output: Any) -> Tensor:
        B = rows(output) // n

        def copy(i: int) -> Any:
            return map_tensors(lambda t: t[i * B : (i + 1) * B] if t.ndim and len(t) == n * B else t, output)

        return torch.cat([score(copy(i), target) for i in range(n)])

    return each


def match_format(x: Float[Tensor, "B C H W"] | None, X: Float[Tensor, "m C H W"]) -> Float[Tensor, "m C H W"]:
    """X with the data type and memory format of x; without it a CNN on channels_last images is slower."""
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
    """The score y of n versions of each image, in one forward pass. They get the format of `like`."""
    n, B = X.shape[:2]
    shared = rows_of(X.flatten(0, 1))
    with torch.set_grad_enabled(X.requires_grad):
        output = run(model, match_format(like, shared.fewer(X.flatten(0, 1))))
        y = score(shared.every(output), tile(target, n))  # nB
        return at_least_float32(y).unflatten(0, (n, B))


def double_backward(graph: bool) -> contextlib.AbstractContextManager[Any]:
    """If `graph`, attention in the block runs unfused, so that it has a second derivative; fused attention has none."""
    return sdpa_kernel(SDPBackend.MATH) if graph else contextlib.nullcontext()


@torch.enable_grad()
def gradients(
    model: nn.Module,
    X: Float[Tensor, "n B C H W"],
    target: Target,
    like: Float[Tensor, "B C H W"] | None = None,
) -> Float[Tensor, "n B C H W"]:
    """dy/dx at n versions of each image, in one forward and one backward pass; `like` as in `scores`."""
    n, graph, shared = X.shape[0], X.requires_grad, rows_of(X.flatten(0, 1), backward=True)
    flat = X.flatten(0, 1) if graph else shared.fewer(X.detach().flatten(0, 1)).requires_grad_()  # nB C H W
    with double_backward(graph):
        y = score(shared.every(run(model, match_format(like, flat))), tile(target, n))  # nB
    dy_dX = dependent(shared.gradient(y, flat, create_graph=graph))
    return at_least_float32(dy_dX).unflatten(0, (n, -1))


def derivatives(y: Float[Tensor, " B"], ends: Sequence[Tensor], *, create_graph: bool = False) -> tuple[Tensor, ...]:
    """Dy / d(each of ends).

    Raises:
        ValueError: as `dependent`.
    """
    g = torch.autograd.grad(y.sum(), ends, create_graph=create_graph, allow_unused=True) if y.requires_grad else [None]
    return tuple(map(dependent, g))


def dependent(g: Tensor | None) -> Tensor:
    """A gradient of the score that is there.

    Raises:
        ValueError: it is None, since the score was not computed from that end in a way that can be differentiated.
    """
    if g is None:
        raise ValueError(
            "model: its score does not depend on the image in a differentiable way: a part of it runs under "
            "torch.no_grad(), detaches, rounds or works with integers; use a method without backward passes"
        )
    return g


def map_over_copies(
    of: Attribution, model: nn.Module, X: Float[Tensor, "n B C H W"], target: Target
) -> Float[Tensor, "n B K h w"]:
    """The map `of` at n versions of each image, as one batch."""
    n, B = X.shape[:2]
    return of(model, X.flatten(0, 1), tile(target, n)).unflatten(0, (n, B))


def chunks(n: int, chunk: int, batch: int) -> Iterator[slice]:
    """Slices of range(n): slice length x batch is at most `chunk` images, but at least one batch.

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
    """Noisy copies x + N(0, sigma^2) in chunks, `samples` in total; sigma = noise * (max - min) of each image.

    Each standard normal tensor C H W is drawn once and shared by the batch. So the copies of an image depend neither on
    the other images nor on the chunks.

    Raises:
        ValueError: samples is below 1, or noise is negative.
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
    """The module with the dotted name `layer`.

    Raises:
        ValueError: the model has no such module.
    """
    try:
        return model.get_submodule(layer)
    except AttributeError:
        raise ValueError(f"layer: the model has no {layer!r}; model.named_modules() lists what it has") from None


@contextlib.contextmanager
def layer_hook(model: nn.Module, layer: str, replace: Callable[[Tensor], Tensor]) -> Iterator[list[int]]:
    """Within the block `replace(output)` replaces the output of `layer`, of a tuple its first tensor.

    Raises:
        ValueError: the model has no such layer, it returns no tensor, or it did not run exactly once.
    """
    runs: list[int] = []

    def hook(_module: nn.Module, _args: Any, returned: Any) -> Any:
        runs.append(1)
        out = first_tensor(returned)
        if out is None or out.is_quantized:
            raise ValueError(f"layer: {layer!r}: it returns {type(returned).__name__}, not a floating-point tensor")
        return with_tensor(returned, replace(out))

    handle = submodule(model, layer).register_forward_hook(here(hook))
    try:
        yield runs
    finally:
        handle.remove()
    if len(runs) != 1:
        raise ValueError(f"layer: {layer!r} ran {len(runs)} times in one forward pass; it must run exactly once")


def activation(model: nn.Module, x: Float[Tensor, "B C H W"], layer: str) -> tuple[Any, Float[Tensor, "B K h w"]]:
    """Run `model` once: (what it returns, A = output of `layer` as a grid), in one autograd graph.

    Everything after the layer is computed from A, so dy/dA is the gradient there, for every memory layout. The part
    before the layer is recorded only if `x.requires_grad`. If gradients are off, nothing is recorded.
    """
    shared, recording = rows_of(x), torch.is_grad_enabled()
    if not recording:
        output, A = _activation(model, shared.fewer(x), layer, ALL)
        return shared.every(output), shared.every(A)
    try:
        output, A = _activation(model, shared.fewer(x), layer, shared)
    except Exception:  # a branch around the layer has the rows that ran
        if not shared.run:
            raise
    else:
        if rows(output) == len(x):
            return output, A
    return _activation(model, x, layer, ALL)


def _activation(
    model: nn.Module, x: Float[Tensor, "U C H W"], layer: str, shared: Rows
) -> tuple[Any, Float[Tensor, "B K h w"]]:
    kept: list[Tensor] = []
    recording, at = torch.is_grad_enabled(), _layers.layout(model, layer, x)

    def read(out: Tensor) -> Tensor:
        out = shared.every(out.movedim(at.batch, 0)).movedim(0, at.batch)
        A = _grids.to_grid(out, at)
        if recording and not x.requires_grad:
            torch.set_grad_enabled(True)  # from here on; the block below restores the mode
            A = A.detach().requires_grad_()
        kept.append(A)
        return _grids.from_grid(A.clone(), out, at)  # in-place operations follow (timm: `x += shortcut`)

    graph = recording and x.requires_grad
    with layer_hook(model, layer, read), torch.set_grad_enabled(graph), double_backward(graph):
        output = run(model, x)
    return output, kept[0]


def head(
    model: nn.Module, x: Float[Tensor, "B C H W"], output: Any, A: Float[Tensor, "B K h w"]
) -> Float[Tensor, "N K"]:
    """Weights of the last linear layer, which must turn the mean of A over positions into the logits.

    Raises:
        ValueError: the result is not the logits: another layer is needed, or the model has another kind of head.
    """
    names, logits = _layers.probe(model, x).head, logits_of(output)
    linear = submodule(model, names[0]) if len(names) == 1 else None
    W = linear.weight.flatten(1) if linear else None  # type: ignore[operator]   a 1 x 1 convolution is linear, too
    if linear and W is not None and W.shape[1] == A.shape[1]:
        again = F.linear(A.mean(dim=(2, 3)), W, linear.bias)  # type: ignore[arg-type]
        near = 1e-3 if A.dtype in (torch.float32, torch.float64) else 0.1
        if again.shape == logits.shape and (again - logits).abs().max() <= near * logits.abs().max():
            return W
    raise ValueError(
        "layer: its mean over positions, through the model's last linear layer, does not give the logits; "
        "this method needs the layer before global average pooling, in a network that ends in one linear layer"
    )


def require_gradient(model: nn.Module, x: Float[Tensor, "B C H W"], layer: str, g: Tensor | None) -> Tensor:
    """g, the gradient at `layer`; it may be zero if the score is flat at this image.

    Raises:
        ValueError: the score does not depend on the layer, or no position of its grid can change a score, for any
            weights (the patch tokens after the last attention of a class-token model).
    """
    if g is not None and g.any():
        return g
    found = _layers.probe(model, x)
    if g is None or (found.architecture != "cnn" and layer not in found.candidates):
        raise ValueError(
            f"layer: no position of {layer!r} can change the score (its gradient is exactly zero); "
            f"choose an earlier one, such as {_layers.default_layer(model, x)!r}"
        )
    return g


@torch.enable_grad()
def activation_and_gradient(
    model: nn.Module, x: Float[Tensor, "B C H W"], target: Target, layer: str
) -> tuple[Float[Tensor, " B"], Float[Tensor, "B K h w"], Float[Tensor, "B K h w"]]:
    """y, A^k and dy / dA^k_ij: the score, the output of `layer`, and the gradient of the score there.

    Raises:
        ValueError: as `require_gradient`.
    """
    output, A = activation(model, x, layer)  # .., B K h w
    y = score(output, target)  # B
    depends = y.requires_grad and A.requires_grad
    dy_dA = torch.autograd.grad(y.sum(), A, create_graph=x.requires_grad, allow_unused=True)[0] if depends else None
    dy_dA = require_gradient(model, x, layer, dy_dA)
    if not x.requires_grad:
        y, A = y.detach(), A.detach()
    return at_least_float32(y), at_least_float32(A), at_least_float32(dy_dA)


def attention(model: nn.Module, x: Float[Tensor, "B C H W"]) -> tuple[Any, list[Float[Tensor, "B heads T T"]]]:
    """Run `model` once: (what it returns, the attention map A^l of every layer after its softmax), in one graph.

    Raises:
        ValueError: the model has no global attention between the tokens of one grid (a CNN; windows, as in Swin).
    """
    found, seen, kept = _layers.probe(model, x), 0, []
    shared = ALL if torch.is_grad_enabled() else rows_of(x)
    if found.tokens is None:
        raise ValueError(f"model: needs attention between the tokens of one grid; {found.attention}")
    x, maps = shared.fewer(x), set(found.tokens.maps)  # U C H W

    def keep(A: Tensor) -> Tensor:
        nonlocal seen
        seen += 1
        if seen - 1 not in maps:
            return A
        A = A if A.requires_grad or not torch.is_grad_enabled() else A.requires_grad_()
        kept.append(A if A.ndim == 4 else A.unflatten(0, (len(x), -1)))
        return kept[-1] if A.ndim == 4 else kept[-1].flatten(0, 1)

    with attention_maps(keep):
        output = run(model, x)
    return shared.every(output), shared.every(kept)


def read_out(model: nn.Module, x: Float[Tensor, "B C H W"], R: Float[Tensor, "B T T"]) -> Float[Tensor, "B 1 h w"]:
    """Relevance of each patch to the token(s) that the head reads, on the patch grid, without prefix tokens.

    Raises:
        ValueError: the head reads neither certain tokens nor the mean of the patches.
    """
    found = _layers.probe(model, x).tokens
    if found is None or not found.read:
        raise ValueError(
            "model: attention is read out at the class token or the mean of patches; "
            f"this model {found.pooling if found else 'has other attention'}"
        )
    row = R[:, list(found.read)].mean(dim=1)  # B T
    return row[:, None, list(found.cells)].unflatten(2, (found.h, found.w))  # B 1 h w


def upsample(a: Float[Tensor, "B K h w"], like: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H W"]:
    """Bilinear resize of a map to the grid of an image (half-pixel centres); no change if it has that size."""
    if a.shape[-2:] == like.shape[-2:]:
        return a
    return F.interpolate(at_least_float32(a), size=like.shape[-2:], mode="bilinear", align_corners=False)


def minmax(a: Float[Tensor, "*B h w"]) -> Float[Tensor, "*B h w"]:
    """(a - min) / (max - min) over each h w; 0 if a map is constant."""
    lo, hi = a.amin(dim=(-2, -1), keepdim=True), a.amax(dim=(-2, -1), keepdim=True)
    return ratio(a - lo, hi - lo)


def oriented(L: Float[Tensor, "B 1 h w"], A: Float[Tensor, "B K h w"]) -> Float[Tensor, "B 1 h w"]:
    """L or -L: positive where the sum of A over its channels is; if that tells nothing, where |L| is largest.

    The channels of a layer norm sum to the same number, often 0, at every position.
    """
    agree = (L * A.sum(dim=1, keepdim=True)).sum(dim=(1, 2, 3))  # B
    bound = (L.abs() * A.abs().sum(dim=1, keepdim=True)).sum(dim=(1, 2, 3))
    a = L.flatten(1)  # B hw
    largest = a.gather(1, a.abs().argmax(dim=1, keepdim=True))[:, 0]
    sign = torch.where(agree.abs() > 1e-5 * bound, agree, largest)
    return torch.where(sign[:, None, None, None] < 0, -L, L)


def adam(g: Tensor, m: Tensor, v: Tensor, t: int) -> tuple[Tensor, Tensor, Tensor]:
    """The t-th step of Adam (Kingma, Ba 2015; t = 1, 2 ...) for the gradient g; the new means m of g and v of g^2."""
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
    return (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8), m, v


def ratio(a: Tensor, b: Tensor) -> Tensor:
    """The ratio a / b, and 0 (with gradient 0) where b is 0."""
    zero = b == 0
    return torch.where(zero, 0, a / torch.where(zero, 1, b))
