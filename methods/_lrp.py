"""Layer-wise relevance propagation by the z+ rule, operation by operation.

Bach, Binder, Montavon, Klauschen, Mueller, Samek. PLoS ONE 2015 (LRP). Montavon, Lapuschkin, Binder, Samek, Mueller.
Pattern Recognition 2017, arXiv:1512.02479 (the z+ rule). Relevance arrives at an input in place of a gradient:

    R_i = sum_j  (a_i w_ij)^+ / sum_i' (a_i' w_i'j)^+  R_j    convolution, linear layer; no bias: R is conserved
    R_i = sum_j  a_i^+ / sum_i' a_i'^+  R_j                   mean, average pooling: all weights are equal
    R_a = a / (a + b) R,   R_b = b / (a + b) R                sum of activations: a residual branch and its shortcut
    R_i = R                                                   ReLU; batch norm, a factor and a bias per channel
    R to the winner                                           max pooling

(.)^+ is the positive part. R_j is lost where nothing contributes positively: 0 / 0 = 0. With inputs >= 0, as after a
ReLU, (a w)^+ = a w^+; for a negative input the negative weights count. Operations that only move numbers (reshape,
concatenation, padding with 0) move the relevance in the same way.
"""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.autograd.graph import Node

from methods._flow import Backward, Call, Grads, backward_rules
from methods._torch import ratio

PASSING = {"MaxPool2DWithIndices"}  # autograd passes everything to the winner


def _share(terms: list[tuple[Tensor, Callable[[Tensor], Tensor]]], R: Tensor) -> Tensor:
    """sum_j  a_i w_ij / z_j  R_j,  z = sum over `terms` of f(a): a is the input, f is linear with the weights w."""
    graph = torch.is_grad_enabled()  # in this backward pass: the rule needs a derivative
    with torch.enable_grad():
        a = [part if graph and part.requires_grad else part.detach().requires_grad_() for part, _ in terms]
        f = [of(part) for part, (_, of) in zip(a, terms, strict=True)]
        s = ratio(R, torch.stack(f).sum(dim=0))  # R_j / z_j
        c = torch.autograd.grad(f, a, [s] * len(f), create_graph=graph)
    return torch.stack([part * g for part, g in zip(a, c, strict=True)]).sum(dim=0)


def _weighted(call: Call, own: Grads, R: Tensor) -> Grads:
    a, W, rest = call.value(0), call.args[1], call.args[2:]  # rest[0] is the bias; it gets no relevance
    kwargs = {k: v for k, v in call.kwargs.items() if k != "bias"}

    def by(weight: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda part: call.op(part, weight, None, *rest[1:], **kwargs)

    terms = [(a.clamp(min=0), by(W.clamp(min=0)))]
    if (a < 0).any():
        terms.append((a.clamp(max=0), by(W.clamp(max=0))))
    return (_share(terms, R),)


def _mean(call: Call, own: Grads, R: Tensor) -> Grads:
    a, rest = call.value(0), call.args[1:]
    return (_share([(a.clamp(min=0), lambda part: call.op(part, *rest, **call.kwargs))], R),)


def _add(call: Call, own: Grads, R: Tensor) -> Grads:
    a, b = call.value(0), call.value(1)
    if not isinstance(b, Tensor) or a.shape != b.shape or call.args[2:] or call.kwargs:
        raise ValueError("model: adds something other than two activations of one shape, for which LRP has no rule")
    s = ratio(R, a + b)
    return a * s, b * s


def _pass(call: Call, own: Grads, R: Tensor) -> Grads:
    return (R,)


@contextlib.contextmanager
def z_plus(**instead: Backward) -> Iterator[dict[Node, str]]:
    """Within the block a backward pass propagates relevance. `instead` replaces rules, by kind of operation."""
    rules: dict[str, Backward] = {"conv2d": _weighted, "linear": _weighted, "mean": _mean, "add": _add}
    with backward_rules(**rules | {"relu": _pass, "batch_norm": _pass} | instead) as nodes:
        yield nodes
