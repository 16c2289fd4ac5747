"""Read ImageNet's validation images and the official files of their boxes, and match them.

    images   ILSVRC2012_val_*.JPEG, in one folder or in a folder for each class (n01440764/ ...)
    boxes    ILSVRC2012_bbox_val_v3: the folder with an XML file for each image (also in subfolders), or the .tgz itself

Russakovsky, Deng, Su et al. IJCV 2015. arXiv:1409.0575. Both are at https://image-net.org/download; this code downloads
nothing.

Pixels count from 0. A rotation tag in the JPEG is ignored. A box that ends at the image's width or height, one past the
last pixel, is clipped silently. A box that goes further outside is clipped and counted.
"""

import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import _run  # noqa: F401  puts the repository on the path
from methods import _files

SYNSET = re.compile(r"n\d{8}")


class Annotation(NamedTuple):
    """The contents of an XML file."""

    size: tuple[int, int]  # of the image: width, height
    objects: tuple[tuple[str, tuple[int, int, int, int]], ...]  # synset; x0 y0 x1 y1 in the image, both ends inside
    cut: int  # boxes that went beyond the image


class Item(NamedTuple):
    """An image with its annotation."""

    file: Path
    synset: str
    size: tuple[int, int]  # width, height, by the annotation
    boxes: tuple[tuple[int, int, int, int], ...]


def parse(xml: bytes) -> Annotation:
    """An annotation in ImageNet's form: annotation / size, object / name, object / bndbox / xmin ...

    Raises:
        ValueError: the file is not XML, an element is missing or not a number, there is no object, or a box is empty
            or outside the image.
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
            raise ValueError(f"the annotation names the class {name!r}; it must be a synset like n01440764")
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
    """The XML files of a folder (with its subfolders) or of an archive (.tar, .tgz ...), by name without suffix.

    Raises:
        ValueError: the place does not exist, is not an archive, or has no XML file.
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
        raise ValueError(f"--boxes: {place} has no .xml file; it must be ILSVRC2012_bbox_val_v3")
    return found


def find(images_at: str, boxes_at: str, limit: int | None = None) -> tuple[list[Item], dict[str, str], int]:
    """The images with a valid annotation, the reasons why others are left out, and the number of clipped boxes.

    Args:
        images_at: a folder of images, or of folders named by synset.
        boxes_at: see `annotations`.
        limit: maximum number of images, spread evenly over the sorted names.

    Raises:
        ValueError: there is no image, no annotation, or none for any image.
    """
    folder = Path(images_at).expanduser()
    if not folder.is_dir():
        raise ValueError(f"--images: there is no folder {images_at}")
    folders = [folder, *(d for d in folder.iterdir() if SYNSET.fullmatch(d.name) and d.is_dir())]
    files = sorted(f for d in folders for f in d.iterdir() if f.suffix.lower() in _files.SUFFIXES)
    if not files:
        raise ValueError(f"--images: {images_at} has no image, also not in folders in it that are named by a synset")
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
        raise ValueError(f"--boxes: none of {len(files)} images has a valid annotation; {first_reason(left_out)}")
    return items, left_out, cut


def first_reason(left_out: Mapping[str, str]) -> str:
    """The reason why the first of the left-out images is left out."""
    return "the first, {}: {}".format(*next(iter(left_out.items())))


def _number(node: ElementTree.Element, path: str) -> int:
    text = node.findtext(path)
    try:
        return int(text or "")
    except ValueError:
        raise ValueError(f"the annotation has {text!r} for {path}; it must be a number of pixels") from None


def _item(file: Path, known: Mapping[str, bytes]) -> tuple[Item, int]:
    """An image with its annotation, and the number of its boxes that were clipped."""
    if file.stem not in known:
        raise ValueError(f"there is no annotation {file.stem}.xml")
    found = parse(known[file.stem])
    synsets = sorted({synset for synset, _ in found.objects})
    if len(synsets) > 1:
        raise ValueError(f"the annotation has objects of several classes: {', '.join(synsets)}")
    if SYNSET.fullmatch(file.parent.name) and file.parent.name != synsets[0]:
        raise ValueError(f"the annotation says {synsets[0]}, the folder {file.parent.name}")
    return Item(file, synsets[0], found.size, tuple(box for _, box in found.objects)), found.cut
