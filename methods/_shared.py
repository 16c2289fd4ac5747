"""Several classes at the price of one: the rows of a batch that hold the same image run through the network once.

`attribute` notes which rows are equal. Within it, what is about to run is compared again: rows are shared only where
every value is equal, so that the map of a row is that of the row alone.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from methods._calls import map_tensors

FIRST: ContextVar[list[int] | None] = ContextVar("first", default=None)  # of each row the first row that equals it


class Rows(NamedTuple):
    """Which rows of a batch run, in each of n versions of it, and which of these each row reads."""

    n: int
    run: list[int]  # U rows; empty: all
    read: list[int]  # B numbers below U

    def fewer(self, X: Shaped[Tensor, "nB ..."]) -> Shaped[Tensor, "nU ..."]:
        """The rows that run."""
        return X.unflatten(0, (self.n, -1))[:, self.run].flatten(0, 1) if self.run else X

    def every(self, output: Any) -> Any:
        """What the model, or a layer, returned for the rows that run, for all rows."""
        U = len(self.run)

        def spread(t: Tensor) -> Tensor:
            is_batch = t.ndim and len(t) == self.n * U
            return t.unflatten(0, (self.n, U))[:, self.read].flatten(0, 1) if is_batch else t

        return map_tensors(spread, output) if U else output

    def gradient(
        self, y: Float[Tensor, " nB"], A: Float[Tensor, "nU ..."], *, create_graph: bool = False
    ) -> Float[Tensor, "nB ..."] | None:
        """dy/dA of every row: one backward pass for each class of an image. None: y does not depend on A."""
        if not y.requires_grad or not A.requires_grad:
            return None
        if not self.run:
            return torch.autograd.grad(y.sum(), A, create_graph=create_graph, allow_unused=True)[0]
        Y = y.unflatten(0, (self.n, -1))  # n B
        g = A.new_empty(*Y.shape, *A.shape[1:])  # n B ...
        number = [self.read[:row].count(image) for row, image in enumerate(self.read)]  # of the class, of an image
        for k in range(max(number) + 1):
            rows = [row for row, its in enumerate(number) if its == k]
            (part,) = torch.autograd.grad(Y[:, rows].sum(), A, retain_graph=True, allow_unused=True)
            if part is None:
                return None
            g[:, rows] = part.unflatten(0, (self.n, -1))[:, [self.read[row] for row in rows]]
        return g.flatten(0, 1)


ALL = Rows(1, [], [])


@contextlib.contextmanager
def sharing(model: nn.Module, x: Float[Tensor, "B C H W"]) -> Iterator[int]:
    """Within the block equal rows of x run once. Yields how many different images there are.

    Nothing is shared if x needs a gradient (each row has its own), if a part of the model is in training mode (each
    row draws its own numbers), or if it has hooks (they may count rows).
    """
    first: list[int] = []
    alone = len(x) == 1 or x.requires_grad
    if alone or any(m.training or m._forward_hooks or m._forward_pre_hooks for m in model.modules()):
        first = list(range(len(x)))
    else:
        some = x.flatten(1)[:, ::997].tolist()  # a few values decide most pairs
        for i in range(len(x)):
            equal = (j for j in range(i) if first[j] == j and some[j] == some[i] and torch.equal(x[j], x[i]))
            first.append(next(equal, i))
    different = len(set(first))
    token = FIRST.set(first if different < len(x) else None)
    try:
        yield different
    finally:
        FIRST.reset(token)


def rows_of(X: Shaped[Tensor, "nB ..."], *, backward: bool = False) -> Rows:
    """The rows of n versions of the batch that must run: all, if X needs a gradient.

    Args:
        X: what the network is about to get.
        backward: whether `gradient` follows. Then rows are shared only on a CPU: elsewhere many small backward passes
            take longer than a large one.
    """
    first = FIRST.get()
    if first is None or X.requires_grad or len(X) % len(first) or (backward and X.device.type != "cpu"):
        return ALL
    V = X.unflatten(0, (-1, len(first)))  # n B ...
    same = [j if j == i or torch.equal(V[:, i], V[:, j]) else i for i, j in enumerate(first)]
    run = sorted(set(same))
    return Rows(len(V), run, [run.index(j) for j in same]) if len(run) < len(same) else ALL
