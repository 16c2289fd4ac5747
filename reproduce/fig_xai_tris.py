"""XAI-TRIS: do maps mark the pixels on which the class depends? Tetrominoes on white and on correlated noise.

Clark, Wilming, Haufe. XAI-TRIS: Non-linear image benchmarks to quantify false positive post-hoc attribution of feature
importance. Machine Learning 2024. arXiv:2306.12816, form of its comparison of methods by precision.

The reader should see: on white noise methods find the tetrominoes; correlated noise, which helps the network to cancel
the background, moves the maps off the truth, although the network is as good. A map can be true to the network and yet
mark pixels that have nothing to do with the class.

Settings that differ from the paper: one network for each set, a CNN with two convolutions, in place of several; 3,000
images in place of 10,000; no backgrounds from ImageNet. Precision is the share of the truth among the pixels with the
largest |map|, as many as the truth has, of images that the network classifies rightly.
"""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

import _plot
import _run  # puts the repository on the path
from _dots import controls, title
from methods import _display
from sanity_checks._controls import CONTROLS
from sanity_checks._small import Data, accuracy, small_cnn, train
from sanity_checks._statistics import of_images
from sanity_checks._tetrominoes import BACKGROUNDS, SCENARIOS, SIDE, tetrominoes
from sanity_checks._torch import explain

METHODS_SHOWN: dict[str, dict[str, Any]] = {
    "gradient": {},
    "smooth_grad": {"samples": 25},
    "input_x_gradient": {},
    "integrated_gradients": {"steps": 16},
    "guided_backprop": {},
    "deconvnet": {},
    "occlusion": {"size": 1, "stride": 1},
    "kernel_shap": {"segments": SIDE, "samples": 500, "fill": "zero"},
    "lime": {"segments": SIDE, "samples": 500, "fill": "zero"},
    "rise": {"samples": 500, "cells": 4},
    "grad_cam": {},
}
SHOWN_CONTROLS = ("sobel_edges", "input_magnitude", "white_noise")
IMAGES, TESTED = 3000, 200  # in all; explained, at most
QUICK = ("gradient", "grad_cam")


def main() -> None:
    """Draw figures/fig_xai_tris.png."""
    run = _run.start(__file__, __doc__, photos=None)
    quick = run.args.quick
    names = QUICK if quick else tuple(METHODS_SHOWN)
    cases = [(s, b) for b in BACKGROUNDS for s in SCENARIOS][:: 4 if quick else 1]
    run.bar.reset(total=len(cases) * (len(names) + len(SHOWN_CONTROLS)))
    for scenario, background in cases:
        found = tetrominoes(600 if quick else IMAGES, run.args.seed, scenario, background)
        k = 4 * len(found.x) // 5
        data = Data(scenario, found.x[:k], found.y[:k], found.x[k:], found.y[k:])
        net = train(
            small_cnn(data, run.args.seed), data.x_train, data.y_train, epochs=2 if quick else 60, seed=0, until=0.995
        )
        right = (net(data.x_test).argmax(dim=1) == data.y_test).nonzero()[:TESTED, 0]
        x, y, mask = data.x_test[right], data.y_test[right], found.mask[k:][right]
        maps = {}
        for name in names:
            run.bar.set_postfix_str(f"{scenario} {background} {name}")
            with _run.attempt(run, name, f"{scenario}, {background}"):
                maps[name] = explain(_run.bind(run, name, net, x, **METHODS_SHOWN[name]), net, x, y)
            run.bar.update()
        for name, of in controls(run.args.seed, SHOWN_CONTROLS).items():
            maps[name] = explain(of, net, x, y)
            run.bar.update()
        scored = {n: _run.check(run, "relevance_rank", a.abs(), mask) for n, a in maps.items()}
        run.numbers[f"{scenario}, {background}"] = {
            "accuracy": accuracy(net, data.x_test, data.y_test),
            "images": len(x),
            "chance": float(mask.double().mean()),
            "precision": {name: of_images(r.values) for name, r in scored.items()},
        }
    n = run.numbers
    caption = (
        f"Precision of {len(names)} methods and {len(SHOWN_CONTROLS)} controls (grey) on tetrominoes of 8 x 8 pixels: "
        "the share of the truth among the pixels with the largest |map|. Means over up to "
        f"{TESTED} test images that the network classifies rightly, with 95 % bootstrap intervals; line: chance. "
        "In brackets: the network's test accuracy. Top: white noise, bottom: correlated noise. A CNN with two "
        f"convolutions for each set, {IMAGES:,} images. Form of Clark et al. (2024). Seed {run.args.seed}."
        + _run.refusals(run)
    )
    _run.save(run, draw(n, caption, _run.banner(run)), caption)


def headline(n: Mapping[str, Any]) -> str:
    """What the reader should see, from the numbers."""
    pairs = [(n[f"{s}, white"]["precision"], n[f"{s}, correlated"]["precision"]) for s in SCENARIOS]
    lost = [(white[m]["mean"], other[m]["mean"]) for white, other in pairs for m in white if m not in CONTROLS]
    sure = min(n[f"{s}, correlated"]["accuracy"] for s in SCENARIOS)
    falls = sum(other < white for white, other in lost)
    return (
        f"Correlated noise moves maps off the truth: precision falls in {falls} of {len(lost)} pairs of a method and a "
        f"scenario, from {sum(w for w, _ in lost) / len(lost):.2f} to {sum(o for _, o in lost) / len(lost):.2f} on "
        f"average, although the networks are right on {sure:.0%} of the images or more."
    )


def draw(n: Mapping[str, Any], caption: str, banner: str = "") -> Figure:
    """Dots with intervals: scenarios beside each other, backgrounds below each other."""
    rows = [b for b in BACKGROUNDS if any(key.endswith(f", {b}") for key in n)]
    with _display.style():
        heading = headline(n) if len(n) == len(SCENARIOS) * len(BACKGROUNDS) else ""
        figure, axes = _plot.chart(
            len(rows), len(SCENARIOS), caption, height=2.1, banner=banner, title=heading, sharex=True, sharey=True
        )
        for ax, (scenario, background) in zip(axes.flat, ((s, b) for b in rows for s in SCENARIOS), strict=True):
            found = n.get(f"{scenario}, {background}")
            if found is None:
                ax.set_visible(False)
                continue
            names = list(found["precision"])[::-1]
            for k, name in enumerate(names):
                v = found["precision"][name]
                colour = _plot.CONTROL if name in CONTROLS else _plot.LINES[0]
                ax.plot([v["low"], v["high"]], [k, k], color=colour, linewidth=1)
                ax.plot(v["mean"], k, "o", color=colour, markersize=3)
            ax.axvline(found["chance"], color="#bbbbbb", linewidth=0.6, zorder=0)
            ax.set_yticks(range(len(names)), [title(name) for name in names])
            ax.set_xlim(0, 1.02)
            ax.set_title(",\n".join(scenario.split("_")) + f" ({found['accuracy']:.2f})")
            if background == rows[-1]:
                ax.set_xlabel("precision")
        for ax, background in zip(axes[:, 0], rows, strict=True):
            ax.set_ylabel(f"{background} noise")
        return figure


if __name__ == "__main__":
    main()
