"""Benchmarking the Attribution Quality of Vision Models (single-deletion score).

Hesse, Schaub-Meyer, Roth. NeurIPS 2024. arXiv:2407.11910

The image is cut into a grid of 4 x 4 cells; each is deleted alone:

    score  =  rho_spearman( sum_{u in cell} a_u ,  f(x) - f(x with the cell deleted) )      over the cells

a       the map, signed, channels summed                   a
f       logit of the class                                 f
        a deleted cell becomes zero after normalisation    fill

Differs from the paper: its score is in-domain (IDSDS): the network is first fine-tuned on images with one random cell
deleted. Give this check such a network for IDSDS; on any other it is the same score out of domain.
Differs from other code: the authors' needs square cells and ignores the rest at the right and bottom; here sizes may
differ by a pixel. A constant map, or a network whose logit no cell changes, gives 0; theirs gives NaN.
Good to know: rho over 16 cells has a standard deviation of 0.26 for noise: average over images. Maps of a 7 x 7 layer
reach the cells through bilinear resizing. A linear network explained by input x gradient scores 1.
"""

import torch
from jaxtyping import Float, Int
from scipy.stats import rankdata
from torch import Tensor, nn

from methods._cost import Formula
from methods._torch import chunks, scores
from sanity_checks._registry import Result, check
from sanity_checks._torch import constant, correlation, pixels
from sanity_checks.insertion_deletion import substrate


@check(
    title="Single deletion",
    cite="hesse2024benchmarking",
    kind="faithfulness",
    protocol=(
        "Each cell of a 4 x 4 grid is deleted alone; the number is the rank correlation, over the cells, "
        "between the sum of the map in the cell and the drop of the class logit."
    ),
    higher_is_better=True,
    forward=Formula("grid² + 1", lambda s: s.grid**2 + 1),
    runs=0,
    verified=("literal", "closed form"),
)
def single_deletion(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Int[Tensor, " B"],
    maps: Float[Tensor, "B K h w"],
    *,
    grid: int = 4,
    fill: str = "mean",
    chunk: int = 8,
) -> Result:
    """Whether the sums of the map over cells rank the drops of the logit when each cell is deleted.

    Spearman's correlation; ties share their mean rank.

    Args:
        model: classifier.
        x: normalised images.
        target: classes.
        maps: the maps to evaluate.
        grid: cells per side.
        fill: value of a deleted cell, a key of SUBSTRATES in insertion_deletion.
        chunk: images per forward pass.

    Raises:
        ValueError: fewer than two cells per side or more than pixels, or an unknown fill.
    """
    if not 2 <= grid <= min(x.shape[2:]):
        raise ValueError(f"grid: from 2 cells per side to the {min(x.shape[2:])} pixels of the image, got {grid}")
    x, n = x.detach(), grid**2
    rows, cols = (torch.arange(side, device=x.device) * grid // side for side in x.shape[2:])
    cell = rows[:, None] * grid + cols  # H W   which cell a pixel is in
    inside = cell.flatten() == torch.arange(n, device=x.device)[:, None]  # n HW
    a = pixels(maps, x).flatten(1).double() @ inside.double().T  # B n
    blank, y = substrate(x, fill, "fill"), []
    for k in chunks(n + 1, chunk, len(x)):  # the last one is the image
        deleted = cell == torch.arange(n + 1, device=x.device)[k, None, None]  # k H W
        y.append(scores(model, torch.where(deleted[:, None, None], blank, x), target))  # k B
    f = torch.cat(y).T  # B n+1
    drop = f[:, n:] - f[:, :n]  # B n
    rank_a, rank_drop = (torch.from_numpy(rankdata(v.cpu().numpy(), axis=1)).to(x.device) for v in (a, drop))
    flat = constant(maps.detach().sum(dim=1))  # before resizing and summing, which round
    return Result(values=torch.where(flat, 0.0, correlation(rank_a, rank_drop)).to(f.dtype))
