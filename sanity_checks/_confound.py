"""A randomisation test also measures other effects: the input in a product, and the task of the network.

Yona, Greenfeld. 2021. arXiv:2110.14297, on digits on textures: the object of one task is the background of the other.
The closed form for black and white images is not in the paper.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from methods._torch import Attribution
from sanity_checks._ground_truth import DigitsOnTextures
from sanity_checks._randomize import alive, randomizations, whole
from sanity_checks._statistics import of_images, verdict
from sanity_checks._torch import explain
from sanity_checks.energy_pointing_game import energy_pointing_game
from sanity_checks.similarity import between_images, similarities, spearman


class Task(NamedTuple):
    """One architecture on digits on textures: trained for the digit, trained for the texture, and randomised."""

    digit: nn.Module
    texture: nn.Module
    random: list[nn.Module]  # the network for the digit, all of its weights permuted


def networks(digit: nn.Module, texture: nn.Module, x: Float[Tensor, "B C H W"], seeds: range) -> Task:
    """Two trained networks, and one randomised network for each seed.

    Raises:
        ValueError: a randomised network is dead.
    """
    random = [f for *_, f in randomizations(digit, [whole(digit)], seeds=seeds)]
    for f in random:
        alive(f, digit, x, "permute")
    return Task(digit, texture, random)


def closed_form(zeros: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Expected rank correlation of |x u| and |x v| for x of 0 and 1, u and v independent and without ties.

    A share z of the pixels is zero, and all zeros have the mean rank z / 2. The other ranks are independent of each
    other, so the two maps have only the positions of the zeros in common. In units of the number of pixels, the
    variance of the ranks between the groups is z (1 - z) / 4, and the total variance is (1 - z^3) / 12. The ratio is
    3 z / (1 + z + z^2).
    """
    return 3 * zeros / (1 + zeros + zeros**2)


def products(x: Float[Tensor, "B C H W"], seed: int) -> dict[str, Float[Tensor, " B"]]:
    """Rank correlations of |x u| and |x v| for normal u and v.

    Returns:
        zeros: share of pixels that are 0. grey: correlation for the image. binary: for the image with all non-zero
        pixels set to one. ink: as grey, at the non-zero pixels only. signed: of x u and x v.
    """
    rng = torch.Generator().manual_seed(seed)
    u, v = torch.randn(2, *x.shape, generator=rng)
    ink = (x != 0).flatten(1)

    def rho(image: Tensor, **where: Tensor) -> Tensor:
        return spearman((image * u).abs().flatten(1), (image * v).abs().flatten(1), **where)

    return {
        "zeros": (~ink).double().mean(dim=1),
        "grey": rho(x),
        "binary": rho((x != 0).float()),
        "ink": rho(x, where=ink),
        "signed": spearman((x * u).flatten(1), (x * v).flatten(1)),
    }


def contrast(of: Attribution, task: Task, data: DigitsOnTextures) -> tuple[dict[str, Any], list[Float[Tensor, "h w"]]]:
    """The positive mass on the digit for each network, the task contrast, and the similarity under random weights.

    Returns:
        The numbers, and the maps of the first image by the three networks.
    """
    x, mask = data.x, data.mask
    a, b = explain(of, task.digit, x, data.digit), explain(of, task.texture, x, data.texture)
    again = explain(of, task.digit, x, data.digit)
    c = [explain(of, f, x, data.digit) for f in task.random]
    inside = {"digit": _mass(a, mask), "texture": _mass(b, mask)}
    inside["random"] = torch.stack([_mass(v, mask) for v in c]).mean(dim=0)
    s = torch.stack([similarities(a, v, x, ("spearman",))["spearman"] for v in c]).nanmean(dim=0)
    ceiling = similarities(a, again, x, ("spearman",))["spearman"]
    null = between_images(a, x, ("spearman",))["spearman"]
    numbers = {
        "mass": {name: of_images(v) for name, v in inside.items()},
        "contrast": of_images(inside["digit"] - inside["texture"]),
        "untrained contrast": of_images(inside["digit"] - inside["random"]),
        "randomised": {"s": of_images(s), "null": of_images(null), "ceiling": of_images(ceiling)},
        "verdict": verdict(s.cpu().numpy(), null.cpu().numpy(), ceiling.cpu().numpy()),
    }
    return numbers, [v[0].sum(dim=0).float().cpu() for v in (a, b, c[0])]


def _mass(a: Float[Tensor, "B K h w"], mask: Bool[Tensor, "B H W"]) -> Float[Tensor, " B"]:
    return energy_pointing_game(a, mask).values
