"""One threshold for all methods is unfair: weakly supervised localisation at each method's own best threshold.

Choe, Oh, Lee, Chun, Akata, Shim. CVPR 2020. arXiv:2001.07437: form of the threshold and MaxBoxAcc figures.

The reader should see: each method has its best box at a different threshold. So one threshold for all methods gives a
wrong order. At its own best threshold every method is better than a Gaussian in the middle of the image (although here
most of them are worse than |x|).

Differs from the paper: digits on textures with exact boxes and a small CNN, instead of ImageNet, CUB and OpenImages
with networks trained for the task. So no data set must be downloaded. Maps and boxes have the 32 x 32 pixels of the
images, and thresholds are 0.01 apart (paper: 224 x 224, 0.001). Digits are anywhere in the image, so the middle is a
weaker guess than on photographs. They are lighter than most of a texture, so |x| is a stronger guess.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

import _plot
import _run  # puts the repository on the path
from _dots import title
from methods import _display
from methods._torch import Attribution
from sanity_checks import _ground_truth, _nets
from sanity_checks._controls import CONTROLS, matched
from sanity_checks._statistics import of_images
from sanity_checks._thresholds import at_level, held_out, hits_of, reversals, summary
from sanity_checks._torch import explain

ORDER = [
    "grad_cam",
    "layer_cam",
    "guided_grad_cam",
    "full_grad",
    "occlusion",
    "smooth_grad_squared",
    "guided_backprop",
    "integrated_gradients",
]
FIXED = 0.2  # of Zhou et al.: one threshold for all
MARKERS = dict(zip(ORDER, "osD^vP*X", strict=True))
COLOURS = dict(zip(ORDER, _plot.LINES, strict=True))


def main() -> None:
    """Draw figures/fig_wsol_boxes.png."""
    run = _run.start(__file__, __doc__, photos=None)
    n, step = (16, 0.05) if run.args.quick else (200, 0.01)
    model, device = _run.net(run, "digit_cnn"), run.args.device
    found = _ground_truth.digits_on_textures(n, run.args.seed)
    x, target, mask = found.x.to(device), found.digit.to(device), found.mask.to(device)
    run.bar.reset(total=len(ORDER) * 2 + len(CONTROLS))

    of: dict[str, Attribution] = {name: _run.bind(run, name, model, x) for name in ORDER}
    of |= {name: fn(run.args.seed) for name, (_, fn) in CONTROLS.items()}
    maps, results, hits = {}, {}, {}
    for name, attribution in of.items():
        run.bar.set_postfix_str(name)
        parts = zip(x.split(50), target.split(50), strict=True)
        maps[name] = torch.cat([explain(attribution, model, *part) for part in parts])
        rows = {name: maps[name]}
        if name in ORDER:
            rows[f"{name}, matched noise"] = matched(maps[name], run.args.seed)
        for row, a in rows.items():
            results[row] = _run.check(run, "wsol", a, mask, interval=step, size=_ground_truth.SIDE, threshold=FIXED)
            hits[row] = hits_of(results[row].curves)
            run.bar.update()
    tau = np.array(results["grad_cam"].at[:-1])
    for row, r in results.items():
        run.numbers[row] = summary(hits[row], tau, r.facts, FIXED)
    both = {row: (at_level(hits[row], tau, FIXED), held_out(hits[row])) for row in ORDER}
    centre = held_out(hits["centred_gaussian"])
    run.numbers = {
        "n": n,
        "thresholds": tau,
        "reversed_pairs": reversals(both),
        "pairs": len(ORDER) * (len(ORDER) - 1) // 2,
        "over_the_centre": {row: of_images(both[row][1] - centre) for row in ORDER},
        "sides_of_true_box": [mask.any(dim=2 - k).sum(dim=1).double().mean() for k in (1, 0)],
        "perfect_map": _run.check(
            run, "wsol", mask[:, None].float(), mask, size=_ground_truth.SIDE, interval=step
        ).facts,
        "rows": run.numbers,
    }

    caption = _caption(run, n)
    _run.save(run, _draw(run.numbers, caption, _headline(run.numbers)), caption)


def _headline(numbers: Mapping[str, Any]) -> str:
    """What the reader should see."""
    best = {name: numbers["rows"][name]["best_threshold"]["0.5"]["best"] for name in ORDER}
    low, high = min(best, key=best.__getitem__), max(best, key=best.__getitem__)
    return (
        f"Best thresholds go from {best[low]:.2f} ({title(low)}) to {best[high]:.2f} ({title(high)}); one threshold "
        f"for all reverses the order of {len(numbers['reversed_pairs'])} of {numbers['pairs']} pairs of methods"
    )


def _draw(numbers: Mapping[str, Any], caption: str, headline: str) -> Figure:
    """BoxAcc against the threshold; the best threshold of each row; MaxBoxAccV2 and the score at one threshold."""
    found, tau = numbers["rows"], np.array(numbers["thresholds"])
    rows = [*sorted(ORDER, key=lambda name: -found[name]["MaxBoxAccV2"]["mean"]), *CONTROLS]
    with _display.style():
        figure, axes = _plot.chart(1, 3, caption, height=3.3, title=headline, width_ratios=[1.5, 0.75, 0.9])
        left, middle, right = axes[0]
        for name in ORDER:
            _curve(left, tau, found[name]["BoxAcc"]["0.5"], COLOURS[name], MARKERS[name])
        for name, dashes in (("centred_gaussian", "--"), ("input_magnitude", ":")):
            left.plot(tau, found[name]["BoxAcc"]["0.5"], dashes, color=_plot.CONTROL, label=title(name))
        left.set(xlim=(0, 1), ylim=(0, 1.12), xlabel="threshold τ", ylabel="share of images with an IoU of 0.5 or more")
        left.set_yticks(np.linspace(0, 1, 6))
        left.legend(loc="upper right", ncols=2, columnspacing=1)

        for at, name in enumerate(rows):
            look = {"color": COLOURS.get(name, _plot.CONTROL), "marker": MARKERS.get(name, "o"), "markersize": 4.5}
            best = found[name]["best_threshold"]["0.5"]
            middle.plot([best["low"], best["high"]], [at, at], color=look["color"], linewidth=0.8)
            middle.plot(best["best"], at, **look)
            own, fixed = found[name]["MaxBoxAccV2"], found[name][f"threshold_{FIXED}"]
            right.plot([fixed["mean"], own["mean"]], [at, at], color="#bbbbbb", linewidth=0.8)
            right.plot([own["low"], own["high"]], [at, at], color=look["color"], linewidth=2)
            right.plot(fixed["mean"], at, "|", color="black", markersize=8, markeredgewidth=1.5)
            right.plot(own["mean"], at, **look)
        for ax in (left, middle):
            ax.axvline(FIXED, ymax=0.92, color="black", linewidth=0.6)
        middle.set(xlim=(0, 1), xlabel="best τ")
        middle.set_yticks(range(len(rows)), [title(name) for name in rows])
        right.set(xlim=(-0.03, 0.88), xlabel="MaxBoxAccV2")
        first = found[rows[0]]
        for key, words in ((f"threshold_{FIXED}", f"τ = {FIXED}"), ("MaxBoxAccV2", "best τ")):
            right.text(first[key]["mean"], -0.55, words, ha="center", va="bottom")
        right.set_yticks(range(len(rows)), [""] * len(rows))
        for ax in (middle, right):
            ax.set_ylim(len(rows) - 0.4, -1.3)
        return figure


def _curve(ax: Any, tau: np.ndarray, acc: Any, colour: str, marker: str) -> None:  # noqa: ANN401
    """A line with small marks, and a large one at its maximum."""
    acc = np.asarray(acc)
    ax.plot(tau, acc, color=colour, marker=marker, markevery=8, markersize=2.5)
    ax.plot(tau[acc.argmax()], acc.max(), color=colour, marker=marker, markersize=6, markeredgecolor="white")


def _caption(run: _run.Run, n: int) -> str:
    rows, turned = run.numbers["rows"], run.numbers["reversed_pairs"]
    v2 = {name: rows[name]["MaxBoxAccV2"]["mean"] for name in [*ORDER, *CONTROLS]}
    below = sum(v2[name] < v2["input_magnitude"] for name in ORDER)
    chosen = max(abs(v2[name] - rows[name]["threshold_of_other_half"]["mean"]) for name in ORDER)
    certain = sum(found["low"] > 0 for found in run.numbers["over_the_centre"].values())
    pairs = f" ({', '.join(f'{title(a)} over {title(b)}' for a, b in turned)})" if turned else ""
    return (
        "Left: share of the images where a box around a region of the map above τ has an IoU of 0.5 or more with the "
        f"true box; large marks: the best τ; black line: τ = {FIXED} for all. Middle: the best τ. Right: MaxBoxAccV2, "
        f"the mean share for an IoU of 0.3, 0.5 and 0.7, each row at its own best τ; black ticks: at τ = {FIXED}. "
        f"Lines: 95 % bootstrap intervals (τ is chosen again in each resample). {len(turned)} of "
        f"{run.numbers['pairs']} pairs have an order at τ = {FIXED} that is certainly (95 %) reversed at their own "
        f"best τ{pairs}. With τ chosen on the other half of the images no method changes by more than {chosen:.3f}. "
        f"{certain} of {len(ORDER)} methods are certainly better than the centred Gaussian "
        f"({v2['centred_gaussian']:.2f}), but {below} are below |x| ({v2['input_magnitude']:.2f}), because digits are "
        f"lighter than textures. White noise gets {v2['white_noise']:.2f}: it has many boxes, and only the best box "
        f"counts. Grey: maps that do not use the network. {_nets.NETS['digit_cnn'].title}; {n} test images of 32 x 32 "
        "pixels with exact boxes, explained for the digit. Form of the figures of Choe et al. (2020); their "
        "MaxBoxAccV2 on ImageNet, with networks trained for the task: CAM 0.60 (VGG), 0.63 (Inception), 0.64 "
        "(ResNet-50), centred Gaussian 0.53."
    )


if __name__ == "__main__":
    main()
