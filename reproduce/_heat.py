"""Heat maps of the similarity that is left when stages of a network are randomised: methods by steps."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

import _plot
from _dots import title
from methods import METHODS, _display

OTHERS = {"signed": "Spearman of a", "ssim": "SSIM of |a|", "hog": "HOG of |a|"}  # measures besides Spearman of |a|
SHADES = ScalarMappable(Normalize(0, 1), "Blues")  # of similarities; darker in grey, too


def ranked(found: Mapping[str, Any], step: int) -> list[str]:
    """The methods of a `summary`, from the most to the least that is left at a step (Spearman of |a|)."""
    left = {name: row["curves"]["spearman"][step]["mean"] for name, row in found["rows"].items() if name in METHODS}
    return sorted(left, key=lambda name: -left[name])


def table(found: Mapping[str, Any], names: Sequence[str], measure: str) -> dict[str, list[Any]]:
    """Rows of `heat` from a `summary`: the numbers at each step but the first, then those of another photograph."""
    nothing = [None] * len(found["labels"])  # of a row that was not run
    rows = {name: found["rows"].get(name) for name in names}
    return {
        title(name): [*row["curves"][measure][1:], row["null"][measure]] if row else nothing
        for name, row in rows.items()
    }


def heat(ax: Any, rows: Mapping[str, Sequence[Any]], ticks: Sequence[str]) -> None:  # noqa: ANN401
    """Means as shades, the higher the darker; the last column is set off, and what was not run is hatched.

    Args:
        ax: empty axes.
        rows: label -> a mean with its interval for each column, or None.
        ticks: labels of the columns.
    """
    v = np.array([[cell["mean"] if cell else np.nan for cell in row] for row in rows.values()])
    ax.patch.set(hatch="//////", edgecolor="#aaaaaa", linewidth=0)
    ax.imshow(v, aspect="auto", interpolation="nearest", cmap=SHADES.cmap, norm=SHADES.norm)
    ax.axvline(v.shape[1] - 1.5, color="white", linewidth=4)
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set_xticks(range(len(ticks)), ticks)
    ax.tick_params(length=0, pad=2)
    ax.spines[:].set_visible(False)


def heats(
    panels: Mapping[str, Mapping[str, Any]], ticks: Sequence[Sequence[str]], height: float, caption: str
) -> Figure:
    """Heat maps with the same rows in a line, with a colour bar.

    Args:
        panels: heading -> rows of `heat`.
        ticks: labels of the columns, for each panel.
        height: inches.
        caption: below them.
    """
    with _display.style():
        widths = [2 + len(labels) for labels in ticks]
        figure, axes = _plot.chart(1, len(panels), caption, height=height, sharey=True, width_ratios=widths)
        for ax, (heading, rows), labels in zip(axes.flat, panels.items(), ticks, strict=True):
            heat(ax, rows, labels)
            ax.set_title(heading)
            ax.get_xticklabels()[-1].set(rotation=90, linespacing=0.9)
        figure.colorbar(SHADES, ax=axes, ticks=[0, 0.5, 1], aspect=30, pad=0.01)
        return figure
