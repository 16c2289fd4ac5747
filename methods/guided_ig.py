"""Guided Integrated Gradients: An Adaptive Path Method for Removing Noise.

Kapishnikov, Venugopalan, Avci, Wedin, Terry, Bolukbasi. CVPR 2021. arXiv:2106.09788

A path from x' to x that, at each of T steps, first moves the features with the smallest |dF/dx|:

    a_i        progress of feature i on its way: the point is x' + a (x - x')
    corridor   max(t/T - d, 0)  <=  a_i  <=  min(t/T + d, 1);  features below it jump to its lower edge
    budget     after step t the L1 distance to x is (1 - t/T) |x - x'|_1
    S          the features below the upper edge with |dF/dx_i| <= the p-quantile; they move all the way to that edge,
               then the next ones do; the last ones move a share gamma of the way, so that the budget is met
    attr_i    += dF/dx_i at the start of the step, times how far x_i moved

x', T   baseline, number of steps                       baseline, steps
p       fraction of the features that moves first       fraction
d       how far a_i may be from the straight line       max_dist
gamma   share of the way to the edge that S moves       gamma

Differs from the paper: no anchor points; the corridor, the quantile and the defaults are the authors' code (PAIR).
Differs from other code: PAIR's takes one image, and needs np.quantile(interpolation=), which NumPy 2.4 no longer has.
Batched ports take L1 distance, quantile and gamma over the whole batch, so that a map depends on the other images.
Good to know: d = 0 gives integrated_gradients with rule="left". Finished features count in the quantile, as infinitely
large gradients. The sum tends to F(x) - F(x') as T grows. Path and sums are float64 for every precision of the model.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from methods._registry import method
from methods._torch import Target, at_least_float32, gradients
from methods.integrated_gradients import start


@method(
    title="Guided Integrated Gradients",
    cite="kapishnikov2021guided",
    family="path",
    forward="steps",
    backward="steps",
    signed=True,
    verified=("literal", "saliency"),
    differentiable=False,  # the choice of features is discrete
)
@torch.no_grad()
def guided_ig(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Target,
    *,
    baseline: Float[Tensor, "..."] | None = None,
    steps: int = 200,
    fraction: float = 0.25,
    max_dist: float = 0.02,
) -> Float[Tensor, "B C H W"]:
    """How much each pixel and channel adds to the score on a path that avoids high gradients.

    Raises:
        ValueError: steps, fraction or max_dist is out of range.
    """
    if steps < 1 or not 0 < fraction <= 1 or not 0 <= max_dist <= 1:
        given = f"{steps}, {fraction} and {max_dist}"
        raise ValueError(
            f"steps, fraction, max_dist: need steps >= 1, fraction in (0, 1], max_dist in [0, 1], got {given}"
        )
    x_ = start(x.double(), baseline)  # B C H W   x'
    way = (x - x_).flatten(1)  # B n
    a, attr, l1 = torch.zeros_like(way), torch.zeros_like(way), way.abs().sum(dim=1, keepdim=True)  # B n, B n, B 1
    lowest = math.floor(fraction * (way.shape[1] - 1)) + 1  # so many features are at or below the quantile
    for t in range(1, steps + 1):
        point = x_ + (a * way).view_as(x_)  # B C H W
        (dF,) = gradients(model, point[None], target, like=x).double().flatten(2)  # B n
        lo, hi, old = max(t / steps - max_dist, 0.0), min(t / steps + max_dist, 1.0), a
        a = a.clamp(min=lo)
        while True:
            excess = ((1 - a) * way.abs()).sum(dim=1, keepdim=True) - (1 - t / steps) * l1  # B 1
            free = (a < hi) & (way != 0) & (excess > 1e-9 * l1)  # B n   none in an image that met its budget
            if not free.any():
                break
            size = torch.where(free, dF.abs().nan_to_num(torch.inf, torch.inf), torch.inf)  # B n
            quantile = size.topk(lowest, largest=False, sorted=False).values.amax(dim=1, keepdim=True)  # B 1
            S = free & (size <= quantile)  # B n
            room = (S * (hi - a) * way.abs()).sum(dim=1, keepdim=True)  # B 1   distance saved if S moves to the edge
            gamma = (excess / room).clamp(max=1)  # B 1
            a = torch.where(S, hi - (1 - gamma) * (hi - a), a)  # B n
        attr = attr + dF * (a - old) * way  # B n
    return attr.view_as(x_).to(at_least_float32(x).dtype)  # B C H W
