"""Towards Better Understanding Attribution Methods.

Rao, Boehle, Schiele. CVPR 2022. arXiv:2205.10435 (GridPG); the game is from Boehle, Fritz, Schiele: Convolutional
Dynamic Alignment Networks for Interpretable Classifications. CVPR 2021. arXiv:2104.00032

    L_i  =  sum_{p in cell i} A+(p)  /  sum_{j = 1 ... n n} sum_{p in cell j} A+(p)

An n x n mosaic is made of images of different classes; A explains the class of cell i on the whole mosaic.

A+     positive part of the map, resized                a
n      cells on a side, 2 here as in Rao et al.         n

Differs from the paper: it makes 500 random mosaics. Here, with companions="next", images are taken in their order: the
next one is the first whose class is not yet in the mosaic; earlier images fill the last mosaic. The number is a mean
over `arrangements` of the images of a mosaic: the first one is the given order, the first n n put each image into each
cell once, (n n)! are all. With companions="drawn" each image has `arrangements` mosaics of its own, with companions and
cells that are drawn, so that images can be counted in a test. A map without a positive value scores 0. An image is
omitted if the probability of its class is below `confidence`: 0.99 in Rao et al., 0.5 of a sigmoid in Boehle et al.;
0.5 here, so that the class is also the top class.
Differs from other code: Boehle et al. draw 3 x 3 mosaics and first smooth the map with a 15 x 15 box.
Good to know: explain logits: the class probabilities of a mosaic are low, since all classes share the pooling. The
model must take images n times as high and wide; a ViT of fixed size does not: `shrink` the images. Chance is 1 / n^2.
The number of an image depends on the other images of its mosaic, so on the batch.
"""

from itertools import islice

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from methods._calls import run
from methods._torch import Attribution, chunks, probability, ratio
from sanity_checks._mosaics import drawn, groups, mosaic, orders
from sanity_checks._registry import Result, check
from sanity_checks._torch import explain, pixels


@check(
    title="Grid pointing game",
    cite="rao2022towards",
    kind="localization",
    protocol=(
        "Images of different classes are put into a mosaic; the number is the share of the positive map of a class "
        "that lies on the cell of its image; chance is 1 / n^2."
    ),
    higher_is_better=True,
    forward=1,
    runs="arrangements",
    verified=("literal", "closed form"),
    quick={"confidence": 0.2},
)
def grid_pointing_game(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Int[Tensor, " B"],
    of: Attribution,
    *,
    n: int = 2,
    arrangements: int = 1,
    companions: str = "next",
    confidence: float = 0.5,
    shrink: bool | None = False,
    seed: int = 0,
    chunk: int = 4,
) -> Result:
    """How much of the positive map of a class lies on its own image in a mosaic of several.

    NaN if the image is not classified with confidence.

    Args:
        model: classifier that takes images n times as high and wide.
        x: normalised images.
        target: their classes.
        of: the method.
        n: cells on a side.
        arrangements: of the images of each mosaic; with companions="drawn", mosaics of each image.
        companions: "next" or "drawn", see above.
        confidence: least probability of the target; 0 takes every image.
        shrink: make the mosaic of images at 1/n of their size, so that it is as large as they are; None: if the model
            does not take a larger one.
        seed: of what is drawn.
        chunk: mosaics per run of the method, and images per forward pass.

    Raises:
        ValueError: fewer than n n different classes are left, the model does not take the mosaic, or a keyword is
            out of range.
    """
    cells = n * n
    if n < 2 or chunk < 1 or not 0 <= confidence <= 1:
        raise ValueError(f"n, chunk, confidence: 2, 1 or more, and 0 to 1; got {n}, {chunk}, {confidence}")
    if companions not in ("next", "drawn"):
        raise ValueError(f"companions: must be 'next' or 'drawn', got {companions!r}")
    arranged = list(islice(orders(cells), max(arrangements, 0)))
    if arrangements < 1 or (companions == "next" and arrangements > len(arranged)):
        raise ValueError(f"arrangements: 1 at least and ({cells})! at most, got {arrangements}")
    with torch.no_grad():
        p = torch.cat(
            [probability(c)(run(model, X)) for X, c in zip(x.split(chunk), target.split(chunk), strict=True)]
        )  # B
    classes = target.tolist()
    sure = (p >= confidence).nonzero().flatten().tolist()
    if len(sure) < cells or len({classes[i] for i in sure}) < (cells if companions == "next" else 2):
        raise ValueError(
            f"x: a {n} x {n} mosaic needs {cells} images of different classes with probability {confidence} or more "
            f"(keyword confidence); got {len(sure)} such images, of {len({classes[i] for i in sure})} classes"
        )
    if companions == "drawn":  # images in the cells of a mosaic, and which cell is explained
        rng = torch.Generator().manual_seed(seed)
        places = [drawn(i, sure, classes, cells, rng) for i in sure for _ in range(arrangements)]
    else:
        places = []
        for members, new in groups(sure, classes, cells):
            for placed in ([members[k] for k in order] for order in arranged):
                places += [(placed, placed.index(i)) for i in new]
    parts = x
    if shrink or (shrink is None and not _takes(model, mosaic(x[None, :1].expand(1, cells, -1, -1, -1), n))):
        if any(side % n for side in x.shape[2:]):
            raise ValueError(f"shrink: the sides of x must be multiples of n = {n}, got {tuple(x.shape[2:])}")
        parts = F.interpolate(x, [side // n for side in x.shape[2:]], mode="bilinear", antialias=True)
    grids = torch.tensor([placed for placed, _ in places], device=x.device)  # m n*n
    cell = torch.tensor([c for _, c in places], device=x.device)[:, None]  # m 1
    explained = grids.gather(1, cell)[:, 0]  # m
    L = []
    for part in chunks(len(grids), chunk, 1):
        X = mosaic(parts[grids[part]], n)  # k C nH nW, or k C H W
        A = pixels(_explain(of, model, X, target[explained[part]]), X).clamp(min=0).double()  # k nH nW
        A = ratio(A, A.amax(dim=(1, 2), keepdim=True))
        mass = A.unflatten(2, (n, -1)).unflatten(1, (n, -1)).sum(dim=(2, 4)).flatten(1)  # k n*n
        L.append(ratio(mass.gather(1, cell[part])[:, 0], mass.sum(dim=1)))
    L = torch.cat(L)  # m
    values = torch.stack([L[explained == i].mean() for i in range(len(x))])  # B   NaN where there is none
    return Result(values=values, columns={"confidence": p}, facts={"chance": 1 / cells})


def _explain(of: Attribution, model: nn.Module, X: Tensor, target: Tensor) -> Tensor:
    try:
        return explain(of, model, X, target)
    except (AssertionError, RuntimeError) as e:
        if _takes(model, X[:1]):
            raise
        size = f"{X.shape[2]} x {X.shape[3]}"
        raise ValueError(f"model: must take the {size} mosaic, so images of any size, or shrink=True: {e}") from e


@torch.no_grad()
def _takes(model: nn.Module, X: Tensor) -> bool:
    try:
        run(model, X)
    except (AssertionError, RuntimeError):
        return False
    return True
