"""Interpretable Explanations of Black Boxes by Meaningful Perturbation.

Fong, Vedaldi. ICCV 2017. arXiv:1704.03296

    m*         =  argmin_m  l_1 || 1 - m ||_1  +  l_2 sum_u || grad m(u) ||^beta  +  E_tau[ f( Phi(x_tau, m) ) ]
    Phi(x, m)  =  m x  +  (1 - m) G_10 * x                                            (the image, blurred where m is 0)
    map        =  1 - m*                                                              (what must be deleted)

f          score of the explained class                  score
m          mask, one number for 8 x 8 pixels, 1 where    m, up
           the image is kept; seen nearest, blurred
x_tau      x, shifted by up to 4 pixels at each step     jitter
l_1, l_2   weights of the area and of the roughness      area, rough
beta       exponent of the total variation               beta
           T steps of Adam                               steps

Differs from the paper: f is the logit, which a callable target replaces: the weights are meant for a probability. m
starts as 1/2, as in the first author's PyTorch code, or as `start`; the paper starts from the smallest circle whose
blur suppresses the score.
Differs from other code: the authors' code (ruthcfong/perturb_explanations@1260ce8) rounds the blurred mask to 8 bits,
and does not differentiate its blur; without that blur (blur=0) the masks are equal, up to the gradient of the total
variation, which it holds above a floor.
Good to know: m is a variable of this call; no module is added. Not differentiable: Adam does not reach m*, and its
first steps are the sign of the gradient. An adversarial mask is avoided by coarse masks, blur and jitter, not excluded.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from methods._calls import run
from methods._regions import Fill, blurred, hiding
from methods._registry import method
from methods._torch import Target, adam, at_least_float32, dependent, derivatives, match_format, score


@method(
    title="Meaningful perturbation",
    cite="fong2017interpretable",
    family="perturbation",
    forward="steps",
    backward="steps",
    signed=False,
    verified=("literal", "authors"),
    differentiable=False,
)
def meaningful_perturbation(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Target,
    *,
    steps: int = 300,
    lr: float = 0.1,
    area: float = 1e-4,
    rough: float = 1e-2,
    beta: float = 3.0,
    cell: int = 8,
    blur: float = 5.0,
    jitter: int = 4,
    fill: Fill = "blur",
    start: Float[Tensor, "B 1 h w"] | None = None,
    seed: int = 0,
) -> Float[Tensor, "B 1 H W"]:
    """The smallest smooth region whose blur destroys the score.

    Raises:
        ValueError: steps, lr, cell or jitter is out of range, start has another shape than the mask, or as `hiding`.
    """
    if steps < 1 or lr <= 0 or not 1 <= cell <= min(x.shape[2:]) or jitter < 0:
        given = f"{steps}, {lr}, {cell} and {jitter}"
        raise ValueError(f"steps, lr, cell, jitter: need 1 step, lr > 0, 1 pixel and jitter >= 0 at least, got {given}")
    x, (H, W) = x.detach(), x.shape[2:]
    a, h, w = at_least_float32(x), -(-H // cell), -(-W // cell)
    with torch.no_grad():
        null = hiding(x, fill, seed=seed)(torch.zeros(1, len(x), H, W, device=x.device))[0].to(a)  # B C H W
    a, null = (F.pad(v, (0, jitter, 0, jitter), mode="replicate") for v in (a, null))
    m = torch.full((len(x), 1, h, w), 0.5, device=x.device, dtype=a.dtype) if start is None else start.to(a)
    if m.shape != (len(x), 1, h, w):
        raise ValueError(f"start: must be {(len(x), 1, h, w)}, one number per {cell} pixels, got {tuple(m.shape)}")

    def up(m: Float[Tensor, "B 1 h w"]) -> Float[Tensor, "B 1 H W"]:
        large = m.repeat_interleave(cell, 2).repeat_interleave(cell, 3)[..., :H, :W]
        return blurred(large, blur) if blur else large

    rng = torch.Generator("cpu").manual_seed(seed)
    g_1, g_2 = torch.zeros_like(m), torch.zeros_like(m)  # Adam's means of g and g^2
    for t in range(1, steps + 1):
        i, j = torch.randint(max(jitter, 1), (2,), generator=rng, device="cpu").tolist()  # tau
        with torch.enable_grad():
            m.requires_grad_()
            seen = torch.lerp(null[..., i : i + H, j : j + W], a[..., i : i + H, j : j + W], up(m))  # Phi
            f = at_least_float32(score(run(model, match_format(x, seen)), target))  # B
            dependent(f if f.requires_grad else None)  # the loss depends on m anyway
            d_i, d_j = F.pad(m.diff(dim=2), (0, 0, 0, 1)), F.pad(m.diff(dim=3), (0, 1))
            roughness = (d_i**2 + d_j**2).clamp(min=1e-12) ** (beta / 2)
            loss = f + (area * (1 - m).abs() + rough * roughness).sum(dim=(1, 2, 3))  # B
            (g,) = derivatives(loss, [m])
        step, g_1, g_2 = adam(g, g_1, g_2, t)
        m = (m.detach() - lr * step).clamp(0, 1)
    return 1 - up(m)  # B 1 H W
