"""Maps while the weights are randomised from the head down, and their similarity to maps of the trained network.

Adebayo, Gilmer, Muelly, Goodfellow, Hardt, Kim, NeurIPS 2018, arXiv:1810.03292: form of figures 2 (maps) and 4
(curves); last panel, from the image up: after Binder et al., CVPR 2023, arXiv:2211.12486.
The reader should see: guided backpropagation keeps its ranks while the upper stages are randomised (0.95 with six of
nineteen randomised; the other methods at most 0.51, the logits nearly 0). So do the image's edges, which do not depend
on the network. The gradient and Grad-CAM change with the head. (Guided backpropagation does change when all stages are
randomised, as the erratum in the authors' repository says. LayerCAM, too, changes very little with the classifier.
Noise passes at every step.)
Differs from the paper: another network, six photographs that it recognises instead of ImageNet's, eight of its stages.
Weights are permuted within each tensor, not drawn again (which leaves some networks dead). The class remains the
trained network's top class. SmoothGrad and Integrated Gradients take 16 evaluations and one randomisation, the others
three.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from matplotlib.figure import Figure

import _plot
import _run  # puts the repository on the path
from _curves import CONTROLS_SHOWN, EXPENSIVE, INIT, above, maps, setting, tick, weights
from _dots import title
from _heat import OTHERS, heats, ranked, table
from methods import _display
from sanity_checks._cascade import cascade, passes, summary
from sanity_checks._controls import CONTROLS

DRAWN = ("guided_backprop", "grad_cam", "sobel_edges")  # maps


def main() -> None:
    """Draw figures/fig_sanity_cascade.png."""
    run = _run.start(
        __file__,
        __doc__,
        photos="chelsea,coffee,rocket,motorcycle,china,flower",
        quick_photos="chelsea,coffee",
        options=INIT,
    )
    seeds, points, fewer = (1, 2, 2) if run.args.quick else (3, 8, 5)
    it = setting(run, seeds)
    cheap = {name: row for name, row in it.rows.items() if name not in EXPENSIVE and name not in CONTROLS}
    run.bar.reset(total=passes(it.rows, points) + passes(cheap, fewer))
    more: dict[str, Any] = {"init": run.args.init, "seed": run.args.seed, "tick": partial(tick, run)}
    down = cascade(it.loaded.model, it.x, it.target, it.rows, points=points, **more)
    _run.refuse(run, down.refused)
    cheap = {name: row for name, row in cheap.items() if name not in down.refused}
    more |= {"order": "bottom-up", "points": fewer, "measures": ("spearman",)}
    up = cascade(it.loaded.model, it.x, it.target, cheap, **more)
    found = {"top-down": summary(down), "bottom-up": summary(up, ("spearman",))}
    counts = {name: n for name, (_, n) in it.rows.items()}
    head = message(found["top-down"])
    run.numbers = {"title": head, "images": len(it.x), "seeds": counts, "init": run.args.init} | found

    captions = (
        above(it.loaded, it.subjects[0]),
        middle(found["top-down"], len(it.x)),
        BELOW + weights(run, down, it.rows),
    )
    header = [f"{len(lost)}: to {name}" for lost, name in zip(down.lost[2:], down.labels[2:], strict=True)]
    block = maps(down, it.subjects[0].photo, DRAWN, ["trained", f"1: {down.labels[1]}", *header])
    grid = _display.grid([block], captions[0], _run.banner(run), title=head)
    _run.save(run, [grid, curves(found["top-down"], captions[1]), measures(found, captions[2])], " ".join(captions))


def upper(found: Mapping[str, Any]) -> int:
    """The last step at which at most a third of the stages is randomised."""
    counts = [len(lost) for lost in found["lost"]]
    return max([1, *(step for step, n in enumerate(counts) if n <= counts[-1] / 3)])


def message(found: Mapping[str, Any]) -> str:
    """The title: the method that depends least on the upper stages."""
    step = upper(found)
    first, second = ranked(found, step)[:2]
    left, others = (found["rows"][name]["curves"]["spearman"][step]["mean"] for name in (first, second))
    return (
        f"{title(first)} depends least on the upper stages: with {len(found['lost'][step])} of "
        f"{len(found['lost'][-1])} randomised it keeps a rank correlation of {left:.2f}, the other methods at most "
        f"{others:.2f}"
    )


def curves(found: Mapping[str, Any], caption: str) -> Figure:
    """An axes for each method, from the most to the least that is left at the step of the title."""
    names = ranked(found, upper(found))
    with _display.style():
        figure, axes = _plot.chart(-(-len(names) // 4), 4, caption, height=0.98, sharex=True, sharey=True)
        for ax, name in zip(axes.flat, names, strict=False):
            one(ax, found, name)
        for ax in axes.flat[len(names) :]:
            ax.axis("off")
        axes[0, 0].set_xticks(range(len(found["lost"])), every_second(found["lost"]))
        axes[0, 0].set_yticks([0, 0.5, 1])
        axes[0, 0].set_ylim(-0.25, 1.1)
        figure.supylabel("rank correlation", fontsize=_display.TEXT)
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=5, columnspacing=1.5)
        return figure


def one(ax: Any, found: Mapping[str, Any], name: str) -> None:  # noqa: ANN401
    """The curve of a method with its intervals and the number of the title, in front of the others."""
    curve, at, step = found["rows"][name]["curves"]["spearman"], range(len(found["lost"])), upper(found)

    def line(v: Sequence[Mapping[str, float]], look: str, **more: Any) -> None:  # noqa: ANN401
        ax.plot(at, [p["mean"] for p in v], look, **more)

    line(curve, "o-", color=_plot.LINES[0], markersize=2.5, linewidth=1.5, label="the method", zorder=3)
    ax.vlines(at, [v["low"] for v in curve], [v["high"] for v in curve], color=_plot.LINES[0], linewidth=1, zorder=3)
    null = found["rows"][name]["null"]["spearman"]["mean"]
    ax.axhline(null, color="black", linestyle="--", linewidth=0.8, label="another photograph")
    line(found["logits"], ":", color="black", label="logits")
    for other, row in found["rows"].items():
        control = other in CONTROLS_SHOWN
        look, colour = ("-.", _plot.CONTROL) if control else ("-", "#d0d0d0")
        line(row["curves"]["spearman"], look, color=colour, linewidth=0.8, zorder=1)
    ax.plot([], "-", color="#d0d0d0", linewidth=0.8, label="other methods")
    ax.plot([], "-.", color=_plot.CONTROL, linewidth=0.8, label="edges (1), noise (0)")
    y = curve[step]["mean"]
    ax.annotate(
        f"{y:.2f}", (step, y), (0, -5 if y > 0.7 else 4), textcoords="offset points", ha="center",
        va="top" if y > 0.7 else "bottom", bbox={"color": "white", "pad": 0.5, "alpha": 0.8}, zorder=4,
    )  # fmt: skip
    ax.set_title(title(name), weight="bold", pad=2)


def measures(found: Mapping[str, Mapping[str, Any]], caption: str) -> Figure:
    """The other measures from the head down, and Spearman from the image up, as heat maps."""
    down, up = found["top-down"], found["bottom-up"]
    names = [*ranked(down, upper(down)), *CONTROLS_SHOWN[::-1]]
    panels = {heading: table(down, names, measure) for measure, heading in OTHERS.items()}
    panels["|a|, image up"] = table(up, names, "spearman")
    steps = [*[every_second(down["lost"][1:])] * len(OTHERS), every_second(up["lost"][1:])]
    return heats(panels, [[*labels, "another\nphoto"] for labels in steps], 1.9, caption)


def every_second(lost: Sequence[Sequence[str]]) -> list[str]:
    """Labels of steps: how many stages are randomised; every second is empty, for want of room."""
    return ["" if i % 2 else str(len(names)) for i, names in enumerate(lost)]


def middle(found: Mapping[str, Any], n: int) -> str:
    """The caption of the curves."""
    return (
        f"Spearman's rank correlation of |a| with the trained network's map, by the number of stages randomised (of "
        f"{len(found['lost'][-1])}); the number in a panel is that at {len(found['lost'][upper(found)])}. Means over "
        f"{n} photographs with 95 % bootstrap intervals. Another photograph: its map by the trained network; where a "
        "curve is at this level, nothing is left of the photograph's own map."
    )


BELOW = (
    "Means in other measures, dark where maps are alike, white at 0 and below. SSIM and HOG (rank correlation of "
    "histograms of oriented gradients) are at the image's resolution. Image up: Spearman of |a| in the opposite order, "
    "as Binder et al. (2023); hatched: not run. All in the form of figures 2 and 4 of Adebayo et al. (2018), with "
    "another network and other photographs. "
)

if __name__ == "__main__":
    main()
