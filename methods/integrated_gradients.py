"""Axiomatic Attribution for Deep Networks.

Sundararajan, Taly, Yan. ICML 2017. arXiv:1703.01365

    IG_i(x)  =  (x_i - x'_i)  int_0^1  d F( x' + alpha (x - x') ) / d x_i  d alpha           (eq. 1)
    IG_i(x) ~=  (x_i - x'_i)  sum_k=1^m  d F( x' + k/m (x - x') ) / d x_i  1/m               (eq. 3)

F       score of the target class                       y
x'      baseline, where the score should say nothing    baseline, x_
m       number of steps                                 steps
k/m     position on the straight line from x' to x      alpha
1/m     width of a step                                 w

Differs from the paper: no with rule="right", which is eq. 3; the other rules approximate eq. 1 at other points.
Differs from other code: PAIR takes the mean over m points that include both ends, which is no quadrature rule. The
weights of captum's riemann_trapezoid sum to (m - 1) / m (0.9 on a linear model at m = 10); its other rules are these.
Good to know: print the gap: the map sums to F(x) - F(x') only as m grows, and the gap need not shrink evenly. "middle"
and "gauss_legendre" need the fewest steps. x' = 0 is the mean colour of a normalised image; its pixels get 0.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from methods._registry import method
from methods._torch import Target, at_least_float32, chunks, gradients


@method(
    title="Integrated Gradients",
    cite="sundararajan2017axiomatic",
    family="path",
    forward="steps",
    backward="steps",
    signed=True,
    fails={
        "input_shift": "kindermans2019unreliability: the baseline stays where it was",
        "model_randomization": "adebayo2018sanity: absolute rank correlation 0.99 in the authors' notebook of digits",
    },
    verified=("captum", "literal"),
    satisfies=("completeness",),
)
def integrated_gradients(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Target,
    *,
    baseline: Float[Tensor, "..."] | None = None,
    steps: int = 50,
    rule: str = "right",
    chunk: int = 8,
) -> Float[Tensor, "B C H W"]:
    """How much each pixel and channel adds to the score on the straight line from `baseline` to the image."""
    a = at_least_float32(x)
    x_ = start(a, baseline)  # B C H W   x'
    alpha, w = (torch.tensor(v, device=a.device, dtype=a.dtype) for v in quadrature(rule, steps))  # m, m
    mean = torch.zeros_like(a)
    for part in chunks(steps, chunk, len(x)):
        X = x_ + alpha[part, None, None, None, None] * (a - x_)  # k B C H W
        dF_dx = gradients(model, X, target, like=x)  # k B C H W
        mean = mean + torch.tensordot(w[part], dF_dx, dims=1)  # B C H W
    return (a - x_) * mean  # B C H W   eq. 3


def quadrature(rule: str, m: int) -> tuple[np.ndarray, np.ndarray]:
    """The m points in [0, 1] at which the gradient is taken, and their weights, which sum to 1.

    Raises:
        ValueError: no such rule, or fewer than one step.
    """
    if m < 1:
        raise ValueError(f"steps: need at least one, got {m}")
    if rule == "gauss_legendre":
        t, w = np.polynomial.legendre.leggauss(m)  # on [-1, 1]
        return (t + 1) / 2, w / 2
    shift = {"left": 0.0, "middle": 0.5, "right": 1.0}
    if rule not in shift:
        raise ValueError(f"rule: must be one of {', '.join(shift)} or gauss_legendre, got {rule!r}")
    return (np.arange(m) + shift[rule]) / m, np.full(m, 1 / m)


def start(x: Float[Tensor, "B C H W"], baseline: Float[Tensor, "..."] | None) -> Float[Tensor, "B C H W"]:
    """x', one per image: zeros, or `baseline` broadcast to the batch; in the autograd graph only where x is.

    Raises:
        ValueError: the baseline does not broadcast to the images.
    """
    if baseline is None:
        return torch.zeros_like(x)
    try:
        x_ = baseline.to(x).expand_as(x)
    except RuntimeError:
        raise ValueError(f"baseline: {tuple(baseline.shape)} does not broadcast to images {tuple(x.shape)}") from None
    return x_ if x.requires_grad else x_.detach()
