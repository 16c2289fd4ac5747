"""Mosaics of images of different classes: which images share a mosaic, in which order, and how it is assembled."""

from itertools import chain, permutations

from jaxtyping import Float
from torch import Tensor


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


def orders(cells: int) -> chain[tuple[int, ...]]:
    """All orders of the cells: first the cyclic shifts, which put each image into each cell once, then the others."""
    shifts = [tuple((k + s) % cells for k in range(cells)) for s in range(cells)]
    return chain(shifts, (order for order in permutations(range(cells)) if order not in shifts))
