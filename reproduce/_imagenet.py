"""ImageNet's validation images with their boxes (from `_annotations`), as a bench for localisation checks.

Every image is explained for its own class from the annotation, not for the class that the model predicts. By default
the whole image is resized to the model's input, as in weakly supervised localisation (Choe et al., CVPR 2020,
arXiv:2001.07437). With `crop` it is prepared as for classification, and the boxes are clipped to the crop. Box
coordinates in the input are computed as in the authors' code: x -> floor(x * scale), for the first and the last pixel.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt8
from PIL import Image, UnidentifiedImageError
from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset
from torch import nn

import _run  # noqa: F401  puts the repository on the path
from _annotations import Item, first_reason
from methods import _images
from methods._images import Photo
from methods._models import Loaded, Preprocessing
from sanity_checks._parallel import World, ahead
from sanity_checks._runner import Bench

ALONE = World()


def readable(
    items: Sequence[Item], *, workers: int = 0, world: World = ALONE
) -> tuple[dict[Item, str], dict[str, str]]:
    """Items whose image is readable and has the annotation's size, with file hashes; and why the others are left out.

    Args:
        items: from `_annotations.find`.
        workers: processes that try to read them.
        world: each rank tries its share.

    Raises:
        ValueError: no image can be read.
    """
    found: list[tuple[str, str]] = []
    for part in world.gather(list(ahead(_try, world.share(items), workers))):
        found += part
    good = {item: sha256 for item, (sha256, why) in zip(items, found, strict=True) if not why}
    bad = {item.file.name: why for item, (_, why) in zip(items, found, strict=True) if why}
    if not good:
        raise ValueError(f"--images: none of {len(bad)} images can be used; {first_reason(bad)}")
    return good, bad


def frame(
    size: tuple[int, int], boxes: Sequence[Sequence[int]], prep: Preprocessing, *, crop: bool = False
) -> Int[np.ndarray, "m 4"]:
    """Boxes of an image in the model's input; boxes that are completely outside the crop are left out.

    Args:
        size: of the image, width and height.
        boxes: x0 y0 x1 y1 in pixels, both ends inside.
        prep: of the model.
        crop: crop the image to its centre; otherwise resize the whole image.
    """
    height, width = prep.size
    resized, left, top = (width, height), 0, 0
    if crop:  # as _images._crop
        longest = max(math.floor(height / prep.crop_pct) / size[1], math.floor(width / prep.crop_pct) / size[0])
        resized = tuple(math.floor(side * longest + 1e-6) for side in size)
        left, top = round((resized[0] - width) / 2), round((resized[1] - height) / 2)
    scale = np.array([resized[0] / size[0], resized[1] / size[1]] * 2)
    placed = np.floor(np.reshape(boxes, (-1, 4)) * scale + 1e-9).astype(np.int64) - np.array([left, top] * 2)  # m 4
    end = np.array([width - 1, height - 1])
    there = (placed[:, 2:] >= 0).all(axis=1) & (placed[:, :2] <= end).all(axis=1)
    return placed[there].clip(0, np.tile(end, 2))


def picture(item: Item, prep: Preprocessing, *, crop: bool = False) -> UInt8[np.ndarray, "H W 3"]:
    """The model's input image before normalisation.

    Raises:
        ValueError: it cannot be read, or its size is not the size in the annotation.
    """
    image, (height, width) = _open(item), prep.size
    if crop:
        return _images._crop(image, prep)
    return np.asarray(image.resize((width, height), _images._filter(prep)))


def covered(boxes: Int[np.ndarray, "m 4"], size: tuple[int, int]) -> Bool[np.ndarray, "H W"]:
    """The pixels that are inside at least one of the boxes."""
    mask = np.zeros(size, dtype=bool)
    for x0, y0, x1, y1 in boxes:
        mask[y0 : y1 + 1, x0 : x1 + 1] = True
    return mask


def classes(model: nn.Module) -> dict[str, int]:
    """The model's classes by synset.

    Raises:
        ValueError: the classes are not known: the model was not trained on ImageNet.
    """
    subset = infer_imagenet_subset(model)
    if subset is None:
        count = getattr(model, "num_classes", "?")
        raise ValueError(f"--model: its {count} classes are none of timm's ImageNet lists, so no synset is known")
    return {synset: i for i, synset in enumerate(ImageNetInfo(subset).label_names())}


def bench(loaded: Loaded, found: Mapping[Item, str], chunk: int, *, crop: bool = False) -> Bench:
    """The model on images with boxes, each explained for its own class.

    In addition to x, target and mask (the union of the boxes) it gives `boxes` for `wsol`: m 4 for each image.

    Args:
        loaded: the model.
        found: from `readable`.
        chunk: images per forward pass of a check.
        crop: see `frame`.

    Raises:
        ValueError: the model has no such class.
    """
    items, prep, index = list(found), loaded.preprocessing, classes(loaded.model)
    unknown = sorted({item.synset for item in items} - set(index))
    if unknown:
        raise ValueError(
            f"--model: {loaded.tag} has no class {unknown[0]}, and {len(unknown) - 1} other classes are missing"
        )

    def read(first: int, end: int) -> tuple[int, list[np.ndarray]]:
        return first, [picture(item, prep, crop=crop) for item in items[first:end]]

    def prepare(part: tuple[int, list[np.ndarray]]) -> Mapping[str, Any]:
        first, rgb = part
        these = items[first : first + len(rgb)]
        placed = [frame(item.size, item.boxes, prep, crop=crop) for item in these]
        photos = [Photo(item.file.name, p, {}, "", "") for item, p in zip(these, rgb, strict=True)]
        masks = np.stack([covered(boxes, prep.size) for boxes in placed])
        return {
            "x": _images.tensor(photos, loaded),
            "target": torch.tensor([index[item.synset] for item in these], device=loaded.device),
            "mask": torch.from_numpy(masks).to(loaded.device),
            "boxes": [torch.from_numpy(boxes).to(loaded.device) for boxes in placed],
        }

    how = "cropped to the centre" if crop else "resized as a whole"
    facts = [loaded.facts, prep, crop]
    facts += [(item.file.name, *item[1:], sha256) for item, sha256 in found.items()]
    return Bench(
        name="ImageNet",
        note=f"{len(items)} ImageNet validation images, {how}, each explained for its own class by {loaded.tag}",
        model=loaded.model,
        names=[item.file.name for item in items],
        read=read,
        prepare=prepare,
        stamp=hashlib.sha256(repr(facts).encode()).hexdigest(),
        keywords={"chunk": chunk},
    )


def _open(item: Item) -> Image.Image:
    try:
        with Image.open(item.file) as image:
            size, rgb = image.size, image.convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"cannot read {item.file.name} as an image ({type(error).__name__})") from error
    if size != item.size:
        raise ValueError("the image has {} x {} pixels, the annotation says {} x {}".format(*size, *item.size))
    return rgb


def _try(item: Item) -> tuple[str, str]:
    try:
        _open(item)
    except ValueError as error:
        return "", str(error)
    return hashlib.sha256(item.file.read_bytes()).hexdigest(), ""
