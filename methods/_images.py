"""Photographs: from scikit-image and scikit-learn, a composite with two classes, or your own folder."""

import difflib
import hashlib
import importlib.util
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from methods import _files
from methods._models import Loaded, Preprocessing

# name: (package, file in it, licence, source), from skimage.data, sklearn's README.txt, Wikimedia Commons.
PACKAGED = {
    "chelsea": ("skimage", "data/chelsea.png", "CC0", "Stefan van der Walt, skimage.data.chelsea"),
    "coffee": ("skimage", "data/coffee.png", "CC0", "Rachel Michetti, Pikolo Espresso Bar, skimage.data.coffee"),
    "rocket": ("skimage", "data/rocket.jpg", "public domain", "SpaceX, skimage.data.rocket"),
    "astronaut": ("skimage", "data/astronaut.png", "public domain", "NASA, skimage.data.astronaut"),
    "motorcycle": (
        "skimage",
        "data/motorcycle_left.png",
        "not stated in the package",
        "Middlebury 2014 stereo benchmark (Scharstein et al., GCPR 2014), skimage.data.stereo_motorcycle, left image",
    ),
    "china": ("sklearn", "datasets/images/china.jpg", "CC BY 2.0", "danielbuechele, sklearn.datasets"),
    "grace_hopper": (
        "matplotlib",
        "mpl-data/sample_data/grace_hopper.jpg",
        "public domain",
        "James S. Davis, United States Navy, matplotlib sample data",
    ),
    "flower": ("sklearn", "datasets/images/flower.jpg", "CC BY 2.0", "danielbuechele / vultilion, sklearn.datasets"),
}
GREY = (0.299, 0.587, 0.114)  # weights of red, green and blue (ITU-R 601)
THIN = 100  # times as long as wide; resized to a model's input it would fill the memory
COMPOSITES = {"chelsea_coffee": ("chelsea", "coffee")}  # left half, right half


@dataclass(frozen=True)
class Photo:
    """A photograph as the model sees it."""

    name: str
    rgb: UInt8[np.ndarray, "H W 3"]
    sha256: dict[str, str]  # file name: hash of the file
    licence: str
    source: str
    parts: tuple[str, ...] = field(default=())  # the photographs in a composite


class Item(NamedTuple):
    """An image that has not been read."""

    name: str  # of a packaged photograph, or a file's path from the folder that was searched
    file: str = ""  # "": packaged


def find(images: str) -> tuple[list[Item], dict[str, str]]:
    """The images that `images` names, each for `read`; and what is left out of a folder, by its path, with the reason.

    Args:
        images: packaged names separated by commas ("chelsea,coffee"), an image file, or a folder of images, which is
            searched with its subfolders and the folders that links lead to.

    Raises:
        ValueError: unknown name, or a folder without an image.
    """
    names = [n.strip() for n in images.split(",") if n.strip()]
    known = [*PACKAGED, *COMPOSITES]
    if names and all(n in known for n in names):
        return [Item(n) for n in names], {}
    path = Path(images).expanduser()
    if path.is_dir():
        files, left_out = _files.find(path)
        if not files and not left_out:
            raise ValueError(f"images: the folder {images} has no image ({', '.join(sorted(_files.SUFFIXES))})")
        return [Item(name, str(file)) for name, file in files.items()], left_out
    if path.is_file():
        return [Item(path.name, str(path))], {}
    unknown = next((n for n in names if n not in known), images)
    close = difflib.get_close_matches(unknown, known, n=1)
    raise ValueError(
        f"images: {unknown!r} is no packaged photograph, file or folder"
        f"{f'; did you mean {close[0]!r}?' if close else ''} Packaged: {', '.join(known)}"
    )


def read(item: Item, prep: Preprocessing) -> Photo:
    """One image, resized and cropped for a model.

    Raises:
        ValueError: why it cannot be read.
    """
    if item.file:
        file = Path(item.file)
        rgb = _crop(_files.read(file), prep)
        return Photo(item.name, rgb, {item.name: _sha256(file)}, "not stated", "the user's file")
    return _composite(item.name, prep) if item.name in COMPOSITES else _packaged(item.name, prep)


def readable(items: Iterable[Item], prep: Preprocessing) -> tuple[list[Photo], dict[str, str]]:
    """The images that can be read; and why the others cannot, by name.

    Args:
        items: from `find`.
        prep: the model's preprocessing.
    """
    photos, left_out = [], {}
    for item in items:
        try:
            photos.append(read(item, prep))
        except ValueError as error:
            left_out[item.name] = str(error)
    return photos, left_out


def load(images: str, prep: Preprocessing) -> list[Photo]:
    """Photographs, resized and cropped for a model.

    Args:
        images: see `find`.
        prep: the model's preprocessing.

    Raises:
        ValueError: unknown name, empty folder, or the first image that cannot be read, with the reason.
    """
    items, left_out = find(images)
    photos, unread = readable(items, prep)
    if unread | left_out:
        raise ValueError("images: {}: {}".format(*next(iter((unread | left_out).items()))))
    return photos


def in_words(left_out: Mapping[str, str]) -> str:
    """The lines that say how many images are left out, which, and why; "" for none."""
    if not left_out:
        return ""
    return "\n".join([f"left out {len(left_out)}:", *(f"  {name}: {why}" for name, why in left_out.items())])


def load_image(image: str, model: Loaded) -> tuple[Float[Tensor, "1 C H W"], UInt8[np.ndarray, "H W 3"]]:
    """One photograph as the input of a model, and the same pixels to draw a map on.

    Args:
        image: a file, or the name of a packaged photograph ("chelsea").
        model: from `load_model`; it says how large its images are and how they are normalised.

    Returns:
        x, on the model's device, and the photograph after resize and crop, 0 to 255.

    Raises:
        ValueError: no such name or file, a folder, several names, or a file that cannot be read as an image.
    """
    photos = load(image, model.preprocessing) if not Path(image).expanduser().is_dir() else []
    if len(photos) != 1:
        raise ValueError(f"image: must be one photograph, got {image!r}")
    return tensor(photos, model), photos[0].rgb


def tensor(photos: list[Photo], loaded: Loaded) -> Float[Tensor, "B C H W"]:
    """The photographs as the model's input; as grey for a model whose mean has one channel."""
    rgb = torch.from_numpy(np.stack([p.rgb for p in photos])).permute(0, 3, 1, 2).float() / 255  # B 3 H W
    mean, std = (torch.tensor(v).reshape(1, -1, 1, 1) for v in (loaded.preprocessing.mean, loaded.preprocessing.std))
    if mean.shape[1] == 1:
        rgb = torch.einsum("bchw,c->bhw", rgb, torch.tensor(GREY))[:, None]  # B 1 H W
    return ((rgb - mean) / std).to(loaded.device)


def _packaged(name: str, prep: Preprocessing) -> Photo:
    file, (_, _, licence, source) = _packaged_file(name), PACKAGED[name]
    return Photo(name, _crop(_files.read(file), prep), {file.name: _sha256(file)}, licence, source)


def _composite(name: str, prep: Preprocessing) -> Photo:
    """Two photographs side by side; each fills one half and is cropped to its centre."""
    height, width = prep.size
    halves = {part: _packaged_file(part) for part in COMPOSITES[name]}
    widths = (width // 2, width - width // 2)
    rgb = [
        np.asarray(ImageOps.fit(_files.read(file), (w, height), _filter(prep)))
        for file, w in zip(halves.values(), widths, strict=True)
    ]
    return Photo(
        name,
        np.concatenate(rgb, axis=1),
        {file.name: _sha256(file) for file in halves.values()},
        " / ".join(PACKAGED[part][2] for part in halves),
        " / ".join(PACKAGED[part][3] for part in halves),
        COMPOSITES[name],
    )


def _packaged_file(name: str) -> Path:
    package, inside, *_ = PACKAGED[name]
    spec = importlib.util.find_spec(package)
    file = Path(spec.origin or "").parent / inside if spec else None
    if file is None or not file.is_file():
        raise ValueError(f"images: {name!r} comes with {package}; install the version in requirements.txt")
    return file


def _crop(image: Image.Image, prep: Preprocessing) -> UInt8[np.ndarray, "H W 3"]:
    """Shorter side to size / crop_pct, then the centre."""
    if max(image.size) > THIN * min(image.size):
        raise ValueError("is {} x {} pixels, too thin to be seen in its centre; crop it".format(*image.size))
    height, width = prep.size
    scale = max(math.floor(height / prep.crop_pct) / image.height, math.floor(width / prep.crop_pct) / image.width)
    w, h = (math.floor(side * scale + 1e-6) for side in image.size)  # rounded down, as timm does
    resized = image.resize((w, h), _filter(prep))
    left, top = round((resized.width - width) / 2), round((resized.height - height) / 2)
    return np.asarray(resized.crop((left, top, left + width, top + height)))


def _filter(prep: Preprocessing) -> Image.Resampling:
    return Image.Resampling[prep.interpolation.upper()]


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
