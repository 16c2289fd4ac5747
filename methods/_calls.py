"""Call a model: every forward pass of every method goes through `run`, whatever the model is and returns."""

import contextlib
import copy
import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

# torch.autocast of the caller, (device type, dtype): for the model alone, not for a method's own arithmetic.
AUTOCAST: ContextVar[tuple[str, torch.dtype] | None] = ContextVar("autocast", default=None)
# What is told how many images each forward pass runs.
PROGRESS: ContextVar[Callable[[int], object] | None] = ContextVar("progress", default=None)
CHECKPOINTED = "the model calls torch.utils.checkpoint"
EXAMPLE = "target=lambda out: out[:, 3].mean(dim=(1, 2))"


def run(model: nn.Module, x: Float[Tensor, "B C H W"]) -> Any:
    """What the model returns for x. The model may change its input in place; x stays as it is.

    Raises:
        ValueError: the model calls torch.utils.checkpoint where no flag of it can switch that off.
    """
    with contextlib.ExitStack() as stack:
        if cast := AUTOCAST.get():
            stack.enter_context(torch.autocast(cast[0], cast[1]))
        stack.enter_context(_settings(model))
        stack.enter_context(_Guard())
        stack.enter_context(torch.autograd.graph.disable_saved_tensors_hooks(CHECKPOINTED))
        try:
            output = model(x.clone())
        except RuntimeError as e:
            if CHECKPOINTED not in str(e):
                raise
            raise ValueError(f"model: {CHECKPOINTED}, which runs parts of it twice; switch it off for this call") from e
    if tell := PROGRESS.get():
        tell(len(x))
    return output


@contextlib.contextmanager
def _settings(model: nn.Module) -> Iterator[None]:
    """Within the block: no gradient checkpointing, no compiled graph, and counters of batches that do not stay."""
    flags: list[tuple[nn.Module, str]] = []
    counters: list[tuple[Tensor, Tensor]] = []
    compiled = False
    for m in model.modules():
        own = vars(m)
        flags += [(m, flag) for flag in ("grad_checkpointing", "gradient_checkpointing") if own.get(flag) is True]
        compiled |= own.get("_compiled_call_impl") is not None or "_orig_mod" in own["_modules"]
        if m.training and isinstance(n := getattr(m, "num_batches_tracked", None), Tensor):
            counters.append((n, n.clone()))
    try:
        for m, flag in flags:
            setattr(m, flag, False)
        with torch.compiler.set_stance("force_eager") if compiled else contextlib.nullcontext():
            yield
    finally:
        for m, flag in flags:
            setattr(m, flag, True)
        for n, before in counters:
            n.copy_(before)


class _Guard(TorchFunctionMode):
    """Norms with two faults mended, wherever in the model they are called.

    torch 2.14 on a CPU: the backward pass of batch_norm and instance_norm at batch 1 reads a gradient in another memory
    order as if it were contiguous, for example where `norm(x).flatten(2).transpose(1, 2)` follows. It gets one in the
    order of its output. And a norm in training mode updates copies of its running statistics.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in _NORMS:
            return func(*args, **kwargs)
        flag = "training" if func is F.batch_norm else "use_input_stats"
        if func in _NORMS[:2] and (args[5] if len(args) > 5 else kwargs.get(flag, func is F.instance_norm)):
            args = (*args[:1], *(_copy(a) for a in args[1:3]), *args[3:])
            kwargs = {k: _copy(v) if k.startswith("running_") else v for k, v in kwargs.items()}
        out = func(*args, **kwargs)
        if out.requires_grad and out.device.type == "cpu":
            last = not out.is_contiguous() and out.is_contiguous(memory_format=torch.channels_last)
            order = torch.channels_last if last else torch.contiguous_format
            out.register_hook(lambda g: g if g is None else g.contiguous(memory_format=order))
        return out


_NORMS = (F.batch_norm, F.instance_norm, torch.batch_norm, torch.instance_norm)


def _copy(a: Any) -> Any:
    return a.clone() if isinstance(a, Tensor) else a


def copy_of(model: nn.Module) -> nn.Module:
    """A deep copy of a model, without what forward passes left in it.

    Some networks keep tensors with a graph (timm's LeViT: its attention biases). They cannot be copied, and a copy that
    gets new weights would keep what the old ones gave. They are forgotten where `train()` forgets them, as there.
    """
    held = [t for m in model.modules() for t in tree_leaves(vars(m)) if isinstance(t, Tensor) and not t.is_leaf]
    twin = copy.deepcopy(model, {id(t): t.detach().clone() for t in held})
    modes = [m.training for m in twin.modules()]
    twin.train()
    for m, mode in zip(twin.modules(), modes, strict=True):
        m.training = mode
    return twin


def here(hook: Callable[..., Any]) -> Callable[..., Any]:
    """The hook, for this thread only: other threads may use the same model."""
    thread = threading.get_ident()

    @functools.wraps(hook)
    def only(*args: Any, **kwargs: Any) -> Any:
        return hook(*args, **kwargs) if threading.get_ident() == thread else None

    return only


def at_least_float32(a: Tensor) -> Tensor:
    """Half precision becomes float32; float32 and float64 stay."""
    return a.float() if a.dtype in (torch.float16, torch.bfloat16) else a


def logits_of(output: Any) -> Float[Tensor, "B N"]:
    """The logits in what a model returned: itself, its `.logits`, its ["logits"], or the first tensor of a tuple.

    Raises:
        ValueError: there are none; the message shows what the model returned.
    """
    found = output
    if isinstance(getattr(output, "logits", None), Tensor):
        found = output.logits
    elif isinstance(output, Mapping):
        found = output.get("logits")
    elif isinstance(output, tuple | list):
        found = next((t for t in output if isinstance(t, Tensor)), None)
    if isinstance(found, Tensor) and found.ndim == 2 and found.is_floating_point():
        return found
    raise ValueError(
        f"model: returned {structure_of(output)}, which has no logits (B, N) for a target that is a class; "
        f"a callable target gets all of it and returns one score per image, e.g. {EXAMPLE}"
    )


def logits(model: nn.Module, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N"]:
    """The logits of a model, in float32 at least; see `run` and `logits_of`."""
    return at_least_float32(logits_of(run(model, x)))


def probabilities(output: Any) -> Float[Tensor, "B N"]:
    """Softmax of the logits in what a model returned; of a single logit the sigmoid."""
    logits = at_least_float32(logits_of(output))
    return logits.softmax(dim=1) if logits.shape[1] > 1 else logits.sigmoid()


def tensors_of(output: Any) -> list[Tensor]:
    """Every floating-point tensor in what a model returned."""
    inside = output if _is_tree(output) else getattr(output, "__dict__", output)
    return [t for t in tree_leaves(inside) if isinstance(t, Tensor) and t.is_floating_point()]


def map_tensors(fn: Callable[[Tensor], Tensor], output: Any) -> Any:
    """What a model returned, with `fn` of each tensor."""
    if _is_tree(output):
        return tree_map(lambda t: fn(t) if isinstance(t, Tensor) else t, output)
    new = copy.copy(output)
    vars(new).update(map_tensors(fn, vars(output)))
    return new


def _is_tree(output: Any) -> bool:
    return tree_leaves(output) != [output] if not isinstance(output, Tensor) else True


def first_tensor(out: Any) -> Tensor | None:
    """The tensor in what a layer returned: itself, or the first of a tuple or a mapping."""
    if isinstance(out, Mapping):
        out = tuple(out.values())
    if isinstance(out, tuple | list):
        out = out[0] if out else None
    return out if isinstance(out, Tensor) else None


def with_tensor(out: Any, new: Tensor) -> Any:
    """What a layer returned, with `new` in place of `first_tensor`."""
    if isinstance(out, Tensor):
        return new
    if isinstance(out, Mapping):
        changed = copy.copy(out)
        changed[next(iter(out))] = new  # type: ignore[index]
        return changed
    rest = (new, *out[1:])
    return type(out)(*rest) if hasattr(out, "_fields") else type(out)(rest)


def structure_of(output: Any) -> str:
    """The structure of what a model returned, in words."""
    if isinstance(output, Tensor):
        return f"a tensor {tuple(output.shape)} of {str(output.dtype).removeprefix('torch.')}"
    if isinstance(output, Mapping):
        return f"a {type(output).__name__} with {', '.join(f'{k!r}: {structure_of(v)}' for k, v in output.items())}"
    if isinstance(output, tuple | list):
        return f"a {type(output).__name__} of {', '.join(map(structure_of, output)) or 'nothing'}"
    return "None" if output is None else f"an object of type {type(output).__name__}"
