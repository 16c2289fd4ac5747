"""Mosaics of images of different classes: which images share a mosaic, in which order, and how it is assembled."""

from itertools import chain, permutations

import torch
from jaxtyping import Float
from torch import Generator, Tensor


def mosaic(images: Float[Tensor, "k m C H W"], n: int) -> Float[Tensor, "k C nH nW"]:
    """The images in a square of n x n, row by row."""
    k, _, C, H, W = images.shape
    return images.view(k, n, n, C, H, W).permute(0, 3, 1, 4, 2, 5).reshape(k, C, n * H, n * W)


def groups(images: list[int], classes: list[int], cells: int) -> list[tuple[list[int], list[int]]]:
    """Pairs (images of different classes for one mosaic, the new ones among them); each image is new exactly once.

    `classes` has the classes of all images; `images` must have at least `cells` different classes.
    """
    left, found = list(images), []
    while left:
        members: dict[int, int] = {}  # class -> its first image; new images come before those that fill up
        for i in chain(left, (j for j in images if j not in left)):
            if len(members) < cells:
                members.setdefault(classes[i], i)
        chosen = list(members.values())
        found.append((chosen, [i for i in chosen if i in left]))
        left = [i for i in left if i not in chosen]
    return found


def drawn(i: int, images: list[int], classes: list[int], cells: int, rng: Generator) -> tuple[list[int], int]:
    """A mosaic for image i: (itself and drawn images of other classes, in cells that are drawn; its cell).

    The others are of different classes as far as there are so many.

    Raises:
        ValueError: fewer than cells - 1 images are of other classes.
    """
    order = [images[k] for k in torch.randperm(len(images), generator=rng).tolist()]
    others = [j for j in order if classes[j] != classes[i]]
    one_each = list({classes[j]: j for j in others}.values())
    chosen = [i, *one_each, *(j for j in others if j not in one_each)][:cells]
    if len(chosen) < cells:
        raise ValueError(f"x: a mosaic needs {cells - 1} images of other classes than {classes[i]}, got {len(others)}")
    placed = [chosen[k] for k in torch.randperm(cells, generator=rng).tolist()]
    return placed, placed.index(i)


def orders(cells: int) -> chain[tuple[int, ...]]:
    """All orders of the cells: first the cyclic shifts, which put each image into each cell once, then the others."""
    shifts = [tuple((k + s) % cells for k in range(cells)) for s in range(cells)]
    return chain(shifts, (order for order in permutations(range(cells)) if order not in shifts))
