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
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

import _plot
import _run  # puts the repository on the path
from _dots import dots
from _rrr import CORNERS, FEW, MORE, NETWORKS, SIDE, SWATCH, WEIGHT, Decoys, accuracy, decoys, on_swatch, train
from methods import METHODS, _display

METHODS_SHOWN = ("gradient", "grad_cam", "hires_cam", "integrated_gradients")
SHOWN = 13  # test digit in the picture: at seed 0 the first on whose swatch the CNN's Grad-CAM lies without a penalty
SHADES: dict[str, dict[str, Any]] = {  # of the swatch: look
    "label": {"colour": _plot.LINES[0], "marker": "o", "fillstyle": "none", "label": "swatch tells the digit"},
    "random": {"colour": _plot.LINES[1], "marker": "o", "label": "random shade"},
}
MARKERS = "o^sDvP<>"  # of methods


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

    maps: dict[str, dict[tuple[str, str], Tensor]] = {}  # network -> training, method -> map of the digit shown
    for network, (build, epochs, lr) in networks.items():
        found = run.numbers[network] = {}
        maps[network] = {}
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
                maps[network][training, name] = a[SHOWN].sum(dim=0).cpu()
    run.numbers["settings"] = {
        "weight": WEIGHT,
        "in training": FEW,
        "measured": MORE,
        "training images": len(sets["label"].x),
        "corners": corners,
    }
    run.numbers["area"] = tests["random"].mask.float().mean()

    rows = ["none", *names[:2]]
    pictures = grid(tests["random"], maps, rows, headline(run, names))
    _run.save(run, [pictures, charts(run, names)], caption(run, names))


def headline(run: _run.Run, names: Sequence[str]) -> str:
    """The title; a finding where the numbers of both networks support it."""
    found = [run.numbers[k] for k in NETWORKS if k in run.numbers]
    if "grad_cam" in names and all(
        n["grad_cam"]["grad_cam"]["high"] < n["none"]["grad_cam"]["low"]
        and n["grad_cam"]["accuracy"]["lost"]["low"] > 0
        for n in found
    ):
        return "A penalty may only hide the decoy: Grad-CAM's map leaves the swatch, which the networks still use"
    return "Networks with a penalty on their map inside a swatch that gives the label away"


def grid(data: Decoys, maps: Mapping[str, Mapping[tuple[str, str], Tensor]], rows: Sequence[str], title: str) -> Figure:
    """A row for each training, the maps of one test digit by all methods for each network; a box is at the swatch."""
    grey = (data.x[SHOWN, 0].cpu().numpy() * 255).round().astype(np.uint8).repeat(8, 0).repeat(8, 1)
    rgb = np.stack([grey] * 3, axis=2)
    names = list(dict.fromkeys(name for _, name in next(iter(maps.values()))))
    cells = [
        [
            _display.Panel(rgb) if i == 0 else None,
            *(
                _display.Panel(rgb, of[training, m], "layer" in METHODS[m].params)
                for of in maps.values()
                for m in names
            ),
        ]
        for i, training in enumerate(rows)
    ]
    block = _display.Block(
        ["Image", *(METHODS[m].title for _ in maps for m in names)],
        cells,
        [label(training) for training in rows],
        {1 + i * len(names): f"Maps of the {network}" for i, network in enumerate(maps)},
    )
    figure = _display.grid(
        [block],
        "Rows: how the network was trained. Columns: maps of the true class, for one test digit (at seed 0 the first "
        "on whose swatch the CNN's Grad-CAM lies without a penalty). Box: the swatch, of a random shade. "
        f"{_display.SCALE} So a map of small numbers looks as strong as one of large numbers.",
        title=title,
    )
    row, column = (int(v) / SIDE for v in data.mask[SHOWN].nonzero()[0])
    side = SWATCH / SIDE
    for ax in figure.axes[: sum(panel is not None for line in cells for panel in line)]:
        box = Rectangle((column, 1 - row - side), side, side, transform=ax.transAxes, fill=False, clip_on=False)
        box.set(edgecolor=_plot.LINES[2], linewidth=0.8)
        ax.add_patch(box)
    return figure


def label(training: str) -> str:
    """A row's name."""
    if training in METHODS:
        return f"penalty on {METHODS[training].title}"
    return {"none": "no penalty", "random shade": "no penalty, random shades"}[training]


def charts(run: _run.Run, names: Sequence[str]) -> Figure:
    """Accuracies and mass on the swatch for each training, a pair of axes per network."""
    networks = [k for k in NETWORKS if k in run.numbers]
    trainings = ["none", *names, "random shade"]
    labels = {t: label(t) for t in trainings}
    lowest = min(run.numbers[k][t]["accuracy"]["random"]["low"] for k in networks for t in trainings)
    highest = max(run.numbers[k][t][m]["high"] for k in networks for t in trainings for m in names)
    with _display.style():
        figure, axes = _plot.chart(1, 2 * len(networks), caption(run, names), height=2.1, sharey=True)
        for left, right, network in zip(axes[0, ::2], axes[0, 1::2], networks, strict=True):
            found = run.numbers[network]
            for shades, look in SHADES.items():
                dots(left, {t: found[t]["accuracy"][shades] for t in trainings}, names=labels, **look)
            left.set(xlabel="on test digits", xlim=(lowest - 0.02, 1.01))
            left.set_title(f"{network}: accuracy", pad=30)
            for name, marker in zip(names, cycle(MARKERS), strict=False):
                look: dict[str, Any] = {"marker": marker, "colour": _plot.CONTROL, "fillstyle": "none"}
                dots(right, {t: found[t][name] for t in trainings}, names=labels, label=METHODS[name].title, **look)
                own = found[name][name]
                right.plot(own["mean"], trainings.index(name), marker, color="black", markersize=5)
            right.axvline(1, color=_plot.CONTROL, linewidth=0.8, linestyle="--", zorder=0)
            right.set(xlabel="divided by its area", xlim=(-0.3, highest + 0.2))
            right.set_title(f"{network}: mass on swatch", pad=30)
        for ax, y in zip(axes[0, :2], (1.09, 0.98), strict=True):  # both begin at the left, one above the other
            at = {"bbox_to_anchor": (-0.6, y), "bbox_transform": axes[0, 0].transAxes}
            ax.legend(loc="lower left", ncols=len(MARKERS), handlelength=1, **at).set_in_layout(False)
    return figure


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
        f"After the decoy figure of Ross et al. (2017). Networks: {' and '.join(nets[k] for k in networks)}, trained "
        f"here (seed {run.args.seed}) on {run.numbers['settings']['training images']} images of digits whose swatch "
        f"tells the digit, with no penalty or with {WEIGHT:g} x the squared map of the label inside the swatch"
        f"{'; in training ' + ' and '.join(few) if few else ''}. Random shades: the reference, trained without the "
        f"clue. One network each. Means and 95 % bootstrap intervals over {n} test digits, each with the swatch in "
        f"{corners} of 4 corners. Mass: share of |map| on the swatch, divided by the swatch's share of the image, 0 "
        "for a map of zeros; dashed: spread evenly; black: the map that the penalty was on. A penalty that empties its "
        "own map but leaves the accuracy at random shades low has taught the network to hide the swatch from this map, "
        f"not to ignore it.{zeros}"
    )


if __name__ == "__main__":
    main()
