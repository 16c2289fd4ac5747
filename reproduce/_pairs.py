"""Two photographs side by side: how much of the map of a class lies in the half of this class."""

import itertools
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

import _run  # puts the repository on the path
from methods import _images, _models
from methods._images import Photo
from methods._models import Loaded
from methods._torch import Attribution
from sanity_checks._statistics import interval
from sanity_checks._torch import explain
from sanity_checks.similarity import similarities

PHOTOS, QUICK_PHOTOS = "chelsea,coffee,rocket,motorcycle,china,flower", "chelsea,coffee,motorcycle"
BATCH = 8  # pairs at a time


class Pairs(NamedTuple):
    """Photographs side by side."""

    photos: list[Photo]
    x: Float[Tensor, "n 3 H W"]
    classes: Int[Tensor, "n 2"]  # of the left and of the right half


def names(run: _run.Run) -> str:
    """The photographs that form the pairs, in the form of --images."""
    return QUICK_PHOTOS if run.args.quick else PHOTOS


def side_by_side(run: _run.Run, loaded: Loaded) -> Pairs:
    """All pairs of the photographs, each with the top classes of its two photographs alone."""
    photos = _images.load(names(run), loaded.preprocessing)
    top = [c for c, *_ in _models.predict(loaded, _images.tensor(photos, loaded))]
    run.inputs |= {p.name: p for p in photos}
    order = [pair[:: (-1) ** k] for k, pair in enumerate(itertools.combinations(range(len(photos)), 2))]  # sides vary
    pictures = [joined(photos[i], photos[j]) for i, j in order]
    classes = torch.tensor([(top[i], top[j]) for i, j in order], device=loaded.device)
    return Pairs(pictures, _images.tensor(pictures, loaded), classes)


def joined(a: Photo, b: Photo) -> Photo:
    """The middle columns of a, then those of b."""
    width = a.rgb.shape[1]
    parts = [p.rgb[:, (width - w) // 2 :][:, :w] for p, w in ((a, width // 2), (b, width - width // 2))]
    return replace(a, name=f"{a.name}_{b.name}", rgb=np.concatenate(parts, axis=1), parts=(a.name, b.name))


def share(run: _run.Run, maps: Float[Tensor, "B K h w"], like: Tensor, side: int) -> Float[Tensor, " B"]:
    """The share of the positive mass in the left (0) or right (1) half of images with the size of `like`."""
    width = like.shape[-1]
    own = (torch.arange(width, device=maps.device) >= width // 2) == bool(side)  # W
    own = own.expand(len(maps), like.shape[-2], width)
    return _run.check(run, "energy_pointing_game", maps, own).values


def both_classes(
    run: _run.Run, model: nn.Module, pairs: Pairs, of: Attribution
) -> Iterator[tuple[Tensor, Tensor, Tensor, Float[Tensor, "B 2"]]]:
    """Per batch: the images, the maps of the left and of the right class, and the share of each in its own half."""
    for k in range(0, len(pairs.x), BATCH):
        x, classes = pairs.x[k : k + BATCH], pairs.classes[k : k + BATCH]
        left, right = (explain(of, model, x, classes[:, side]) for side in (0, 1))
        yield x, left, right, torch.stack([share(run, a, x, side) for side, a in enumerate((left, right))], dim=1)


def measure(run: _run.Run, model: nn.Module, pairs: Pairs, of: Attribution) -> dict[str, Any]:
    """For each pair: the share of both classes in their own halves, and the rank correlation of the two maps."""
    shares, alike = [], []
    for x, left, right, both in both_classes(run, model, pairs, of):
        shares.append(both)
        alike.append(similarities(left, right, x, ("spearman",))["spearman"])
    own, rho = torch.cat(shares).cpu().numpy(), torch.cat(alike).cpu().numpy()  # n 2, n
    found = {"share": own.mean(axis=1), "spearman": rho}
    return {k: {"values": v} | asdict(interval(v)) for k, v in found.items()} | {"own_half": own}
