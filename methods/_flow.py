"""What lies between a layer and the logits: rules for the backward pass of some operations, and a check of all others.

Rescale and LRP hand something else than a gradient backwards. An operation they define gets its rule; one that is
linear can do what autograd does; any other would be silently wrong, so it is refused by name.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Set
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge

from methods._rules import rules


class Call(NamedTuple):
    """One run of an operation: `args` hold their values from before it, also where it works in place."""

    op: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Tensor


# rule(call, own, R): R arrives at the operation's output; own is what autograd hands to each input (None: to none); the
# rule returns what they get instead, in the same order. In a graph where R is in one.
Backward = Callable[[Call, tuple[Tensor | None, ...], Tensor], tuple[Tensor | None, ...]]


@contextlib.contextmanager
def backward_rules(**by_op: Backward) -> Iterator[dict[Node, str]]:
    """Within the block each operation of a kind (a key of OPS) hands back what its rule says.

    The forward pass and its graph are the true ones, and the rules end with the block: a later backward pass, through a
    map that is part of a loss, differentiates the map as it is. Yields {node of the graph: kind of operation}.
    """
    nodes: dict[Node, str] = {}
    handles = []

    def run(kind: str, rule: Backward, op: Any, *args: Any, **kwargs: Any) -> Any:
        if not (torch.is_grad_enabled() and any(isinstance(a, Tensor) and a.requires_grad for a in args[:2])):
            return op(*args, **kwargs)
        name, f = op.__name__, args[0]
        in_place = name.startswith("__i") or (name.endswith("_") and not name.endswith("__"))
        in_place = in_place or bool(kwargs.get("inplace")) or any(a is True for a in args[1:])
        before = (f.clone(), *args[1:]) if in_place else args
        f_ = f.clone() if isinstance(f, Tensor) and f._is_view() else f  # in place on a view: not the node we look for
        result = op(f_, *args[1:], **kwargs)
        out = result[0] if isinstance(result, tuple) else result
        call = Call(op, before, kwargs, out)
        node = out.grad_fn
        nodes[node] = kind
        handles.append(node.register_hook(lambda own, R: rule(call, own, R[0])))
        return f.copy_(out) if out is f_ is not f else result

    def bind(kind: str, rule: Backward) -> Callable[..., Any]:
        return lambda op, *args, **kwargs: run(kind, rule, op, *args, **kwargs)

    try:
        with rules(required=(), **{kind: bind(kind, rule) for kind, rule in by_op.items()}):
            yield nodes
    finally:
        for handle in handles:
            handle.remove()


# Nodes of the autograd graph without "Backward0". Moved about: each number of the output is one of the input's, or 0.
MOVES = {
    "Alias", "AsStrided", "BackwardHookFunction", "Cat", "Clone", "ConstantPadNd", "Copy", "CopyBackwards",
    "CopySlices", "Expand", "Flip", "Index", "Permute", "PixelShuffle", "PixelUnshuffle", "Repeat", "ReshapeAlias",
    "Roll", "Select", "Slice", "Split", "SplitWithSizes", "Squeeze", "Stack", "T", "ToCopy", "Transpose", "Unbind",
    "UnsafeSplit", "UnsafeView", "Unsqueeze", "View",
}  # fmt: skip
# Linear in all inputs together; in the first one; in each one by itself.
SUMS = {
    "AdaptiveAvgPool2D", "Add", "AvgPool2D", "Mean", "Neg", "ReflectionPad2D", "ReplicationPad2D", "Sub", "Sum",
    "UpsampleBicubic2D", "UpsampleBilinear2D", "UpsampleNearest2D",
}  # fmt: skip
FIRST = {"Convolution", "CudnnBatchNorm", "Div", "NativeBatchNorm"}
PRODUCTS = {"Addmm", "Bmm", "Mm", "Mul"}


def between(out: Tensor, A: Tensor) -> Iterator[tuple[Node, str, list[int]]]:
    """The graph's nodes from A to `out`: (node, its name without "Backward0", which of its inputs come from A)."""
    end, leads = get_gradient_edge(A).node, {}
    stack = [out.grad_fn]
    while stack:  # depth first; a node is decided after all that it came from
        node = stack[-1]
        before = [n for n, _ in node.next_functions]
        if node not in leads and node != end:
            leads[node] = False
            stack += [n for n in before if n is not None and n not in leads]
            continue
        stack.pop()
        leads[node] = node == end or any(leads.get(n, False) for n in before if n is not None)
    for node, does in leads.items():
        if does and node != end:
            inputs = [i for i, (n, _) in enumerate(node.next_functions) if n is not None and leads[n]]
            yield node, re.sub(r"Backward\d*$", "", node.name()), inputs


def refuse_others(out: Tensor, A: Tensor, ruled: dict[Node, str], passing: Set[str], what: str, layer: str) -> None:
    """Every operation between A and `out` has a rule or is named in `passing`.

    Raises:
        ValueError: one is not; the message names it.
    """
    for node, name, inputs in between(out, A):
        if node in ruled or name in MOVES:
            continue
        linear = name not in FIRST | PRODUCTS or inputs == [0] or (name in PRODUCTS and len(inputs) == 1)
        statistics = name.endswith("BatchNorm") and getattr(node, "_saved_training", False)
        if name not in passing or not linear or statistics:
            kind = "a product of activations" if name in PRODUCTS else "batch statistics" if statistics else name
            raise ValueError(
                f"model: between {layer!r} and the logits it computes {kind}, for which {what} has no rule"
            )
