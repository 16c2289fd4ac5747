"""Evaluating Interpretable Methods via Geometric Alignment of Functional Distortions: generalised faithfulness, GEF.

Hedström, Bommer, Burns, Lapuschkin, Samek, Höhne. TMLR 2025. https://openreview.net/forum?id=ukLxqA8zXj

    theta_z  =  theta * n,   n ~ N(1, sigma_z^2)                sigma_1 < ... < sigma_Z, evenly spread
    d_f,z    =  | f( x; theta )_c - f( x; theta_z )_c |         how much the model changed
    d_e,z    =  || e( x; theta ) - e( x; theta_z ) ||_2         how much the map changed
    GEF      =  mean over M draws of  rho( d_f, d_e )           over the Z levels

f_c     logit of the class                                   y
e       the map, divided by the root of its mean square      e
rho     Spearman's rank correlation                          spearman
Z, M    levels of noise and draws of it                      levels, repeats

A map is faithful if it changes as much as the model does. This is the paper's fast form; its exact form measures the
change of the map along the path through the weights by a pullback metric, for K T = 100 times the runs.

Differs from the paper: it searches the largest level at which the accuracy on the batch is that of guessing. A batch
of few images has no accuracy, so the largest level is `sigma`.
Differs from other code: the authors' code (annahedstroem/GEF) repeats the last score for an image without one; here a
map that does not change at all has 0: its change says nothing of the model's.
Good to know: five levels give few values of rho, so one image says little. Noise has 0 on average; a map of the image
alone 0. A map made of the weights themselves may follow their noise: see implementation_invariance.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from methods._calls import copy_of, logits
from methods._cost import Formula
from methods._torch import Attribution, at_least_float32, ratio
from sanity_checks._registry import Result, check
from sanity_checks._torch import check_maps, explain
from sanity_checks.similarity import spearman


@check(
    title="Generalised explanation faithfulness (GEF)",
    cite="hedstrom2025evaluating",
    kind="faithfulness",
    protocol=(
        "All weights are multiplied by noise of growing size; the number is the rank correlation, over the sizes, of "
        "the change of the class logit and the change of the map."
    ),
    higher_is_better=True,
    forward=Formula("1 + repeats · levels", lambda s: 1 + s.repeats * s.levels),
    runs=Formula("repeats · levels", lambda s: s.repeats * s.levels),
    verified=("literal", "closed form"),
    quick={"repeats": 2},
)
@torch.no_grad()
def gef(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Int[Tensor, " B"],
    maps: Float[Tensor, "B K h w"],
    of: Attribution,
    *,
    levels: int = 5,
    repeats: int = 5,
    sigma: float = 0.5,
    seed: int = 0,
) -> Result:
    """Whether the map changes more where noise on the weights changes the class logit more: rank correlation.

    Args:
        model: classifier.
        x: normalised images.
        target: classes.
        maps: the maps to evaluate, which `of` gives for x.
        of: the method.
        levels: Z, from 0.001 to sigma.
        repeats: M.
        sigma: the largest standard deviation of the factors.
        seed: of the noise.

    Raises:
        ValueError: levels below 2, repeats below 1, or sigma not above 0.001.
    """
    if levels < 2 or repeats < 1 or sigma <= 1e-3:
        raise ValueError(f"levels, repeats, sigma: 2, 1 and above 0.001 at least, got {levels}, {repeats}, {sigma}")
    check_maps(maps, x)
    c, y, e = target[:, None], logits(model, x), _scaled(maps)  # B 1, B N, B Khw
    rho = []
    for m in range(repeats):
        d_f, d_e = [], []
        for z, s in enumerate(torch.linspace(1e-3, sigma, levels).tolist()):
            f = noisy(model, s, seed + 7919 * m + z)
            d_f.append((logits(f, x) - y).gather(1, c)[:, 0].abs().double())  # B
            d_e.append((_scaled(explain(of, f, x, target)) - e).norm(dim=1))  # B
        rho.append(spearman(torch.stack(d_f, dim=1), torch.stack(d_e, dim=1)).nan_to_num(0.0))
    return Result(values=torch.stack(rho).double().mean(dim=0))


@torch.no_grad()
def noisy(model: nn.Module, sigma: float, seed: int) -> nn.Module:
    """A copy with every weight times N(1, sigma^2)."""
    twin, rng = copy_of(model), torch.Generator().manual_seed(seed)
    for p in twin.parameters():
        if p.is_floating_point():
            p.mul_((1 + sigma * torch.randn(p.shape, generator=rng)).to(p))
    return twin


def _scaled(maps: Float[Tensor, "B K h w"]) -> Float[Tensor, "B n"]:
    e = at_least_float32(maps.detach()).double().flatten(1)
    return ratio(e, e.square().mean(dim=1, keepdim=True).sqrt())
