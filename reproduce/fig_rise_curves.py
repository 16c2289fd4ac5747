"""RISE and other methods: maps, and the curves of deletion and insertion.

Petsiuk, Das, Saenko. RISE: Randomized Input Sampling for Explanation of Black-box Models. BMVC 2018. arXiv:1806.07421,
figures 3 and 4 and the two measures of its table 1.

The reader should see: as its most important pixels are removed, the probability of the class falls, and as they are
shown in a blurred image, it rises. A map that is better than noise as smooth as itself has a smaller area below the
first curve and a larger one below the second.

Settings that differ from the paper: another network and photographs, 2000 masks.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

import _plot
import _run  # puts the repository on the path
from methods import METHODS, _display, _images
from methods._torch import probability
from sanity_checks._controls import matched
from sanity_checks._statistics import of_images
from sanity_checks._torch import explain

SHOWN: dict[str, dict[str, Any]] = {  # keywords
    "rise": {"samples": 2000},
    "lime": {"samples": 1000},
    "occlusion": {"size": 32, "stride": 16},
    "grad_cam": {},
    "integrated_gradients": {},
}
NOISE = "noise, as smooth as RISE"
CURVES = {"deletion": "share of pixels removed", "insertion": "share of pixels shown"}
PICTURES = 2  # photographs in the picture; all of them are measured


def main() -> None:
    """Draw figures/fig_rise_curves.png."""
    photos = ",".join(_images.PACKAGED)
    run = _run.start(__file__, __doc__, photos=photos, quick_photos="coffee,chelsea")
    loaded = _run.load(run)
    rows = _run.subjects(run, loaded)
    x = _images.tensor([r.photo for r in rows], loaded)
    target = torch.tensor([r.target for r in rows], device=x.device)
    run.bar.reset(total=2 * len(SHOWN) + 1)

    maps = {}
    for name, keywords in SHOWN.items():
        run.bar.set_postfix_str(name)
        of = _run.bind(run, name, loaded.model, x, **({} if run.args.quick else keywords))
        score = probability(target) if name in ("rise", "lime") else target
        maps[name] = explain(of, loaded.model, x, score)
        run.bar.update()
    maps[NOISE] = matched(maps["rise"], run.args.seed).to(x)
    found = {}
    for name, a in maps.items():
        run.bar.set_postfix_str(f"{name}, curves")
        r = _run.check(
            run, "insertion_deletion", loaded.model, x, target, a, **({"step": 2048} if run.args.quick else {})
        )
        found[name] = {
            curve: {"at": r.at, "mean": r.curves[curve].mean(dim=0), "area": of_images(r.columns[curve])}
            for curve in CURVES
        }
        run.bar.update()
    run.numbers |= {"photographs": [r.photo.name for r in rows], "found": found}
    lines = []
    for i, photograph in enumerate(_run.photographs(rows)[:PICTURES]):
        line = [photograph]
        for name in SHOWN:
            a = maps[name][i].sum(dim=0)
            a = a - a.min() if name == "rise" else a  # all its values are near the mean score
            line.append(_display.Panel(rows[i].photo.rgb, a, overlay=maps[name].shape[1] == 1))
        lines.append(line)
    block = _display.Block(["Photograph", *(METHODS[name].title for name in SHOWN)], lines)
    above = f"{_display.SCALE} RISE is shown less its smallest value."
    areas = "; ".join(
        f"{label(name)} {by['deletion']['area']['mean']:.2f} and {by['insertion']['area']['mean']:.2f}"
        for name, by in found.items()
    )
    caption = (
        f"{loaded.note}. Mean over {len(rows)} photographs, explained for their top class, of its probability while "
        "pixels are removed (set to the mean colour), or shown in a blurred image, highest of the map first. RISE and "
        f"LIME explain the probability, as their papers do, the others the logit. Areas below the curves: {areas}."
    )
    figures = [
        _display.grid([block], above, _run.banner(run), title=headline(found)),
        draw(found, caption),
    ]
    _run.save(run, figures, caption)


def label(name: str) -> str:
    """As in the picture."""
    return METHODS[name].title if name in METHODS else name


def headline(found: Mapping[str, Any]) -> str:
    """How many methods beat equally smooth noise in both areas, by their means."""

    def area(name: str, curve: str) -> float:
        return found[name][curve]["area"]["mean"]

    better = [
        name
        for name in SHOWN
        if area(name, "deletion") < area(NOISE, "deletion") and area(name, "insertion") > area(NOISE, "insertion")
    ]
    return f"{len(better)} of {len(SHOWN)} methods beat smooth noise in both curves; RISE " + (
        "is one of them" if "rise" in better else "is not one of them"
    )


def draw(found: Mapping[str, Any], caption: str) -> Figure:
    """Both curves."""
    with _display.style():
        figure, axes = _plot.chart(1, 2, caption, height=2.2, sharey=True)
        for ax, (curve, below) in zip(axes[0], CURVES.items(), strict=True):
            for k, (name, by) in enumerate(found.items()):
                look = {"color": _plot.CONTROL, "ls": ":"} if name == NOISE else {"color": _plot.LINES[k]}
                look |= {} if name == NOISE else {"ls": ("-", "--", "-.", (0, (5, 1, 1, 1)), (0, (1, 1)))[k]}
                ax.plot(by[curve]["at"], np.asarray(by[curve]["mean"]), lw=1.3, label=label(name), **look)
            ax.set(title=curve, xlabel=below, xlim=(0, 1), ylim=(0, 1))
        axes[0][0].set_ylabel("probability of the class")
        axes[0][0].legend(loc="upper right", handlelength=2.4, bbox_to_anchor=(1.0, 1.04), labelspacing=0.25)
    return figure


if __name__ == "__main__":
    main()
