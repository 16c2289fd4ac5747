"""Rows of randomisation tests from the best to the worst, the places of noise among them, and their picture."""

from collections.abc import Mapping, Sequence
from typing import Any

import _plot  # puts the repository on the path
from _dots import title
from methods import _display
from sanity_checks._controls import CONTROLS

TESTS = {"mprt": "lower", "smprt": "lower", "emprt": "higher"}  # number: what is better
NOISE = ("white_noise", "smooth_noise")
CASES = {"digits": "Digits", "photographs": "Photographs"}
MARKS: dict[str, tuple[float, dict[str, Any]]] = {  # where in a row, and how
    "mprt": (-0.17, {"marker": "o"}),
    "smprt": (0.17, {"marker": "D", "markerfacecolor": "white"}),
    "emprt": (0, {"marker": "s"}),
}
LEFT = "MPRT ● and smooth MPRT ◇\nsimilarity, lower is better"
RIGHT = "efficient MPRT ■\nrise of entropy, higher is better"


def order(rows: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, list[str]]:
    """For each test the rows from the best to the worst, of those with a number for at least half of the images."""
    sign = {"lower": 1, "higher": -1}
    return {
        test: sorted(
            (name for name, row in rows.items() if row[test]["n"] >= row[test]["missing"]),
            key=lambda name: sign[way] * rows[name][test]["mean"],
        )
        for test, way in TESTS.items()
    }


def places(numbers: Mapping[str, Any]) -> list[int]:
    """The better place of white and smooth noise, by case and test."""
    orders = [names for case in CASES for names in order(numbers[case]["rows"]).values()]
    return [1 + min(names.index(name) for name in NOISE if name in names) for names in orders]


def headline(numbers: Mapping[str, Any]) -> str:
    """What the reader should see."""
    found = numbers["places_of_noise"]
    return (
        f"Noise knows nothing of the network, but it is first in {found.count(1)} of these {len(found)} comparisons "
        f"and second in {found.count(2)}{': the tests cannot rank methods' if max(found) < 3 else ''}"
    )


def draw(numbers: Mapping[str, Any], caption: str, banner: str) -> Any:  # noqa: ANN401 matplotlib's figure
    """A line of panels for each network: the two tests of similarity, and the rise of entropy; from best to worst."""
    heights = [0.175 * len(numbers[case]["rows"]) + 0.6 for case in CASES]
    with _display.style():
        figure, axes = _plot.chart(
            2, 2, caption, height=sum(heights) / 2, height_ratios=heights, banner=banner, title=headline(numbers)
        )
        for (left, right), (case, network) in zip(axes, CASES.items(), strict=True):
            found = numbers[case]["rows"]
            ranks = order(found)
            rows = [*ranks["mprt"], *(name for name in found if name not in ranks["mprt"])]
            for i in range(len(ranks["mprt"]), len(rows)):
                left.text(1.04, i, "MPRT: map all zero", ha="right", va="center", color=colour(rows[i]))
            ranked(left, rows, found, {test: ranks[test] for test in ("mprt", "smprt")})
            left.set(xlim=(-0.15, 1.05), title=f"{network}: {LEFT}")
            ranked(right, ranks["emprt"], found, {"emprt": ranks["emprt"]})
            right.set_xscale("symlog", linthresh=0.01)
            right.set_xticks([-1, -0.1, -0.01, 0, 0.01, 0.1], ["-1", "-0.1", "", "0", "", "0.1"])
            right.set(xlim=(-1.5, 0.6), title=f"{network}: {RIGHT}")
            right.minorticks_off()
        return figure


def ranked(
    ax: Any,  # noqa: ANN401
    rows: Sequence[str],
    found: Mapping[str, Any],
    ranks: Mapping[str, Sequence[str]],
) -> None:
    """Means and intervals of tests, by row, and the places of the best."""
    ax.axvline(0, color="black", linewidth=0.4)
    ax.set_yticks(range(len(rows)), [title(name) for name in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    for text, name in zip(ax.get_yticklabels(), rows, strict=True):
        text.set(color=colour(name), weight="bold" if name in NOISE else "normal")
    for test, names in ranks.items():
        shift, look = MARKS[test]
        for name in names:
            v, at = found[name][test], rows.index(name) + shift
            ax.plot([v["low"], v["high"]], [at, at], color=colour(name), linewidth=0.8)
            ax.plot(v["mean"], at, color=colour(name), markersize=4.5, **look)
    for name, words in beside(ranks).items():
        end = max(found[name][test]["high"] for test in ranks)
        place = {"xytext": (6, 0), "textcoords": "offset points", "va": "center", "weight": "bold"}
        ax.annotate(words, (end, rows.index(name)), **place).set_in_layout(False)


def beside(ranks: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The words beside rows: the first of each test, and the second where the first is not noise."""
    names = {"mprt": "MPRT", "smprt": "smooth MPRT"}
    first = {name: [names[t] for t in ranks if ranks[t][0] == name and t in names] for t, (name, *_) in ranks.items()}
    second = {r[1]: "2nd" for t, r in ranks.items() if t not in names and r[0] not in NOISE}
    return {name: f"1st in {' and '.join(tests)}" if tests else "1st" for name, tests in first.items()} | second


def colour(name: str) -> str:
    """Of a row: noise, other maps that do not use the network, methods."""
    return _plot.LINES[1] if name in NOISE else _plot.CONTROL if name in CONTROLS else _plot.LINES[0]
