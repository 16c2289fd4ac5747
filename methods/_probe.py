"""What one forward and one backward pass on noise show about a model. No attribute of the model is read."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch._C import _len_torch_function_stack
from torch.overrides import _pop_mode, _push_mode
from torch.utils._device import DeviceContext

from methods import _trace
from methods._calls import first_tensor, here, logits_of, run, tensors_of, with_tensor
from methods._grids import Layout, layout_of, raster, to_grid
from methods._registry import Architecture
from methods._trace import IMAGE, Trace, place

# Operations after which the head reads certain tokens, or their mean.
MEANS = {*_trace.MOVES, "mean", "sum", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "avg_pool1d", "avg_pool2d"}


class Tokens(NamedTuple):
    """The tokens of a model's attention maps: those that are cells of a grid, and those that the head reads."""

    maps: tuple[int, ...]  # numbers of the attention maps between these tokens, among all in order of execution
    T: int
    h: int
    w: int
    cells: tuple[int, ...]
    read: tuple[int, ...]  # the head reads the mean of these rows; empty: it reads in another way
    pooling: str  # how it reads then


class Probe(NamedTuple):
    """What one forward and one backward pass on noise show about a model."""

    layer: str | None  # the default layer; None: nothing qualifies
    candidates: list[str]  # layers with a spatial grid that can change the score, in execution order
    architecture: Architecture  # 'vit': global attention over one token grid; 'swin': any other attention; else 'cnn'
    classes: int | None  # number of logits; None: the model returns something else
    no_logits: str  # then, what it returns
    grids: dict[str, Layout]  # of every module that has a grid, in execution order
    refused: dict[str, str]  # of every other module that ran: why its output has no grid
    tokens: Tokens | None  # for a 'vit'
    attention: str  # why it is no 'vit', if it has attention
    head: tuple[str, ...]  # the linear layers that give the logits, alone or together
    mixes: bool  # the score of an image depends on the other images of the batch


def look(model: nn.Module, image: tuple[int, ...], like: Tensor) -> Probe:
    """Run the model once each way on noise.

    Args:
        model: a classifier.
        image: C H W of the noise.
        like: gives data type and device; if it is a batch, its images are tried if the model takes no noise.

    Raises:
        ValueError: the model does not take such images.
    """
    rng = torch.Generator("cpu").manual_seed(0)
    noise = torch.randn(2, *image, generator=rng, device="cpu").to(like)
    given = [like.detach()[:2]] if like.ndim == 4 else []  # for a model that takes no noise
    tries = [noise, noise[:1], *given]
    for images in tries:
        try:
            with _outside_modes():
                return _look_at(model, images.clone())
        except torch.OutOfMemoryError:
            raise
        except Exception as e:
            if isinstance(e, ValueError) and str(e).startswith("model:"):
                raise
            if images is tries[-1]:
                said = str(e).splitlines()[0] if str(e) else type(e).__name__
                raise ValueError(f"x: the model does not take images of {' x '.join(map(str, image))}: {said}") from e
    raise AssertionError


@contextlib.contextmanager
def _outside_modes() -> Iterator[None]:
    """Within the block no mode of the caller, such as a backward rule, sees an operation; a default device stays."""
    modes = [_pop_mode() for _ in range(_len_torch_function_stack())]  # the innermost first
    devices = [mode for mode in reversed(modes) if isinstance(mode, DeviceContext)]
    try:
        for mode in devices:
            _push_mode(mode)
        yield
    finally:
        for _ in devices:
            _pop_mode()
        for mode in reversed(modes):
            _push_mode(mode)


@torch.inference_mode(False)
@torch.enable_grad()
def _look_at(model: nn.Module, x: Float[Tensor, "B C H W"]) -> Probe:
    noise = {"generator": torch.Generator("cpu").manual_seed(1), "device": "cpu"}
    x, B = x.requires_grad_(), len(x)
    # A weight that is all zero (a new head, the end of a residual branch) would hide layers that count once trained.
    zero = {p: torch.randn(p.shape, **noise).to(p) for p in model.parameters() if p.is_floating_point() and not p.any()}
    trace, inside = Trace(x), [""]
    ran: dict[str, int] = {}
    every: dict[str, Tensor] = {}  # insertion order is execution order
    earlier: dict[int, tuple[str, Tensor]] = {}  # with the tensor: an id is that of another one once it is gone
    inner: dict[str, str] = {}  # module: the one whose output it hands on
    linear: dict[Any, tuple[str, Tensor]] = {}  # node of the graph: layer with a matrix of weights, its output

    def enter(name: str) -> None:
        inside.append(name)
        trace.module = name

    def note(name: str, module: nn.Module, args: Any, returned: Any) -> Any:
        inside.pop()
        trace.module = inside[-1]
        ran[name] = ran.get(name, 0) + 1
        out = first_tensor(returned)
        if out is None:
            return None
        _trace.inherit(out, args[0] if args else None)
        passed, _ = earlier.get(id(out), ("", None))  # the module that returned this tensor before
        if passed:
            inner[name] = passed
            out = out.view_as(out)  # with a gradient of its own: what comes after this module
        earlier[id(out)] = name, out
        every.pop(name, None)
        every[name] = out
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and weight.ndim > 1:
            linear[out.grad_fn] = name, out
        return with_tensor(returned, out) if passed else None

    with contextlib.ExitStack() as stack:
        stack.enter_context(_eval(model))
        for name, module in model.named_modules():
            if name and not isinstance(module, torch.jit.ScriptModule):  # it takes no hooks
                handles = (
                    module.register_forward_pre_hook(here(lambda _m, _a, name=name: enter(name))),
                    module.register_forward_hook(here(lambda m, a, out, name=name: note(name, m, a, out))),
                )
                for handle in handles:
                    stack.callback(handle.remove)
        stack.enter_context(trace)
        stack.enter_context(_trace.Replace(zero))
        returned = run(model, x)

    N, no_logits = None, ""  # the sentence, not what was returned: that would keep the whole graph
    try:
        N = logits_of(returned).shape[1]
    except ValueError as e:
        no_logits = str(e)
    grids: dict[str, Layout] = {}
    refused = {n: f"it ran {k} times in one forward pass; it must run exactly once" for n, k in ran.items() if k > 1}
    known: dict[Any, Layout | str] = {}  # most layers share the places of others
    for name, out in every.items():
        z = place(out)
        key = id(out) if z is None else (z.data_ptr(), z.shape, z.stride())
        found = known[key] = known[key] if key in known else layout_of(out, B)
        if isinstance(found, str):
            refused.setdefault(name, found)
        elif name not in refused:
            grids[name] = found
    held = [(name, out, grids[name]) for name, out in every.items() if name in grids]

    y = sum(  # random: no classes cancel
        (t[0] * torch.randn(t[0].shape, **noise).to(t)).sum()
        for t in tensors_of(returned)
        if t.requires_grad and len(t) == B
    )
    ends = [x, *(out for _, out, _ in held), *trace.values]
    need = [t for t in ends if t.requires_grad]
    by = dict(zip(map(id, need), _gradients(y, need), strict=True))
    g_x, flat = by[id(x)], by[id(x)] is None
    # A maximum has a gradient at few positions; a class token after the last attention has one at no patch.
    most = 0.0 if any("max" in pool.operation or pool.operation == "topk" for pool in trace.pools) else 0.5
    candidates = []
    for name, out, at in held:
        g = by.get(id(out))
        if at.h * at.w == 1:
            continue
        if (g is None and flat) or (g is not None and (to_grid(g, at)[0] != 0).any(dim=0).float().mean() > most):
            if inner.get(name, "").startswith(f"{name}.") and inner[name] in candidates:  # one tensor: the outer name
                candidates.remove(inner[name])
            candidates.append(name)
    channels = {name: out.shape[at.channel] for name, out, at in held}
    values = [n for n in candidates if _storage(every[n]) in map(_storage, trace.operands)]
    parts = {(n.rpartition(".")[0], every[n].shape) for n in values}  # they, queries and keys: parts of an attention
    features = [n for n in candidates if (n.rpartition(".")[0], every[n].shape) not in parts] or candidates
    layer = next(
        (n for pool in reversed(trace.pools) for n in reversed(features) if channels[n] == pool.channels), None
    )
    ends = _nearest(logits_of(returned).grad_fn, linear) if N else []
    head = tuple(n for n, out in ends if out.shape[:2] == (B, N) and out.shape[2:].numel() == 1)
    kind, tokens, why = _attention(trace, [by.get(id(v)) for v in trace.values], B)
    return Probe(
        layer=layer,
        candidates=candidates,
        architecture=kind,
        classes=N,
        no_logits=no_logits,
        grids=grids,
        refused=refused,
        tokens=tokens,
        attention=why,
        head=head,
        mixes=g_x is not None and bool(g_x[1:].any()),
    )


def _nearest(node: Any, layers: Mapping[Any, tuple[str, Tensor]]) -> list[tuple[str, Tensor]]:
    """The layers that the graph reaches from a node without passing another layer, in execution order."""
    todo, seen = [node], set()
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            todo += [] if node in layers else [earlier for earlier, _ in node.next_functions]
    return [layer for end, layer in layers.items() if end in seen]


def _storage(t: Tensor) -> int:
    return t.untyped_storage().data_ptr()


def _gradients(y: Any, ends: list[Tensor]) -> tuple[Tensor | None, ...]:
    if not isinstance(y, Tensor) or not y.requires_grad:
        return (None,) * len(ends)
    try:
        return torch.autograd.grad(y, ends, allow_unused=True)
    except RuntimeError:  # an operation in place overwrote what the backward pass needs, or has no derivative
        return (None,) * len(ends)


@contextlib.contextmanager
def _eval(model: nn.Module) -> Iterator[None]:
    """Every module in evaluation mode, so that a probe does not change batch statistics; the modes are restored."""
    training = [m for m in model.modules() if m.training]
    try:
        for m in training:
            m.training = False
        yield
    finally:
        for m in training:
            m.training = True


def _attention(trace: Trace, gradients: list[Tensor | None], B: int) -> tuple[Architecture, Tokens | None, str]:
    """The kind of network, and the tokens of its attention maps or the reason why there are none."""
    calls = {i: call for i, call in enumerate(trace.attention) if call.keys is not None and call.shape[-2] > 1}
    if not calls:
        return "cnn", None, "computes no attention map (softmax over the scores of queries and keys)"
    grids = {}
    for i, call in calls.items():
        found = _token_grid(call, B)
        if isinstance(found, str):
            return "swin", None, f"the attention in {call.module!r} {found}"
        grids[i] = found
    (first, call), *_ = calls.items()
    for i, grid in grids.items():
        if grid != grids[first] or calls[i].shape[-1] != call.shape[-1]:
            return "swin", None, f"the attention in {calls[i].module!r} has other tokens than that in {call.module!r}"
        if i not in trace.used:
            return "swin", None, f"{calls[i].module!r} changes its attention map after the softmax"
    h, w, cells = grids[first]
    for module, op, shape in trace.mixing:
        if shape == (h, w):
            return "swin", None, f"{op} in {module!r} also mixes the positions of the tokens"
    end, T = max(calls), call.shape[-1]
    g = gradients[trace.used[end]]  # B heads T d, or B heads, merged
    reached = torch.zeros(T) if g is None else (g[: len(g) // B] != 0).movedim(-2, 0).flatten(1).any(dim=1)
    read = tuple(reached.nonzero().flatten().tolist())
    odd = [pool.operation for pool in trace.pools if pool.maps > end and pool.operation not in MEANS]
    why = f"pools its tokens by {odd[0]}" if odd else "reads some of its patches only"
    if odd or not (set(read).isdisjoint(cells) or set(read) in ({*cells}, {*range(T)})):
        read = ()
    return "vit", Tokens(tuple(calls), T, h, w, cells, read, why), ""


def _token_grid(call: _trace.Call, B: int) -> tuple[int, int, tuple[int, ...]] | str:
    q, k = call.queries, call.keys
    assert q is not None
    assert k is not None
    if q.isnan().all() or k.isnan().all():
        return "could not be followed from the image"
    if q.shape[0] not in (B, B * (call.shape[0] // B)) or q.ndim not in (2, 3) or (q.ndim == 3 and q.shape[0] != B):
        return "runs inside windows, not over whole images"
    per_image = [z.unflatten(0, (B, -1))[:, 0] if z.ndim == 2 else z[:, 0] for z in (q, k)]  # B T
    q, k = per_image
    images = (q.real / IMAGE).round()
    if any(not row[~row.isnan()].eq(b).all() for b, row in enumerate(images)):
        return "runs inside windows, not over whole images"
    if not _trace.varies(q, 1) and not _trace.varies(k, 1):
        return "runs over channels, not over positions"
    if q.shape != k.shape or not torch.equal(q.isnan(), k.isnan()) or ((q - k).abs() > 1e-3).any():
        return "is not between the tokens of one grid: queries and keys are at other places"
    return raster(q[0]) or "is not between the tokens of one grid"
