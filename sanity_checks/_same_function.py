"""Other weights, the same function: networks on which a map must not change."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from methods._calls import copy_of, logits

NUDGE = 1e-6  # relative change of each weight
MOST = 8  # pairs of layers whose channels are permuted
TRIES = 24  # pairs that are tried
SAME = 1e-9  # largest difference of the outputs in float64, as a share of the largest output

MIXING = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)  # each output channel is made of all input channels
BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def twins(model: nn.Module, x: Float[Tensor, "B C H W"], seed: int = 0) -> Iterator[tuple[str, nn.Module]]:
    """Networks that compute what `model` computes, with other weights, one at a time.

    rescaled: each convolution times 2 or 1/2, and the statistics of the batch norm after it as well.
    permuted: the channels between two layers in another order, for up to MOST pairs of layers.
    nudged: each weight times 1 + 1e-6 or 1 - 1e-6.

    A change of the first two kinds is kept only if the outputs on noise stay the same in float64; where the
    architecture has no place for it, the network is left out. The outputs of `nudged` stay the same to about 1e-5.
    """
    noise = torch.randn(1, *x.shape[1:], generator=torch.Generator().manual_seed(seed)).to(x.device).double()
    order = executed(model, x[:1])
    for name, changes in (("rescaled", _scales), ("permuted", _permutations)):
        twin = copy_of(model).double()
        if _kept(twin, noise, changes(twin, order, seed)):
            yield name, _in_precision_of(model, twin)
    yield "nudged", nudged(model, seed)


@torch.no_grad()
def nudged(model: nn.Module, seed: int = 0) -> nn.Module:
    """A copy with each weight times 1 + 1e-6 or 1 - 1e-6."""
    twin, rng = copy_of(model), torch.Generator().manual_seed(seed)
    for p in twin.parameters():
        if p.is_floating_point():
            p.mul_(1 + NUDGE * (2 * torch.randint(0, 2, p.shape, generator=rng) - 1).to(p))
    return twin


def executed(model: nn.Module, x: Float[Tensor, "B C H W"]) -> list[str]:
    """Names of the modules that hold parameters of their own, in the order in which they run first."""
    order: list[str] = []
    hooks = [
        module.register_forward_pre_hook(lambda _m, _args, name=name: order.append(name))
        for name, module in model.named_modules()
        if any(True for _ in module.parameters(recurse=False))
    ]
    try:
        with torch.no_grad():
            logits(model, x)
    finally:
        for hook in hooks:
            hook.remove()
    return list(dict.fromkeys(order))


Change = Callable[[bool], None]  # makes a change (True), or takes it back (False)


@torch.no_grad()
def _kept(twin: nn.Module, noise: Tensor, changes: Iterator[Change]) -> int:
    """Make each change that leaves the outputs on noise as they were; how many are kept."""
    y, kept = logits(twin, noise), 0
    for change in changes:
        change(True)
        if (logits(twin, noise) - y).abs().max() <= SAME * y.abs().max():
            kept += 1
            if kept == MOST:
                break
        else:
            change(False)
    return kept


def _scales(twin: Any, order: Sequence[str], seed: int) -> Iterator[Change]:
    """All convolutions before a batch norm at once; `seed` decides which are doubled and which halved."""
    pairs = []
    for a, b in itertools.pairwise(order):
        conv, norm = twin.get_submodule(a), twin.get_submodule(b)
        if isinstance(conv, MIXING) and isinstance(norm, BATCH_NORM) and norm.running_var is not None:
            c = 2.0 if (len(pairs) + seed) % 2 else 0.5
            if (c * c * (norm.running_var + norm.eps) > norm.eps).all():
                pairs.append((conv, norm, c))

    def change(forth: bool) -> None:
        for conv, norm, c in pairs:
            k = c if forth else 1 / c
            conv.weight.mul_(k)
            if conv.bias is not None:
                conv.bias.mul_(k)
            norm.running_mean.mul_(k)
            norm.running_var.add_(norm.eps).mul_(k * k).sub_(norm.eps)

    if pairs:
        yield change


def _permutations(twin: nn.Module, order: Sequence[str], seed: int) -> Iterator[Change]:
    """The channels from one mixing layer to the next, with what stands between them channel by channel."""
    modules = [twin.get_submodule(name) for name in order]
    rng, tried = torch.Generator().manual_seed(seed), 0
    for i, first in enumerate(modules):
        if not isinstance(first, MIXING) or getattr(first, "groups", 1) != 1:
            continue
        n, between = len(first.weight), []
        for last in modules[i + 1 :]:
            if isinstance(last, MIXING) and getattr(last, "groups", 1) == 1:
                break
            between.append(last)
        else:
            continue
        if last.weight.shape[1] != n or any(len(p) != n for m in between for p in m.parameters(recurse=False)):
            continue
        tried += 1
        if tried > TRIES:
            return
        yield _permutation(first, between, last, torch.randperm(n, generator=rng).to(first.weight.device))


def _permutation(first: nn.Module, between: Sequence[nn.Module], last: Any, p: Int[Tensor, " n"]) -> Change:
    n = len(p)

    def change(forth: bool) -> None:
        q = p if forth else p.argsort()
        for module in (first, *between):
            for t in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                if t.ndim and len(t) == n:
                    t.copy_(t[q].clone())
        last.weight.copy_(last.weight[:, q].clone())

    return change


def _in_precision_of(model: nn.Module, twin: nn.Module) -> nn.Module:
    """The twin with every parameter and buffer in the precision of the model's."""
    kinds = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, t in (*twin.named_parameters(), *twin.named_buffers()):
        t.data = t.data.to(kinds[name].dtype)
    return twin
