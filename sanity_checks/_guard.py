"""A user's function is called on copies, so nothing that it does to the model or the images reaches another row.

After each call the copies are compared with the originals. A function that changed something is refused, and the
message names what it changed. Global settings of PyTorch get their values back. The global random state (torch, numpy,
random) is seeded before each call, so that a report can be made again, and gets its state back after it.
"""

import contextlib
import functools
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules import module as nn_module

from methods._calls import copy_of
from methods._torch import Target

GLOBAL_HOOKS = [d for name, d in vars(nn_module).items() if name.startswith("_global_") and isinstance(d, dict)]
HOOKS = [name for name, value in vars(nn.Module()).items() if name.endswith("_hooks") and isinstance(value, dict)]
ENDS = (KeyboardInterrupt, GeneratorExit, MemoryError, torch.OutOfMemoryError)  # no fault of the function


def guarded(fn: Callable[..., Any], names: Sequence[str], seed: int) -> Callable[..., Tensor]:
    """`fn` with its signature; each call gets copies and its own random numbers, and its answer is checked.

    Args:
        fn: a user's function f(model, x, target, *, keywords).
        names: of the images, for messages.
        seed: of the random numbers; call number k draws the same ones in each run.

    Returns:
        A function that returns finite maps B K h w outside any graph. It raises a ValueError if `fn` raised anything,
        returned something else, or changed the model, the images, the classes or a setting of PyTorch. Interruptions
        and a lack of memory are raised as they are.
    """
    calls = itertools.count()

    @functools.wraps(fn)
    def call(model: nn.Module, x: Float[Tensor, "B C H W"], target: Target, **keywords: Any) -> Tensor:
        f, images = copy_of(model), x.detach().clone()
        classes = target.clone() if isinstance(target, Tensor) else target
        modules = dict(f.named_modules())
        with _restored(x.device) as settings:
            _seed((seed + 1_000_003 * next(calls)) % 2**32)
            try:
                a = fn(f, images, classes, **keywords)
            except ENDS:
                raise
            except BaseException as error:
                raise ValueError(f"failed on {_shown(len(x), names)}: {type(error).__name__}: {error}") from error
        changed = [*_changes(model, f, modules), *settings]
        for name, before, after in (("images", x, images), ("classes", target, classes)):
            if isinstance(before, Tensor) and isinstance(after, Tensor) and not torch.equal(before, after):
                changed.append(f"the {name}")
        if changed:
            raise ValueError(f"changed {', '.join(changed)}, on {_shown(len(x), names)}; leave everything as it was")
        return _checked(a, x, names)

    return call


def _checked(a: Any, x: Tensor, names: Sequence[str]) -> Float[Tensor, "B K h w"]:
    """The maps outside any graph, if they are maps."""
    on = f" (on {_shown(len(x), names)})"
    if not isinstance(a, Tensor):
        raise ValueError(f"must return a torch.Tensor B K h w, got {type(a).__name__}{on}")
    if a.ndim != 4 or len(a) != len(x) or 0 in a.shape:
        raise ValueError(f"must return B K h w with B = {len(x)}, got {tuple(a.shape)}{on}")
    if not a.is_floating_point():
        raise ValueError(f"must return floating point numbers, got {a.dtype}{on}")
    if a.device != x.device:
        raise ValueError(f"must return maps on {x.device}, got {a.device}{on}")
    bad = (~a.isfinite()).flatten(1).any(dim=1)
    if bad.any():
        whose = [name for name, b in zip(names, bad.tolist(), strict=True) if b] if len(names) == len(x) else names
        raise ValueError(f"must return finite numbers, got NaN or infinity on {_shown(int(bad.sum()), whose)}")
    return a.detach()


def _changes(model: nn.Module, f: nn.Module, modules: dict[str, nn.Module]) -> Iterator[str]:
    """What differs between the copy `f` and the model; `modules` were those of the copy before the call."""
    found: dict[str, list[str]] = {}

    def differs(kind: str, name: str, before: Any, after: Any) -> None:
        if before != after:
            found.setdefault(kind, []).append(name or "the model")

    now = dict(f.named_modules())
    for name in dict.fromkeys([*modules, *now]):
        differs("the module", name, id(modules.get(name)), id(now.get(name)))
    for name, m in model.named_modules():
        c = modules[name]
        differs("the training mode of", name, m.training, c.training)
        differs("the hooks of", name, *([[*getattr(v, hooks)] for hooks in HOOKS] for v in (m, c)))
    before, after = ({**dict(v.named_parameters()), **dict(v.named_buffers())} for v in (model, f))
    for name in dict.fromkeys([*before, *after]):
        p, q = before.get(name), after.get(name)
        if p is None or q is None or (p.shape, p.dtype, p.device) != (q.shape, q.dtype, q.device):
            differs("the tensor", name, True, False)
            continue
        differs("the values of", name, True, torch.equal(p, q))
        differs("requires_grad of", name, p.requires_grad, q.requires_grad)
        differs(".grad of", name, False, q.grad is not None)
    for kind, names in found.items():
        yield f"{kind} {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _global_hooks() -> list[dict[Any, Any]]:
    return [dict(hooks) for hooks in GLOBAL_HOOKS]


def _set_global_hooks(saved: list[dict[Any, Any]]) -> None:
    for hooks, before in zip(GLOBAL_HOOKS, saved, strict=True):
        hooks.clear()
        hooks.update(before)


SETTINGS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "the default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "the default device": (torch.get_default_device, torch.set_default_device),
    "the grad mode": (torch.is_grad_enabled, torch.set_grad_enabled),
    "deterministic algorithms": (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    "the precision of matrix products": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    "the number of threads": (torch.get_num_threads, torch.set_num_threads),
    "hooks of all modules": (_global_hooks, _set_global_hooks),
}
CUDNN = ("benchmark", "deterministic", "allow_tf32")


@contextlib.contextmanager
def _restored(device: torch.device) -> Iterator[list[str]]:
    """After the block, settings and random states are as before; the list then names the settings that were not."""
    changed: list[str] = []
    cudnn = torch.backends.cudnn
    before = {name: read() for name, (read, _) in SETTINGS.items()}
    flags = {name: getattr(cudnn, name) for name in CUDNN}
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            yield changed
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
            for name, (read, write) in SETTINGS.items():
                if read() != before[name]:
                    changed.append(name)
                    write(before[name])
            for name, value in flags.items():
                if getattr(cudnn, name) != value:
                    changed.append(f"torch.backends.cudnn.{name}")
                    setattr(cudnn, name, value)


def _seed(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def _shown(n: int, names: Sequence[str]) -> str:
    """The images of a batch of n, by name; a check may also make its images from them."""
    few = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    if n == len(names):
        return f"image {few}" if n == 1 else f"images {few}"
    return f"{n} image(s) made from {few}" if few else f"{n} image(s)"
