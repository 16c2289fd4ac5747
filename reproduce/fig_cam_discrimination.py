"""Two classes in one photograph: which methods show only the explained class, and which show both.

Selvaraju, Cogswell, Das, Vedantam, Parikh, Batra. Grad-CAM. ICCV 2017. arXiv:1610.02391, form of figure 1.

The reader should see: Grad-CAM and its relatives put about nine tenths of their mass on the half of the picture with
the explained class. Guided backpropagation draws nearly the same map for both classes.

Settings that differ from the paper: two photographs side by side replace its cat and dog, so the halves are the ground
truth. The network is another one. The paper's figure has no numbers; here the number is the share of the map's positive
part in the half of its class, measured on all pairs of six photographs that the network recognises. A map that does not
depend on the class has a mean share of exactly one half over the two classes. A 7 x 7 map has a column of cells across
the border of the halves: a map that fills its half and this column evenly gets 0.875.
"""

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from matplotlib.figure import Figure

import _plot
import _run  # puts the repository on the path
from _pairs import measure, names, share, side_by_side
from methods import METHODS, _display, _images
from sanity_checks._controls import CONTROLS

ORDER: dict[str, dict[str, Any]] = {  # method: keywords
    "guided_backprop": {},
    "grad_cam": {},
    "guided_grad_cam": {},
    "hires_cam": {},
    "occlusion": {"size": 32, "stride": 16},
}
QUICK: dict[str, dict[str, Any]] = {"occlusion": {"size": 64, "stride": 64}}


def main() -> None:
    """Draw figures/fig_cam_discrimination.png."""
    run = _run.start(__file__, __doc__, photos="chelsea_coffee")
    loaded = _run.load(run)
    rows = _run.subjects(run, loaded)
    if not all(r.photo.parts for r in rows):
        sys.exit(f"{run.script}: --images must name composites with known halves: {', '.join(_images.COMPOSITES)}")
    settings = ORDER | (QUICK if run.args.quick else {})
    pairs = side_by_side(run, loaded)
    run.bar.reset(total=2 * len(settings) + len(CONTROLS))

    columns, shown, found = [], {}, {}
    for name, params in settings.items():
        columns.append(_run.explain(run, loaded, name, rows, **params))
        panels = [panel for panel in columns[-1] if panel]
        if panels:  # otherwise the method is not defined for the model
            maps = [p.a[None, None] for p in panels if p.a is not None]
            shown[name] = [float(share(run, a, pairs.x, i % 2)) for i, a in enumerate(maps)]
            columns[-1] = [replace(p, below=f"{s:.2f} in its half") for p, s in zip(panels, shown[name], strict=True)]
            of = _run.bind(run, name, loaded.model, pairs.x, **params)
            found[METHODS[name].title] = measure(run, loaded.model, pairs, of)
        run.bar.update()
    for title, control in CONTROLS.values():
        found[title] = measure(run, loaded.model, pairs, control(run.args.seed))
        run.bar.update()
    run.numbers |= {"shown": shown, "pairs": [p.name for p in pairs.photos], "measured": found}

    windows = [f"{METHODS[name].title} {p['size']} px, stride {p['stride']}" for name, p in settings.items() if p]
    above = (
        f"{loaded.note}. One picture, explained for the top class of each of its two photographs; the class is named "
        "at the left. Below the photograph: the top class of the whole picture and its probability. Below a map: the "
        f"share of its positive part in the half of the explained class. {', '.join(windows)}. {_display.SCALE}"
        + _run.refusals(run, "cell left empty")
    )
    below = (
        f"Left: this share in all {len(pairs.photos)} pairs of the photographs "
        f"{names(run).replace(',', ', ')}. Each pair is explained for the top classes of both "
        "halves. Small dots: the mean of the two classes of one pair. Large dots: the mean over pairs with its 95 % "
        "bootstrap interval (it is somewhat too short, because pairs share photographs). A map that is the same for "
        "both classes has exactly 0.5. Right: Spearman's correlation of |a| between the maps of the two classes, at "
        "the map's own resolution; 1: the maps are the same. Grey: controls that do not use the network; noise is "
        "drawn again for each class, seed "
        f"{run.args.seed}."
    )
    header = ["Photograph", *(METHODS[name].title for name in settings)]
    block = _display.Block(header, list(zip(_run.photographs(rows), *columns, strict=True)), _run.labels(rows))
    maps = _display.grid([block], above, _run.banner(run), title=headline(found))
    _run.save(run, [maps, dots(found, below)], f"{above}\n{below}")


def headline(found: Mapping[str, Mapping[str, Any]]) -> str:
    """What the two methods of the paper show, if the numbers say so for certain."""
    cam, guided = (found.get(METHODS[name].title) for name in ("grad_cam", "guided_backprop"))
    if cam and guided and cam["share"]["low"] > 0.75 and guided["share"]["high"] < 0.6:
        return "Grad-CAM shows the explained class; Guided Backpropagation shows both"
    return "How much of a map lies on the explained class"


def dots(found: dict[str, dict[str, Any]], caption: str) -> Figure:
    """A line per method and control: all pairs, mean and interval; left the share, right the rank correlation."""
    blind = {title for title, _ in CONTROLS.values()}
    with _display.style():
        figure, axes = _plot.chart(1, 2, caption, height=0.5 + 0.16 * len(found), sharey=True)
        labels = (
            "share of the positive mass in the half of the class",
            "rank correlation of the maps of the two classes",
        )
        for ax, key, label in zip(axes[0], ("share", "spearman"), labels, strict=True):
            for i, (title, numbers) in enumerate(found.items()):
                colour, v = _plot.CONTROL if title in blind else _plot.LINES[0], numbers[key]
                ax.plot(v["values"], [i] * len(v["values"]), ".", color=colour, alpha=0.4, ms=4.5, mew=0, zorder=3)
                ax.plot([v["low"], v["high"]], [i, i], color=colour, lw=1.2)
                ax.plot(v["mean"], i, "o", color=colour, ms=4.5, mec="white", mew=0.6)
            ax.set_xlabel(label)
            ax.grid(axis="x", lw=0.3, color="#dddddd")
        axes[0, 0].axvline(0.5, color="black", lw=0.6, zorder=0)
        axes[0, 0].set_xlim(0.38, 1.02)
        axes[0, 0].set_yticks(range(len(found)), list(found))
        axes[0, 0].invert_yaxis()
    return figure


if __name__ == "__main__":
    main()
