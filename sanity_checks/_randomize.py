"""Networks with randomised weights: stages in execution order, the choice of randomised stages, and one randomiser.

A stage is a block of the network (`layer4.2`, `blocks.11`, `classifier`). Together the stages contain every parameter,
also parameters outside layers (class token, position embedding, LayerScale). A normalisation layer between blocks
belongs to the block before it. A stage is lost when its weights are randomised.
"""

import contextlib
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from methods._calls import copy_of, logits, run
from methods._layers import probe
from methods._torch import submodule

INITS = ("permute", "normal_matched", "reset", "reset_keep_bn")
ORDERS = ("top-down", "bottom-up", "independent")
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


class Stage(NamedTuple):
    """A block of the network and the names of its parameters."""

    name: str
    parameters: tuple[str, ...]


@torch.no_grad()
def stages(model: nn.Module, x: Float[Tensor, "B C H W"]) -> list[Stage]:
    """The stages of a model in execution order."""
    ran: dict[str, int] = {}  # module: when it first ran
    with contextlib.ExitStack() as stack:
        for name, module in model.named_modules():
            stack.callback(module.register_forward_pre_hook(partial(_note, ran, name)).remove)
        run(model, x[:1])
    found: dict[str, list[str]] = {}
    when: dict[str, int] = {}
    for name, _ in model.named_parameters():
        unit, owner = _unit(model, name), name.rpartition(".")[0]
        found.setdefault(unit, []).append(name)
        when[unit] = min(when.get(unit, len(ran)), ran.get(owner, len(ran)) if owner else -1)
    order = sorted(found, key=lambda unit: when[unit])
    sizes = {name: p.ndim for name, p in model.named_parameters()}
    merged: list[Stage] = []
    for unit in order:
        names = tuple(found[unit])
        bare = unit == "" or all(sizes[n] < 2 for n in names)  # parameters of the model itself; a separate norm
        if merged and (bare or merged[-1].name == ""):
            before = merged.pop()
            merged.append(Stage(before.name or unit, before.parameters + names))
        else:
            merged.append(Stage(unit, names))
    return merged


def whole(model: nn.Module) -> Stage:
    """The model as one stage: all its parameters."""
    return Stage("", tuple(name for name, _ in model.named_parameters()))


def lost_stages(order: str, n: int, points: int | None) -> Iterator[frozenset[int]]:
    """The lost stages, out of n, at each step of an order: `points` steps, evenly spread; None: n steps."""
    m = min(points or n, n)
    steps = [round(i * (n - 1) / (m - 1)) for i in range(m)] if m > 1 else [0]  # 0 ... n - 1
    for k in steps:
        if order == "top-down":
            yield frozenset(range(n - 1 - k, n))
        elif order == "bottom-up":
            yield frozenset(range(k + 1))
        else:
            yield frozenset({n - 1 - k})


def randomizations(
    model: nn.Module,
    L: Sequence[Stage],
    steps: Iterable[frozenset[int]] | None = None,
    *,
    init: str = "permute",
    seeds: Iterable[int] = (0,),
) -> Iterator[tuple[int, frozenset[int], nn.Module]]:
    """Copies of the model with lost stages, one at a time: all steps with the first seed, then with the next seed.

    Args:
        model: it is not changed.
        L: its stages.
        steps: the lost stages at each step; None: one step that loses all stages.
        init: see `randomized`.
        seeds: of the randomisations.

    Yields:
        The seed, the lost stages, and the network with these stages randomised.

    Raises:
        ValueError: unknown init.
    """
    steps = [frozenset(range(len(L)))] if steps is None else list(steps)
    for seed in seeds:
        for lost in steps:
            names = [name for k in sorted(lost) for name in L[k].parameters]
            yield seed, lost, randomized(model, names, init=init, seed=seed)


@torch.no_grad()
def randomized(model: nn.Module, names: Collection[str], *, init: str = "permute", seed: int = 0) -> nn.Module:
    """A copy of the model in which the parameters `names` are randomised.

    Args:
        model: it is not changed.
        names: of parameters.
        init: permute: the numbers of each tensor are shuffled. normal_matched: normal distribution with the tensor's
            mean and standard deviation. reset: each module's own `reset_parameters`, which also resets batch
            statistics; parameters of modules without it are drawn as in normal_matched. reset_keep_bn: like reset, but
            batch statistics are kept.
        seed: seed and parameter name together fix the draw; tensors of equal shape get different numbers.

    Raises:
        ValueError: unknown init.
    """
    if init not in INITS:
        raise ValueError(f"init: must be one of {', '.join(INITS)}, got {init!r}")
    model = copy_of(model)
    chosen = set(names)
    for owner, module in model.named_modules():
        own = {n: p for n, p in module.named_parameters(prefix=owner, recurse=False) if n in chosen}
        reset = getattr(module, "reset_parameters", getattr(module, "_reset_parameters", None))
        if own and init.startswith("reset") and reset is not None:
            statistics = {n: b.clone() for n, b in module.named_buffers(recurse=False)}
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(_seed(seed, owner))
                reset()
            if init == "reset_keep_bn":
                for n, b in module.named_buffers(recurse=False):
                    b.copy_(statistics[n])
            continue
        for name, p in own.items():
            rng = torch.Generator().manual_seed(_seed(seed, name))
            if init == "permute":
                p.copy_(p.flatten()[torch.randperm(p.numel(), generator=rng).to(p.device)].view_as(p))
            else:
                normal = torch.randn(p.shape, generator=rng).to(p)
                p.copy_(p.mean() + p.std(unbiased=False) * normal)
    return model


@torch.no_grad()
def alive(model: nn.Module, trained: nn.Module, x: Float[Tensor, "B C H W"], init: str) -> dict[str, float]:
    """Output statistics of a randomised network, from four noise images with the range of x.

    Returns:
        logit_std: standard deviation of the logits over classes. entropy: of the softmax, in nats. variation: standard
        deviation of the logits over images, divided by that of the trained network.

    Raises:
        ValueError: the network is dead: variation is below 0.001. Its output is the same for every image, and its maps
            measure rounding errors.
    """
    noise = torch.randn(4, *x.shape[1:], generator=torch.Generator().manual_seed(0)).to(x)
    y, y0 = (logits(m, noise * x.std() + x.mean()).float() for m in (model, trained))  # 4 N
    variation = float(y.std(dim=0).mean() / y0.std(dim=0).mean())
    if variation < 1e-3:
        raise ValueError(
            f"init: {init!r} leaves this network dead (its logits vary {variation:.1e} as much as the trained ones), "
            "so the test would mean nothing; use 'permute' or 'normal_matched'"
        )
    several = y.shape[1] > 1
    of = torch.distributions.Categorical(logits=y) if several else torch.distributions.Bernoulli(logits=y)
    spread = float(y.std(dim=1).mean()) if several else 0.0
    return {"logit_std": spread, "entropy": float(of.entropy().mean()), "variation": variation}


@torch.no_grad()
def refitted(
    model: nn.Module, trained: nn.Module, x: Float[Tensor, "B C H W"], y: Float[Tensor, "B N"]
) -> nn.Module | None:
    """A copy of a randomised model, as sure as the trained one: its last linear layer is fitted to logits y of x.

    The fit is the one of least norm; it is exact where there are more features than images. A map that asks only how
    sure the network is, or of which class, cannot tell this network from the trained one.

    Returns:
        None if there is not exactly one last linear layer that sees one vector for each image, or the fit is off by
        more than 1 % of the spread of the logits.
    """
    head = probe(trained, x).head
    twin = copy_of(model)
    layer = submodule(twin, head[0]) if len(head) == 1 else None
    if not isinstance(layer, nn.Linear):
        return None
    seen: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    try:
        run(twin, x)
    finally:
        handle.remove()
    if len(seen) != 1 or seen[0].shape != (len(x), layer.in_features) or y.shape[1] != layer.out_features:
        return None
    phi, Y = seen[0].double(), y.double()  # B K, B N
    centre = phi.mean(dim=0)
    W = torch.linalg.pinv(phi - centre) @ (Y - Y.mean(dim=0))  # K N
    b = Y.mean(dim=0) - centre @ W  # N
    layer.weight.copy_(W.T)
    if layer.bias is None:
        layer.bias = nn.Parameter(b.to(layer.weight), requires_grad=False)
    else:
        layer.bias.copy_(b)
    off = (layer(seen[0]).double() - Y).abs().max() / Y.std()
    return twin if off < 0.01 else None


def _unit(model: nn.Module, parameter: str) -> str:
    """The block that contains a parameter: the outermost module that is not a container of blocks."""
    module, path = model, []
    for part in parameter.split(".")[:-1]:
        module = module.get_submodule(part)
        path.append(part)
        if not _holds_blocks(module):
            break
    return ".".join(path)


def _holds_blocks(module: nn.Module) -> bool:
    children = list(module.children())
    inner = [c for c in children if any(True for _ in c.children())]
    if isinstance(module, _CONTAINERS):
        return len(children) > 3 or bool(inner)
    return any(
        isinstance(c, _CONTAINERS) and sum(any(True for _ in b.children()) for b in c.children()) > 1 for c in inner
    )


def _note(ran: dict[str, int], name: str, _module: nn.Module, _args: object) -> None:
    ran.setdefault(name, len(ran))


def _seed(seed: int, name: str) -> int:
    return zlib.crc32(f"{seed} {name}".encode())
