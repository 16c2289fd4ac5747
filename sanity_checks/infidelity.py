"""On the (In)fidelity and Sensitivity of Explanations: infidelity.

Yeh, Hsieh, Suggala, Inouye, Ravikumar. NeurIPS 2019. arXiv:1901.09392

    INFD  =  E_I [ ( beta I . Phi  -  ( f(x) - f(x - I) ) )^2 ]                          (definition 2.1: beta = 1)
    beta  =  E_I [ I . Phi ( f(x) - f(x - I) ) ]  /  E_I [ ( I . Phi )^2 ]               (optimal scaling)

f       score of the class (its logit)                  scores
Phi     the map                                         Phi
I       random perturbation, the same for every image   I; x - I is X
        "square": a square is set to b; in I . Phi, I counts as 1 and 0 ("square removal")
        "gaussian": I = x - (b + noise), everywhere ("difference to noisy baseline")

Differs from the paper: the authors take all squares of 1 to 10 pixels of 28 x 28 images; here `samples` of them are
drawn, all equally likely. Their noise is 0.2 on images in [0, 1], here 0.2 of each image's max - min.
Differs from other code: the authors' clips x - I to [0, 1] and always uses beta, the default here. captum's default is
beta = 1; with the same I it agrees. In Quantus the squares of a sample add up.
Good to know: "square" suits maps that contain the factor x - b (Input x Gradient, Integrated Gradients), "gaussian"
those that do not (Gradient); a map of one channel is used for all channels. The unit is logits squared. The column
`relative` divides by the infidelity of a zero map, and with beta is at most 1. 10 of 28 pixels are 80 of 224.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from methods._cost import Formula
from methods._torch import at_least_float32, chunks, ratio, scores, upsample
from methods.integrated_gradients import start
from sanity_checks._registry import Result, check
from sanity_checks._torch import pixels


@check(
    title="Infidelity",
    cite="yeh2019infidelity",
    kind="faithfulness",
    protocol=(
        "Random squares are removed; the number is the mean squared difference between the map's sum in the square, "
        "best scaled, and the fall of the logit."
    ),
    higher_is_better=False,
    forward=Formula("1 + samples", lambda s: 1 + s.samples),
    runs=0,
    verified=("captum", "literal", "closed form"),
    quick={"samples": 64},
)
def infidelity(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Int[Tensor, " B"],
    maps: Float[Tensor, "B K h w"],
    *,
    perturbation: str = "square",
    side: int = 10,
    noise: float = 0.2,
    samples: int = 1000,
    normalize: bool = True,
    baseline: float | Float[Tensor, "..."] = 0.0,
    seed: int = 0,
    chunk: int = 8,
) -> Result:
    """How well the map predicts the fall of the score under perturbations: mean squared error.

    Args:
        model: classifier.
        x: normalised images.
        target: classes.
        maps: the maps to evaluate.
        perturbation: "square" or "gaussian".
        side: pixels on the side of the largest square.
        noise: standard deviation of the noisy baseline, in units of each image's max - min.
        samples: perturbations.
        normalize: scale each map by beta first.
        baseline: b, a number or a tensor that broadcasts to x; 0 is the mean colour.
        seed: of the perturbations.
        chunk: images per forward pass.

    Raises:
        ValueError: no such perturbation, samples below 1, a square that does not fit, or a baseline of another shape.
    """
    if perturbation not in ("square", "gaussian") or samples < 1:
        raise ValueError(f'perturbation, samples: need "square" or "gaussian" and 1, got {perturbation!r}, {samples}')
    x, Phi = x.detach(), pixels(maps, x)[:, None].double()  # B C H W, B 1 H W
    b, a = start(x, torch.as_tensor(baseline, dtype=x.dtype)), at_least_float32(x)  # B C H W
    sigma = noise * (a.amax(dim=(1, 2, 3), keepdim=True) - a.amin(dim=(1, 2, 3), keepdim=True))  # B 1 1 1
    if perturbation == "gaussian" and maps.shape[1] == x.shape[1]:
        Phi = upsample(at_least_float32(maps.detach()), x).double()  # B C H W
    (H, W), rng = x.shape[2:], torch.Generator().manual_seed(seed)
    f, p, d = scores(model, x[None], target), [], []  # 1 B
    for k in chunks(samples, chunk, len(x)):
        if perturbation == "square":
            M = torch.stack([square(H, W, side, rng) for _ in range(samples)[k]])  # k H W
            I = M[:, None, None].to(x.device)  # k 1 1 H W
            X = torch.where(I, b, x)  # k B C H W
        else:
            N = torch.stack([torch.randn(x.shape[1:], generator=rng) for _ in range(samples)[k]])  # k C H W
            X = b + sigma * N[:, None].to(a)  # k B C H W
            I = a - X
        p.append((I * Phi).sum(dim=(2, 3, 4)))  # k B   I . Phi
        d.append((f - scores(model, X, target, like=x)).double())  # k B   f(x) - f(x - I)
    p, d = torch.cat(p), torch.cat(d)  # samples B
    beta = ratio((p * d).mean(dim=0), (p**2).mean(dim=0)) if normalize else torch.ones_like(p[0])  # B
    infd = ((beta * p - d) ** 2).mean(dim=0)  # B
    return Result(values=infd, columns={"relative": ratio(infd, (d**2).mean(dim=0)), "beta": beta})


def square(H: int, W: int, side: int, rng: torch.Generator) -> Bool[Tensor, "H W"]:
    """One of the squares of 1 to `side` pixels inside the image, all equally likely."""
    if not 1 <= side <= min(H, W):
        raise ValueError(f"side: the largest square must have a pixel and fit into {H} x {W}, got {side}")
    places = torch.tensor([(H - r) * (W - r) for r in range(side)], dtype=torch.float64)
    r = 1 + int(torch.multinomial(places, 1, generator=rng))
    top, left = (int(torch.randint(n - r + 1, (1,), generator=rng)) for n in (H, W))
    M = torch.zeros(H, W, dtype=torch.bool)
    M[top : top + r, left : left + r] = True
    return M
