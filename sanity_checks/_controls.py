"""Controls: maps that do not use the model. Every table shows them next to the methods.

    white noise        N(0, 1) per pixel, drawn again at each call
    smooth noise       the same on a 1/32 grid, the resolution of most CAMs
    Sobel edges        of the grey image
    local variance     of the grey image, in windows of 9 x 9 pixels
    |x|                the image itself
    centred Gaussian   the same for every image

and, for one method at a time, `matched`: noise with the power spectrum of each of its maps, so it is equally smooth
(a surrogate by random phases: Theiler et al., Physica D 58, 1992).
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from methods._torch import Attribution, Target


def white_noise(seed: int) -> Attribution:
    """Standard normal pixels."""
    return _noise(seed, 1)


def smooth_noise(seed: int) -> Attribution:
    """Standard normal numbers on a grid of 1/32 of the image, at least 2 x 2."""
    return _noise(seed, 32)


def sobel_edges(seed: int) -> Attribution:
    """`edges` of the image."""
    return lambda model, x, target: edges(x.detach())


def edges(x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 1 H W"]:
    """Magnitude of the Sobel gradient of the channel mean."""
    grey = F.pad(x.mean(dim=1, keepdim=True), (1, 1, 1, 1), mode="replicate")  # B 1 H+2 W+2
    k = torch.tensor([[1.0, 2, 1], [0, 0, 0], [-1, -2, -1]], device=x.device, dtype=x.dtype) / 4
    return (F.conv2d(grey, torch.stack([k, k.T])[:, None]) ** 2).sum(dim=1, keepdim=True).sqrt()


def local_variance(seed: int) -> Attribution:
    """Variance of the channel mean in windows of 9 x 9 pixels, smaller at the border and in small images."""

    def variance(model: nn.Module, x: Float[Tensor, "B C H W"], target: Target) -> Float[Tensor, "B 1 H W"]:
        grey = x.detach().mean(dim=1, keepdim=True)
        side = min(9, *(n - 1 + n % 2 for n in x.shape[2:]))  # odd
        mean = lambda v: F.avg_pool2d(v, side, 1, side // 2, count_include_pad=False)  # noqa: E731
        return mean((grey - mean(grey)) ** 2)

    return variance


def input_magnitude(seed: int) -> Attribution:
    """|x|, channel by channel."""
    return lambda model, x, target: x.detach().abs()


def centred_gaussian(seed: int) -> Attribution:
    """exp(-r^2 / 2 s^2) around the centre; s is a quarter of each side."""

    def gaussian(model: nn.Module, x: Float[Tensor, "B C H W"], target: Target) -> Float[Tensor, "B 1 H W"]:
        u, v = (torch.linspace(-2, 2, n, device=x.device, dtype=x.dtype) for n in x.shape[2:])
        return torch.exp(-(u[:, None] ** 2 + v**2) / 2).expand(len(x), 1, -1, -1)

    return gaussian


CONTROLS: dict[str, tuple[str, Callable[[int], Attribution]]] = {
    "white_noise": ("white noise", white_noise),
    "smooth_noise": ("smooth noise", smooth_noise),
    "sobel_edges": ("Sobel edges", sobel_edges),
    "local_variance": ("local variance", local_variance),
    "input_magnitude": ("|x|", input_magnitude),
    "centred_gaussian": ("centred Gaussian", centred_gaussian),
}

IMAGE_ONLY = ("sobel_edges", "local_variance", "input_magnitude", "centred_gaussian")  # a method must beat them all


def matched(maps: Float[Tensor, "B K h w"], seed: int) -> Float[Tensor, "B 1 h w"]:
    """Noise with the power spectrum of each map (channels summed); maps are mirrored, so that edges do not wrap."""
    a = maps.detach().float().sum(dim=1)  # B h w
    h, w = a.shape[1:]
    a = torch.cat([a, a.flip(1)], dim=1)
    a = torch.cat([a, a.flip(2)], dim=2)  # B 2h 2w
    rng = torch.Generator().manual_seed(seed)
    phase = torch.fft.rfft2(torch.randn(a.shape, generator=rng)).angle().to(a.device)
    noise = torch.fft.irfft2(
        torch.polar(torch.fft.rfft2(a - a.mean(dim=(1, 2), keepdim=True)).abs(), phase), a.shape[1:]
    )
    return noise[:, None, :h, :w]


def _noise(seed: int, stride: int) -> Attribution:
    rng = torch.Generator().manual_seed(seed)

    def noise(model: nn.Module, x: Float[Tensor, "B C H W"], target: Target) -> Float[Tensor, "B 1 h w"]:
        h, w = (max(2 if stride > 1 else 1, n // stride) for n in x.shape[2:])
        return torch.randn(len(x), 1, h, w, generator=rng).to(x.device)

    return noise
