r"""XRAI: Better Attributions Through Regions.

Kapishnikov, Bolukbasi, Viegas, Terry. ICCV 2019. arXiv:1906.02825

    over-segment the image into regions s; start with M empty; then repeat (algorithm 1):

    g_s  =  sum_{i in s \ M} A_i / area(s \ M)          mean attribution of the new pixels of s
    s^   =  argmax_s g_s;    M = M + s^                  its new pixels get the value g_s^

A       pixel attribution: Integrated Gradients, mean   attribution
        over a black and a white baseline
s       one region of the segmentation                  segments[b][s]
M       pixels covered so far                           M

Differs from the paper: the parameters of the segmentation, the maximum over channels in A and min_pixel_diff (a region
that would add fewer pixels is dropped) are those of the authors' code (PAIR).
Differs from other code: PAIR's Integrated Gradients takes the mean over points that include both ends; here it is
integrated_gradients, a right Riemann sum. With the same A and segments the maps are equal.
Good to know: regions compete by their mean attribution, so a small region with a high mean comes first. Pixels that no
accepted region covers get their own mean. Black and white are the smallest and the largest value of the image.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from skimage.segmentation import felzenszwalb
from skimage.transform import resize
from torch import Tensor, nn
from torch.nn import functional as F

from methods._cost import Formula
from methods._registry import method
from methods._torch import Target, at_least_float32, ratio
from methods.integrated_gradients import integrated_gradients

PASSES = Formula("2 · steps", lambda s: 2 * s.steps * (s.attribution is None))


@method(
    title="XRAI",
    cite="kapishnikov2019xrai",
    family="path",
    forward=PASSES,
    backward=PASSES,
    signed=True,
    verified=("literal", "saliency"),
    differentiable=False,  # segmentation and argmax
)
@torch.no_grad()
def xrai(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Target,
    *,
    attribution: Float[Tensor, "B C H W"] | None = None,
    segments: Sequence[Bool[Tensor, "_ H W"]] | None = None,
    steps: int = 100,
    min_pixel_diff: int = 50,
    chunk: int = 8,
) -> Float[Tensor, "B 1 H W"]:
    """The regions of the image, each with its mean attribution, taken greedily.

    Raises:
        ValueError: min_pixel_diff is below 1, or segments are not one tensor per image.
    """
    if min_pixel_diff < 1:
        raise ValueError(f"min_pixel_diff: a region must add at least one pixel, got {min_pixel_diff}")
    if segments is not None and len(segments) != len(x):
        raise ValueError(f"segments: need one tensor of masks S H W per image, {len(x)} in all, got {len(segments)}")
    x = x.detach()
    if attribution is None:
        ends = x.amin(dim=(1, 2, 3), keepdim=True), x.amax(dim=(1, 2, 3), keepdim=True)  # B 1 1 1
        black, white = (integrated_gradients(model, x, target, baseline=e, steps=steps, chunk=chunk) for e in ends)
        attribution = (black + white) / 2  # B C H W
    A = attribution.detach().amax(dim=1).flatten(1).cpu().double()  # B HW
    maps = torch.zeros_like(A)
    for b in range(len(x)):
        s = segment(x[b]) if segments is None else segments[b]  # S H W
        maps[b] = grow(A[b], s.flatten(1).cpu(), min_pixel_diff)  # HW
    return maps.view_as(x[:, :1]).to(at_least_float32(x))  # B 1 H W


def grow(A: Float[Tensor, " P"], s: Bool[Tensor, "S P"], min_pixel_diff: int) -> Float[Tensor, " P"]:
    """Algorithm 1 for one image of P pixels."""
    out, M = torch.zeros_like(A), torch.zeros_like(A, dtype=torch.bool)  # P, P
    region, pixel = s.nonzero(as_tuple=True)  # every pixel of every s \ M
    while ((area := region.bincount(minlength=len(s))) >= min_pixel_diff).any():  # S
        g = region.bincount(A[pixel], minlength=len(s)) / area  # S
        g = torch.where(area < min_pixel_diff, -torch.inf, g)  # S
        new = pixel[region == g.argmax()]  # s^ \ M
        out[new], M[new] = g.max(), True
        left = ~M[pixel]
        region, pixel = region[left], pixel[left]
    out[~M] = A[~M].sum() / max(int((~M).sum()), 1)
    return out


def segment(x: Float[Tensor, "C H W"]) -> Bool[Tensor, "S H W"]:
    """Felzenszwalb's segments at six scales, on the image stretched to [-1, 1] and 224 x 224; dilated by 5 pixels."""
    H, W = x.shape[1:]
    image = at_least_float32(x).permute(1, 2, 0).cpu().double()  # H W C
    image = 2 * ratio(image - image.min(), image.max() - image.min()) - 1
    image = resize(image.numpy(), (224, 224), order=3, mode="constant", preserve_range=True, anti_aliasing=True)
    masks = []
    for scale in (50, 100, 150, 250, 500, 1200):
        labels = felzenszwalb(image, scale=scale, sigma=0.8, min_size=150)  # 224 224
        labels = resize(labels, (H, W), order=0, mode="constant", preserve_range=True, anti_aliasing=False)
        labels = torch.tensor(labels, device="cpu").int()  # H W
        masks.append(labels == torch.arange(int(labels.max()) + 1, device="cpu")[:, None, None])  # s H W
    i = torch.arange(-5, 6, device="cpu")
    disk = (i**2 + i[:, None] ** 2 <= 25).float()  # 11 11
    s = torch.cat(masks).float()  # S H W
    return F.conv2d(s, disk.expand(len(s), 1, 11, 11), padding=5, groups=len(s)) > 0.5  # S H W
