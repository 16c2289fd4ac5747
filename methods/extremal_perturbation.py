"""Understanding Deep Networks via Extremal Perturbations and Smooth Masks.

Fong, Patrick, Vedaldi. ICCV 2019. arXiv:1910.08485

    m_a      =  argmax_m  f( m (x) x )  -  lambda || vecsort(m) - r_a ||^2        (a mask of area a; r_a is 0s, then 1s)
    m(u)     =  smax_v  k( u - v ) mbar(v),   smax(z) = sum z e^(T z) / sum e^(T z)        (smooth masks)
    k(d)     =  exp( - 2 max( 0, |d| / sigma - 1/2 )^2 )
    m (x) x  =  G_(1 - m) * x                                                     (more blur where m is lower)

f         score of the explained class                   score
mbar      parameters of the mask, one each `step` pixels mbar
sigma     width of the kernel in pixels                  sigma
a         share of the pixels that is kept               areas; the map is the mean of their masks
lambda    300 1.0035^t at step t                         300 * 1.0035**t

Differs from the paper: f is the logit, as in the authors' code.
Differs from other code: none; the masks are those of TorchRay (facebookresearch/TorchRay@6a198ee), which gives one for
each area. As there, the mask returned is that before the last step, and the area counts a margin of sigma pixels.
reward="delete" and "dual" are its variants: a mask whose complement has a low score, and the difference of both.
Good to know: x is flipped left to right at every second step. Each mask covers about its area, whether or not the
object does, so look at several areas. The first step sorts a plateau of equal values, whose order is rounding: on
another device or in another data type masks differ. Not differentiable: gradient steps do not reach m_a.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from methods._calls import run
from methods._cost import Formula
from methods._regions import blurred
from methods._registry import method
from methods._torch import Target, at_least_float32, dependent, derivatives, match_format, score, tile

PASSES = Formula("steps · areas", lambda s: s.steps * len(s.areas) * (1 + (s.reward == "dual")))


@method(
    title="Extremal perturbation",
    cite="fong2019understanding",
    family="perturbation",
    forward=PASSES,
    backward=PASSES,
    signed=False,
    verified=("authors",),
    differentiable=False,
)
def extremal_perturbation(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Target,
    *,
    areas: tuple[float, ...] = (0.1,),
    steps: int = 800,
    step: int = 7,
    sigma: float = 21.0,
    reward: str = "preserve",
    fill: str = "blur",
) -> Float[Tensor, "B 1 H W"]:
    """The smooth mask of a given area through which the image scores highest.

    Raises:
        ValueError: areas are not between 0 and 1, steps, step or sigma is not positive, or reward or fill is unknown.
    """
    if not areas or not all(0 < a < 1 for a in areas) or steps < 1 or step < 1 or sigma <= 0:
        given = f"{areas}, {steps}, {step} and {sigma}"
        raise ValueError(f"areas, steps, step, sigma: need areas between 0 and 1, the others positive, got {given}")
    if reward not in ("preserve", "delete", "dual") or fill not in ("blur", "zero"):
        known = "must be 'preserve', 'delete' or 'dual', and 'blur' or 'zero'"
        raise ValueError(f"reward, fill: {known}, got {reward!r} and {fill!r}")
    x, (H, W) = x.detach(), x.shape[2:]
    a, n = at_least_float32(x), len(areas)
    blur = [blurred(a, 20 * (1 - l / 7), "zero") if fill == "blur" else a * l / 7 for l in range(8)]
    pyramid = torch.stack(blur)  # 8 B C H W   the last is the image
    d_rows, d_cols = (offsets(v, step, sigma).to(a) for v in (H, W))  # K H+, K W+   H+ and W+: with a margin
    d = (d_rows[:, None, :, None] ** 2 + d_cols[:, None] ** 2).sqrt().flatten(0, 1) / sigma  # KK H+ W+
    k, margin, K = torch.exp(-2 * (d - 0.5).clamp(min=0) ** 2), round(sigma), len(d_rows)
    mbar = a.new_ones(n, len(x), math.ceil(H / step), math.ceil(W / step))
    outside = 1 + math.ceil(2 * sigma / step)  # parameters that are 0
    r = a.new_ones(n, 1, d[0].numel())
    for i, area in enumerate(areas):
        r[i, :, : int(r.shape[2] * (1 - area))] = 0
    velocity, m = None, a.new_ones(n, *x[:, 0].shape)  # n B H W
    for t in range(steps):
        with torch.enable_grad():
            mbar.requires_grad_()
            z = F.unfold(mbar.flatten(0, 1)[:, None], K, padding=outside)  # nB KK parameters near each cell of pixels
            z = z.unflatten(2, (-1, math.ceil(d.shape[2] / step))).repeat_interleave(step, 2)
            z = k * z.repeat_interleave(step, 3)[:, :, : d.shape[1], : d.shape[2]]  # nB KK H+ W+
            whole = (z * (20 * z).softmax(dim=1)).sum(dim=1).clamp(0, 1).unflatten(0, (n, -1))  # n B H+ W+   smax
            m = whole[:, :, margin : margin + H, margin : margin + W]  # n B H W
            kinds = {"preserve": [m], "delete": [1 - m], "dual": [m, 1 - m]}[reward]
            seen = perturbed(pyramid, torch.cat(kinds))  # n B C H W
            seen = seen.flip(4) if t % 2 == 0 else seen
            y = score(run(model, match_format(x, seen.flatten(0, 1))), tile(target, len(seen)))
            dependent(y if y.requires_grad else None)  # the other term depends on mbar anyway
            f = at_least_float32(y).unflatten(0, (-1, n, len(x)))  # kinds n B
            f = {"preserve": f[0], "delete": -f[0], "dual": f[0] - f[-1]}[reward]
            off = ((whole.flatten(2).sort(dim=2).values - r) ** 2).mean(dim=2)  # n B
            (g,) = derivatives((f - 300 * 1.0035**t * off).flatten(), [mbar])
        velocity = g if velocity is None else 0.9 * velocity + 0.1 * g
        mbar = (mbar.detach() + 0.01 * velocity).clamp(0, 1)
    return m.detach().mean(dim=0)[:, None]  # B 1 H W


def offsets(n: int, step: int, sigma: float) -> Float[Tensor, "K U"]:
    """How far each pixel of a row of n, with its margin, is from the K parameters near it."""
    reach, outside = 1 + math.ceil(sigma / step), 1 + math.ceil(2 * sigma / step)
    u = torch.arange(step * (math.ceil(n / step) + 2 * (outside - reach)) - step + 1, device="cpu")
    at = u // step + torch.arange(2 * reach + 1, device="cpu")[:, None] - outside  # K U
    return u - (sigma + step * at).double()


def perturbed(pyramid: Float[Tensor, "L B C H W"], m: Float[Tensor, "n B H W"]) -> Float[Tensor, "n B C H W"]:
    """Between two levels of the pyramid at each pixel: the last, the image, where m is 1."""
    level = m[:, :, None] * (len(pyramid) - 1)  # n B 1 H W
    low = level.detach().floor().long()
    low, high = (i.expand(-1, -1, pyramid.shape[2], -1, -1) for i in (low, (low + 1).clamp(max=len(pyramid) - 1)))
    return torch.lerp(pyramid.gather(0, low), pyramid.gather(0, high), level - level.detach().floor())
