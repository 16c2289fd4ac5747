"""From a map to a box: how much the result of weakly supervised object localisation depends on the threshold.

Choe, Oh, Lee, Chun, Akata, Shim. CVPR 2020. arXiv:2001.07437: form of the threshold and MaxBoxAcc figures; boxes on
photographs as in Zhou, Khosla, Lapedriza, Oliva, Torralba. CVPR 2016. arXiv:1512.04150.

The reader should see: each method has its best box at a different threshold. So one threshold for all methods gives a
wrong order. At its own best threshold every method beats a Gaussian in the middle of the image (although here most of
them are worse than |x|).

Differs from the paper: digits on textures with exact boxes and a small CNN, instead of ImageNet, CUB and OpenImages
with networks trained for the task. So no data set must be downloaded. Maps and boxes have the 32 x 32 pixels of the
images, and thresholds are 0.01 apart (paper: 224 x 224, 0.001). Digits are anywhere in the image, so the middle is a
weaker guess than on photographs. They are lighter than most of a texture, so |x| is a stronger guess. Photographs have
no true box here.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

import _plot
import _run  # puts the repository on the path
from _box_pictures import examples, photographs
from _dots import title
from methods import _display
from methods._models import Loaded
from methods._torch import Attribution
from sanity_checks import _ground_truth, _nets
from sanity_checks._controls import CONTROLS, matched
from sanity_checks._statistics import of_images
from sanity_checks._thresholds import at_level, held_out, highest, hits_of, reversals, summary
from sanity_checks._torch import explain
from sanity_checks.wsol import DELTAS

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
ON_PHOTOGRAPHS: dict[str, dict[str, Any]] = {
    "smooth_grad_squared": {"samples": 10},
    "integrated_gradients": {"steps": 16},
    "occlusion": {"size": 48, "stride": 32},
}


def main() -> None:
    """Draw figures/fig_wsol_boxes.png."""
    run = _run.start(__file__, __doc__, photos="coffee,rocket", quick_photos="coffee")
    n, step = (16, 0.05) if run.args.quick else (200, 0.01)
    model, device = _run.net(run, "digit_cnn"), run.args.device
    found = _ground_truth.digits_on_textures(n, run.args.seed)
    x, target, mask = found.x.to(device), found.digit.to(device), found.mask.to(device)
    run.bar.reset(total=len(ORDER) * 2 + len(CONTROLS) + len(ORDER))

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

    loaded = _run.load(run)
    rows = _run.subjects(run, loaded)
    panels = {name: _run.explain(run, loaded, name, rows, **_fewer(run, name)) for name in ORDER}

    caption = _caption(run, loaded, n)
    best = {row: float(tau[highest(hits[row].mean(axis=0), axis=0)[1]]) for row in [*ORDER, "centred_gaussian"]}
    above = examples(found, maps, best, FIXED, few=run.args.quick)
    below = photographs(run, rows, panels, caption)
    figures = [above, _curves(run, tau, hits), below]
    _run.save(run, figures, caption)


def _fewer(run: _run.Run, name: str) -> dict[str, Any]:
    return {} if run.args.quick and name != "occlusion" else ON_PHOTOGRAPHS.get(name, {})


def _curves(run: _run.Run, tau: np.ndarray, hits: Mapping[str, np.ndarray]) -> Figure:
    """BoxAcc against the threshold; the best threshold of each row; and MaxBoxAccV2."""
    with _display.style():
        figure, axes = _plot.chart(1, 3, "", height=2.6, width_ratios=[1.25, 0.8, 1.15])
        left, middle, right = axes[0]
        numbers = run.numbers["rows"]
        colours = dict(zip(ORDER, _plot.LINES, strict=True))
        for name, colour in colours.items():
            acc = hits[name].mean(axis=0)[:, 1]
            left.plot(tau, acc, color=colour)
            left.plot(tau[acc.argmax()], acc.max(), "o", color=colour, markersize=3.5)
        for name, dashes in (("centred_gaussian", "--"), ("input_magnitude", ":")):
            left.plot(tau, hits[name].mean(axis=0)[:, 1], dashes, color=_plot.CONTROL, label=title(name))
        left.axvline(FIXED, color="#000000", linewidth=0.5)
        left.set(xlim=(0, 1), ylim=(0, 1.18), xlabel="threshold τ", ylabel="BoxAcc(τ, 0.5), best of all boxes")
        left.set_yticks(np.linspace(0, 1, 6))
        left.legend(loc="upper right", ncols=2)

        rows = [*ORDER, *CONTROLS]
        y = np.arange(len(rows))[::-1]
        for place, name in zip(y, rows, strict=True):
            colour, n = colours.get(name, _plot.CONTROL), numbers[name]
            for k, delta in enumerate(DELTAS):
                best, at = n["best_threshold"][str(delta)], place + 0.22 * (1 - k)
                middle.plot([best["low"], best["high"]], [at, at], color=colour, linewidth=0.7)
                middle.plot(best["best"], at, "o^s"[k], color=colour, markersize=2.8)
            v2, fixed = n["MaxBoxAccV2"], n["threshold_0.2"]
            right.barh(place, v2["mean"], 0.7, color=colour)
            right.plot([v2["low"], v2["high"]], [place, place], color="#000000", linewidth=0.8)
            right.plot(fixed["mean"], place, "|", color="#ffffff", markersize=8, markeredgewidth=3)
            right.plot(fixed["mean"], place, "|", color="#000000", markersize=8, markeredgewidth=1)
            if name in ORDER:
                noise = numbers[f"{name}, matched noise"]["MaxBoxAccV2"]["mean"]
                right.plot(noise, place, "D", color=_plot.CONTROL, markersize=3, markeredgecolor="#ffffff")
        middle.axvline(FIXED, color="#000000", linewidth=0.5)
        middle.set(xlim=(0, 1), ylim=(-0.6, len(rows) - 0.4), xlabel="best τ, IoU 0.3 ●, 0.5 ▲, 0.7 ■")
        middle.set_yticks(y, [title(name) for name in rows])
        for text, name in zip(middle.get_yticklabels(), rows, strict=True):
            text.set_color(colours.get(name, _plot.CONTROL))
        right.set(xlim=(0, 1), ylim=(-0.6, len(rows) - 0.4), xlabel="MaxBoxAccV2; tick: at τ = 0.2")
        right.set_yticks([])
        return figure


def _caption(run: _run.Run, loaded: Loaded, n: int) -> str:
    rows, turned = run.numbers["rows"], run.numbers["reversed_pairs"]
    fixed = sorted(ORDER, key=lambda name: -rows[name]["threshold_0.2"]["mean"])
    v2 = {name: rows[name]["MaxBoxAccV2"]["mean"] for name in [*ORDER, *CONTROLS]}
    below = sum(v2[name] < v2["input_magnitude"] for name in ORDER)
    chosen = max(abs(v2[name] - rows[name]["threshold_of_other_half"]["mean"]) for name in ORDER)
    certain = sum(found["low"] > 0 for found in run.numbers["over_the_centre"].values())
    examples = f" ({', '.join(f'{title(a)} over {title(b)}' for a, b in turned[:3])})" if turned else ""
    return (
        f"{_nets.NETS['digit_cnn'].title}; {n} test images of 32 x 32 pixels with exact boxes, explained for "
        f"the digit; seed {run.args.seed}. Maps without other processing: channels summed, scaled to 0 ... 1. Curves: "
        "the share of images where a box around a region above τ has an IoU of 0.5 or more; dots mark the best τ. At "
        f"τ = {FIXED} for all (black line) {title(fixed[0])} is first and {title(fixed[-1])} last. Of "
        f"{run.numbers['pairs']} pairs of methods, {len(turned)} have an order at this τ that is certainly (95 %) "
        f"reversed when each method has its own best τ{examples}. Bars: MaxBoxAccV2 with its 95 % bootstrap interval "
        "over images (τ is chosen again in each resample). Diamonds: noise with the power spectrum of the method's "
        f"maps. Grey bars: controls. With τ chosen on the other half of the images no method changes by more than "
        f"{chosen:.3f}. {certain} of {len(ORDER)} methods are certainly better than the centred Gaussian "
        f"({v2['centred_gaussian']:.2f}), but {below} are below |x| ({v2['input_magnitude']:.2f}), because digits are "
        f"lighter than textures. White noise gets {v2['white_noise']:.2f}: many small regions give many boxes, and "
        "only the best box counts. A box is one pixel too large at the right and at the bottom, as in the authors' "
        "code; a map that equals the mask gets "
        f"{run.numbers['perfect_map']['MaxBoxAccV2']:.2f}. Published MaxBoxAccV2 (Choe et al., ImageNet, "
        "networks trained for the task, in per cent): CAM 60.0 (VGG), 63.4 (Inception), 63.7 (ResNet-50), centred "
        f"Gaussian 52.5. Photographs: {loaded.note}; explained for the top class, which is named below with its "
        "probability; there are no true boxes, so nothing is scored." + _run.refusals(run, "cell left empty")
    )


if __name__ == "__main__":
    main()
