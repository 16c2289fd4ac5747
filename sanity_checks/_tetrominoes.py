"""Tetrominoes on noise: the images of 8 x 8 pixels of XAI-TRIS, whose class depends on a few known pixels.

Clark, Wilming, Haufe. XAI-TRIS. Machine Learning 2024, arXiv:2306.12816; the numbers are those of the authors' file
data_config.json (braindatalab/xai-tris).

linear                   a T at one place or an L at another is added to the background
multiplicative           the same, but the background is dimmed there
translations_rotations   a T or an L, turned and moved at random, is added
xor                      both are added, each bright or dark: the class is whether their signs differ

The truth is both shapes where their places are fixed, because a missing shape speaks for the other class.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.ndimage import gaussian_filter
from torch import Tensor

SIDE = 8
T = np.array([[1, 0], [1, 1], [1, 0]])
L = np.array([[1, 0], [1, 0], [1, 1]])
PLACES = (1, 1), (4, 5)  # of T and L
SMOOTH = 3.0  # pixels
ALPHA = {  # share of the signal: scenario, background
    ("linear", "white"): 0.18, ("linear", "correlated"): 0.0125,
    ("multiplicative", "white"): 0.7, ("multiplicative", "correlated"): 0.1,
    ("translations_rotations", "white"): 0.65, ("translations_rotations", "correlated"): 0.2,
    ("xor", "white"): 0.35, ("xor", "correlated"): 0.15,
}  # fmt: skip
SCENARIOS = tuple(dict.fromkeys(scenario for scenario, _ in ALPHA))
BACKGROUNDS = tuple(dict.fromkeys(background for _, background in ALPHA))


class Tetrominoes(NamedTuple):
    """Images in [-1, 1] with their class, and where the evidence is."""

    x: Float[Tensor, "n 1 8 8"]
    y: Int[Tensor, " n"]
    mask: Bool[Tensor, "n 8 8"]


def tetrominoes(n: int, seed: int, scenario: str = "linear", background: str = "white") -> Tetrominoes:
    """Draw n images, both classes alike.

    Args:
        n: number of images, a multiple of 4.
        seed: of the draw; the scale of the images depends on all n, as in the paper, so train and test with one draw.
        scenario: of SCENARIOS.
        background: of BACKGROUNDS.

    Raises:
        ValueError: n is no multiple of 4, or there is no such scenario or background.
    """
    if n < 4 or n % 4:
        raise ValueError(f"n: a multiple of 4, got {n}")
    if (scenario, background) not in ALPHA:
        what = f"{', '.join(SCENARIOS)}; {', '.join(BACKGROUNDS)}"
        raise ValueError(f"scenario, background: must be of {what}, got {scenario!r} and {background!r}")
    rng, alpha = np.random.default_rng(seed), ALPHA[scenario, background]
    y = np.arange(n) % 2
    S = np.zeros((n, SIDE, SIDE))
    for i in range(n):
        if scenario == "xor":
            sign = 1 if i % 4 < 2 else -1
            _put(S[i], T, PLACES[0], sign)
            _put(S[i], L, PLACES[1], sign if y[i] == 0 else -sign)
        elif scenario == "translations_rotations":
            shape = np.rot90((T, L)[int(y[i])], int(rng.integers(4)))
            _put(S[i], shape, tuple(rng.integers(0, SIDE + 1 - np.array(shape.shape)).tolist()))
        else:
            _put(S[i], (T, L)[y[i]], PLACES[y[i]])
    both = np.zeros((SIDE, SIDE))
    _put(both, T, PLACES[0])
    _put(both, L, PLACES[1])
    mask = S != 0 if scenario == "translations_rotations" else np.broadcast_to(both != 0, S.shape)
    B = rng.normal(0, 0.5, S.shape)
    if background == "correlated":
        B = np.stack([gaussian_filter(b, SMOOTH) for b in B])
    B = B / np.linalg.norm(B)
    if scenario == "multiplicative":
        dimmed = 1 - alpha * S
        x = dimmed / np.linalg.norm(dimmed) * B
    else:
        x = alpha * S / np.linalg.norm(S) + (1 - alpha) * B
    x = x / np.abs(x).max()
    order = rng.permutation(n)
    return Tetrominoes(
        torch.from_numpy(x[order]).float()[:, None], torch.from_numpy(y[order]), torch.from_numpy(mask[order].copy())
    )


def _put(image: np.ndarray, shape: np.ndarray, at: tuple[int, ...], sign: int = 1) -> None:
    h, w = shape.shape
    image[at[0] : at[0] + h, at[1] : at[1] + w] += sign * shape
