"""Charts at page width in the style of the pictures of maps; their colours."""

from typing import Any

from matplotlib.figure import Figure

import _run  # noqa: F401  puts the repository on the path
from methods._display import BANNER, CAPTION, DPI, HEAD, LINE, MARGIN, PAGE, headroom, lines, style, wrapped

LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c510a", "#000000")  # Okabe and Ito
CONTROL = "#888888"  # lines and bars of maps that know nothing of the network


def chart(
    rows: int,
    columns: int,
    caption: str,
    *,
    height: float = 1.5,
    banner: str = "",
    title: str = "",
    **options: Any,  # noqa: ANN401
) -> tuple[Figure, Any]:
    """A page-wide figure of `rows` x `columns` axes with the caption below, in the style of `grid`.

    Args:
        rows: of axes.
        columns: of axes.
        caption: below the axes.
        height: of a row, in inches.
        banner: a loud line on top.
        title: what the reader should see, in a sentence; above the axes.
        options: of `Figure.subplots`, such as `sharey`, `width_ratios`.

    Returns:
        The figure and its axes, an array rows x columns. Draw within `style()`, so that text gets its size.
    """
    with style():
        figure = Figure(figsize=(PAGE, 1.0), dpi=DPI, layout="constrained")
        text = wrapped(figure, caption, PAGE - 4 * MARGIN)
        head = wrapped(figure, title, PAGE - 4 * MARGIN, **HEAD)
        top, below = (0.3 if banner else 0.0) + headroom(head), LINE * (1.05 * lines([text]) + 0.5)
        total = top + rows * height + below
        figure.set_size_inches(PAGE, total)
        figure.get_layout_engine().set(rect=(0, below / total, 1, (rows * height) / total))  # type: ignore[union-attr]
        axes = figure.subplots(rows, columns, squeeze=False, **options)
        for ax in axes.flat:
            ax.spines[["top", "right"]].set_visible(False)
            ax.tick_params(length=2, width=0.4)
        figure.text(2 * MARGIN / PAGE, (below - 0.3 * LINE) / total, text, **CAPTION)
        if title:
            figure.text(2 * MARGIN / PAGE, 1 - (top - 0.5 * LINE) / total, head, **HEAD)
        if banner:
            figure.text(0.5, 1 - 0.17 / total, banner, **BANNER)
        return figure, axes
