"""Evaluating and Aggregating Feature-based Model Explanations.

Bhatt, Weller, Moura. IJCAI 2020. arXiv:2005.00631

    mu_F  =  corr_S ( sum_(i in S) g_i ,  f(x) - f(x with x_S := b_S) )

f       score of the class (its logit)                  scores
g       the map, one number per pixel                   g
S       a random subset of the pixels, |S| = size       S, the same ones for every image
b       value of removed pixels                         b
corr    Pearson's correlation over the subsets          correlation

Differs from the paper: a feature is a pixel with all of its channels.
Differs from other code: 100 subsets of 224 are Quantus' defaults, but Quantus draws elements of C H W, so that it
removes single colours and repeats a map of one channel for each; its baseline "black" is the image's minimum. With
one channel and the same subsets the two agree.
Good to know: exact for a linear f: the map (x - b) w scores 1. 224 of 50,176 pixels are scattered over 0.4 % of an
image. They change the logit little, and by more than their sum if f is not linear. `sensitivity_n` uses all sizes. A
constant map scores 0. Noise has mean 0 and, with 100 subsets, a standard deviation of 0.1 on each image.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from methods._cost import Formula
from methods._torch import chunks, scores
from methods.integrated_gradients import start
from sanity_checks._registry import Result, check
from sanity_checks._torch import constant, correlation, pixels


@check(
    title="Faithfulness correlation",
    cite="bhatt2020evaluating",
    kind="faithfulness",
    protocol=(
        "Random sets of pixels are removed; the number is the correlation, over the sets, "
        "of the map's sum in the set with the fall of the logit."
    ),
    higher_is_better=True,
    forward=Formula("1 + samples", lambda s: 1 + s.samples),
    runs=0,
    verified=("quantus", "literal", "closed form"),
    quick={"samples": 32},
)
def faithfulness_correlation(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Int[Tensor, " B"],
    maps: Float[Tensor, "B K h w"],
    *,
    size: int = 224,
    samples: int = 100,
    baseline: float | Float[Tensor, "..."] = 0.0,
    seed: int = 0,
    chunk: int = 8,
) -> Result:
    """Whether the attribution of random subsets of pixels predicts the fall of the score when they are removed.

    The correlation of the two.

    Args:
        model: classifier.
        x: normalised images.
        target: classes.
        maps: the maps to evaluate.
        size: pixels in a subset.
        samples: subsets.
        baseline: value of removed pixels, a number or a tensor that broadcasts to x; 0 is the mean colour.
        seed: of the subsets.
        chunk: images per forward pass.

    Raises:
        ValueError: size is not between 1 and all pixels minus 1, samples is below 2, or a baseline of another shape.
    """
    x, g = x.detach(), pixels(maps, x).flatten(1)  # B C H W, B HW
    b = start(x, torch.as_tensor(baseline, dtype=x.dtype))  # B C H W
    S = subsets(g.shape[1], size, samples, torch.Generator().manual_seed(seed)).to(x.device)  # samples HW
    drop = scores(model, x[None], target) - removed(model, x, b, target, S.view(-1, *x.shape[2:]), chunk)  # samples B
    mu = correlation((S.double() @ g.double().T).T, drop.T)  # B
    return Result(values=torch.where(constant(pixels(maps, maps)), 0.0, mu))


def subsets(n: int, size: int, samples: int, rng: torch.Generator) -> Bool[Tensor, "samples n"]:
    """Random subsets of `size` of n pixels, all equally likely."""
    if not 1 <= size < n:
        raise ValueError(f"size: a subset must have 1 pixel at least and leave one of {n}, got {size}")
    if samples < 2:
        raise ValueError(f"samples: a correlation needs two subsets at least, got {samples}")
    S = torch.stack([torch.randperm(n, generator=rng)[:size] for _ in range(samples)])  # samples size
    return torch.zeros(samples, n, dtype=torch.bool).scatter_(1, S, True)


def removed(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    b: Float[Tensor, "B C H W"],
    target: Int[Tensor, " B"],
    S: Bool[Tensor, "n H W"],
    chunk: int,
) -> Float[Tensor, "n B"]:
    """The score of each image with each set of pixels replaced by those of b."""
    parts = [S[k, None, None] for k in chunks(len(S), chunk, len(x))]  # k 1 1 H W each
    return torch.cat([scores(model, torch.where(M, b, x), target) for M in parts])
