"""XRAI: Better Attributions Through Regions (performance information curves: SIC and AIC).

Kapishnikov, Bolukbasi, Viégas, Terry. ICCV 2019. arXiv:1906.02825

z_t is a blurred image in which the share t of highest pixels is revealed. Each is a point (information, performance):

    information  =  ( H(z_t) - H(z_0) ) / ( H(x) - H(z_0) )
    performance  =  ( f(z_t) - f(z_0) ) / ( f(x) - f(z_0) )        both clipped to [0, 1]; the running maximum over t

and the number is the area under the line through (0, 0), the points in the order of their information, and (1, 1).

z_t     linear interpolation from the pixels revealed                  blurred
z_0     ... from the four corners and 1 % of the pixels at random      fraction
H       bytes of the lossless WebP file of the image                   entropy
f       softmax probability of the class: SIC                          curves "sic"
        1 if the class is the top class, else 0: AIC                   curves "aic"
t       0.005 0.01 0.02 ... 0.5 0.75                                   thresholds

Differs from the paper: the thresholds, the WebP file and the interpolation are those of PAIR's code.
Differs from other code: PAIR's draws the 1 % of pixels again for each image; here one draw is shared by the batch and
by all methods. Its area uses a function that NumPy 2.4 no longer has.
Good to know: give `mean` and `std` of the normalisation: WebP holds bytes, which are then those of the photograph;
without them the minimum .. maximum of each image becomes 0 .. 255. The classifier gets the image rounded to bytes. For
a table take the median curve over images and its area, not the mean of areas. An image gives no number and NaN curves
if f(x) < min_pred, f(z_0) >= f(x) or H(z_0) >= H(x), for any map; AIC may omit other images than SIC.
"""

import io
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image
from scipy.interpolate import griddata
from torch import Tensor, nn

from methods._calls import probabilities, run
from methods._cost import Formula
from methods._torch import at_least_float32, chunks
from sanity_checks._registry import Result, check
from sanity_checks._torch import is_top, pixels

GRID = np.append(np.linspace(0, 1, 1000, endpoint=False), 1.0)


@check(
    title="Information curves (SIC, AIC)",
    cite="kapishnikov2019xrai",
    kind="faithfulness",
    protocol=(
        "The highest pixels are put into a blurred image; the number is the area under "
        "the class probability against the information in the image, as the size of its file (SIC)."
    ),
    higher_is_better=True,
    forward=Formula("thresholds + 2", lambda s: len(s.thresholds) + 2),
    runs=0,
    verified=("saliency", "literal"),
    quick={"thresholds": (0.01, 0.05, 0.13, 0.34)},
)
def sic_aic(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Int[Tensor, " B"],
    maps: Float[Tensor, "B K h w"],
    *,
    thresholds: Sequence[float] = (0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.1, 0.13, 0.21, 0.34, 0.5, 0.75),
    fraction: float = 0.01,
    min_pred: float = 0.8,
    monotonous: bool = True,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    seed: int = 0,
    chunk: int = 8,
) -> Result:
    """How much of the prediction comes back as marked regions of a blurred image become sharp: SIC; a column: AIC.

    Args:
        model: classifier.
        x: normalised images.
        target: classes.
        maps: the maps to evaluate.
        thresholds: shares of pixels revealed, ascending.
        fraction: share of pixels that the blurred image starts from.
        min_pred: images with a lower score are omitted.
        monotonous: take the running maximum of the performance.
        mean: of each channel in the normalisation; give both or neither.
        std: of each channel in the normalisation.
        seed: of the pixels that the blurred image starts from.
        chunk: images per forward pass.

    Raises:
        ValueError: thresholds outside (0, 1) or not ascending, or not one mean and one std for each channel.
    """
    if not thresholds or list(thresholds) != sorted(thresholds) or not 0 < thresholds[0] <= thresholds[-1] < 1:
        raise ValueError(f"thresholds: ascending shares between 0 and 1, at least one, got {tuple(thresholds)}")
    C = x.shape[1]
    if (mean is None) != (std is None) or any(v is not None and len(v) != C for v in (mean, std)):
        raise ValueError(f"mean, std: both or neither, one for each of the {C} channels, got {mean} and {std}")
    x, a = x.detach(), pixels(maps, x).cpu().numpy()
    if mean is not None and std is not None:  # the photograph is x scale + shift
        shift, scale = (x.new_tensor(v)[:, None, None].expand(len(x), -1, 1, 1) for v in (mean, std))
    else:
        lo, hi = x.amin(dim=(1, 2, 3), keepdim=True), x.amax(dim=(1, 2, 3), keepdim=True)
        scale = 1 / torch.where(hi > lo, hi - lo, 1)
        shift = -lo * scale
    photos = ((x * scale + shift) * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()  # B H W C
    chosen = torch.randperm(a[0].size, generator=torch.Generator().manual_seed(seed))[: int(a[0].size * fraction)]
    start = np.isin(np.arange(a[0].size), chosen.numpy()).reshape(a[0].shape)  # H W
    sic, aic = [], []
    for photo, map_, s, o, c in zip(photos, a, scale, shift, target, strict=True):
        seen = [start, *(start | (map_ >= np.quantile(map_, 1 - t)) for t in thresholds)]
        z = np.stack([*(blurred(photo, pixel) for pixel in seen), photo])  # n+2 H W C
        Z = (torch.from_numpy(z).to(x).permute(0, 3, 1, 2) / 255 - o) / s
        with torch.no_grad():
            P = torch.cat([probabilities(run(model, Z[part])) for part in chunks(len(Z), chunk, 1)])  # n+2 N
        H = np.array([entropy(image) for image in z], dtype=np.float64)
        for curve, p in ((sic, P[:, c]), (aic, is_top(P, c.expand(len(P))))):
            curve.append(information_curve(H, p.double().cpu().numpy(), min_pred, monotonous))
    softmax, accuracy = (at_least_float32(x).new_tensor(np.stack(curves)) for curves in (sic, aic))  # B 1001
    area, area_aic = (torch.trapezoid(curve, curve.new_tensor(GRID)) for curve in (softmax, accuracy))
    return Result(
        values=area, columns={"aic": area_aic}, curves={"sic": softmax, "aic": accuracy}, at=tuple(GRID.tolist())
    )


def information_curve(
    H: Float[np.ndarray, " n"], f: Float[np.ndarray, " n"], min_pred: float, monotonous: bool = True
) -> Float[np.ndarray, " points"]:
    """Performance over GRID; the first of H and f is the blurred image, the last the original. NaN: image left out."""
    if f[-1] < min_pred or f[0] >= f[-1] or H[0] >= H[-1]:
        return np.full(len(GRID), np.nan)
    information = np.clip((H[1:-1] - H[0]) / (H[-1] - H[0]), 0, 1)
    performance = np.clip((f[1:-1] - f[0]) / (f[-1] - f[0]), 0, 1)
    performance = np.maximum.accumulate(performance) if monotonous else performance
    information, performance = np.append(information, [0, 1]), np.append(performance, [0, 1])
    order = np.argsort(information, kind="stable")
    return np.interp(GRID, information[order], performance[order])


def blurred(photo: UInt8[np.ndarray, "H W C"], seen: Bool[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W C"]:
    """Linear interpolation from the pixels seen and the four corners."""
    seen = seen.copy()
    seen[np.ix_((0, -1), (0, -1))] = True
    if seen.all():
        return photo
    z = photo.astype(np.float32)
    found = griddata(np.argwhere(seen), z[seen].astype(np.float64), np.argwhere(~seen), fill_value=np.nan)
    z[~seen] = np.where(np.isnan(found), photo.mean(axis=(0, 1)), found)  # NaN: rounded out of the triangulation
    return np.round(z).astype(np.uint8)


def entropy(photo: UInt8[np.ndarray, "H W C"]) -> int:
    """Bytes of a lossless WebP file; of one file per channel unless there are one or three."""
    C = photo.shape[2]
    planes = [photo] if C == 3 else [photo[..., c] for c in range(C)]
    files = [io.BytesIO() for _ in planes]
    for plane, file in zip(planes, files, strict=True):
        Image.fromarray(plane).save(file, format="webp", lossless=True, quality=100)
    return sum(len(file.getvalue()) for file in files)
