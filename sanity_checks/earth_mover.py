"""XAI-TRIS: Non-linear image benchmarks to quantify false positive post-hoc attribution of feature importance.

Clark, Wilming, Haufe. Machine Learning 2024. arXiv:2306.12816

    EMD    =  least cost of moving the mass |s| / sum |s| to the mass of the truth, cost = Euclidean distance
    score  =  1  -  EMD / delta_max

s          the map                                        a
truth      equal mass on each pixel of the object         mask
delta_max  diagonal of the image                          diagonal

Mass that lies beside the object costs little, mass far away costs much; a map that marks the object's border is nearly
as good as one that marks it. Precision at the object's size, the paper's other score, is `relevance_rank`.

Differs from the paper: distances are between the centres of `cells` x `cells` cells over which mass is added up, so
images of all sizes take the same time; the paper's images of 8 x 8 pixels are the same with 8 cells.
Differs from other code: the authors' code (braindatalab/xai-tris) solves the same transport with the package POT; here
it is SciPy's linear programme.
Good to know: the diagonal is long, so even noise is not near 0: compare with the controls. A map of zeros has the score
of equal mass everywhere.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.stats import wasserstein_distance_nd
from torch import Tensor
from torch.nn import functional as F

from sanity_checks._registry import Result, check
from sanity_checks._torch import pixels


@check(
    title="Earth mover's distance to the object",
    cite="clark2024xaitris",
    kind="localization",
    protocol=(
        "The number is 1 minus the least average way that the absolute map's mass must move to lie evenly on the "
        "object, as a share of the diagonal."
    ),
    higher_is_better=True,
    forward=0,
    runs=0,
    verified=("literal", "closed form"),
)
def earth_mover(maps: Float[Tensor, "B K h w"], mask: Bool[Tensor, "B H W"], *, cells: int = 8) -> Result:
    """How near the absolute map lies to the object: 1 minus the earth mover's distance, as a share of the diagonal.

    NaN without an object.

    Args:
        maps: the maps to evaluate.
        mask: where the object is.
        cells: on a side, at most; images with fewer pixels have one for each pixel.

    Raises:
        ValueError: cells below 2.
    """
    if cells < 2:
        raise ValueError(f"cells: 2 at least on a side, got {cells}")
    H, W = mask.shape[1:]
    h, w = min(cells, H), min(cells, W)
    a = pixels(maps, mask).abs().double()  # B H W
    a = torch.where(a.sum(dim=(1, 2), keepdim=True) > 0, a, 1.0)
    have, want = (F.adaptive_avg_pool2d(v[:, None], (h, w)).flatten(1).cpu().numpy() for v in (a, mask.double()))
    rows, columns = ((np.arange(n) + 0.5) * side / n for n, side in ((h, H), (w, W)))
    at = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)  # hw 2   centres, in pixels
    diagonal = np.hypot(H - H / h, W - W / w)  # between the outermost centres
    scores = [1 - _distance(at, p, q) / diagonal if q.any() else np.nan for p, q in zip(have, want, strict=True)]
    return Result(values=torch.tensor(scores, dtype=torch.float64, device=mask.device))


def _distance(at: Float[np.ndarray, "n 2"], p: Float[np.ndarray, " n"], q: Float[np.ndarray, " n"]) -> float:
    """The earth mover's distance of two masses; mass that both have at a place stays there."""
    p, q = p / p.sum(), q / q.sum()
    more, less = p > q, q > p
    if not more.any():
        return 0.0
    moved = float((p - q)[more].sum())
    return moved * float(wasserstein_distance_nd(at[more], at[less], (p - q)[more], (q - p)[less]))
