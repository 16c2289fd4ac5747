"""Similarity of two maps: the measures of Adebayo et al., Sanity Checks for Saliency Maps (2018, arXiv:1810.03292).

    rho       = Pearson( rank a, rank b ), ties share their mean rank        (Spearman)
    rho_|c    = the same for the residuals of the ranks after regression on the ranks of covariates c
    SSIM      = mean of (2 m_a m_b + C1)(2 s_ab + C2) / (m_a^2 + m_b^2 + C1)(s_a^2 + s_b^2 + C2), of maps in [0, 1]
    HOG       = rho of the histograms of oriented gradients of two maps

Signed maps are sums of a over channels, absolute maps are sums of |a|. A constant map has no ranks: its rho is NaN, so
that a dead map is counted and not mistaken for a change.

Differs from the paper: the authors' visualiser clips maps at the 99th percentile before SSIM; here they are rescaled.
Differs from other code: SSIM is scikit-image's with gaussian_weights=True and data_range=1 (without data_range it takes
floats to span 2). HOG is scikit-image's, with 16 x 16 pixels per cell as the authors' notebook, less for small images.
Good to know: absolute rho of sparse images is mostly ties at zero: see `signed` and `nonzero`, too. SSIM and HOG
of an enlarged 7 x 7 map measure the enlargement; `spearman` is at the map's own resolution.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from skimage.feature import hog
from torch import Tensor
from torch.nn import functional as F

from methods._torch import at_least_float32, minmax, upsample
from sanity_checks._controls import edges
from sanity_checks._torch import constant

MEASURES = ("spearman", "signed", "nonzero", "image", "partial", "ssim", "hog")


def similarities(
    a: Float[Tensor, "B K h w"],
    b: Float[Tensor, "B K h w"],
    x: Float[Tensor, "B C H W"],
    measures: Sequence[str] = MEASURES,
) -> dict[str, Float[Tensor, " B"]]:
    """The named measures, for each image; NaN where a map is constant.

    spearman: of |a|, at the maps' own resolution. signed: the same of a. image: of |a| at the image's resolution.
    nonzero: as image, at pixels where the image is not zero. partial: as image, given |x| and the image's edges.
    ssim, hog: of |a| rescaled to [0, 1], at the image's resolution; ssim is NaN for images below 11 x 11.
    """
    a, b = at_least_float32(a.detach()), at_least_float32(b.detach())
    sums = a.sum(dim=1).flatten(1), b.sum(dim=1).flatten(1)  # B hw
    a, b = (v.abs().sum(dim=1, keepdim=True) for v in (a, b))  # B 1 h w
    A, B = upsample(a, x)[:, 0], upsample(b, x)[:, 0]  # B H W
    flat = torch.stack([constant(v) for v in (*sums, a, b)]).any(dim=0)

    def measure(name: str) -> Tensor:
        match name:
            case "spearman":
                return spearman(a.flatten(1), b.flatten(1))
            case "signed":
                return spearman(*sums)
            case "image":
                return spearman(A.flatten(1), B.flatten(1))
            case "nonzero":
                return spearman(A.flatten(1), B.flatten(1), where=(x != 0).any(dim=1).flatten(1))
            case "partial":
                given = torch.stack([x.abs().sum(dim=1), edges(x)[:, 0]], dim=1).flatten(2)  # B 2 HW
                return spearman(A.flatten(1), B.flatten(1), given=given)
            case "ssim":
                small = min(x.shape[2:]) < 11
                return torch.full((len(x),), torch.nan, device=x.device) if small else ssim(minmax(A), minmax(B))
            case "hog":
                return hog_correlation(minmax(A), minmax(B))
        raise ValueError(f"measures: must be of {', '.join(MEASURES)}, got {name!r}")

    return {name: torch.where(flat, torch.nan, measure(name).double()) for name in measures}


def between_images(
    maps: Float[Tensor, "B K h w"], x: Float[Tensor, "B C H W"], measures: Iterable[str] = MEASURES
) -> dict[str, Float[Tensor, " B"]]:
    """The null: mean similarity of each image's map to the maps of (up to four) other images; NaN for one image.

    And its mean size, under names that end in `_size`.
    """
    shifts = range(1, min(len(x), 5))
    if not shifts:
        nan = torch.full((len(x),), torch.nan, dtype=torch.float64, device=x.device)
        return with_sizes(dict.fromkeys(measures, nan))
    found = [with_sizes(similarities(maps, maps.roll(k, 0), x, tuple(measures))) for k in shifts]
    return {m: torch.stack([s[m] for s in found]).nanmean(dim=0) for m in found[0]}


def with_sizes(s: Mapping[str, Float[Tensor, " B"]]) -> dict[str, Float[Tensor, " B"]]:
    """The similarities, and the size of each: means of them tell a map that is turned upside down from another map."""
    return {**s, **{f"{name}_size": v.abs() for name, v in s.items()}}


def spearman(
    a: Float[Tensor, "B n"],
    b: Float[Tensor, "B n"],
    *,
    where: Bool[Tensor, "B n"] | None = None,
    given: Float[Tensor, "B c n"] | None = None,
) -> Float[Tensor, " B"]:
    """Spearman's rank correlation of each row, at the elements `where`, given covariates; NaN if constant."""
    if where is not None and not bool(where.all()):
        rows = zip(a, b, where, strict=True)
        return torch.cat([spearman(p[None, m], q[None, m]) for p, q, m in rows])
    if a.shape[1] < 2:
        return torch.full((len(a),), torch.nan, dtype=torch.float64, device=a.device)
    p, q = (_ranks(v) - (v.shape[1] - 1) / 2 for v in (a, b))  # B n, mean 0
    if given is not None:
        c = _ranks(given.flatten(0, 1)).view_as(given).double()
        c = (c - c.mean(dim=2, keepdim=True)).transpose(1, 2)  # B n c
        basis, _ = torch.linalg.qr(c)
        p, q = (v - (basis @ (basis.transpose(1, 2) @ v[:, :, None]))[:, :, 0] for v in (p, q))
    size = p.norm(dim=1) * q.norm(dim=1)
    left = size > 1e-9 * a.shape[1] ** 3  # the covariates explain all ranks of a map: nothing is left to correlate
    rho = torch.where(left, (p * q).sum(dim=1) / torch.where(left, size, 1.0), 0.0)
    return torch.where(constant(a) | constant(b), torch.nan, rho)


def ssim(
    a: Float[Tensor, "B H W"], b: Float[Tensor, "B H W"], *, sigma: float = 1.5, window: int | None = None
) -> Float[Tensor, " B"]:
    """Structural similarity of maps in [0, 1]: Gaussian weights of `sigma`, or a uniform window of `window` pixels.

    Raises:
        ValueError: the maps are smaller than the window.
    """
    r = int(3.5 * sigma + 0.5) if window is None else window // 2
    if min(a.shape[1:]) < 2 * r + 1:
        raise ValueError(
            f"a: maps must be at least {2 * r + 1} x {2 * r + 1} for this window, got {tuple(a.shape[1:])}"
        )
    u = torch.arange(-r, r + 1, device=a.device, dtype=torch.float64)
    k = torch.exp(-(u**2) / (2 * sigma**2)) if window is None else torch.ones_like(u)
    k = k / k.sum()

    def mean(v: Tensor) -> Tensor:
        v = F.conv2d(v[:, None], k[None, None, :, None])
        return F.conv2d(v, k[None, None, None])[:, 0]

    a, b = a.double(), b.double()
    n = (2 * r + 1) ** 2
    m_a, m_b = mean(a), mean(b)
    s_a, s_b, s_ab = (n / (n - 1) * v for v in (mean(a * a) - m_a**2, mean(b * b) - m_b**2, mean(a * b) - m_a * m_b))
    C1, C2 = 0.01**2, 0.03**2
    S = (2 * m_a * m_b + C1) * (2 * s_ab + C2) / ((m_a**2 + m_b**2 + C1) * (s_a + s_b + C2))
    return S.mean(dim=(1, 2))


def hog_correlation(a: Float[Tensor, "B H W"], b: Float[Tensor, "B H W"]) -> Float[Tensor, " B"]:
    """Spearman's correlation of the HOG features of maps in [0, 1]."""
    side = max(1, min(16, *(n // 3 for n in a.shape[1:])))  # three cells make a block
    p, q = ([torch.from_numpy(hog(m, pixels_per_cell=(side, side))) for m in v.cpu().numpy()] for v in (a, b))
    return spearman(torch.stack(p), torch.stack(q)).to(a.device)


def _ranks(a: Float[Tensor, "B n"]) -> Float[Tensor, "B n"]:
    """0 for the smallest; equal elements share their mean rank."""
    ordered = a.sort(dim=1).values.contiguous()
    a = a.contiguous()
    below, upto = (torch.searchsorted(ordered, a, right=side) for side in (False, True))
    return (below + upto - 1).double() / 2
