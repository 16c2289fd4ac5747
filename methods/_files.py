"""Image files: which ones a folder has, and how each becomes RGB of 8 bits. What cannot be read right is refused."""

import importlib
import os
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

SUFFIXES = {
    ".apng", ".avif", ".bmp", ".dib", ".gif", ".ico", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".mpo", ".pbm",
    ".pcx", ".pgm", ".png", ".pnm", ".ppm", ".qoi", ".tga", ".tif", ".tiff", ".webp",
}  # fmt: skip
RAW = "raw data of a camera; convert them to PNG or JPEG"  # Pillow would read the thumbnail
REFUSED = dict.fromkeys((".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".rw2"), RAW) | {
    ".exr": "OpenEXR; convert it to PNG",
    ".jxl": "JPEG XL; convert it to PNG or JPEG",
    ".svg": "a drawing; convert it to PNG",
}
HEIC = (".heic", ".heif", ".hif")
try:
    importlib.import_module("pillow_heif").register_heif_opener()
    SUFFIXES.update(HEIC)
except ImportError:
    REFUSED |= dict.fromkeys(HEIC, "HEIC needs a package: pip install pillow-heif")

DARK = 4095  # 16-bit data that end here or before have only 12 bits, or are nearly black


def find(folder: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """The image files of a folder and its subfolders, linked folders included.

    Args:
        folder: where to look. An image file is one with a suffix of SUFFIXES or REFUSED.

    Returns:
        Files by their path from `folder`, sorted; and the folders that are left out, with the reason. A folder that
        links lead to again is read once, so they cannot go round in circles.
    """
    found: dict[str, Path] = {}
    left_out: dict[str, str] = {}
    seen: set[Path] = set()

    def name(path: str | Path) -> str:
        return Path(path).relative_to(folder).as_posix()

    def unlisted(error: OSError) -> None:
        left_out[name(error.filename)] = f"the folder cannot be listed ({error.strerror})"

    tops = [folder]
    for top in tops:  # grows by the links, so that a folder keeps its own name if it has one here
        for place, folders, files in os.walk(top, onerror=unlisted):
            real = Path(place).resolve()
            if real in seen:
                left_out[name(place)] = "is the same folder as another one, which is included"
                folders.clear()
                continue
            seen.add(real)
            tops += [link for link in (Path(place, f) for f in sorted(folders)) if link.is_symlink()]
            images = (Path(place, f) for f in files if Path(f).suffix.lower() in SUFFIXES | REFUSED.keys())
            found |= {name(file): file for file in images}
    return dict(sorted(found.items())), left_out


def read(file: Path) -> Image.Image:
    """An image file as RGB, 8 bits per channel, turned as its EXIF data say.

    Transparent pixels are laid over white. Of several frames or pages the first is read. Grey values of 16 bits, 0 to
    65535, are divided by 257. So data of 14 bits look dark; data of 12 bits or less are refused, because they would be
    black. Floating-point values are read as 0 to 1.

    Raises:
        ValueError: why it cannot be read, without the file's name.
    """
    if not file.is_file():
        raise ValueError("is not a file, or a link to nothing" if os.path.lexists(file) else "there is no such file")
    if file.suffix.lower() in REFUSED:
        raise ValueError(REFUSED[file.suffix.lower()])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large, but not too large
            with Image.open(file) as image:
                return _rgb(ImageOps.exif_transpose(image))
    except _ScaleError:
        raise
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise ValueError(f"has more than {limit} pixels, the most that Pillow reads; make it smaller") from error
    except Exception as error:  # a damaged file can fail anywhere in Pillow
        raise ValueError(f"cannot be read as an image ({type(error).__name__})") from error


class _ScaleError(ValueError):
    """Values that could be read, but not with certainty."""


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        v = np.asarray(image)
        visible = v != image.info.get("transparency")  # one value may be declared transparent
        return Image.fromarray(np.where(visible, _bytes(v), 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _bytes(v: np.ndarray) -> np.ndarray:
    """Grey values of more than 8 bits as bytes."""
    low, high = v.min(), v.max()
    if np.issubdtype(v.dtype, np.floating):
        if not (low >= 0 and high <= 1):  # NaN is neither
            raise _ScaleError(f"its floating-point values go from {low:g} to {high:g}; they must be in 0 to 1")
        return (v * 255).round().astype(np.uint8)
    if low < 0 or high > 65535:
        raise _ScaleError(f"its integers go from {low} to {high}; they must be in 0 to 65535")
    if 0 < high <= DARK:
        raise _ScaleError(f"its 16-bit values end at {high}, as if it had 12 bits or fewer; scale them to 0 to 65535")
    return (v / 257).round().astype(np.uint8)
