"""A Consistent and Efficient Evaluation Strategy for Attribution Methods (ROAD: remove and debias).

Rong, Leemann, Borisov, Kasneci, Kasneci. ICML 2022. arXiv:2202.00449

A share p of the pixels is removed, highest (MoRF) or lowest (LeRF) first, and replaced by noisy linear imputation: each
removed pixel is the weighted mean of its neighbours, including removed ones,

    x_u  sum_v w_uv  =  sum_v w_uv x_v          v: the neighbours of u inside the image

which is one sparse linear system for all removed pixels, and N(0, 0.01^2) is added to its solution.

w_uv    1/6 for the direct neighbours, 1/12 for the diagonal ones      w
p       0.1 0.2 0.3 0.4 0.5 0.7 0.9                                    percentages
        number per image: mean over p of  f(LeRF) - f(MoRF)            f: softmax probability

Differs from the paper: it plots accuracy and probability of a test set, one order at a time; here the two orders are
subtracted, image by image. Ties are broken at random; the authors add 1e-4 N(0, 1) to a map scaled to [0, 1], which
also swaps values that are only close.
Differs from other code: the authors' own removes the lowest 1 - p in LeRF order; here p is the share removed in both.
They impute pixels in [0, 1] and then normalise. Only the noise depends on this scale, since a weighted mean commutes
with any affine map of a channel: give `std` (as in the normalisation), or the noise is 0.01 in normalised units.
pytorch-grad-cam removes 100 - p percent, does not scale the noise, and halves its difference. Quantus 0.6 fails on
three channels.
Good to know: no retraining, unlike ROAR. A smooth map removes large patches, which imputation cannot fill well.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from methods._calls import probabilities, run
from methods._cost import Formula
from methods._torch import chunks
from sanity_checks._impute import impute
from sanity_checks._registry import Result, check
from sanity_checks._torch import is_top, pixels, ranks


@check(
    title="ROAD",
    cite="rong2022consistent",
    kind="faithfulness",
    protocol=(
        "Pixels are removed, lowest or highest first, and imputed from their neighbours; "
        "the number is the class probability of the first order minus that of the second, over seven shares."
    ),
    higher_is_better=True,
    forward=Formula("2 · percentages", lambda s: 2 * len(s.percentages)),
    runs=0,
    verified=("grad_cam", "literal"),
    quick={"percentages": (0.1, 0.5)},
)
def road(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Int[Tensor, " B"],
    maps: Float[Tensor, "B K h w"],
    *,
    percentages: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9),
    noise: float = 0.01,
    std: Sequence[float] | None = None,
    seed: int = 0,
    chunk: int = 8,
) -> Result:
    """How much more probability is left without the least relevant pixels than without the most; columns: both.

    Args:
        model: classifier.
        x: normalised images.
        target: classes.
        maps: the maps to evaluate.
        percentages: shares of pixels removed.
        noise: standard deviation of the noise on imputed pixels, of values in [0, 1].
        std: of each channel in the normalisation; None: noise is in normalised units.
        seed: of the noise and of the order of ties.
        chunk: images per forward pass.

    Raises:
        ValueError: a percentage outside (0, 1), or not one std for each channel.
    """
    if not percentages or not all(0 < p < 1 for p in percentages):
        raise ValueError(f"percentages: shares between 0 and 1, at least one, got {tuple(percentages)}")
    if std is not None and len(std) != x.shape[1]:
        raise ValueError(f"std: one for each of the {x.shape[1]} channels, got {tuple(std)}")
    x, n = x.detach(), x.shape[2] * x.shape[3]
    scale = noise / x.new_tensor(std if std is not None else [1.0] * x.shape[1])  # C
    a = pixels(maps, x)
    r = torch.rand(a[0].numel(), generator=torch.Generator().manual_seed(seed)).view_as(a[0]).to(a).expand_as(a)
    f, hits = [], []
    with torch.no_grad():
        orders = [(rank, int(n * p)) for rank in (random_ties(a, r), random_ties(-a, r)) for p in percentages]
        for part in chunks(len(orders), chunk, len(x)):
            X = torch.cat([impute(x, rank < k, scale, seed) for rank, k in orders[part]])  # kB C H W
            P, c = probabilities(run(model, X)), target.repeat(len(X) // len(x))  # kB N, kB
            f.append(P.gather(1, c[:, None]).view(-1, len(x)))  # k B
            hits.append(is_top(P, c).view(-1, len(x)))
    morf, lerf = torch.cat(f).T.chunk(2, dim=1)  # B p
    right, left = torch.cat(hits).T.to(morf.dtype).chunk(2, dim=1)  # B p   MoRF, LeRF
    return Result(
        values=(lerf - morf).mean(dim=1),
        columns={
            "morf": morf.mean(dim=1),
            "lerf": lerf.mean(dim=1),
            "morf_accuracy": right.mean(dim=1),
            "lerf_accuracy": left.mean(dim=1),
        },
        curves={"morf": morf, "lerf": lerf, "morf_accuracy": right, "lerf_accuracy": left},
        at=tuple(float(p) for p in percentages),
    )


def random_ties(a: Float[Tensor, "B H W"], r: Float[Tensor, "B H W"]) -> Int[Tensor, "B H W"]:
    """The rank of each pixel in its image, 0 for the highest; equal pixels are ordered by r, the highest first."""
    first = ranks(r).flatten(1).argsort(dim=1)  # B HW   pixels in the order of r
    places = ranks(a.flatten(1).gather(1, first))  # B HW
    return torch.empty_like(places).scatter_(1, first, places).view(a.shape)
