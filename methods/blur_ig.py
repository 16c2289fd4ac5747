"""Attribution in Scale and Space.

Xu, Venugopalan, Sundararajan. CVPR 2020. arXiv:2004.03383

    L(sigma)  =  G_sigma * x                                                        (scale space)
    BlurIG    =  int_max^0  dF/dL (L(sigma))  dL/dsigma  dsigma                     (definition)
             ~= -sum_i=0^s-1  dF/dL (L(sigma_i))  dL/dsigma (sigma_i)  max / s      (Riemann sum)
    dL/dsigma (sigma)  ~=  ( L(sigma + e) - L(sigma) ) / e

F       score of the target class                       y
sigma_i width of the blur in pixels, i max / s          sigma (alpha in the paper)
max, s  widest blur, number of steps                    max_sigma, steps
e       step of the difference quotient                 grad_step
G_sigma Gaussian blur, zeros outside the image          gaussian(sigma, H), gaussian(sigma, W): rows, then columns

Differs from the paper: the blur is cut off at 4 sigma and its steps are even in sigma, as in the authors' code.
Differs from other code: PAIR's BlurIG(sqrt=True, batch_size > 1) uses the width of the last step of a batch for the
whole batch. It subtracts blurred images, which loses digits in float32; here kernels are subtracted, in float64. Ports
with reflecting borders, or with int(4 sigma + .5) taps (that is the radius of scipy's kernel), blur differently.
Good to know: the map sums to F(x) - F(L(max)) as s grows. The zeros outside a normalised image are its mean colour.
Below sigma = 0.125 the cut-off blur is the identity, so the first of the s terms is 0.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from methods._registry import method
from methods._torch import Target, at_least_float32, chunks, gradients


@method(
    title="Blur Integrated Gradients",
    cite="xu2020attribution",
    family="path",
    forward="steps",
    backward="steps",
    signed=True,
    verified=("literal", "saliency"),
    satisfies=("completeness",),
)
def blur_ig(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Target,
    *,
    steps: int = 100,
    max_sigma: float = 50.0,
    grad_step: float = 0.01,
    chunk: int = 8,
) -> Float[Tensor, "B C H W"]:
    """How much each pixel and channel adds to the score while a blurred image becomes sharp.

    Raises:
        ValueError: steps is below 1, or max_sigma or grad_step is not positive.
    """
    if steps < 1 or max_sigma <= 0 or grad_step <= 0:
        given = f"{steps}, {max_sigma} and {grad_step}"
        raise ValueError(f"steps, max_sigma, grad_step: need at least one step and positive widths, got {given}")
    a, (H, W) = at_least_float32(x), x.shape[2:]
    sigma = torch.arange(steps, dtype=torch.float64, device="cpu") * max_sigma / steps  # s
    total = torch.zeros_like(a)
    for part in chunks(steps, chunk, len(x)):
        rows, rows_e = (gaussian(s, H)[:, None, None] for s in (sigma[part], sigma[part] + grad_step))  # k 1 1 H H
        cols, cols_e = (gaussian(s, W)[:, None, None] for s in (sigma[part], sigma[part] + grad_step))  # k 1 1 W W
        d_rows, d_cols = (rows_e - rows) / grad_step, (cols_e - cols) / grad_step  # float64, since they are close
        L = rows.to(a) @ a @ cols.to(a)  # k B C H W
        dL = d_rows.to(a) @ a @ cols_e.to(a) + rows.to(a) @ a @ d_cols.to(a)  # k B C H W   dL/dsigma
        dF = gradients(model, L, target, like=x)  # k B C H W   dF/dL
        total = total + (dF * dL).sum(dim=0)  # B C H W
    return -total * max_sigma / steps  # B C H W


def gaussian(sigma: Float[Tensor, " k"], n: int) -> Float[Tensor, "k n n"]:
    """Symmetric matrices that blur a row of n pixels, like scipy's gaussian_filter1d with mode="constant"."""
    radius = (4 * sigma + 0.5).floor()[:, None]  # k 1
    reach = max(n - 1, int(radius.max()))
    d = torch.arange(-reach, reach + 1, dtype=sigma.dtype, device="cpu")  # distances
    g = torch.exp(-0.5 * (d / sigma.clamp(min=1e-9)[:, None]) ** 2) * (d.abs() <= radius)  # k 2 reach + 1
    g = g / g.sum(dim=1, keepdim=True)  # over the whole kernel; outside the image are zeros
    i = torch.arange(n, device="cpu")
    return g[:, i - i[:, None] + reach]  # k n n
