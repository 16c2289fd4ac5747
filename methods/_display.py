"""Drawing: photographs and maps in a grid at page width, with one colour scale for all maps of a figure.

Each map is divided by its own 99.5th percentile of |a|; the colours then run from -1 to 1. A map of positions (one
channel) tints the photograph, a map of pixels (C channels, summed) is drawn on white.
"""

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

PAGE = 7.0  # page width in inches
MARGIN, GAP, BAR = 0.02, 0.035, 1.3  # inches: page edge, between panels, colour bar
TEXT = 8.0  # points
DPI = 225  # unless panels are large enough for one dot per pixel
STEPS = 8  # colours of a map of pixels from 0 to 1
LINE = 1.2 * TEXT / 72  # height of a line in inches
CAMEL = r"(?<=[a-z])(?=[A-Z])"  # where a title may be broken: Layer|CAM
BANNER = {"ha": "center", "va": "center", "fontsize": 13, "weight": "bold", "color": "#b2182b"}
HEAD = {"ha": "left", "va": "bottom", "weight": "bold", "fontsize": 10, "linespacing": 1.1}
TITLE = {"ha": "left", "va": "bottom", "weight": "bold"}
ABOVE = {"ha": "center", "va": "bottom", "linespacing": 1.0}
BELOW = {"ha": "center", "va": "top", "linespacing": 1.0}
SIDEWAYS = {"ha": "right", "va": "center", "rotation": 90, "linespacing": 1.0, "multialignment": "center"}
CAPTION = {"ha": "left", "va": "top", "linespacing": 1.2}
COLOURS = LinearSegmentedColormap.from_list(
    "negative_positive", ["#2166ac", "#92c5de", "#ffffff", "#f4a582", "#b2182b"], N=257
)  # an odd number: 0 is white
SCALE = (
    "Each map is divided by its own 99.5th percentile of |a|; colours run from -1 to 1 in every panel "
    "(maps of pixels: in steps of 1/8)."
)


@dataclass(frozen=True)
class Panel:
    """One cell of the grid: a photograph, or a map over it."""

    rgb: UInt8[np.ndarray, "H W 3"]
    a: Float[Tensor, "h w"] | None = None  # None: the photograph itself
    overlay: bool = False  # tint the photograph; False: on white
    below: str = ""  # text under the panel, one or two lines


@dataclass(frozen=True)
class Block:
    """Rows of panels under a common header; None leaves a cell empty."""

    header: Sequence[str]
    rows: Sequence[Sequence[Panel | None]]
    labels: Sequence[str] = ()  # one per row, written upwards at the left
    title: str | Mapping[int, str] = ""  # above the first column; or above several, by their numbers


def scale(a: Float[Tensor, "h w"]) -> float:
    """The divisor of a map for display: the 99.5th percentile of |a|, or the maximum if that is 0."""
    size = a.abs().double()
    return float(size.quantile(0.995)) or float(size.max())


def overlay(rgb: UInt8[np.ndarray, "H W 3"], a: Tensor) -> Image.Image:
    """A map over its photograph. One channel tints the photograph; several channels are summed and drawn on white.

    Args:
        rgb: the photograph, 0 to 255.
        a: one map K h w, as a method returns it; it is resized to the photograph.

    Returns:
        A picture of H x W pixels: red is positive, blue is negative, full colour is the map's 99.5th percentile of |a|.

    Raises:
        ValueError: `a` is not one map K h w.
    """
    if a.ndim != 3:
        raise ValueError(f"a: must be one map K h w, such as a[0] of a batch, got {tuple(a.shape)}")
    pixels = _pixels(Panel(rgb, a.sum(dim=0), overlay=len(a) == 1))
    return Image.fromarray((pixels * 255).round().astype(np.uint8))


def grid(blocks: Sequence[Block], caption: str, banner: str = "", *, title: str = "", widest: float = 1.1) -> Figure:
    """The blocks below each other, the caption and a colour bar, at page width.

    Args:
        blocks: rows of panels.
        caption: text below them.
        banner: a warning line on top.
        title: what the reader should see, in a sentence; above the blocks.
        widest: most inches for a panel; many panels in a row are smaller.
    """
    with style():
        figure = Figure(figsize=(PAGE, 1.0))
        labels = {t: wrapped(figure, t, 0.6) for b in blocks for t in b.labels}
        left = MARGIN + (LINE * lines(labels.values()) + 0.02 if any(labels) else 0.0)
        columns = max(len(b.header) for b in blocks)
        cell = min(widest, (PAGE - left - MARGIN - GAP * (columns - 1)) / columns)
        text = wrapped(figure, caption, PAGE - left - BAR - 0.9)
        # Draw with y in inches below the top edge; the height is known only at the end.
        y, items = (0.35, [partial(_text, banner, PAGE / 2, 0.17, BANNER)]) if banner else (0.03, [])
        if title:
            head = wrapped(figure, title, PAGE - 2 * MARGIN, **HEAD)
            y += headroom(head)
            items.append(partial(_text, head, MARGIN, y - 0.5 * LINE, HEAD))
        for block in blocks:
            if block.title:
                y += 1.6 * LINE
                titles = block.title if isinstance(block.title, Mapping) else {0: block.title}
                for j, t in titles.items():
                    items.append(partial(_text, t, left + j * (cell + GAP), y - 0.3 * LINE, TITLE))
            header = [wrapped(figure, re.sub(CAMEL, "\0", t), cell) for t in block.header]
            y += LINE * lines(header) + 0.02
            items += [
                partial(_text, t, left + j * (cell + GAP) + cell / 2, y - 0.03, ABOVE) for j, t in enumerate(header)
            ]
            for i, row in enumerate(block.rows):
                if block.labels:
                    items.append(partial(_text, labels[block.labels[i]], left - 0.02, y + cell / 2, SIDEWAYS))
                below = []
                for j, panel in enumerate(row):
                    if panel is None:
                        continue
                    x = left + j * (cell + GAP)
                    items.append(partial(_image, panel, x, y, cell))
                    below.append(wrapped(figure, panel.below, cell + 0.8 * GAP))
                    items.append(partial(_text, below[-1], x + cell / 2, y + cell + 0.02, BELOW))
                y += cell + GAP + (LINE * lines(below) + 0.03 if any(below) else 0.0)
        y += 0.5 * LINE
        side = max(len(p.rgb) for b in blocks for row in b.rows for p in row if p)
        figure.set_dpi(side / cell if 0.8 < side / cell / DPI < 1.2 else DPI)
        items.append(partial(_text, text, left, y, CAPTION))
        items.append(partial(_colour_bar, PAGE - BAR - 0.4, y + 0.2 * LINE))
        figure.set_size_inches(PAGE, y + LINE * max(4, 1.05 * lines([text]) + 0.5))
        for draw in items:
            draw(figure)
        return figure


def style() -> Any:
    """The text sizes and line widths of every figure; text has the same width at every resolution (dpi)."""
    return mpl.rc_context(
        {"font.size": TEXT, "font.family": "DejaVu Sans", "text.hinting": "none", "axes.linewidth": 0.4,
         "axes.titlesize": TEXT, "legend.frameon": False, "legend.handlelength": 2.5, "lines.linewidth": 1.1}
    )  # fmt: skip


def write_png(figure: Figure | Sequence[Figure], path: Path, *, optimize: bool = True) -> None:
    """Write the figure as PNG: the same bytes for the same figure, 64 levels per channel (two thirds of the size).

    Several figures are stacked, at the resolution (dpi) of the first. `optimize` saves another tenth and takes a second
    or two.
    """
    figures = [figure] if isinstance(figure, Figure) else list(figure)
    pictures = []
    with style():
        for part in figures:
            buffer = io.BytesIO()
            part.savefig(buffer, format="png", dpi=figures[0].dpi, metadata={"Software": None})
            pictures.append(np.asarray(Image.open(buffer).convert("RGB")))  # H W 3
    width = max(p.shape[1] for p in pictures)
    rgb = np.concatenate([np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0)), constant_values=255) for p in pictures])
    levels = np.round(np.round(rgb / 255 * 63) / 63 * 255).astype(np.uint8)
    Image.fromarray(levels).save(path, format="png", optimize=optimize, dpi=(figures[0].dpi,) * 2)


def _text(text: str, x: float, y: float, style: dict[str, Any], figure: Figure) -> None:
    figure.text(x / PAGE, 1 - y / figure.get_figheight(), text, **style)


def _image(panel: Panel, x: float, y: float, side: float, figure: Figure) -> None:
    axes = _axes(figure, x, y, side, side)
    native = round(figure.dpi * side) == len(panel.rgb)
    axes.imshow(_pixels(panel), interpolation="nearest" if native else "antialiased", aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([])
    if panel.a is not None and not panel.a.any():
        axes.text(0.5, 0.5, "all zero", transform=axes.transAxes, ha="center", va="center", weight="bold")


def _colour_bar(x: float, y: float, figure: Figure) -> None:
    axes = _axes(figure, x, y, BAR, 0.6 * LINE)
    axes.imshow(np.linspace(-1, 1, 256)[None], cmap=COLOURS, aspect="auto", extent=(-1, 1, 0, 1))
    axes.set_yticks([])
    axes.set_xticks([-1, 0, 1], ["-1\nnegative", "0", "1\npositive"])
    axes.tick_params(length=2, pad=1.5, width=0.4)


def _axes(figure: Figure, x: float, y: float, width: float, height: float) -> Axes:
    """Axes from their upper left corner and size, in inches."""
    h = figure.get_figheight()
    return figure.add_axes((x / PAGE, 1 - (y + height) / h, width / PAGE, height / h))


def _pixels(panel: Panel) -> Float[np.ndarray, "H W 3"]:
    photo = panel.rgb / 255  # H W 3
    if panel.a is None:
        return photo
    a = panel.a.detach().float().cpu()[None, None]  # 1 1 h w
    if panel.overlay:
        a = F.interpolate(a, size=photo.shape[:2], mode="bilinear", align_corners=False)
    a = (a[0, 0].numpy() / (scale(panel.a) or 1.0)).clip(-1, 1)
    if not panel.overlay:
        a = np.round(a * STEPS) / STEPS  # with 17 colours, noise takes half the bytes
    colour = COLOURS((a + 1) / 2)[..., :3]  # H W 3
    if not panel.overlay:
        return colour
    grey = photo @ np.array([0.299, 0.587, 0.114])  # H W
    return colour * (0.45 + 0.55 * grey[..., None])


def headroom(title: str) -> float:
    """Inches that a wrapped title takes, with the space below it."""
    return HEAD["fontsize"] / TEXT * LINE * lines([title]) + 0.6 * LINE if title else 0.0


def lines(texts: Iterable[str]) -> int:
    return max(t.count("\n") + 1 for t in texts)


def wrapped(figure: Figure, text: str, width: float, **look: Any) -> str:
    """Break lines at spaces, hyphens in words and NUL characters, so that none exceeds `width` inches, if possible.

    Args:
        figure: gives the size of the text.
        text: to be broken.
        width: inches.
        look: keywords of `Figure.text`.
    """
    renderer = FigureCanvasAgg(figure).get_renderer()
    probe = figure.text(0, 0, "", **look)

    def wide(line: str) -> bool:
        probe.set_text(line)
        return bool(probe.get_window_extent(renderer).width / figure.dpi > width)

    done = []
    for paragraph in text.split("\n"):
        line = ""
        for word in re.sub(r"(?<=\w)-(?=\w)", "-\0", paragraph).replace(" ", " \0").split("\0"):
            if line and wide((line + word).rstrip()):
                done.append(line.rstrip())
                line = ""
            line += word
        done.append(line.rstrip())
    probe.remove()
    return "\n".join(done)
