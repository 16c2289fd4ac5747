"""Inputs of a model as pictures, for figures that show what the model sees."""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

import _run  # noqa: F401  puts the repository on the path
from methods._models import Loaded


def picture(x: Float[Tensor, "C H W"], loaded: Loaded) -> UInt8[np.ndarray, "H W 3"]:
    """A normalised image as a photograph, 0 to 255; what is darker than black or brighter than white is cut off."""
    mean, std = (
        torch.tensor(v, dtype=x.dtype)[:, None, None] for v in (loaded.preprocessing.mean, loaded.preprocessing.std)
    )
    rgb = (x.detach().cpu() * std + mean).clamp(0, 1) * 255  # C H W
    return rgb.expand(3, -1, -1).permute(1, 2, 0).round().byte().numpy()


def black(loaded: Loaded) -> Float[Tensor, "C 1 1"]:
    """A black pixel, normalised."""
    mean, std = (torch.tensor(v)[:, None, None] for v in (loaded.preprocessing.mean, loaded.preprocessing.std))
    return -mean / std
