"""Maps inside the training loss: networks that are told not to look at a swatch which gives the label away.

Ross, Hughes, Doshi-Velez: Right for the Right Reasons. IJCAI 2017. arXiv:1703.03717 (form of its decoy figure).
The reader should see: networks trained on digits with a tell-tale swatch lose accuracy once the swatch lies; with a
penalty on their gradient, HiResCAM or integrated gradients inside the swatch they lose little or none, and these maps
hold no more there than about an even share. A penalty on Grad-CAM empties that map, and helps accuracy least.

Any differentiable method serves: --method layer_cam smooth_grad. `_rrr.train` is the loop to copy.

Differs from the paper: digits are scikit-learn's, 16 x 16 pixels in 24 x 24, with a swatch of 4 x 4; the networks are a
CNN with batch normalisation and a ViT instead of a perceptron; the map is that of the label's logit, not of the sum of
all log-probabilities, so that it is the map that one would look at. The penalty has the paper's form.
"""

import argparse
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

import _plot
import _run  # puts the repository on the path
from _rrr import CORNERS, FEW, MORE, NETWORKS, SIDE, SWATCH, WEIGHT, Decoys, accuracy, decoys, on_swatch, train
from methods import METHODS, _display

METHODS_SHOWN = ("gradient", "grad_cam", "hires_cam", "integrated_gradients")
SHOWN = 3  # test digits in the picture


def differentiable(name: str) -> str:
    """The name of a method that can be trained on, for argparse.

    Raises:
        argparse.ArgumentTypeError: there is no such method, or its map has no derivative.
    """
    there = [n for n in METHODS if METHODS[n].differentiable]
    if name not in there:
        why = "is not differentiable, so no loss can hold its map" if name in METHODS else "is no method"
        raise argparse.ArgumentTypeError(f"{name} {why}; there are: {', '.join(there)}")
    return name


def main(argv: Sequence[str] | None = None) -> None:
    """Draw figures/fig_rrr_decoy.png."""
    option = {"nargs": "+", "type": differentiable, "metavar": "NAME", "help": "methods whose map is in the loss"}
    run = _run.start(__file__, __doc__, photos=None, options={"--method": option}, argv=argv)
    names = run.args.method or (METHODS_SHOWN[:1] if run.args.quick else METHODS_SHOWN)
    if run.args.method:
        run.name += "_" + "_".join(names)
    networks = {k: v for k, v in NETWORKS.items() if k == "CNN" or not run.args.quick}
    corners = 1 if run.args.quick else CORNERS
    shift = 1000 * run.args.seed
    sets = {s: decoys("train", s, shift + 1, corners) for s in ("label", "random")}
    tests = {s: decoys("test", s, shift + 2, corners) for s in ("label", "random")}
    sets, tests = ({s: Decoys(*(v.to(run.args.device) for v in d)) for s, d in part.items()} for part in (sets, tests))
    steps = -(-len(sets["label"].x) // 64)
    run.bar.unit = "step"
    run.bar.reset(total=sum(epochs * steps * (2 + len(names)) for _, epochs, _ in networks.values()))

    panels: dict[str, list[list[Any]]] = {}
    for network, (build, epochs, lr) in networks.items():
        found = run.numbers[network] = {}
        maps = {}  # training, method -> maps of the digits shown
        for training in ("none", *names, "random shade"):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(run.args.seed)
                model = build().to(run.args.device).eval()
            data = sets["random" if training == "random shade" else "label"]
            few = {k: v for k, v in FEW.items() if k in METHODS.get(training, METHODS["gradient"]).params}
            of = _run.bind(run, training, model, data.x, **few) if training in names else None
            run.bar.set_postfix_str(f"{network}, {training}")
            train(model, data, of, epochs=epochs, lr=lr, seed=run.args.seed, tick=run.bar.update)
            found[training] = {"accuracy": accuracy(model, tests)}
            for name in names:
                a, found[training][name] = on_swatch(run, name, model, tests["random"])
                maps[training, name] = a[:SHOWN]
        panels[network] = rows_of_maps(tests["random"], maps, names)
    run.numbers["settings"] = {
        "weight": WEIGHT,
        "in training": FEW,
        "measured": MORE,
        "training images": len(sets["label"].x),
        "corners": corners,
    }
    run.numbers["area"] = tests["random"].mask.float().mean()

    titles = [METHODS[name].title for name in names]
    header = ["Image", *(f"{t}\n{after}" for t in titles for after in ("no penalty", "penalty"))]
    blocks = [_display.Block(header, rows, title=f"{k}: test digits, random shade") for k, rows in panels.items()]
    pictures = _display.grid(
        blocks,
        f"Upper part: maps of the true digit without a penalty and with one on the same kind of map. The box is the "
        f"swatch. {_display.SCALE} So a map of small numbers looks as strong as one of large numbers.",
    )
    outline(pictures, tests["random"].mask[:SHOWN].repeat(len(blocks), 1, 1), 1 + 2 * len(names))
    _run.save(run, [pictures, bars(run, names)], caption(run, names))


def rows_of_maps(data: Decoys, maps: dict[tuple[str, str], Tensor], names: Sequence[str]) -> list[list[_display.Panel]]:
    """For each digit: the image, and each method's map without and with its penalty."""
    rows = []
    for i in range(SHOWN):
        grey = (data.x[i, 0].detach().cpu().numpy() * 255).round().astype(np.uint8).repeat(8, 0).repeat(8, 1)
        rgb = np.stack([grey] * 3, axis=2)
        cells = [
            _display.Panel(rgb, maps[training, name][i].sum(dim=0).cpu(), overlay="layer" in METHODS[name].params)
            for name in names
            for training in ("none", name)
        ]
        rows.append([_display.Panel(rgb), *cells])
    return rows


def outline(figure: Figure, masks: Bool[Tensor, "rows 24 24"], columns: int) -> None:
    """A box around the swatch in every panel; the panels are the figure's first axes, row by row."""
    for k, ax in enumerate(figure.axes[: len(masks) * columns]):
        row, column = (int(v) / SIDE for v in masks[k // columns].nonzero()[0])
        side = SWATCH / SIDE
        box = Rectangle((column, 1 - row - side), side, side, transform=ax.transAxes, fill=False, clip_on=False)
        box.set(edgecolor=_plot.LINES[2], linewidth=0.8)
        ax.add_patch(box)


def bars(run: _run.Run, names: Sequence[str]) -> Figure:
    """Accuracies and mass on the swatch, one row of axes per network."""
    networks = [k for k in NETWORKS if k in run.numbers]
    trainings = ["none", *names, "random shade"]
    ticks = [
        "no\npenalty",
        *(re.sub("(?<=[a-z])(?=CAM)|(?<=-)| ", "\n", METHODS[n].title) for n in names),
        "random\nshades",
    ]
    with _display.style():
        figure, axes = _plot.chart(len(networks), 2, caption(run, names), height=1.55, width_ratios=[1, 1.25])
        for (left, right), network in zip(axes, networks, strict=True):
            found = run.numbers[network]
            kinds = {"label": "shade tells the label", "random": "random shade"}
            for k, (shades, label) in enumerate(kinds.items()):
                values = [found[t]["accuracy"][shades] for t in trainings]
                _bars(left, values, k, len(kinds), _plot.LINES[k], label)
            left.set(ylim=(0, 1), ylabel="accuracy on test digits")
            for k, name in enumerate(names):
                values = [found[t][name] for t in trainings]
                _bars(right, values, k, len(names), _plot.LINES[2 + k], METHODS[name].title)
            right.axhline(1, color=_plot.CONTROL, linewidth=0.8, linestyle="--")
            right.set(ylabel="mass on swatch / area")
            for ax, what in ((left, "accuracy"), (right, "where the maps lie, random shade")):
                ax.set_title(f"{network}: {what}", pad=14)
                ax.set_xticks(range(len(trainings)), ticks)
                ax.legend(loc="lower center", bbox_to_anchor=(0.5, 0.98), ncols=4, handlelength=1.2, columnspacing=1.0)
    return figure


def _bars(ax: Any, values: list[dict[str, float]], k: int, of: int, colour: str, label: str) -> None:  # noqa: ANN401
    """The k-th of so many bars in each group, with intervals."""
    width = 0.8 / of
    mean, low, high = (np.array([v[key] for v in values]) for key in ("mean", "low", "high"))
    at = np.arange(len(values)) + (k - (of - 1) / 2) * width
    ax.bar(at, mean, width, color=colour, label=label)
    ax.errorbar(at, mean, [mean - low, high - mean], fmt="none", ecolor="black", elinewidth=0.6)


def caption(run: _run.Run, names: Sequence[str]) -> str:
    """What the figure is made of and how to read it."""
    networks = [k for k in NETWORKS if k in run.numbers]
    n = run.numbers[networks[0]]["none"]["accuracy"]["label"]["n"]
    nets = {"CNN": "a CNN with batch normalisation", "ViT": "a ViT with 4 x 4 patches"}
    corners = run.numbers["settings"]["corners"]
    zero = {f"{k}, {METHODS[m].title}": run.numbers[k]["none"][m]["maps all zero"] for k in networks for m in names}
    zeros = "".join(
        f" {k}: {100 * v:.0f} % of the maps without penalty are all zero." for k, v in zero.items() if v > 0.01
    )
    few = [
        f"{METHODS[m].title} with {v} {k}, {MORE[k]} for the maps"
        for m in names
        for k, v in FEW.items()
        if k in METHODS[m].params
    ]
    return (
        f"Networks: {' and '.join(nets[k] for k in networks)}, trained here (seed {run.args.seed}) on "
        f"{run.numbers['settings']['training images']} images whose swatch tells the digit, with no penalty or with "
        f"{WEIGHT:g} x the squared map of the label inside the swatch; "
        f"{'in training ' + ' and '.join(few) + '; ' if few else ''}at the right the reference, trained with random "
        f"shades. One network each. Bars: means and 95 % bootstrap intervals over {n} test "
        f"digits, each with the swatch in {corners} of 4 corners. Mass: share of |map| on the swatch, divided by the "
        "swatch's share of the image, 0 for a map of zeros; dashed: spread evenly. Names below the bars: what the "
        "penalty was on; colours at "
        "the right: what was measured. A penalty that empties its own map but leaves accuracy at random shades low has "
        f"taught the network to hide the swatch from that map, not to ignore it.{zeros}"
    )


if __name__ == "__main__":
    main()
