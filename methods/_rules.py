"""Intercept operations while a model runs, for backward rules and attention maps, without a change to any module.

A rule names an operation, not a module. So it works for `nn.ReLU`, `F.relu` and `x.relu_()`, on reused modules and
inside functional code. It cannot see into compiled or scripted graphs: the front door unwraps or refuses those.
"""

import contextlib
import math
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

Rule = Callable[..., Any]  # rule(op, *args, **kwargs) -> the new result; `op` is the original operation

OPS: dict[str, set[Any]] = {
    "relu": {F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.relu6, F.hardtanh},
    "other activation": {F.gelu, F.silu, F.mish, F.hardswish, F.elu, F.selu, F.celu, F.leaky_relu, F.prelu},
    "sigmoid": {torch.sigmoid, Tensor.sigmoid, Tensor.sigmoid_, torch.tanh, Tensor.tanh, Tensor.tanh_, F.hardsigmoid},
    "conv2d": {F.conv2d},
    "linear": {F.linear},
    "batch_norm": {F.batch_norm, torch.batch_norm},
    "max_pool": {F.max_pool2d, torch.max_pool2d, F.max_pool2d_with_indices},
    "mean": {F.avg_pool2d, F.adaptive_avg_pool2d, torch.mean, Tensor.mean},
    "add": {torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__radd__, Tensor.__iadd__},
    "layer_norm": {F.layer_norm, torch.layer_norm},
    "softmax": {F.softmax, torch.softmax, Tensor.softmax},
    "attention": {F.scaled_dot_product_attention},
}


def _without_check(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A composite function of torch that asks no mode, so that the modes see the operations inside it."""
    return types.FunctionType(
        fn.__code__, {**fn.__globals__, "has_torch_function": lambda _: False}, fn.__name__, fn.__defaults__
    )


COMPOSITE = {F.multi_head_attention_forward: _without_check(F.multi_head_attention_forward)}


def is_attention_softmax(name: str, args: Any, kwargs: Any, out: Any) -> bool:
    """Whether an operation is a softmax over the last of three or more dimensions."""
    dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
    return getattr(out, "ndim", 0) > 2 and name == "softmax" and dim in (-1, out.ndim - 1)


class _Intercept(TorchFunctionMode):
    def __init__(self, by_op: dict[str, Rule]) -> None:
        super().__init__()
        self.rules = {op: (name, rule) for name, rule in by_op.items() for op in OPS[name]}
        self.matched = dict.fromkeys(by_op, 0)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in COMPOSITE:
            with self:
                return COMPOSITE[func](*args, **kwargs)
        if func not in self.rules or (func is F.hardtanh and kwargs.get("min_val") != 0):  # nn.ReLU6 is hardtanh from 0
            return func(*args, **kwargs)
        name, rule = self.rules[func]
        self.matched[name] += 1
        return rule(func, *args, **kwargs)  # the mode is off here, so a rule may call the operation


@contextlib.contextmanager
def rules(*, required: tuple[str, ...] | None = None, **by_op: Rule) -> Iterator[None]:
    """Within the block, the rule of each named operation (a key of OPS) replaces that operation.

    Raises:
        ValueError: a required operation (default: every named one) did not occur in the block, so its rule did nothing.
    """
    with _Intercept(by_op) as mode:
        yield
    missing = [name for name in (by_op if required is None else required) if not mode.matched[name]]
    if missing:
        raise ValueError(
            f"model: has no {' and no '.join(missing)} operation that this method's rule could change; "
            "the result would be that of another method"
        )


@contextlib.contextmanager
def relu_backward(rule: Callable[[Tensor, Tensor], Tensor]) -> Iterator[None]:
    """Within the block a ReLU passes rule(own, R) backwards: R arrives at its output, own = (f > 0) R is its gradient.

    The forward pass and its graph are unchanged, and the rule ends with the block. So a later backward pass, through a
    map that is part of a loss, gives the true derivative of the map.

    Warns if the model also has activations other than ReLU: the rule does not change them.

    Raises:
        ValueError: no ReLU ran in the block.
    """
    handles, others = [], set()

    def relu(op: Any, f: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not (f.requires_grad and torch.is_grad_enabled()):
            return op(f, *args, **kwargs)
        f_ = f.clone() if f._is_view() else f  # in place on a view would give another node
        out = op(f_, *args, **kwargs)
        handles.append(out.grad_fn.register_hook(lambda own, R: (rule(own[0], R[0]),)))
        return f.copy_(out) if out is f_ is not f else out

    def note(op: Any, *args: Any, **kwargs: Any) -> Tensor:
        others.add(op.__name__)
        return op(*args, **kwargs)

    try:
        with rules(required=("relu",), **{"relu": relu, "other activation": note}):
            yield
    finally:
        for handle in handles:
            handle.remove()
    if others:
        message = f"model: also has {', '.join(sorted(others))}, which this method's ReLU rule does not change"
        warnings.warn(message, stacklevel=4)


def explicit_attention(
    q: Tensor, k: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False, scale: float | None = None
) -> Tensor:
    """softmax(q k^T / sqrt(d) + mask): the map inside a fused `scaled_dot_product_attention`. ... T d -> ... T T."""
    scores = q @ k.transpose(-2, -1) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
    if attn_mask is not None:
        hidden = attn_mask.dtype == torch.bool
        scores = scores.masked_fill(~attn_mask, -math.inf) if hidden else scores + attn_mask
    return scores.softmax(dim=-1)


@contextlib.contextmanager
def attention_maps(keep: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Within the block `keep` gets each attention map, fused or not, and its result is used: B heads T T after softmax.

    A fused call is computed as softmax(QK^T)V without dropout. A plain softmax counts as attention if it runs over the
    last of three or more dimensions; what it is then shows in `_trace`.

    Raises:
        ValueError: the model uses grouped-query attention.
    """

    def fused(
        op: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        **unsupported: Any,
    ) -> Tensor:
        if unsupported.get("enable_gqa"):
            raise ValueError("model: grouped-query attention has no B heads T T map")
        return keep(explicit_attention(query, key, attn_mask, is_causal, scale)) @ value

    def plain(op: Any, input: Tensor, dim: int | None = None, *args: Any, **kwargs: Any) -> Tensor:
        out = op(input, dim, *args, **kwargs)
        return keep(out) if is_attention_softmax("softmax", (input, dim), {}, out) else out

    with _Intercept({"attention": fused, "softmax": plain}):
        yield
