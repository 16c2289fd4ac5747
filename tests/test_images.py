"""Image files of every kind: read right, or left out by name with the reason."""

import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from methods import _files, _images
from methods._models import Preprocessing

PREP = Preprocessing((0.5,) * 3, (0.5,) * 3, (8, 8), 1.0, "bilinear")
RAMP = np.linspace(0, 1, 64).reshape(8, 8)


def grey(file):
    """The pixels of a grey image, as 0 to 1."""
    rgb = np.asarray(_files.read(file)) / 255
    assert (rgb == rgb[..., :1]).all()
    return rgb[..., 0]


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_16_bits_of_grey_are_not_white(tmp_path, name):
    Image.fromarray((RAMP * 65535).round().astype(np.uint16)).save(tmp_path / name)
    np.testing.assert_allclose(grey(tmp_path / name), RAMP, atol=0.003)


def test_floats_are_read_as_0_to_1(tmp_path):
    Image.fromarray(RAMP.astype(np.float32)).save(tmp_path / "a.tif")
    np.testing.assert_allclose(grey(tmp_path / "a.tif"), RAMP, atol=0.003)


UNSURE = {
    "12 bits in 16": ((RAMP * 4095).astype(np.uint16), r"16-bit values end at 4095, as if it had 12 bits"),
    "floats 0 to 255": ((RAMP * 255).astype(np.float32), r"floating-point values go from 0 to 255; .* in 0 to 1"),
    "not a number": (np.where(RAMP > 0.5, np.nan, RAMP).astype(np.float32), r"from nan to nan"),
    "32 bits": ((RAMP * 2**30).astype(np.int32), r"integers go from 0 to 1073741824; they must be in 0 to 65535"),
    "negative": ((RAMP * 100 - 50).astype(np.int32), r"integers go from -50"),
}


@pytest.mark.parametrize(("values", "why"), UNSURE.values(), ids=list(UNSURE))
def test_values_without_a_certain_scale_are_refused(tmp_path, values, why):
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=why):
        _files.read(tmp_path / "a.tif")


def test_a_black_image_is_black_in_any_depth(tmp_path):
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / "a.png")
    assert not grey(tmp_path / "a.png").any()


def rgba():
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 255))
    image.paste((0, 0, 255, 0), (4, 0, 8, 8))  # invisible blue
    return image


def test_a_transparent_value_of_16_bits_is_white(tmp_path):
    values = (RAMP * 65535).round().astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png", transparency=int(values[0, 0]))
    shown = grey(tmp_path / "a.png")
    assert shown[0, 0] == 1
    np.testing.assert_allclose(shown.flat[1:], RAMP.flat[1:], atol=0.003)


@pytest.mark.parametrize("kind", ["RGBA", "LA", "palette", "tRNS"])
def test_what_is_invisible_is_white(tmp_path, kind):
    file = tmp_path / "a.png"
    if kind == "palette":
        rgba().quantize().save(file)
    elif kind == "tRNS":  # one colour of an RGB image is declared transparent
        rgba().convert("RGB").save(file, transparency=(0, 0, 255))
    else:
        rgba().convert(kind).save(file)
    rgb = np.asarray(_files.read(file))
    assert (rgb[:, 4:] == 255).all()
    assert tuple(rgb[0, 0]) == ((76, 76, 76) if kind == "LA" else (255, 0, 0))


@pytest.mark.parametrize("name", ["a.gif", "a.jfif", "a.avif", "a.jp2", "A.JPG", "a.webp"])
def test_other_formats_are_found_and_read(tmp_path, name):
    kind = {"a.jfif": "JPEG"}.get(name)
    Image.new("RGB", (32, 32), (200, 40, 40)).save(tmp_path / name, format=kind)
    (photo,) = _images.load(str(tmp_path), PREP)
    assert photo.name == name
    assert np.abs(photo.rgb.astype(int) - (200, 40, 40)).max() < 12


def bomb(file):
    """A PNG whose header says 20000 x 20000 pixels."""
    Image.new("L", (1, 1)).save(file)
    data = bytearray(file.read_bytes())
    data[16:24] = struct.pack(">II", 20000, 20000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    file.write_bytes(data)


def test_what_cannot_be_read_is_named_with_the_reason(tmp_path):
    """And nothing but a ValueError comes out, whatever is in the folder."""
    for place in ("cat", "dog", "dog/x.jpg"):
        (tmp_path / place).mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "cat/1.png")
    Image.new("RGB", (9, 9)).save(tmp_path / "dog/1.png")
    Image.new("RGB", (9, 9)).save(tmp_path / "dog/x.jpg/2.png")
    noise = np.random.default_rng(0).integers(0, 255, (40, 40), dtype=np.uint8)
    for place in ("cat", "dog"):
        Image.fromarray(noise).save(tmp_path / place / "2.png")
        os.truncate(tmp_path / place / "2.png", 500)
    bomb(tmp_path / "cat/bomb.png")
    (tmp_path / "cat/raw.nef").write_bytes(b"")
    (tmp_path / "cat/phone.jxl").write_bytes(b"")
    (tmp_path / "cat/nowhere.jpg").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "cat/pipe.png")
    (tmp_path / "cat/notes.txt").write_text("no image")
    items, left_out = _images.find(str(tmp_path))
    photos, unread = _images.readable(items, PREP)
    assert [p.name for p in photos] == ["cat/1.png", "dog/1.png", "dog/x.jpg/2.png"]
    assert [list(p.sha256) for p in photos] == [[p.name] for p in photos]
    assert not left_out
    assert unread.pop("cat/2.png") == unread.pop("dog/2.png") == "cannot be read as an image (OSError)"
    assert unread == {
        "cat/bomb.png": "has more than 178956970 pixels, the most that Pillow reads; make it smaller",
        "cat/nowhere.jpg": "is not a file, or a link to nothing",
        "cat/phone.jxl": "JPEG XL; convert it to PNG or JPEG",
        "cat/pipe.png": "is not a file, or a link to nothing",
        "cat/raw.nef": "raw data of a camera; convert them to PNG or JPEG",
    }
    assert _images.in_words(unread).startswith("left out 5:\n  cat/bomb.png: has more than")
    with pytest.raises(ValueError, match=r"^images: cat/2\.png: cannot be read"):
        _images.load(str(tmp_path), PREP)


def test_heic_is_read_or_says_what_it_needs(tmp_path):
    (tmp_path / "a.heic").write_bytes(b"")
    (item,), _ = _images.find(str(tmp_path))
    with pytest.raises(ValueError, match="HEIC needs a package: pip install pillow-heif|cannot be read"):
        _images.read(item, PREP)


def test_a_large_image_is_read_without_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    Image.new("L", (8, 8), 70).save(tmp_path / "a.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (grey(tmp_path / "a.png") == 70 / 255).all()


def test_a_strip_does_not_fill_the_memory(tmp_path):
    Image.new("L", (101, 1)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"^images: a\.png: is 101 x 1 pixels, too thin"):
        _images.load(str(tmp_path / "a.png"), PREP)
    Image.new("L", (100, 1)).save(tmp_path / "a.png")
    assert _images.load(str(tmp_path / "a.png"), PREP)[0].rgb.shape == (8, 8, 3)


def test_linked_folders_are_followed_once(tmp_path):
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    for folder in (data / "b", elsewhere / "deep"):
        folder.mkdir(parents=True)
    for file in (data / "b/1.png", elsewhere / "2.png", elsewhere / "deep/3.png"):
        Image.new("RGB", (9, 9)).save(file)
    (data / "a").symlink_to(data / "b")  # the folder keeps its own name, though the link comes first
    (data / "out").symlink_to(elsewhere)
    (elsewhere / "deep/round").symlink_to(data)
    items, left_out = _images.find(str(data))
    assert [i.name for i in items] == ["b/1.png", "out/2.png", "out/deep/3.png"]
    again = "is the same folder as another one, which is included"
    assert left_out == {"a": again, "out/deep/round": again}


def test_names_count_from_the_folder_that_was_given(tmp_path, monkeypatch):
    (tmp_path / "x/y").mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(tmp_path / "x/y/1.png")
    monkeypatch.chdir(tmp_path)
    for folder, name in ((".", "x/y/1.png"), ("x", "y/1.png"), ("x/y/", "1.png"), ("x/../x", "y/1.png")):
        assert [i.name for i in _images.find(folder)[0]] == [name]
