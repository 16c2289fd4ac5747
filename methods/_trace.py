"""Follow the data: to which place of the image does each element of a tensor inside the network belong?

`Trace` carries a second tensor along with each tensor of a forward pass: the places of its elements. An operation that
moves elements (reshape, permute, roll, windows ...) moves their places in the same way. One that mixes elements
(convolution, pooling, linear layer) gives each result the mean of the places that it mixes. So the places at a layer
show how it holds the image, whatever the modules are called and however they are wrapped.
"""

import contextlib
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from methods._rules import COMPOSITE, is_attention_softmax

IMAGE = 2.0**20  # a place is the number (y + IMAGE * image) + x i, in pixels; NaN: no place, such as a class token
MOVES = {
    "view", "reshape", "flatten", "unflatten", "ravel", "permute", "transpose", "swapaxes", "swapdims", "t", "movedim",
    "moveaxis", "squeeze", "unsqueeze", "contiguous", "clone", "detach", "expand", "expand_as", "view_as", "reshape_as",
    "repeat", "tile", "repeat_interleave", "cat", "concat", "concatenate", "stack", "hstack", "vstack", "split",
    "tensor_split", "chunk", "unbind", "select", "narrow", "__getitem__", "index_select", "gather", "take_along_dim",
    "roll", "flip", "fliplr", "flipud", "rot90", "unfold", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle",
    "T", "mT", "H", "mH", "split_with_sizes", "broadcast_to", "diagonal", "as_strided", "block_diag",
}  # fmt: skip
REDUCTIONS = {
    "mean", "sum", "amax", "amin", "max", "min", "median", "logsumexp", "norm", "std", "var", "prod", "any", "all",
    "argmax", "argmin", "nanmean", "nansum",
}  # fmt: skip
SAME = {"dropout", "contiguous", "clone", "to", "type", "type_as", "float", "half", "bfloat16", "detach"}
PRODUCTS = {"matmul", "__matmul__", "__rmatmul__", "bmm", "mm"}
NO_PLACE = complex(math.nan, math.nan)


class Call(NamedTuple):
    """One attention map of a forward pass: softmax(q k^T) or a fused call."""

    shape: tuple[int, ...]  # B heads T T'
    queries: Tensor | None  # places of the rows, B heads T; None: not known
    keys: Tensor | None  # places of the columns, B heads T'
    module: str  # the innermost module in which it ran


class Pool(NamedTuple):
    """An operation that united or dropped the positions of an image."""

    operation: str
    channels: int  # of the tensor that held them
    maps: int  # how many attention maps came before


class Trace(TorchFunctionMode):
    """In `with trace:` each tensor that is computed from `x` carries the places of its elements; `place` reads them.

    The mode changes no result. An operation that it does not know keeps the places of an input of the same shape, or
    loses them. `pools` and `attention` list what was seen, in the order of execution.
    """

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        B, _, H, W = x.shape
        y = torch.arange(H, dtype=torch.float64, device="cpu")[:, None].expand(H, W)
        places = torch.complex(y, torch.arange(W, dtype=torch.float64, device="cpu").expand(H, W))
        images = IMAGE * torch.arange(B, dtype=torch.float64, device="cpu")
        _put(x, (images[:, None, None, None] + places).expand(x.shape))
        self.module = ""  # set by the caller's hooks
        self.pools: list[Pool] = []
        self.attention: list[Call] = []
        self.used: dict[int, int] = {}  # number of an attention map -> number of its product with the values
        self.values: list[Tensor] = []  # these products
        self.operands: list[Tensor] = []  # the values
        self.mixing: list[tuple[str, str, tuple[int, ...]]] = []  # (module, operation, grid) that mixes neighbours

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in COMPOSITE:
            with self:
                return COMPOSITE[func](*args, **kwargs)
        name = getattr(func, "__name__", "")
        name = getattr(getattr(func, "__self__", None), "__name__", name) if name == "__get__" else name
        seen = [place(t) for t in _tensors(args, kwargs)]
        out = func(*args, **kwargs)
        if any(z is not None for z in seen):
            with torch.no_grad(), contextlib.suppress(Exception):  # what cannot be followed has no place
                self._follow(name, func, args, kwargs, out, seen)
        return out

    def _follow(self, name: str, func: Any, args: Any, kwargs: Any, out: Any, seen: list[Tensor | None]) -> None:
        tensors = _tensors(args, kwargs)
        known = [z for z in seen if z is not None]
        if name == "__setitem__":
            z = _of(args[0]).clone(memory_format=torch.contiguous_format)
            z[_on_cpu(args[1])] = _of(args[2]) if isinstance(args[2], Tensor) else torch.tensor(NO_PLACE, device="cpu")
            return _put(args[0], z)
        if name in ("cat", "concat", "concatenate") and (z := _joined(args, kwargs, out)) is not None:
            out_z = z
        elif name in MOVES:
            given, rest = (args[0], args[1:]) if args else (kwargs["input"], ())
            out_z = func(_places(given), *_on_cpu(rest), **_on_cpu(_without(kwargs, "input")))
        elif name == "pad":
            out_z = F.pad(_of(args[0]), args[1], value=math.nan)
        elif name in REDUCTIONS and len(tensors) == 1 and known:
            out_z = _reduced(known[0], args, kwargs)
        elif name == "linear":
            out_z = _mean(_of(args[0]), -1)
        elif name in PRODUCTS:
            a, b = tensors[:2] if name != "__rmatmul__" else (tensors[1], tensors[0])
            out_z = self._product(a, b, out)
        elif name == "einsum":
            out_z = self._einsum(args[0], list(args[1]) if isinstance(args[1], list | tuple) else list(args[1:]), out)
        elif name == "baddbmm":
            out_z = self._product(args[1], args[2], out)
        elif name == "scaled_dot_product_attention":
            q, k = _of(tensors[0]), _of(tensors[1])
            self._attention((*q.shape[:-1], k.shape[-2]), _mean(q, -1)[..., 0], _mean(k, -1)[..., 0])
            self._use(len(self.attention) - 1, tensors[2], out)
            out_z = _mean(q, -1)
        elif isinstance(out, Tensor) and _resizes(name, tensors[0], out):
            out_z = _resampled(_of(tensors[0]), out)
            if tensors[0].shape[2:] == out.shape[2:] and ("pool" in name or max(tensors[1].shape[2:]) > 1):
                self.mixing.append((self.module, name, tuple(out.shape[2:])))
        else:
            out_z = _combined(tensors, out)
        self._follow_map(name, func, args, kwargs, out, tensors)
        for o, z in zip(_list(out), _list(out_z), strict=False):
            if isinstance(o, Tensor) and z is not None:
                _put(o, z.expand(o.shape))
        first = _list(out)[0]
        if isinstance(first, Tensor) and first.numel() < max(t.numel() for t in tensors):
            self._note_pool(name, tensors, first)

    def _follow_map(self, name: str, func: Any, args: Any, kwargs: Any, out: Any, tensors: list[Tensor]) -> None:
        """Carry the places of the columns of scores q k^T along, up to the softmax, and the map up to its use."""
        if is_attention_softmax(name, args, kwargs, out):
            keys, rows = getattr(tensors[0], "_keys", None), place(tensors[0])
            if keys is None or rows is None:
                self.attention.append(Call(tuple(out.shape), None, None, self.module))
            else:
                self._attention(out.shape, _mean(rows, -1)[..., 0], keys[..., 0, :])
            out._map = len(self.attention) - 1
            return
        for t in tensors if isinstance(out, Tensor) else []:
            if name in SAME and hasattr(t, "_map"):
                out._map = t._map  # type: ignore[attr-defined]
            keys = getattr(t, "_keys", None)
            if keys is not None and name in MOVES and t is tensors[0]:
                out._keys = func(keys, *_on_cpu(args[1:]), **_on_cpu(kwargs))  # type: ignore[attr-defined]
            elif keys is not None and t.shape == out.shape:
                out._keys = keys  # type: ignore[attr-defined]

    def _use(self, number: int | None, values: Tensor, out: Tensor) -> None:
        if number is None:
            return
        self.operands.append(values)
        self.used[number] = len(self.values)
        self.values.append(out)

    def _product(self, a: Tensor, b: Tensor, out: Tensor) -> Tensor | None:
        self._use(getattr(a, "_map", None), b, out)
        rows, columns = _mean(_of(a), -1), _mean(_of(b), -2)
        if not rows.isnan().all() and not columns.isnan().all() and out.shape[-1] > 1:
            out._keys = columns.expand(*out.shape)  # type: ignore[attr-defined]
        moving = varies(rows, -2) or not varies(columns, -1)
        return rows if moving and not rows.isnan().all() else columns

    def _einsum(self, equation: str, operands: list[Tensor], out: Tensor) -> Tensor | None:
        inputs, result = equation.replace(" ", "").split("->")
        self._use(getattr(operands[0], "_map", None), operands[1], out)
        found = []
        for letters, t in zip(inputs.split(","), operands, strict=True):
            z = _of(t)
            for letter in [c for c in letters if c not in result]:
                z = _mean(z, letters.index(letter)).squeeze(letters.index(letter))
                letters = letters.replace(letter, "")
            z = z.permute([letters.index(c) for c in result if c in letters])
            found.append(z[tuple(slice(None) if c in letters else None for c in result)])
        rows, columns = found
        if not rows.isnan().all() and not columns.isnan().all():
            out._keys = columns.expand(out.shape)  # type: ignore[attr-defined]
        moving = any(varies(rows, d) for d in range(1, rows.ndim)) or columns.isnan().all()
        return rows if moving and not rows.isnan().all() else columns

    def _attention(self, shape: tuple[int, ...], queries: Tensor, keys: Tensor) -> None:
        self.attention.append(Call(tuple(shape), queries.clone(), keys.clone(), self.module))

    def _note_pool(self, name: str, tensors: list[Tensor], out: Tensor) -> None:
        """Record it if the positions of an image that `tensors` hold are united or dropped in `out`."""
        z = place(out)
        for t in tensors:
            before = place(t)
            if before is None or not _spread(before):
                continue
            half = _cell(before) / 2
            if z is None or not _spread(z, half):
                self.pools.append(Pool(name, _elements(before), len(self.attention)))
            if z is not None and not _spread(z, half):  # channels of one position, though a fraction of a cell apart
                for d in range(z.ndim):
                    z = _mean(z, d) if _width(z, d) < half else z
                _put(out, z.expand(out.shape))
            return


class Replace(TorchFunctionMode):
    """Within the block, operations get other tensors in place of some."""

    def __init__(self, new: Mapping[Any, Tensor]) -> None:
        super().__init__()
        self.new = {id(old): tensor for old, tensor in new.items()}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self.new:
            return func(*args, **(kwargs or {}))
        args, kwargs = tree_map(lambda a: self.new.get(id(a), a), (args, kwargs or {}))
        return func(*args, **kwargs)


def place(t: Any) -> Tensor | None:
    """The places of the elements of t, of the same shape; None if they are not known."""
    z = getattr(t, "_place", None)
    return z if z is not None and z.shape == t.shape else None


def inherit(out: Any, given: Any) -> None:
    """Give the output of a module that could not be followed the places of its input, if the shapes are equal."""
    if isinstance(out, Tensor) and isinstance(given, Tensor) and place(out) is None and out.shape == given.shape:
        z = place(given)
        if z is not None:
            _put(out, z)


def _put(t: Tensor, z: Tensor) -> None:
    t._place = z  # type: ignore[attr-defined]


def _of(t: Tensor) -> Tensor:
    """The places of t; NaN where they are not known."""
    z = place(t)
    return torch.full((), NO_PLACE, dtype=torch.complex128, device="cpu").expand(t.shape) if z is None else z


def _places(given: Any) -> Any:
    return [_of(t) for t in given] if isinstance(given, list | tuple) else _of(given)


def _on_cpu(given: Any) -> Any:
    """Arguments of an operation on places, which are on the CPU."""
    return tree_map(lambda a: a.cpu() if isinstance(a, Tensor) else a, given)


def _list(out: Any) -> list[Any]:
    return list(out) if isinstance(out, list | tuple) else [out]


def _without(kwargs: dict[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in kwargs.items() if k != key}


def _tensors(args: Any, kwargs: Any) -> list[Tensor]:
    found: list[Tensor] = []
    for a in (*args, *kwargs.values()):
        found += [t for t in (a if isinstance(a, list | tuple) else [a]) if isinstance(t, Tensor)]
    return found


def slim(z: Tensor) -> Tensor:
    """Z with one element in each direction in which it only repeats itself."""
    return z[tuple(slice(0, 1) if s == 0 else slice(None) for s in z.stride())]


def together(z: Tensor) -> Tensor:
    """Z with the mean over an axis along which places differ by less than half of a cell.

    Channels that came by different ways (NASNet's shifted strides) can lie a fraction of a pixel apart.
    """
    width = {d: _width(z, d) for d in range(z.ndim) if varies(z, d)}
    if len(width) > 2:
        near = min(width, key=width.__getitem__)
        if 2 * width[near] < min(w / (z.shape[d] - 1) for d, w in width.items() if d != near):
            return _mean(z, near)
    return z


def _cell(z: Tensor) -> float:
    """How far neighbours are apart, in pixels, on average; along the axis where that is least."""
    z = together(slim(z))
    z = torch.complex(z.real % IMAGE, z.imag)  # images may share an axis with positions
    return min((_width(z, d) / (z.shape[d] - 1) for d in range(z.ndim) if varies(z, d)), default=0.0)


def _width(z: Tensor, dim: int) -> float:
    """How far the known places are apart along a dimension, at most."""
    lost = z.isnan()
    return max(
        float((part.masked_fill(lost, -math.inf).amax(dim) - part.masked_fill(lost, math.inf).amin(dim)).max())
        for part in (z.real, z.imag)
    )


def _mean(z: Tensor, dim: int) -> Tensor:
    """Mean of the known places over a dimension, which is kept with the size 1."""
    z = z.narrow(dim, 0, 1) if z.stride(dim) == 0 else z
    if z.shape[dim] == 1:
        return z
    known = ~z.isnan()
    total = torch.where(known, z, 0).sum(dim, keepdim=True)
    return total / known.sum(dim, keepdim=True)  # 0 / 0: NaN


def _joined(args: Any, kwargs: Any, out: Tensor) -> Tensor | None:
    """The places of tensors of equal places, joined along the channels; they need no copy."""
    dim = kwargs.get("dim", args[1] if len(args) > 1 else 0)
    parts = [_of(t) for t in args[0]]
    if any(z.stride(dim) for z in parts):
        return None
    first, *rest = (z.narrow(dim, 0, 1) for z in parts)
    same = all(z.shape == first.shape and torch.equal(torch.view_as_real(z), torch.view_as_real(first)) for z in rest)
    return first.expand(out.shape) if same else None


def _reduced(z: Tensor, args: Any, kwargs: Any) -> Tensor:
    dims = kwargs.get("dim", args[1] if len(args) > 1 and not isinstance(args[1], Tensor) else None)
    keep = kwargs.get("keepdim", args[2] if len(args) > 2 else False)
    dims = range(z.ndim) if dims is None else [dims] if isinstance(dims, int) else dims
    dims = sorted((d % z.ndim for d in dims), reverse=True)
    for d in dims:
        z = _mean(z, d)
    for d in () if keep else dims:
        z = z.squeeze(d)
    return z


def _resizes(name: str, given: Tensor, out: Tensor) -> bool:
    """Whether an operation makes another grid out of a grid: convolution, pooling, interpolation."""
    words = ("conv", "pool", "interpolate", "upsample")
    return given.ndim == out.ndim and given.ndim in (3, 4, 5) and any(word in name for word in words)


def _resampled(z: Tensor, out: Tensor) -> Tensor:
    """Places on the grid of `out`: means of neighbours, which keep the order of rows and columns."""
    z = _mean(z, 1)
    size = out.shape[2:]
    if z.shape[2:] == size:
        return z
    if any(new > old for new, old in zip(size, z.shape[2:], strict=True)):
        mode = {3: "linear", 4: "bilinear", 5: "trilinear"}[z.ndim]
        parts = [F.interpolate(part.contiguous(), size, mode=mode, align_corners=True) for part in (z.real, z.imag)]
        return torch.complex(*parts)
    pool = {3: F.adaptive_avg_pool1d, 4: F.adaptive_avg_pool2d, 5: F.adaptive_avg_pool3d}[z.ndim]
    known = (~z.isnan()).double()
    filled = torch.where(z.isnan(), 0, z)
    share = pool(known, size)
    return torch.complex(pool(filled.real.contiguous(), size) / share, pool(filled.imag.contiguous(), size) / share)


def _combined(tensors: list[Tensor], out: Any) -> Tensor | None:
    """The result of an operation on corresponding elements: the mean of the places that are known."""
    if not isinstance(out, Tensor):
        return None
    full = [slim(z) for t in tensors if (z := place(t)) is not None and z.shape == out.shape]
    if not full:
        full = [z for t in tensors if (z := place(t)) is not None and _fits(z, out)][:1]
    if len(full) < 2:
        return full[0] if full else None
    total, *rest = full
    for z in rest:
        total = torch.where(total.isnan(), z, torch.where(z.isnan(), total, (total + z) / 2))
    return total


def _fits(z: Tensor, out: Tensor) -> bool:
    with contextlib.suppress(RuntimeError):
        z.expand(out.shape)
        return True
    return False


def varies(z: Tensor, dim: int) -> bool:
    """Whether the known places differ along a dimension."""
    if z.shape[dim] < 2 or z.stride(dim) == 0:
        return False
    return _width(slim(z), dim) > 1e-3


def _spread(z: Tensor, least: float = 0.0) -> bool:
    """Whether z holds more than one position of the first image, more than `least` pixels apart."""
    z = slim(z).flatten()
    z = z[z.real < IMAGE / 2]  # without NaN
    return z.numel() > 1 and bool(((z - z[0]).abs() > max(least, 1e-3)).any())


def _elements(z: Tensor) -> int:
    """How many elements of z belong to one position."""
    few = together(slim(z)).flatten()
    first = few[~few.isnan()][0]
    return int(((few - first).abs() < 1e-3).sum()) * (z.numel() // few.numel())
