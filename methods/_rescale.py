"""DeepLIFT's Rescale rule: contributions to a difference from a reference, operation by operation.

Shrikumar, Greenside, Kundaje. Learning Important Features Through Propagating Activation Differences. ICML 2017.
arXiv:1704.02685

The network runs on a batch of two halves: the inputs z, then the same number of references z0. The first half of an
input gets, in place of a gradient, the multiplier m that turns its difference from the reference into a contribution:

    m = ( f(z) - f(z0) ) / ( z - z0 )                    an elementwise f: ReLU, sigmoid, GELU, ...
    m = f'(z)                                            where z and z0 agree (up to the square root of the precision)
    m = df/dz                                            anything linear, and multipliers chain: m_xy m_yz
    m = what wins at z minus what wins at z0, / (z - z0) max pooling: the part of the difference above max(y, y0) or
                                                         below it belongs to the winner at the input or the reference

The sum of m (z - z0) is then y - y0.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.nn import functional as F

from methods._flow import FIRST, PRODUCTS, SUMS, Call, Grads, backward_rules

PASSING = SUMS | FIRST | PRODUCTS  # linear operations use their autograd derivative


def _quotient(contribution: Tensor, dz: Tensor, own: Tensor) -> Tensor:
    near = dz.abs() <= torch.finfo(dz.dtype).eps ** 0.5
    return torch.where(near, own, contribution / torch.where(near, 1, dz))


def _elementwise(call: Call, own: Grads, R: Tensor) -> Grads:
    (z, z0), (y, y0) = call.value(0).chunk(2), call.again().chunk(2)
    assert own[0] is not None
    m = _quotient(R.chunk(2)[0] * (y - y0), z - z0, own[0].chunk(2)[0])
    return (torch.cat([m, torch.zeros_like(m)]),)


def _max_pool(call: Call, own: Grads, R: Tensor) -> Grads:
    (z, z0), (y, y0) = call.value(0).chunk(2), call.again().chunk(2)
    _, winner = F.max_pool2d_with_indices(call.args[0], *call.args[1:], **call.kwargs | {"return_indices": True})
    R, top = R.chunk(2)[0], torch.maximum(y, y0)
    # the gain at the winner of the input, the loss at the winner of the reference
    parts = torch.cat([R * (top - y0), R * (y - top)]).flatten(2)
    at = torch.zeros_like(call.args[0]).flatten(2).scatter_add(2, winner.flatten(2), parts)
    above, below = at.view_as(call.args[0]).chunk(2)
    assert own[0] is not None
    m = _quotient(above + below, z - z0, own[0].chunk(2)[0])
    return (torch.cat([m, torch.zeros_like(m)]),)


@contextlib.contextmanager
def rescale() -> Iterator[dict[Node, str]]:
    """Within the block the backward pass of a batch of two halves computes multipliers, for the first half."""
    elementwise = dict.fromkeys(("relu", "other activation", "sigmoid"), _elementwise)
    with backward_rules(**elementwise, max_pool=_max_pool) as nodes:
        yield nodes
