"""The default layer of a model, and tokens <-> grid. There is no table of models: one probe finds everything."""

import contextlib
import math
from collections.abc import Iterator
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from methods._registry import Architecture
from methods._rules import attention_calls


class Layout(NamedTuple):
    """How a layer's output holds a grid: 'nchw', 'nhwc' or 'tokens' (`prefix` class and register tokens first)."""

    kind: str
    prefix: int
    h: int
    w: int


def _stride_ratio(h: int, w: int, size: tuple[int, int]) -> float:
    """How much the strides of a grid differ between the two directions; 0: equal, up to rounding of the sizes."""
    H, W = size
    return max(0.0, abs(math.log((H / h) / (W / w))) - math.log1p(1 / min(h, w)) * (H != W))


def token_grid(T: int, size: tuple[int, int], prefix: int = 0) -> tuple[int, int, int]:
    """(prefix, h, w) of T tokens over an image of `size` (H, W); `prefix` is tried first, then 0, 1, 2, ... 9.

    Raises:
        ValueError: no number of prefix tokens leaves a grid with the image's aspect ratio.
    """
    H, W = size
    grids = {}  # number of positions -> (h, w), for each stride that a patch or a pooling can have
    for s in range(1, min(H, W) + 1):
        for h, w in ((-(-H // s), -(-W // s)), (H // s, W // s)):
            grids[h * w] = h, w
    for P in (prefix, *range(10)):
        if T - P in grids:
            return P, *grids[T - P]
    raise ValueError(f"{T} tokens are not a grid over a {H} x {W} image, with up to 9 prefix tokens")


def layout(out: Tensor, size: tuple[int, int], model: nn.Module) -> Layout:
    """The layout of a layer's output for images of `size` (H, W).

    Raises:
        ValueError: the output is not a tensor with a spatial grid.
    """
    if not isinstance(out, Tensor) or out.ndim not in (3, 4):
        got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ValueError(f"its output ({got}) has no spatial grid; it must be B K h w, B h w K or B T K")
    if out.ndim == 3:
        return Layout("tokens", *token_grid(out.shape[1], size, getattr(model, "num_prefix_tokens", 0)))
    _, a, b, c = out.shape
    nchw, nhwc = _stride_ratio(b, c, size), _stride_ratio(a, b, size)
    channels_last = getattr(model, "output_fmt", "NCHW") == "NHWC" if nchw == nhwc else nhwc < nchw
    return Layout("nhwc", 0, a, b) if channels_last else Layout("nchw", 0, b, c)


def to_grid(out: Tensor, at: Layout) -> Float[Tensor, "B K h w"]:
    """A layer's output as B K h w; prefix tokens are left out."""
    if at.kind == "tokens":
        return out[:, at.prefix :].transpose(1, 2).unflatten(2, (at.h, at.w))
    return out.permute(0, 3, 1, 2) if at.kind == "nhwc" else out


def from_grid(A: Float[Tensor, "nB K h w"], out: Tensor, at: Layout) -> Tensor:
    """The inverse of `to_grid`, for n copies of the batch; prefix tokens come from `out`. May share memory with A."""
    if at.kind == "tokens":
        prefix = out[:, : at.prefix].repeat(len(A) // len(out), 1, 1)
        return torch.cat([prefix, A.flatten(2).transpose(1, 2)], dim=1)
    return A.permute(0, 2, 3, 1) if at.kind == "nhwc" else A


def pooled_rows(model: nn.Module, prefix: int) -> slice:
    """The token rows that the classification head reads: the class token(s), or all patches of a mean-pooled model.

    Raises:
        ValueError: the head pools in another way.
    """
    pool = getattr(model, "global_pool", "token" if prefix else "avg")
    if pool == "avg":
        return slice(prefix, None)
    if pool in ("token", "") and prefix:
        return slice(0, 2 if hasattr(model, "head_dist") else 1)
    raise ValueError(f"model: attention is read out at the class token or the mean of patches, not for {pool=} pooling")


class Probe(NamedTuple):
    """What one forward and one backward pass on noise show about a model."""

    layer: str | None  # the default layer; None: nothing qualifies
    candidates: list[str]  # layers with a spatial grid that can change the score, in execution order
    architecture: Architecture  # 'vit': global attention over one token grid; 'swin': any other attention; else 'cnn'
    classes: int
    grids: dict[str, Layout]  # of every module that has a grid, in execution order


_PROBES: WeakKeyDictionary[nn.Module, Probe] = WeakKeyDictionary()


def default_layer(model: nn.Module, image: tuple[int, ...] = (3, 224, 224)) -> str:
    """The last layer that holds the model's final features on a grid and can still change the score.

    Args:
        model: a classifier.
        image: C H W of the probe, for a model that does not declare its input size.

    Returns:
        The name of the last module in execution order whose output has `model.num_features` channels and a grid of more
        than one position, with a gradient at more than half of the positions. Of several names for one tensor, the
        outermost.

    Raises:
        ValueError: no layer qualifies; the message lists candidates for `layer=`.
    """
    found = probe(model, image)
    if found.layer is None:
        raise ValueError(f"layer: none found by default; name one, for example of {found.candidates[-8:]}")
    return found.layer


def finer_layers(model: nn.Module, layer: str, image: tuple[int, ...] = (3, 224, 224)) -> list[str]:
    """The last layer on each finer grid before `layer`: act1, layer1, layer2 and layer3 for layer4 of a resnet50.

    A layer inside a module that only changes the grid does not count: layer1 counts, the start of layer2 does not.

    Args:
        model: a classifier.
        layer: the deepest layer.
        image: as in `default_layer`.

    Returns:
        Names from shallow to deep; an empty list for a network with one grid, such as a ViT.
    """
    found = probe(model, image)
    if layer not in found.grids:
        return []
    (kind, _, h, w), names = found.grids[layer], [*found.grids]
    before = {n: found.grids[n] for n in names[: names.index(layer)]}  # attention maps have another layout
    grid = {n: (at.h, at.w) for n, at in before.items() if at.kind == kind}
    grid = {n: (a, b) for n, (a, b) in grid.items() if abs(a * w - b * h) <= max(a, b) * (h != w)}

    def step(name: str) -> bool:
        outer = (name.rsplit(".", i)[0] for i in range(1, name.count(".") + 1))
        outer = [o for o in outer if grid.get(o, grid[name]) != grid[name]]
        return any(len({g for n, g in grid.items() if f"{n}.".startswith(f"{o}.")}) == 2 for o in outer)

    finer = [n for n in found.candidates if n in grid and min(grid[n][0] - h, grid[n][1] - w) > 0]
    return [*{grid[n]: n for n in finer if not step(n)}.values()]


def probe(model: nn.Module, image: tuple[int, ...] = (3, 224, 224)) -> Probe:
    """Run the model once on noise of its input size. Cached per model (weak reference); changes no state."""
    if model not in _PROBES:
        _PROBES[model] = _probe(model, _input_size(model, image))
    return _PROBES[model]


def _input_size(model: nn.Module, image: tuple[int, ...]) -> tuple[int, int, int]:
    declared = getattr(model, "pretrained_cfg", None) or {}
    channels, *size = declared.get("input_size", image)
    patches = getattr(getattr(model, "patch_embed", None), "img_size", None)  # a ViT built with its own img_size
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)  # ... or with its own in_chans
    channels = first.in_channels * (first.groups == 1) or channels if first is not None else channels
    return (channels, *(patches or size))


@contextlib.contextmanager
def _eval(model: nn.Module) -> Iterator[None]:
    """Every module in evaluation mode, so that a probe does not change batch statistics; the modes are restored."""
    training = [m for m in model.modules() if m.training]
    try:
        model.eval()
        yield
    finally:
        for m in training:
            m.training = True


@torch.inference_mode(False)
@torch.enable_grad()
def _probe(model: nn.Module, image: tuple[int, int, int]) -> Probe:
    like = next(model.parameters(), torch.zeros(()))
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(1, *image, generator=rng).to(like).requires_grad_()
    # A weight that is all zero (a new head, the end of a residual branch) would hide layers that count once trained.
    zero = {n: p for n, p in model.named_parameters() if not p.any()}
    drawn = {n: torch.randn(p.shape, generator=rng).to(p) for n, p in zero.items()}
    last: dict[int, tuple[str, Tensor]] = {}  # insertion order is execution order

    every: dict[str, Tensor] = {}

    def note(name: str, out: object) -> None:
        if isinstance(out, Tensor) and out.requires_grad:
            every.pop(name, None)
            every[name] = out
            last.pop(id(out), None)  # a later module returned the same tensor: the outer name
            last[id(out)] = (name, out)

    with contextlib.ExitStack() as stack:
        stack.enter_context(_eval(model))
        for name, module in model.named_modules():
            if name:
                handle = module.register_forward_hook(lambda _m, _a, out, name=name: note(name, out))
                stack.callback(handle.remove)
        attention = stack.enter_context(attention_calls())
        logits = functional_call(model, drawn, (x,))

    size = image[1:]
    at_layer: dict[str, Layout] = {}
    for name, out in every.items():
        with contextlib.suppress(ValueError):
            at = layout(out, size, model)
            if at.h * at.w > 1:
                at_layer[name] = at
    grids = [(name, out, at_layer[name]) for name, out in last.values() if name in at_layer and out is every[name]]
    y = (logits * torch.randn(logits.shape, generator=rng).to(logits)).sum()  # random: no classes cancel
    gradients = torch.autograd.grad(y, [out for _, out, _ in grids], allow_unused=True) if grids else ()
    linear = [m.in_features for m in model.modules() if isinstance(m, nn.Linear)]
    features = getattr(model, "num_features", linear[-1] if linear else None)

    candidates, layer = [], None
    for (name, out, at), g in zip(grids, gradients, strict=True):
        if g is not None and (to_grid(g, at) != 0).any(dim=1).float().mean() > 0.5:
            candidates.append(name)
            layer = name if to_grid(out, at).shape[1] == features else layer
    return Probe(layer, candidates, _architecture(attention, size, model), logits.shape[1], at_layer)


def _architecture(attention: list[tuple[int, ...]], size: tuple[int, int], model: nn.Module) -> Architecture:
    attention = [shape for shape in attention if shape[-2] > 1]  # one query is attention pooling
    if not attention:
        return "cnn"
    if len({shape[-1] for shape in attention}) == 1 and all(s[0] == 1 and s[-1] == s[-2] for s in attention):
        with contextlib.suppress(ValueError):
            token_grid(attention[0][-1], size, getattr(model, "num_prefix_tokens", 0))
            return "vit"
    return "swin"
