"""Maps while one stage of the network at a time is randomised and all other stages keep their weights.

Adebayo, Gilmer, Muelly, Goodfellow, Hardt, Kim, NeurIPS 2018, arXiv:1810.03292: form of figure 3, with its numbers.
The reader should see: the logits are nearly random without any one of the stages. Guided backpropagation changes most
with the lower stages and very little with the upper ones. The gradient and Grad-CAM change with every stage. (LayerCAM,
too, changes very little with the classifier.)
Differs from the paper: another network, four photographs that it recognises instead of ImageNet's, seven of its stages.
Weights are permuted within each tensor, not drawn again (which leaves some networks dead). The class remains the
trained network's top class. SmoothGrad and Integrated Gradients take 16 evaluations and one randomisation, the others
two.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from matplotlib.figure import Figure

import _plot
import _run  # puts the repository on the path
from _curves import CONTROLS_SHOWN, INIT, above, maps, setting, tick, weights
from _dots import title
from _heat import OTHERS, heat, heats, ranked, table
from methods import _display
from sanity_checks._cascade import cascade, passes, summary

DRAWN = ("guided_backprop", "layer_cam", "gradient")  # maps


def main() -> None:
    """Draw figures/fig_sanity_independent.png."""
    run = _run.start(
        __file__, __doc__, photos="chelsea,coffee,rocket,motorcycle", quick_photos="chelsea,coffee", options=INIT
    )
    seeds, points = (1, 2) if run.args.quick else (2, 7)
    it = setting(run, seeds)
    run.bar.reset(total=passes(it.rows, points))
    found = cascade(
        it.loaded.model,
        it.x,
        it.target,
        it.rows,
        order="independent",
        points=points,
        init=run.args.init,
        seed=run.args.seed,
        tick=partial(tick, run),
    )
    _run.refuse(run, found.refused)
    numbers = summary(found)
    counts = {name: n for name, (_, n) in it.rows.items()}
    head = message(numbers)
    run.numbers = {"title": head, "images": len(it.x), "seeds": counts, "init": run.args.init, "independent": numbers}

    captions = numbers_of(len(it.x)), BELOW + weights(run, found, it.rows), above(it.loaded, it.subjects[0])
    block = maps(found, it.subjects[0].photo, DRAWN, ["trained", *found.labels[1:]])
    grid = _display.grid([block], captions[2])
    ranks = similarity(numbers, captions[0], _run.banner(run), head)
    ranks.set_dpi(grid.dpi)  # so that a pixel of a map is a dot
    _run.save(run, [ranks, measures(numbers, captions[1]), grid], " ".join(captions))


def message(found: Mapping[str, Any]) -> str:
    """The title: what is left of the logits, and of the method that depends least on the highest stage."""
    name = ranked(found, 1)[0]
    first, *_, last = (v["mean"] for v in found["rows"][name]["curves"]["spearman"][1:])
    logits = max(v["mean"] for v in found["logits"][1:])
    return (
        f"With any one stage randomised, the logits keep a rank correlation of at most {logits:.2f}; {title(name)} "
        f"keeps {first:.2f} ({found['labels'][1]}) to {last:.2f} ({found['labels'][-1]})"
    )


def similarity(found: Mapping[str, Any], caption: str, banner: str, head: str) -> Figure:
    """Spearman of |a|: a row for the logits and for each method and control, its mean and interval in each cell."""
    rows = {"logits of the network": [*found["logits"][1:], None]}
    rows |= table(found, [*ranked(found, 1), *CONTROLS_SHOWN[::-1]], "spearman")
    with _display.style():
        figure, axes = _plot.chart(1, 1, caption, height=2.15, banner=banner, title=head)
        ax = axes[0, 0]
        heat(ax, rows, [*found["labels"][1:], "another\nphotograph"])
        ax.tick_params(top=True, bottom=False, labeltop=True, labelbottom=False)
        ax.axhline(0.5, color="white", linewidth=4)
        for i, row in enumerate(rows.values()):
            for j, v in enumerate(row):
                if v and v["n"]:
                    ax.text(j, i, cell(v), ha="center", va="center", color="white" if v["mean"] > 0.6 else "black")
        return figure


def cell(v: Mapping[str, float]) -> str:
    """A mean and half the width of its interval, which takes two images."""
    mean = f"{round(v['mean'], 2) + 0.0:.2f}"  # + 0.0: no -0.00
    return mean if v["n"] < 2 else f"{mean} ±{(v['high'] - v['low']) / 2:.2f}".replace("±0", "±")


def measures(found: Mapping[str, Any], caption: str) -> Figure:
    """The other measures, as heat maps."""
    names = [*ranked(found, 1), *CONTROLS_SHOWN[::-1]]
    panels = {heading: table(found, names, measure) for measure, heading in OTHERS.items()}
    return heats(panels, [[""] * len(found["labels"])] * len(panels), 1.5, caption)


def numbers_of(n: int) -> str:
    """The caption of the table."""
    return (
        f"Spearman's rank correlation of |a| with the trained network's map when only this stage is randomised: mean "
        f"over {n} photographs ± half the width of the 95 % bootstrap interval. Another photograph: its map by the "
        "trained network; at this level nothing is left of the photograph's own map."
    )


BELOW = (
    "Means in other measures, columns as above: dark where maps are alike, white at 0 and below. SSIM and HOG (rank "
    "correlation of histograms of oriented gradients) are at the image's resolution. Maps below: form of figure 3 of "
    "Adebayo et al. (2018), with another network and other photographs. "
)

if __name__ == "__main__":
    main()
