"""Operations between a layer and the logits: backward rules for some of them, and a check of all others.

Rescale and LRP do not propagate a gradient backwards. An operation that they define gets its rule. A linear operation
can use its autograd derivative. Any other operation would give a wrong result without notice, so it raises an error
that names it.
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
    """One run of an operation: `args` have their values from before the run, also if it works in place."""

    op: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    versions: tuple[int | None, ...]

    def value(self, i: int) -> Any:
        """The i-th argument.

        Raises:
            ValueError: a later operation has overwritten it.
        """
        if _version(self.args[i]) != self.versions[i]:
            raise ValueError(
                f"model: an input of {self.op.__name__} was overwritten in place, so its rule cannot be computed"
            )
        return self.args[i]

    def again(self) -> Tensor:
        """Its output again: the first one if it returns several."""
        out = self.op(self.value(0).clone(), *self.args[1:], **self.kwargs)
        return out[0] if isinstance(out, tuple) else out


def _version(a: Any) -> int | None:
    return a._version if isinstance(a, Tensor) else None


# rule(call, own, R): R arrives at the operation's output; own is what autograd passes to each of `call.args` (None:
# nothing). The rule returns the replacement for the first of them. It is part of a graph if R is.
Grads = tuple[Tensor | None, ...]
Backward = Callable[[Call, Grads, Tensor], Grads]


@contextlib.contextmanager
def backward_rules(**by_op: Backward) -> Iterator[dict[Node, str]]:
    """Within the block, each operation of a kind (a key of OPS) passes backwards what its rule returns.

    The forward pass and its graph are unchanged, and the rules end with the block. So a later backward pass, through a
    map that is part of a loss, gives the true derivative of the map. Yields {node of the graph: kind of operation}.
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
        f_ = f.clone() if isinstance(f, Tensor) and f._is_view() else f  # in place on a view would give another node
        versions = tuple(_version(a) for a in before)
        sources = [_source(a) for a in (f_, *args[1:])]
        result = op(f_, *args[1:], **kwargs)
        out = result[0] if isinstance(result, tuple) else result
        node, shape = out.grad_fn, out.shape
        while _name(node) in MOVES and len(node.next_functions) == 1 and node.next_functions[0][0] not in sources:
            node = node.next_functions[0][0]  # pooling of channels-last tensors ends in an as_strided
        call, places, free = Call(op, before, kwargs, versions), [], [n for n, _ in node.next_functions]
        for source in sources:
            places.append(free.index(source) if source in free and source is not None else None)
            if places[-1] is not None:
                free[places[-1]] = None
        if all(place is None for place in places[:2]):
            return result  # several nodes in a row: no rule applies

        def hand_back(own: Grads, R: Grads) -> Grads:
            assert R[0] is not None
            mine = rule(call, tuple(None if i is None else own[i] for i in places), R[0].reshape(shape))
            new = {i: r for i, r in zip(places, mine, strict=False) if i is not None and r is not None}
            return tuple(None if g is None else new.get(i, g) for i, g in enumerate(own))

        nodes[node] = kind
        handles.append(node.register_hook(hand_back))
        if out is f_ is not f:
            result = f.copy_(out)
            whole = _source(f._base)  # f is a view of it
            assert whole is not None
            nodes[whole] = kind
        return result

    def bind(kind: str, rule: Backward) -> Callable[..., Any]:
        return lambda op, *args, **kwargs: run(kind, rule, op, *args, **kwargs)

    try:
        with rules(required=(), **{kind: bind(kind, rule) for kind, rule in by_op.items()}):
            yield nodes
    finally:
        for handle in handles:
            handle.remove()


def _name(node: Node) -> str:
    return re.sub(r"^torch::autograd::|Backward\d*$", "", node.name())


def _source(a: Any) -> Node | None:
    return get_gradient_edge(a).node if isinstance(a, Tensor) and a.requires_grad else None


# Nodes of the autograd graph without "Backward0". These only move numbers: each output is one of the inputs, or 0.
MOVES = {
    "Alias", "AsStrided", "BackwardHookFunction", "Cat", "Clone", "ConstantPadNd", "Copy", "CopyBackwards",
    "Expand", "Flip", "Index", "Permute", "PixelShuffle", "PixelUnshuffle", "Repeat", "ReshapeAlias",
    "Roll", "Select", "Slice", "Split", "SplitWithSizes", "Squeeze", "Stack", "T", "ToCopy", "Transpose", "Unbind",
    "UnsafeSplit", "UnsafeView", "Unsqueeze", "View",
}  # fmt: skip
# Linear in all inputs together; in the first input; in each input separately.
SUMS = {
    "AdaptiveAvgPool2D", "Add", "AvgPool2D", "Mean", "Neg", "ReflectionPad2D", "ReplicationPad2D", "Sub", "Sum",
    "UpsampleBicubic2D", "UpsampleBilinear2D", "UpsampleNearest2D",
}  # fmt: skip
FIRST = {"Convolution", "CudnnBatchNorm", "Div", "NativeBatchNorm"}
PRODUCTS = {"Addmm", "Bmm", "Mm", "Mul"}


def between(out: Tensor, A: Tensor) -> Iterator[tuple[Node, str, list[int]]]:
    """The nodes of the graph from A to `out`: (node, name without "Backward0", its inputs that come from A)."""
    end, leads = get_gradient_edge(A).node, {}
    stack = [get_gradient_edge(out).node]
    while stack:  # depth first; a node is decided after all of its inputs
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
            yield node, _name(node), inputs


def refuse_others(out: Tensor, A: Tensor, ruled: dict[Node, str], passing: Set[str], what: str, layer: str) -> None:
    """Check that every operation between A and `out` has a rule or is named in `passing`.

    Raises:
        ValueError: an operation has no rule; the message names it.
    """
    for node, name, inputs in between(out, A):
        alone = len(inputs) == 1 and (name in PRODUCTS or inputs == [0])
        linear = name in passing and (alone or name not in FIRST | PRODUCTS)
        if name.endswith("BatchNorm") and getattr(node, "_saved_training", False):
            kind = "batch statistics"
        elif node in ruled or name in MOVES or linear:
            continue
        elif name in PRODUCTS and not alone:
            kind = "a product of activations"
        else:
            kind = {"CopySlices": "an in-place operation on a part of a tensor"}.get(name, name)
        raise ValueError(f"model: between {layer!r} and the logits it computes {kind}, for which {what} has no rule")
