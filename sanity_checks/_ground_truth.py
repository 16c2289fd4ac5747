"""Images with known evidence for each pixel, without a download.

Digits on textures   One of ten digits pasted on one of four textures, drawn independently: a network for the digits
                     must use the mask, a network for the textures need not (BAM: Yang, Kim, arXiv:1907.09701;
                     CLEVR-XAI: Arras, Osman, Samek, Information Fusion 81, 2022, arXiv:2003.07258). The two
                     tasks on the same pixels distinguish a confounded task from a method that ignores the network
                     (Yona, Greenfeld 2021, arXiv:2110.14297).
Two digits           Two different digits on one texture; either class can be explained on the same image.
Decoy digits         A swatch in a corner has a shade that reveals the label (Ross, Hughes, Doshi-Velez, IJCAI 2017,
                     arXiv:1703.03717), and a network uses it: a bug that a map should show (Adebayo, Muelly,
                     Liccardi, Kim, NeurIPS 2020, arXiv:2011.05429).

The digits are from scikit-learn (1437 for training, 360 for testing). The textures are from scikit-image: brick, grass,
gravel (CC0) and coins (Brooklyn Museum, no known restrictions); their left part is for training, the right part for
testing. Pixels are normalised, rgb = MEAN + STD * x: zero is the mean grey of the textures. Digits are lighter than
most of a texture.

Good to know: a network may use the border of a digit, so score also with the mask `dilated` by 1 and 2 pixels. Digits
are placed on a grid of 4 pixels, which is the patch grid of the ViTs in `_nets.py`.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
import skimage.data
import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor
from torch.nn import functional as F

from sanity_checks._small import digits

TEXTURES = ("brick", "grass", "gravel", "coins")
MEAN, STD = 0.4, 0.2  # of a channel, for the textured images
SIDE, DIGIT, GRID = 32, 16, 4  # of an image, of a digit in it, of the places where a digit can be; in pixels


class DigitsOnTextures(NamedTuple):
    """Images of 3 x 32 x 32 with two labels each."""

    x: Float[Tensor, "n 3 32 32"]
    digit: Int[Tensor, " n"]
    texture: Int[Tensor, " n"]  # index into TEXTURES
    mask: Bool[Tensor, "n 32 32"]  # where the digit is; elsewhere x equals `bare` exactly
    bare: Float[Tensor, "n 3 32 32"]  # the same without the digit


class TwoDigits(NamedTuple):
    """Images of 3 x 32 x 64 with two different digits, one in each half."""

    x: Float[Tensor, "n 3 32 64"]
    digits: Int[Tensor, "n 2"]  # left, right
    texture: Int[Tensor, " n"]
    masks: Bool[Tensor, "n 2 32 64"]  # where each digit is
    bare: Float[Tensor, "n 3 32 64"]


class DecoyDigits(NamedTuple):
    """Digits of 8 x 8 in the middle of 1 x 12 x 12, with a swatch of 2 x 2 in a random corner; values in [0, 1]."""

    x: Float[Tensor, "n 1 12 12"]
    digit: Int[Tensor, " n"]
    mask: Bool[Tensor, "n 12 12"]  # where the swatch is


def digits_on_textures(n: int, seed: int, split: str = "test") -> DigitsOnTextures:
    """Draw n images, digit and texture independently of each other."""
    rng = Generator().manual_seed(seed)
    return on_texture(*_draw(n, split, rng), rng, split)


def two_digits(n: int, seed: int, split: str = "test") -> TwoDigits:
    """Draw n images with two different digits."""
    rng = Generator().manual_seed(seed)
    return two_on_texture(*_draw(n, split, rng), rng, split)


def decoy_digits(n: int, seed: int, split: str = "test", shades: str | None = None) -> DecoyDigits:
    """Draw n digits; the swatch's shade is 1 - 25/255 of the label, or of a random label.

    Args:
        n: number of images.
        seed: of the draw.
        split: "train" or "test" digits.
        shades: "label": the shade reveals the label; "random": it does not. None: "label" for training only (paper).
    """
    rng = Generator().manual_seed(seed)
    return with_decoy(*_draw(n, split, rng), rng, shades or ("label" if split == "train" else "random"))


def dilated(mask: Bool[Tensor, "*n H W"], pixels: int) -> Bool[Tensor, "*n H W"]:
    """The mask grown by a border of that many pixels, including corners."""
    m = mask.reshape(-1, 1, *mask.shape[-2:]).float()
    return F.max_pool2d(m, 2 * pixels + 1, 1, pixels).bool().view(mask.shape)


def _draw(n: int, split: str, rng: Generator) -> tuple[Tensor, Tensor]:
    """Digits of a split, with replacement: pictures n 1 8 8 and labels n."""
    x, y = digits_of(split)
    i = torch.randint(len(x), (n,), generator=rng)
    return x[i], y[i]


@cache
def digits_of(split: str) -> tuple[Tensor, Tensor]:
    if split not in ("train", "test"):
        raise ValueError(f"split: must be 'train' or 'test', got {split!r}")
    data = digits()
    return (data.x_train, data.y_train) if split == "train" else (data.x_test, data.y_test)


@cache
def _textures(split: str) -> Float[Tensor, "4 h w"]:
    """The textures at half size, standardised, cropped to the smallest; left 3/5 for training, the rest for testing."""
    pictures = []
    for name in TEXTURES:
        t = torch.from_numpy(np.asarray(getattr(skimage.data, name)(), dtype=np.float32))[None]  # 1 H W
        t = F.avg_pool2d(t, 2)[0, :151, :192]
        pictures.append((t - t.mean()) / t.std())
    t = torch.stack(pictures)
    return t[:, :, :112] if split == "train" else t[:, :, 112:]


def on_texture(pictures: Tensor, labels: Tensor, rng: Generator, split: str) -> DigitsOnTextures:
    x, texture, masks, bare = _scene(pictures, rng, split)
    return DigitsOnTextures(x, labels, texture, masks[:, 0], bare)


def two_on_texture(pictures: Tensor, labels: Tensor, rng: Generator, split: str) -> TwoDigits:
    """The given digits on the left, others on the right."""
    x, y = digits_of(split)
    other = torch.randint(len(x), labels.shape, generator=rng)
    while (same := y[other] == labels).any():
        other[same] = torch.randint(len(x), (int(same.sum()),), generator=rng)
    scene = _scene(torch.cat([pictures, x[other]], dim=1), rng, split)
    return TwoDigits(scene[0], torch.stack([labels, y[other]], dim=1), *scene[1:])


def _scene(pictures: Float[Tensor, "n k 8 8"], rng: Generator, split: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Put k digits side by side on one texture: x, texture, masks n k H W, and x without the digits."""
    n, k = pictures.shape[:2]

    def draw(high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=rng)

    t = _textures(split)
    texture = draw(len(t), n)
    rows = draw(t.shape[1] - SIDE + 1, n, 1) + torch.arange(SIDE)  # n H
    columns = draw(t.shape[2] - k * SIDE + 1, n, 1) + torch.arange(k * SIDE)  # n W
    grey = t[texture[:, None, None], rows[:, :, None], columns[:, None, :]]  # n H W
    bare = (MEAN + 0.15 * grey).clamp(0, 1)[:, None].expand(-1, 3, -1, -1)  # n 3 H W, rgb

    shape = F.interpolate(pictures, scale_factor=2, mode="bilinear", align_corners=False)
    shape = torch.where(shape > 0.2, shape, 0)  # n k 16 16; below, a digit would fade out over the texture
    places = (SIDE - DIGIT) // GRID + 1
    top, left = GRID * draw(places, n, k, 1), GRID * draw(places, n, k, 1) + SIDE * torch.arange(k)[:, None]
    alpha = torch.zeros(n, k, SIDE, k * SIDE)
    inside = torch.arange(DIGIT)
    alpha[
        torch.arange(n)[:, None, None, None],
        torch.arange(k)[:, None, None],
        (top + inside)[..., :, None],
        (left + inside)[..., None, :],
    ] = shape
    colour = 0.6 + 0.4 * torch.rand(n, k, 3, generator=rng)  # light: the textures are darker, mostly
    digit = torch.einsum("nkhw,nkc->nchw", alpha, colour)
    x = (1 - alpha.sum(dim=1, keepdim=True)) * bare + digit
    return (x - MEAN) / STD, texture, alpha > 0, (bare - MEAN) / STD


def with_decoy(pictures: Tensor, labels: Tensor, rng: Generator, shades: str) -> DecoyDigits:
    if shades not in ("label", "random"):
        raise ValueError(f"shades: must be 'label' or 'random', got {shades!r}")
    n = len(pictures)
    corner = torch.randint(2, (2, n), generator=rng)  # bottom?, right?
    shown = torch.randint(10, (n,), generator=rng)
    shown = labels if shades == "label" else shown
    at = torch.arange(12)
    rows, columns = ((at // 2 == 5 * side[:, None]) for side in corner)  # n 12: the first two or the last two
    mask = rows[:, :, None] & columns[:, None, :]  # n 12 12
    x = F.pad(pictures, (2, 2, 2, 2))
    x = torch.where(mask[:, None], (1 - 25 / 255 * shown)[:, None, None, None], x)
    return DecoyDigits(x, labels, mask)
