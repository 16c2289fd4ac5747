"""ImageNet's validation images with their boxes, as a bench for checks of localisation.

    images   ILSVRC2012_val_*.JPEG, in one folder or in a folder for each class (n01440764/ ...)
    boxes    ILSVRC2012_bbox_val_v3: the folder, with an XML file for each image somewhere in it, or the .tgz as it is

Russakovsky, Deng, Su et al. IJCV 2015. arXiv:1409.0575. Both are at https://image-net.org/download; nothing is fetched.

Every image is explained for its own class, from the annotation, whatever the model says. By default the whole image is
resized to the model's input, as in weakly supervised localisation (Choe et al., CVPR 2020, arXiv:2001.07437); with
`crop` it is prepared as for classification and what the crop cuts off is cut off the boxes. Boxes go from the image to
the input as in the authors' code: x -> floor(x * scale), for the first and the last pixel. Pixels count from 0, and a
tag for rotation in the JPEG is ignored. A box that ends at the image's width or height, one past the last pixel, is cut
in silence; what lies further out is cut and counted.
"""

import hashlib
import math
import re
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt8
from PIL import Image, UnidentifiedImageError
from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset
from torch import nn

from methods import _images
from methods._images import Photo
from methods._models import Loaded, Preprocessing
from sanity_checks._parallel import World, ahead
from sanity_checks._runner import Bench

ALONE = World()
SYNSET = re.compile(r"n\d{8}")


class Annotation(NamedTuple):
    """What an XML file says."""

    size: tuple[int, int]  # of the image: width, height
    objects: tuple[tuple[str, tuple[int, int, int, int]], ...]  # synset; x0 y0 x1 y1 in the image, both ends inside
    cut: int  # boxes that went beyond the image


class Item(NamedTuple):
    """An image with what is known of it."""

    file: Path
    synset: str
    size: tuple[int, int]  # width, height, by the annotation
    boxes: tuple[tuple[int, int, int, int], ...]


def parse(xml: bytes) -> Annotation:
    """An annotation in ImageNet's form: annotation / size, object / name, object / bndbox / xmin ...

    Raises:
        ValueError: it is no XML, an element is missing or no number, there is no object, or a box is empty or lies
            outside the image.
    """
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        raise ValueError(f"the annotation is not XML ({error})") from error
    width, height = (_number(root, f"size/{side}") for side in ("width", "height"))
    objects, cut = [], 0
    for node in root.iter("object"):
        name = (node.findtext("name") or "").strip()
        if not SYNSET.fullmatch(name):
            raise ValueError(f"the annotation names the class {name!r}; a synset like n01440764 is wanted")
        box = x0, y0, x1, y1 = tuple(_number(node, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax"))
        if x0 > x1 or y0 > y1:
            raise ValueError(f"the annotation has an empty box, {x0} {y0} {x1} {y1}")
        if x1 < 0 or y1 < 0 or x0 >= width or y0 >= height:
            raise ValueError(f"the annotation has the box {x0} {y0} {x1} {y1} outside the image, {width} x {height}")
        cut += min(box) < 0 or x1 > width or y1 > height
        objects.append((name, (max(x0, 0), max(y0, 0), min(x1, width - 1), min(y1, height - 1))))
    if not objects:
        raise ValueError("the annotation has no object")
    return Annotation((width, height), tuple(objects), cut)


def annotations(place: str) -> dict[str, bytes]:
    """The XML files of a folder (and the folders in it), or of a .tar, .tgz ... as it is: by name without ending.

    Raises:
        ValueError: there is no such place, it is no archive, or has no XML file.
    """
    path = Path(place).expanduser()
    if path.is_dir():
        found = {file.stem: file.read_bytes() for file in sorted(path.rglob("*.xml"))}
    elif path.is_file():
        found = {}
        try:
            with tarfile.open(path) as archive:
                for member in archive:
                    if member.name.endswith(".xml") and (stream := archive.extractfile(member)):
                        found[Path(member.name).stem] = stream.read()
        except (tarfile.TarError, EOFError, OSError) as error:
            raise ValueError(f"--boxes: {path.name} cannot be read as an archive ({error})") from error
    else:
        raise ValueError(f"--boxes: there is no folder or archive {place}")
    if not found:
        raise ValueError(f"--boxes: {place} has no .xml file; ILSVRC2012_bbox_val_v3 is wanted")
    return found


def find(images_at: str, boxes_at: str, limit: int | None = None) -> tuple[list[Item], dict[str, str], int]:
    """The images that have a sound annotation, why the others are left out, and how many boxes were cut.

    Args:
        images_at: a folder of images, or of folders named by synset.
        boxes_at: see `annotations`.
        limit: so many images at most, spread evenly over the sorted names.

    Raises:
        ValueError: there is no image, no annotation, or none for any image.
    """
    folder = Path(images_at).expanduser()
    if not folder.is_dir():
        raise ValueError(f"--images: there is no folder {images_at}")
    folders = [folder, *(d for d in folder.iterdir() if SYNSET.fullmatch(d.name) and d.is_dir())]
    files = sorted(f for d in folders for f in d.iterdir() if f.suffix.lower() in _images.SUFFIXES)
    if not files:
        raise ValueError(f"--images: {images_at} has no image, nor has a folder in it that is named by a synset")
    if limit is not None and limit < len(files):
        files = [files[k * len(files) // limit] for k in range(limit)]
    known = annotations(boxes_at)
    items, left_out, cut = [], {}, 0
    for file in files:
        try:
            item, beyond = _item(file, known)
        except ValueError as error:
            left_out[file.name] = str(error)
            continue
        items.append(item)
        cut += beyond
    if not items:
        raise ValueError(f"--boxes: none of {len(files)} images has a sound annotation; {_first(left_out)}")
    return items, left_out, cut


def readable(
    items: Sequence[Item], *, workers: int = 0, world: World = ALONE
) -> tuple[dict[Item, str], dict[str, str]]:
    """The items whose image can be read and has the annotation's size, with the hashes of their files; why not others.

    Args:
        items: from `find`.
        workers: processes that try them.
        world: each rank tries its share.

    Raises:
        ValueError: not one can be read.
    """
    found: list[tuple[str, str]] = []
    for part in world.gather(list(ahead(_try, world.share(items), workers))):
        found += part
    good = {item: sha256 for item, (sha256, why) in zip(items, found, strict=True) if not why}
    bad = {item.file.name: why for item, (_, why) in zip(items, found, strict=True) if why}
    if not good:
        raise ValueError(f"--images: none of {len(bad)} images can be used; {_first(bad)}")
    return good, bad


def frame(
    size: tuple[int, int], boxes: Sequence[Sequence[int]], prep: Preprocessing, *, crop: bool = False
) -> Int[np.ndarray, "m 4"]:
    """Boxes of an image in the model's input; those that the crop cuts off altogether are left out.

    Args:
        size: of the image, width and height.
        boxes: x0 y0 x1 y1 in pixels, both ends inside.
        prep: of the model.
        crop: whether the image is cropped to its centre, or resized as a whole.
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
    """The image as the model gets it, before it is normalised.

    Raises:
        ValueError: it cannot be read, or does not have the size that the annotation says.
    """
    image, (height, width) = _open(item), prep.size
    if crop:
        return _images._crop(image, prep)
    return np.asarray(image.resize((width, height), _images._filter(prep)))


def covered(boxes: Int[np.ndarray, "m 4"], size: tuple[int, int]) -> Bool[np.ndarray, "H W"]:
    """The pixels that lie in one of the boxes."""
    mask = np.zeros(size, dtype=bool)
    for x0, y0, x1, y1 in boxes:
        mask[y0 : y1 + 1, x0 : x1 + 1] = True
    return mask


def classes(model: nn.Module) -> dict[str, int]:
    """The model's classes by synset.

    Raises:
        ValueError: they are not known: the model was not trained on ImageNet.
    """
    subset = infer_imagenet_subset(model)
    if subset is None:
        count = getattr(model, "num_classes", "?")
        raise ValueError(f"--model: its {count} classes are none of timm's ImageNet lists, so no synset is known")
    return {synset: i for i, synset in enumerate(ImageNetInfo(subset).label_names())}


def bench(loaded: Loaded, found: Mapping[Item, str], chunk: int, *, crop: bool = False) -> Bench:
    """The model on images with boxes, each explained for its own class.

    Beside x, target and mask (the union of the boxes) it gives `boxes`, m 4 for each image, for `wsol`.

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
            f"--model: {loaded.tag} has no class {unknown[0]}, nor {len(unknown) - 1} others of the images"
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
    facts = [loaded.weights_sha256, prep, crop, loaded.device.type]
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


def _number(node: ElementTree.Element, path: str) -> int:
    text = node.findtext(path)
    try:
        return int(text or "")
    except ValueError:
        raise ValueError(f"the annotation has {text!r} for {path}; a number of pixels is wanted") from None


def _item(file: Path, known: Mapping[str, bytes]) -> tuple[Item, int]:
    """An image with its annotation, and how many of its boxes were cut."""
    if file.stem not in known:
        raise ValueError(f"there is no annotation {file.stem}.xml")
    found = parse(known[file.stem])
    synsets = sorted({synset for synset, _ in found.objects})
    if len(synsets) > 1:
        raise ValueError(f"the annotation has objects of several classes: {', '.join(synsets)}")
    if SYNSET.fullmatch(file.parent.name) and file.parent.name != synsets[0]:
        raise ValueError(f"the annotation says {synsets[0]}, the folder {file.parent.name}")
    return Item(file, synsets[0], found.size, tuple(box for _, box in found.objects)), found.cut


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


def _first(left_out: Mapping[str, str]) -> str:
    return "the first, {}: {}".format(*next(iter(left_out.items())))
