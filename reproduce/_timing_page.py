"""The table of time as a page of Markdown, as a figure, and as a plan of hours."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

import _plot
import _several
from _peers import MODULES
from _timing import Cell, passes_text
from methods import METHODS, _display

BRACKETS = (
    "in brackets how many of them run through the part of the network before the layer, where that is fewer; the "
    "others are of the tail only, the part after the layer"
)


def plan(cells: Sequence[Cell], images: int) -> list[tuple[str, float, str]]:
    """Hours that a number of images would take: (method, hours, what the number rests on), the longest first.

    For each method the fastest cell of its network; a cell that was not run counts with the seconds expected of it,
    where no cell was measured.
    """
    rows = []
    for name in dict.fromkeys(c["method"] for c in cells):
        mine = [c for c in cells if c["method"] == name]
        measured = [c for c in mine if c["status"] == "measured"]
        if measured:
            best = min(measured, key=lambda c: c["seconds"] / c["batch"])
            each, basis = best["seconds"] / best["batch"], f"measured, {best['dtype']}, batch {best['batch']}"
        else:
            expected = [c for c in mine if c.get("expected")]
            if not expected:
                continue
            best = min(expected, key=lambda c: c["expected"] / c["batch"])
            each, basis = best["expected"] / best["batch"], f"expected, {best['dtype']}, batch {best['batch']}"
        rows.append((name, each * images / 3600, basis))
    return sorted(rows, key=lambda r: -r[1])


def plan_text(rows: Sequence[tuple[str, float, str]], images: int) -> str:
    """The plan as it is printed: what its hours rest on, and the passes that the method declares."""
    lines = [f"{images} images; passes for each, {BRACKETS}"]
    for name, hours, basis in rows:
        passes = f"forward {METHODS[name].forward.words}, backward {METHODS[name].backward.words}"
        lines.append(f"{hours:12.3f} h  {name:26} {basis:32} {passes}")
    return "\n".join([*lines, f"{sum(hours for _, hours, _ in rows):12.3f} h  in all"])


def _seconds(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _mib(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def ordered(cells: Sequence[Cell]) -> list[str]:
    """Methods by what they promise, cheapest first: by the passes before the layer, then by all."""
    cost = {}
    for c in cells:
        if "promised" in c:
            pairs = c.get("promised_before", c["promised"]), c["promised"]
            cost[c["method"]] = (*(forward + 1.5 * backward for forward, backward in pairs), c["method"])
    return sorted(cost, key=lambda name: cost[name])


def rows(cells: Sequence[Cell]) -> list[str]:
    """Lines of a table, one for each cell."""
    lines = [
        "| method | passes | seconds (IQR) | x gradient | F | overhead | MiB | remark |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for c in cells:
        settings = "".join(f", {k}={v}" for k, v in c.get("keywords", {}).items())
        if c["status"] == "measured":
            iqr = "1 call" if c["iqr"] is None else _seconds(c["iqr"])
            row = [
                passes_text(c["passes"], c["before"]),
                f"{_seconds(c['seconds'])} ({iqr})",
                f"{c['in_gradients']:.2f}",
            ]
            row += [f"{c['in_forwards']:.1f}", f"{c['overhead']:.2f}", _mib(c["mib"]), c["remark"]]
        else:
            row = [f"{passes_text(c['promised'], c['promised_before'])} promised", "", "", "", "", "", c["remark"]]
        lines.append(f"| `{c['method']}`{settings} | {' | '.join(row)} |".replace("|  ", "| "))
    return lines


def tables(
    cells: Sequence[Cell],
    others: Sequence[Cell],
    classes: Sequence[Cell],
    peers: Sequence[Cell],
    missing: Sequence[str],
    head: str,
) -> str:
    """The Markdown page: a table for each number type and batch, then other settings, classes and other libraries."""
    lines = ["# Time of every method", "", head]
    order = {name: i for i, name in enumerate(ordered(cells))}
    for dtype, batch in dict.fromkeys((c["dtype"], c["batch"]) for c in cells):
        mine = [c for c in cells if (c["dtype"], c["batch"]) == (dtype, batch)]
        lines += ["", f"## {dtype}, batch {batch}", ""]
        for network in dict.fromkeys(c["model"] for c in mine):
            base = next((c for c in mine if c["model"] == network and c["status"] == "measured"), None)
            if base:
                pair = f"F = {1000 * base['forward']:.3g} ms, a gradient {1000 * base['gradient']:.3g} ms"
                lines += [f"{network}: {pair} for the batch.", ""]
        mine = sorted((c for c in mine if c["method"] in order), key=lambda c: order[c["method"]])
        lines += rows([c for c in mine if c["status"] != "not run"])
        if left := [
            f"`{c['method']}` {c['remark'].removeprefix('not run: ')}" for c in mine if c["status"] == "not run"
        ]:
            lines += ["", f"Not run: {'; '.join(left)}."]
    if others:
        lines += ["", "## Other layers and settings", "", f"{others[0]['model']}, float32, one image.", ""]
        lines += rows(others)
    lines += _several.page(classes) if classes else []
    if peers or missing:
        lines += [
            "",
            "## Compared with other libraries",
            "",
            "The same work, float32, one image, called in turns; ratio: their time over ours. Theirs are called as "
            "their users call them: pytorch-grad-cam also rescales and resizes its map."
            + (f" Not installed: {', '.join(missing)}." if missing else ""),
            "",
            "| method | library | settings | our seconds | theirs | ratio | our passes | theirs |",
            "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
        ]
        for p in peers:
            settings = ", ".join(f"{k}={v}" for k, v in p["keywords"].items())
            row = [f"{p['package']} {p['version']}", settings, _seconds(p["seconds"]), _seconds(p["their_seconds"])]
            row += [f"{p['ratio']:.2f}", passes_text(p["passes"]), passes_text(p["their_passes"])]
            lines.append(f"| `{p['method']}` | {' | '.join(row)} |")
    return "\n".join(lines)


def figure(cells: Sequence[Cell], peers: Sequence[Cell], caption: str) -> Figure:
    """Left: cost in forward passes, each number type and batch; right: other libraries' time over ours."""
    names = ordered(cells)[::-1]
    at = {name: i for i, name in enumerate(names)}
    done = [c for c in cells if c["status"] == "measured"]
    with _display.style():
        drawn, axes = _plot.chart(
            1, 2, caption, height=0.42 + 0.15 * len(names), sharey=True, gridspec_kw={"width_ratios": [1.6, 1]}
        )
        left, right = axes[0]
        for name in names:
            first = next((c for c in done if c["method"] == name), None)
            if first:
                left.plot(
                    [first["priced"] / first["forward"]] * 2,
                    [at[name] - 0.42, at[name] + 0.42],
                    color=_plot.CONTROL,
                    lw=1.6,
                    zorder=1,
                )
        left.plot([], [], color=_plot.CONTROL, lw=1.6, label="its passes alone")
        settings = list(dict.fromkeys((c["dtype"], c["batch"]) for c in cells))
        for (dtype, batch), colour, marker in zip(settings, _plot.LINES, "osD^", strict=False):
            mine = [c for c in done if (c["dtype"], c["batch"]) == (dtype, batch)]
            left.scatter(
                [c["in_forwards"] for c in mine], [at[c["method"]] for c in mine], s=13, marker=marker,
                facecolors="none", edgecolors=colour, linewidths=0.9, label=f"{dtype}, batch {batch}", zorder=2,
            )  # fmt: skip
        for name in names:  # what nobody waited for
            cell = next((c for c in cells if c["method"] == name), None)
            if cell and cell["status"] == "not run" and "expected" in cell:
                forward = next((c["forward"] for c in done if c["model"] == cell["model"]), cell["expected"])
                left.scatter(
                    cell["expected"] / forward, at[name], s=13, marker="x", color=_plot.CONTROL, linewidths=0.9
                )
        left.scatter([], [], s=13, marker="x", color=_plot.CONTROL, linewidths=0.9, label="expected, not run")
        left.set_xscale("log")
        left.set_xlabel("time in forward passes of the batch, F")
        left.set_yticks(range(len(names)), names)
        left.set_ylim(-0.7, len(names) - 0.3)
        right.axvline(1, color=_plot.CONTROL, lw=0.8)
        for package, colour in zip(MODULES, _plot.LINES, strict=False):
            mine = [p for p in peers if p["package"] == package and p["method"] in at]
            if mine:
                right.scatter(
                    [p["ratio"] for p in mine], [at[p["method"]] for p in mine], s=13, color=colour, label=package
                )
        right.set_xscale("log")
        right.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        right.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        right.xaxis.set_minor_formatter(NullFormatter())
        right.set_xlabel("their time / our time")
        right.tick_params(left=False)
        for ax in (left, right):
            ax.grid(visible=True, lw=0.25, color="#cccccc")
            ax.set_axisbelow(True)
            ax.set_title(" \n \n ")  # room for the legend, which must not move the axes
            if ax.get_legend_handles_labels()[1]:
                legend = ax.legend(
                    loc="lower right",
                    bbox_to_anchor=(1.04, 1.0),
                    ncols=3 if ax is left else 2,
                    columnspacing=1.0,
                    handlelength=1.0,
                    handletextpad=0.4,
                )
                legend.set_in_layout(False)
    return drawn
