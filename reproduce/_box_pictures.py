"""Boxes drawn on images: the boxes of a map at several thresholds, and the true box."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

import _run  # puts the repository on the path
from _dots import title
from methods import _display
from sanity_checks._boxes import around, box_iou
from sanity_checks._ground_truth import MEAN, STD, DigitsOnTextures
from sanity_checks._thresholds import as_bytes, found_boxes
from sanity_checks._torch import pixels

NESTED = {0.2: (86, 180, 233), 0.4: (0, 114, 178), 0.6: (0, 0, 0)}  # tau -> colour, on photographs
TRUE, BEST, OTHER = (255, 213, 0), (255, 90, 60), (150, 150, 150)
LEVELS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
ZOOM = 6
DASH = 10  # pixels of a picture


def sweep(found: DigitsOnTextures, maps: Mapping[str, Tensor]) -> tuple[_display.Block, dict[str, list[float]]]:
    """The first image at all thresholds, by row, and the best IoU at each threshold.

    Args:
        found: images with their masks.
        maps: of the images, by row.
    """
    rgb = (found.x[0] * STD + MEAN).clamp(0, 1).mul(255).byte()  # 3 32 32
    rgb = _zoomed(rgb.permute(1, 2, 0).cpu().numpy())
    true = around(found.mask[0].cpu().numpy())
    rows, ious = [], {}
    for name, of_images in maps.items():
        a = pixels(of_images[:1].cpu(), found.x[:1].cpu())[0]
        image = as_bytes(a)
        line = [_display.Panel(outlined(tinted(rgb, a), true, TRUE, ZOOM, dashed=True))]
        ious[name] = []
        for tau in LEVELS:
            boxes = found_boxes(a, tau)
            iou = box_iou(boxes, true)[:, 0]
            above = _zoomed(image > int(tau * image.max()))
            picture = np.where(above[..., None], rgb, (rgb * 0.3).astype(np.uint8))
            picture = outlined(picture, boxes, OTHER, ZOOM, 1)
            picture = outlined(picture, boxes[[iou.argmax()]], BEST, ZOOM)
            ious[name].append(float(iou.max()))
            line.append(_display.Panel(outlined(picture, true, TRUE, ZOOM, dashed=True), below=f"{iou.max():.2f}"))
        best = 1 + int(np.argmax(ious[name]))
        line[best] = replace(line[best], below=f"best: {max(ious[name]):.2f}")
        rows.append(line)
    header = ["Map", *(f"τ = {tau}" for tau in LEVELS)]
    names = [title(name).replace("Backprop", "Back-prop") for name in maps]
    return _display.Block(header, rows, names, "One image, the threshold τ from low to high"), ious


def photographs(
    run: _run.Run, rows: Sequence[_run.Subject], panels: Mapping[str, Sequence[_display.Panel | None]]
) -> tuple[_display.Block, dict[str, list[list[float]]]]:
    """The largest box of a classifier's maps of photographs, by method, at three thresholds; and its share of the area.

    A method that is not defined for the model gives empty cells.
    """
    lines: list[list[_display.Panel | None]] = [[first] for first in _run.photographs(rows)]
    areas: dict[str, list[list[float]]] = {}
    for name, column in panels.items():
        for line, panel in zip(lines, column, strict=True):
            picture, shares = nested(panel) if panel else (None, [])
            line.append(picture)
            areas.setdefault(name, []).append(shares)
    heading = "Photographs: the largest box at τ = 0.2 (pale blue), 0.4 (blue) and 0.6 (black)"
    header = ["Photograph", *(title(name).replace("Backprop", "Back-prop") for name in panels)]
    return _display.Block(header, lines, _run.labels(rows), heading), areas


def nested(panel: _display.Panel) -> tuple[_display.Panel, list[float]]:
    """A photograph with its map and the largest box at each threshold of NESTED, and the shares of their areas."""
    assert panel.a is not None
    size = panel.rgb.shape[:2]
    a = pixels(panel.a[None, None].cpu(), torch.empty(1, *size))[0]
    picture, shares = tinted(panel.rgb, a), []
    for tau, colour in NESTED.items():
        boxes = found_boxes(a, tau)
        area = (boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1)
        picture = outlined(picture, boxes[[area.argmax()]], colour, 1)
        shares.append(min(1.0, float(area.max()) / (size[0] * size[1])))
    return _display.Panel(picture), shares


def tinted(rgb: UInt8[np.ndarray, "H W 3"], a: Float[Tensor, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """An image with a map over it."""
    return (_display._pixels(_display.Panel(rgb, a, overlay=True)) * 255).astype(np.uint8)


def outlined(
    rgb: UInt8[np.ndarray, "H W 3"],
    boxes: Float[np.ndarray, "n 4"],
    colour: tuple[int, int, int],
    zoom: float,
    width: int = 4,
    *,
    dashed: bool = False,
) -> UInt8[np.ndarray, "H W 3"]:
    """A copy with the outlines of boxes; boxes are in pixels of an image `zoom` times smaller, both ends inside."""
    rgb = rgb.copy()
    for x0, y0, x1, y1 in boxes:
        left, top, right, bottom = (round(v * zoom) for v in (x0, y0, x1 + 1, y1 + 1))
        edge = np.zeros(rgb.shape[:2], dtype=bool)
        edge[top:bottom, left:right] = True
        edge[top + width : bottom - width, left + width : right - width] = False
        if dashed:
            edge &= np.add.outer(*(np.arange(n) for n in edge.shape)) // DASH % 2 == 0
        rgb[edge] = colour
    return rgb


def _zoomed(image: np.ndarray) -> np.ndarray:
    return image.repeat(ZOOM, axis=0).repeat(ZOOM, axis=1)
