"""On the (In)fidelity and Sensitivity of Explanations: max-sensitivity.

Yeh, Hsieh, Suggala, Inouye, Ravikumar. NeurIPS 2019. arXiv:1901.09392

    SENS  =  max_j  || Phi(x + delta_j) - Phi(x) ||  /  || Phi(x) ||

Phi      the method, for the same class                 of; Phi(x) is `maps`
delta_j  uniform in the L_inf ball of the radius        delta, `samples` of them, the same ones for every image
||.||    Euclidean norm of all numbers of the map       norm

Differs from the paper: the radius is in units of each image's max - min, since normalised images have no fixed range;
0.2 and 50 are the authors' for images in [0, 1]. Definition 3.1 does not divide by || Phi(x) ||; their code does.
Differs from other code: captum (radius 0.02, 10 samples) and Quantus (0.2, 200 samples) take the radius in units of the
tensor; with the same perturbations the three agree.
Good to know: a map that never changes has the lowest value, for example one that ignores the image. A map that is drawn
again at each call has about 1.4. Norms are of the map as returned, so at its own resolution. Where Phi(x) is zero, SENS
is || Phi(x + delta_j) ||, as in captum.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from methods._torch import Attribution, at_least_float32, chunks
from sanity_checks._registry import Result, check
from sanity_checks._torch import check_maps, explain


@check(
    title="Max-sensitivity",
    cite="yeh2019infidelity",
    kind="robustness",
    protocol=(
        "Uniform noise is added to the image and the map is made again; "
        "the number is the largest change of the map over the draws, relative to the map."
    ),
    higher_is_better=False,
    forward=0,
    runs="samples",
    verified=("captum", "quantus", "closed form"),
    quick={"samples": 5},
)
def max_sensitivity(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Int[Tensor, " B"],
    maps: Float[Tensor, "B K h w"],
    of: Attribution,
    *,
    radius: float = 0.2,
    samples: int = 50,
    seed: int = 0,
    chunk: int = 8,
) -> Result:
    """How much the map changes, at most, under small noise on the image.

    Relative to its norm.

    Args:
        model: classifier.
        x: normalised images.
        target: classes.
        maps: the maps to evaluate, which `of` gives for x.
        of: the method.
        radius: of the noise, in units of each image's max - min.
        samples: draws.
        seed: of the draws.
        chunk: images per call of the method.

    Raises:
        ValueError: samples is below 1, the radius is not positive, or the method's maps have another shape than `maps`.
    """
    check_maps(maps, x)
    x, Phi = x.detach(), at_least_float32(maps.detach())  # B C H W, B K h w
    change = []
    for _, _, moved in neighbours(model, x, target, Phi, of, radius, samples, seed, chunk):
        change.append(norm(moved - Phi))  # k B
    scale = norm(Phi)  # B
    return Result(values=(torch.cat(change) / torch.where(scale == 0, 1.0, scale)).amax(dim=0))


def neighbours(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Int[Tensor, " B"],
    maps: Float[Tensor, "B K h w"],
    of: Attribution,
    radius: float,
    samples: int,
    seed: int,
    chunk: int,
) -> Iterator[tuple[Float[Tensor, "k B C H W"], Float[Tensor, "kB C H W"], Float[Tensor, "k B K h w"]]]:
    """A few neighbours of each image at a time: delta, in float32 at least; the images x + delta; their maps.

    Raises:
        ValueError: samples is below 1, the radius is not positive, or the method's maps have another shape than `maps`.
    """
    if samples < 1 or radius <= 0:
        raise ValueError(f"samples, radius: need one sample at least and a radius above 0, got {samples} and {radius}")
    a = at_least_float32(x)
    r = radius * (a.amax(dim=(1, 2, 3), keepdim=True) - a.amin(dim=(1, 2, 3), keepdim=True))  # B 1 1 1
    rng = torch.Generator().manual_seed(seed)
    for k in chunks(samples, chunk, len(x)):
        U = torch.stack([2 * torch.rand(x.shape[1:], generator=rng) - 1 for _ in range(samples)[k]])  # k C H W
        delta = r * U[:, None].to(a)  # k B C H W
        X = (a + delta).to(x.dtype).flatten(0, 1)  # kB C H W
        moved = explain(of, model, X, target.repeat(len(U))).unflatten(0, (len(U), len(x)))  # k B K h w
        if moved.shape[1:] != maps.shape:
            raise ValueError(f"maps: must be those of the method, {tuple(moved.shape[1:])}, got {tuple(maps.shape)}")
        yield delta, X, moved


def norm(a: Float[Tensor, "*n K h w"]) -> Float[Tensor, "*n"]:
    """Euclidean norm over the last three axes."""
    return torch.linalg.vector_norm(a.double(), dim=(-3, -2, -1))
