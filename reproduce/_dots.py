"""Dot plots: a line for each method and control, with a mean and its 95 % interval."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

import _plot
from methods import METHODS
from methods._torch import Attribution
from sanity_checks._controls import CONTROLS


def controls(seed: int, names: Sequence[str] = tuple(CONTROLS)) -> dict[str, Attribution]:
    """Maps that do not use a network, by name."""
    return {name: CONTROLS[name][1](seed) for name in names}


def title(name: str) -> str:
    """A row's name in the picture."""
    return METHODS[name].title if name in METHODS else CONTROLS[name][0]


def rgb(picture: Tensor) -> np.ndarray:
    """An image of one channel in [0, 1] as H W 3 bytes."""
    return (picture[0].clamp(0, 1) * 255).byte().cpu().numpy()[..., None].repeat(3, axis=2)


def dots(
    ax: Any,  # noqa: ANN401
    rows: Mapping[str, Mapping[str, float]],
    *,
    shift: float = 0.0,
    colour: str = _plot.LINES[0],
    names: Mapping[str, str] | None = None,
    **look: Any,  # noqa: ANN401
) -> None:
    """A mean and its interval for each row, from the top down; controls in grey.

    Args:
        ax: axes with an empty y axis.
        rows: name -> mean, low, high.
        shift: downwards, in rows.
        colour: of methods.
        names: the labels at the left; None: `title`.
        look: keywords of `Axes.plot` for the mean.
    """
    look = {"markersize": 3.5, "linestyle": "none"} | look
    for i, (name, v) in enumerate(rows.items()):
        c = _plot.CONTROL if name in CONTROLS else colour
        ax.plot([v["low"], v["high"]], [i + shift] * 2, color=c, linewidth=0.8)
        ax.plot(v["mean"], i + shift, color=c, **(look if i == 0 else look | {"label": None}))
    ax.set_yticks(range(len(rows)), [(names or {}).get(name) or title(name) for name in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)


def legend(figure: Any, *axes: Any, **options: Any) -> None:  # noqa: ANN401
    """The legend of the marks of `axes`, in a line above all axes, from the last drawn to the first of each."""
    marks = [mark for ax in axes for mark in list(zip(*ax.get_legend_handles_labels(), strict=True))[::-1]]
    handles, labels = zip(*marks, strict=True)
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), **options)
