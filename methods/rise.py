"""RISE: Randomized Input Sampling for Explanation of Black-box Models.

Petsiuk, Das, Saenko. BMVC 2018. arXiv:1806.07421

    S(u)  =  1 / (p N)  sum_i  f( x * M_i ) M_i(u)                      (eq. 6)

f       score of the explained class                     scores
M_i     i-th random mask: s x s cells, each seen with    masks
        probability p, enlarged bilinearly to (s + 1)
        cells of the image, and cut out at random
N       number of masks                                  samples
p, s    share that is seen; cells in a row of the mask   p, cells

Differs from the paper: f is the logit; the paper's is the probability, which a callable target gives. By default N is
that of the paper for VGG16 (8000 for ResNet50). `stop` ends the masks of an image early: see `converged`.
Differs from other code: the maps are those of the authors' code (eclique/RISE@d91ea00) on the same masks; its
`RISEBatch` leaves out the division by p N. Masks are made in pieces on the device, so memory does not grow with N.
Good to know: a constant added to f adds the mean mask to S, and noise with it, so scores near 0 converge faster. All
classes of one image cost the passes of one: x.expand(N, -1, -1, -1) with N classes.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from methods._regions import Fill, hiding
from methods._registry import method
from methods._torch import Target, at_least_float32, chunks, minmax, scores


@method(
    title="RISE",
    cite="petsiuk2018rise",
    family="perturbation",
    forward="samples",
    backward=0,
    signed=True,
    verified=("literal", "authors"),
)
def rise(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Target,
    *,
    samples: int = 4000,
    cells: int = 7,
    p: float = 0.5,
    fill: Fill = "zero",
    masks: Float[Tensor, "N H W"] | None = None,
    stop: float = 0.0,
    seed: int = 0,
    chunk: int = 8,
) -> Float[Tensor, "B 1 H W"]:
    """The mean score of the image where a pixel is seen.

    Raises:
        ValueError: samples, cells or p is out of range, stop is negative, or masks are not N H W of the image.
    """
    room = min(x.shape[2:]) if masks is None else cells
    if samples < 1 or not 1 <= cells <= room or not 0 < p <= 1 or stop < 0:
        given = f"{samples}, {cells}, {p} and {stop}"
        raise ValueError(f"samples, cells, p, stop: need 1, 1 cell, 0 < p <= 1 and stop >= 0 at least, got {given}")
    if masks is not None and (masks.ndim != 3 or masks.shape[1:] != x.shape[2:] or len(masks) != samples):
        want = f"samples H W = {samples} {x.shape[2]} {x.shape[3]}"
        raise ValueError(f"masks: must be {want}, got {tuple(masks.shape)}")
    hide, H, W = hiding(x, fill, seed=seed), x.shape[2], x.shape[3]
    rng = torch.Generator("cpu").manual_seed(seed)
    grid = (torch.rand(samples, cells, cells, generator=rng, device="cpu") < p).to(x.device)  # N s s
    shift = torch.rand(samples, 2, generator=rng, device="cpu").to(x.device)  # N 2   shares of a cell
    total, runs = torch.zeros_like(at_least_float32(x)[:, 0]), torch.zeros(len(x), device=x.device)  # B H W, B
    done, seen = torch.zeros(len(x), dtype=torch.bool, device=x.device), []  # B
    for i in chunks(samples, chunk, len(x)):
        M = enlarge(grid[i].to(total), shift[i], H, W) if masks is None else masks[i]  # k H W
        M = M.to(total)[:, None].expand(-1, len(x), -1, -1)  # k B H W
        f = torch.where(done, 0, scores(model, hide(M), target, like=x))  # k B
        total = total + torch.einsum("kb,kbhw->bhw", f, M)  # B H W
        runs = runs + len(f) * ~done
        if stop and i.stop // 128 > i.start // 128:
            seen.append(minmax(total.detach()))
            done = done | converged(seen, stop)
            if done.all():
                break
    return (total / (p * runs[:, None, None]).to(total))[:, None]  # B 1 H W   eq. 6


def enlarge(grid: Float[Tensor, "k s s"], shift: Float[Tensor, "k 2"], H: int, W: int) -> Float[Tensor, "k H W"]:
    """M_i: the mask enlarged to (s + 1) cells of the image, without its first pixels, a share `shift` of a cell."""

    def axis(n: int, share: Float[Tensor, " k"]) -> Float[Tensor, "k n s"]:
        s = grid.shape[1]
        cell = math.ceil(n / s)  # pixels
        first = (share * cell).long()[:, None]  # k 1
        at = (first + torch.arange(n, device=grid.device) + 0.5).to(grid) * s / ((s + 1) * cell) - 0.5  # k n   cells
        at = (s - 1) - ((s - 1) - at.abs()).abs()  # beyond the first and last centre: mirrored
        return (1 - (at[:, :, None] - torch.arange(s, device=grid.device)).abs()).clamp(min=0)

    return axis(H, shift[:, 0]) @ grid @ axis(W, shift[:, 1]).transpose(1, 2)


def converged(seen: list[Float[Tensor, "B H W"]], stop: float) -> Bool[Tensor, " B"]:
    """Stopping rule of CB-RISE (doi:10.1007/978-3-031-70807-7_4), on the maps after each 128 masks, in [0, 1].

    The variance of each pixel over all of them changed by less than `stop` (theirs: 1e-3) for more than 9 of 10 pixels.
    """
    if len(seen) < 3:
        return torch.zeros(len(seen[0]), dtype=torch.bool, device=seen[0].device)
    now, before = torch.stack(seen).var(dim=0), torch.stack(seen[:-1]).var(dim=0)  # B H W
    return ((now - before).abs() < stop).double().mean(dim=(1, 2)) > 0.9
