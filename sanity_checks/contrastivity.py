"""Rethinking Saliency Maps: A Cognitive Human Aligned Taxonomy and Evaluation Framework: the contrastive score, CCS.

Elisha, Cohen, Barkan, Koenigstein. 2025. arXiv:2511.13081

    CCS  =  integral over alpha in [0.1, 0.9]  of  p_a( x_alpha ) - p_b( x_alpha )

x_alpha   the image without the alpha highest pixels of the map that says "why a and not b"      path
a, b      the class, and the one with the next highest logit                                     target, b
p         softmax probabilities                                                                  probability

The map of a contrast should mark what speaks for a against b: without it, b should win. Lower is better.

Differs from the paper: methods explain a class, so the contrastive map is M(a) - M(b), the map of the difference of the
logits for every method that is linear in the score. The reference class is the runner-up, where the paper takes classes
of the same group; its measures of groups need such groups and are left out.
Differs from other code: the authors' code (yonisGit/RFxG) scales maps to [0, 1] only if they leave it, which changes no
order. It paints black; here the fill is the data set's mean colour, as in the other checks.
Good to know: compare with `random`, the same with the pixels in a random order: how far p_a - p_b falls depends on the
image. -0.8 to 0.8. A method that uses no class has the contrast 0 everywhere, and an order by position.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from methods._calls import logits
from methods._cost import Formula
from methods._torch import Attribution, probability
from sanity_checks._registry import Result, check
from sanity_checks._torch import explain, path, pixels, ranks
from sanity_checks.insertion_deletion import substrate
from sanity_checks.road import random_ties


@check(
    title="Contrastive score (CCS)",
    cite="elisha2025rethinking",
    kind="faithfulness",
    protocol=(
        "The difference of the maps of the class and of the runner-up is taken, and its highest pixels are replaced; "
        "the number is the area under the difference of the two probabilities."
    ),
    higher_is_better=False,
    forward=Formula("4 · points + 1", lambda s: 4 * s.points + 1),
    runs=2,
    verified=("literal", "closed form"),
)
def contrastivity(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Int[Tensor, " B"],
    of: Attribution,
    *,
    points: int = 9,
    fill: str = "mean",
    seed: int = 0,
    chunk: int = 8,
) -> Result:
    """How far the class stays ahead of the runner-up while the pixels that speak for it against the runner-up go.

    Args:
        model: classifier with two classes at least.
        x: normalised images.
        target: classes.
        of: the method.
        points: shares of pixels, evenly spread from 0.1 to 0.9.
        fill: what replaces pixels, a key of SUBSTRATES in insertion_deletion.
        seed: of the random order.
        chunk: images per forward pass.

    Returns:
        Column `random`: the same in a random order. Curves: `contrast` and `random`.

    Raises:
        ValueError: a network of one class, points below 2, or an unknown fill.
    """
    if points < 2:
        raise ValueError(f"points: 2 shares at least, got {points}")
    x = x.detach()
    with torch.no_grad():
        y = logits(model, x)  # B N
    if y.shape[1] < 2:
        raise ValueError("model: a contrast needs two classes")
    b = y.scatter(1, target[:, None], -torch.inf).argmax(dim=1)  # B
    A = pixels(explain(of, model, x, target), x) - pixels(explain(of, model, x, b), x)  # B H W
    r = torch.rand(x.shape[2:], generator=torch.Generator().manual_seed(seed)).to(A).expand_as(A)
    alphas = torch.linspace(0.1, 0.9, points, dtype=torch.float64)
    counts = (alphas * A[0].numel()).long()  # points
    blank, curves = substrate(x, fill, "fill"), {}
    for name, rank in (("contrast", ranks(A)), ("random", random_ties(torch.zeros_like(A), r))):
        p_a, p_b = (path(model, x, blank, rank, counts, probability(c), chunk) for c in (target, b))  # points B
        curves[name] = (p_a - p_b).T.double()  # B points
    areas = {name: torch.trapezoid(curve, alphas.to(curve.device)) for name, curve in curves.items()}  # B
    return Result(
        values=areas["contrast"], columns={"random": areas["random"]}, curves=curves, at=tuple(alphas.tolist())
    )
