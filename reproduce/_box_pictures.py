"""Boxes drawn on images: the boxes of a map at several thresholds, and the true box."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from torch import Tensor

import _run  # puts the repository on the path
from _dots import title
from methods import _display
from sanity_checks._boxes import around, box_iou
from sanity_checks._ground_truth import MEAN, STD, DigitsOnTextures
from sanity_checks._thresholds import as_bytes, found_boxes
from sanity_checks._torch import pixels

SWEPT = ["grad_cam", "full_grad", "smooth_grad_squared", "centred_gaussian"]  # rows of the first block
NESTED = {0.2: (86, 180, 233), 0.4: (0, 114, 178), 0.6: (0, 0, 0)}  # tau -> colour, on photographs
TRUE, BEST, AT_FIXED, OTHER = (255, 213, 0), (213, 0, 50), (86, 180, 233), (150, 150, 150)


def examples(
    found: DigitsOnTextures, maps: Mapping[str, Tensor], best: Mapping[str, float], fixed: float, *, few: bool
) -> Figure:
    """All thresholds on one image; boxes on three more images at one threshold for all and at each row's best one.

    Args:
        found: images with their masks.
        maps: of the images, by row.
        best: a row's best threshold.
        fixed: the threshold for all.
        few: one row of the sweep and one more image.
    """
    zoom = 6
    rgb = (found.x * STD + MEAN).clamp(0, 1).mul(255).byte()
    rgb = rgb.permute(0, 2, 3, 1).cpu().numpy().repeat(zoom, axis=1).repeat(zoom, axis=2)  # n 192 192 3
    levels = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    sweep = []
    shown = SWEPT[:1] if few else SWEPT
    for name in shown:
        a, true = pixels(maps[name][:1].cpu(), found.x[:1])[0], around(found.mask[0].numpy())
        line = [_display.Panel(outlined(tinted(rgb[0], a), true, TRUE, zoom))]
        for tau in levels:
            boxes = found_boxes(a, tau)
            iou = box_iou(boxes, true)[:, 0]
            image = as_bytes(a)
            above = (image > int(tau * image.max())).repeat(zoom, axis=0).repeat(zoom, axis=1)
            picture = np.where(above[..., None], rgb[0], (rgb[0] * 0.3).astype(np.uint8))
            picture = outlined(picture, boxes, OTHER, zoom, 1)
            picture = outlined(outlined(picture, true, TRUE, zoom), boxes[[iou.argmax()]], BEST, zoom)
            line.append(_display.Panel(picture, below=f"{iou.max():.2f}"))
        sweep.append(line)
    several = []
    for i in range(1, 2 if few else 4):
        true = around(found.mask[i].numpy())
        line = [_display.Panel(outlined(rgb[i], true, TRUE, zoom))]
        for name, own in best.items():
            a = pixels(maps[name][i : i + 1].cpu(), found.x[:1])[0]
            picture = outlined(tinted(rgb[i], a), true, TRUE, zoom)
            for tau, colour in ((fixed, AT_FIXED), (own, BEST)):
                boxes = found_boxes(a, tau)
                picture = outlined(picture, boxes[[box_iou(boxes, true)[:, 0].argmax()]], colour, zoom)
            line.append(_display.Panel(picture, below=f"{own:.2f}"))
        several.append(line)
    above = "One image, the threshold τ from low to high. Dark: below the threshold"
    own = f"More images: one threshold for all (τ = {fixed}) against each method's own best (written below)"
    blocks = [
        _display.Block(["Map", *(f"τ = {tau}" for tau in levels)], sweep, [title(name) for name in shown], above),
        _display.Block(["Image", *map(title, best)], several, title=own),
    ]
    legend = (
        "Yellow: the true box. Red: the best of all boxes that are found (in the second block at the best τ for "
        f"IoU 0.5). Pale blue: the best box at τ = {fixed}. Thin grey: the other boxes. Below the first block: the "
        "best IoU."
    )
    return _display.grid(blocks, legend)


def photographs(
    run: _run.Run, rows: Sequence[_run.Subject], panels: Mapping[str, Sequence[_display.Panel | None]], caption: str
) -> Figure:
    """Boxes of a classifier's maps of photographs, by method, at three thresholds."""
    lines = []
    for i, first in enumerate(_run.photographs(rows)):
        line: list[_display.Panel | None] = [first]
        for column in panels.values():
            panel = column[i]
            if panel is None or panel.a is None:
                line.append(None)
                continue
            rgb = panel.rgb
            a = pixels(panel.a[None, None].cpu(), torch.empty(1, *rgb.shape[:2]))[0]
            picture = tinted(rgb, a)
            for tau, colour in NESTED.items():
                boxes = found_boxes(a, tau)
                area = (boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1)
                picture = outlined(picture, boxes[[area.argmax()]], colour, 1)
            line.append(_display.Panel(picture))
        lines.append(line)
    block = _display.Block(
        ["Photograph", *map(title, panels)],
        lines,
        _run.labels(rows),
        "Photographs: the largest box at τ = 0.2 (pale blue), 0.4 (blue) and 0.6 (black)",
    )
    return _display.grid([block], caption, _run.banner(run))


def tinted(rgb: UInt8[np.ndarray, "H W 3"], a: Float[Tensor, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """An image with a map over it."""
    return (_display._pixels(_display.Panel(rgb, a, overlay=True)) * 255).astype(np.uint8)


def outlined(
    rgb: UInt8[np.ndarray, "H W 3"],
    boxes: Float[np.ndarray, "n 4"],
    colour: tuple[int, int, int],
    zoom: float,
    width: int = 4,
) -> UInt8[np.ndarray, "H W 3"]:
    """A copy with the outlines of boxes; boxes are in pixels of an image `zoom` times smaller, both ends inside."""
    rgb = rgb.copy()
    for x0, y0, x1, y1 in boxes:
        left, top, right, bottom = (round(v * zoom) for v in (x0, y0, x1 + 1, y1 + 1))
        edge = np.zeros(rgb.shape[:2], dtype=bool)
        edge[top:bottom, left:right] = True
        edge[top + width : bottom - width, left + width : right - width] = False
        rgb[edge] = colour
    return rgb
