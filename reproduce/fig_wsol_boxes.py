"""From a map to a box: how much the threshold decides in weakly supervised object localisation.

Choe, Oh, Lee, Chun, Akata, Shim. CVPR 2020. arXiv:2001.07437: form of the threshold and MaxBoxAcc figures; boxes on
photographs as in Zhou, Khosla, Lapedriza, Oliva, Torralba. CVPR 2016. arXiv:1512.04150.

The reader should see: each method has its best box at another threshold, so that one threshold for all puts methods
into an order that is not theirs; at its own best every method beats a Gaussian in the middle of the image (though here
most of them are worse than |x|).

Differs from the paper: digits on textures with exact boxes and a small CNN, in place of ImageNet, CUB and OpenImages
with networks trained for the task: no data set has to be fetched. Maps and boxes stay on the images' 32 x 32 pixels,
thresholds are 0.01 apart (paper: 224 x 224, 0.001). Digits lie anywhere, so the middle is a weaker guess than on
photographs; they are lighter than most of a texture, so |x| is a stronger one. Photographs have no true box here.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from torch import Tensor

import _plot
import _run  # puts the repository on the path
from methods import METHODS, _display
from methods._models import Loaded
from methods._torch import Attribution, minmax
from sanity_checks import _ground_truth, _nets
from sanity_checks._boxes import box_iou, contours
from sanity_checks._controls import CONTROLS, matched
from sanity_checks._statistics import interval
from sanity_checks._torch import explain, pixels
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
SWEPT = ["grad_cam", "full_grad", "smooth_grad_squared", "centred_gaussian"]  # rows of the first block
FIXED = 0.2  # of Zhou et al.: one threshold for all
NESTED = {0.2: (86, 180, 233), 0.4: (0, 114, 178), 0.6: (0, 0, 0)}  # tau -> colour, on photographs
TRUE, BEST, AT_FIXED, OTHER = (255, 213, 0), (213, 0, 50), (86, 180, 233), (150, 150, 150)
ON_PHOTOGRAPHS: dict[str, dict[str, Any]] = {
    "smooth_grad_squared": {"samples": 10},
    "integrated_gradients": {"steps": 16},
    "occlusion": {"size": 48, "stride": 32},
}
RESAMPLES = 10_000


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
            results[row] = _run.score(run, "wsol", a, mask, interval=step, size=_ground_truth.SIDE, threshold=FIXED)
            hits[row] = hits_of(results[row].curves)
            run.bar.update()
    tau = np.array(results["grad_cam"].at[:-1])
    for row, r in results.items():
        run.numbers[row] = _numbers(hits[row], tau, r.facts)
    both = {row: (_at(hits[row], tau, FIXED), held_out(hits[row])) for row in ORDER}
    centre = held_out(hits["centred_gaussian"])
    run.numbers = {
        "n": n,
        "thresholds": tau,
        "reversed_pairs": reversals(both),
        "pairs": len(ORDER) * (len(ORDER) - 1) // 2,
        "over_the_centre": {row: asdict(interval(both[row][1] - centre)) for row in ORDER},
        "sides_of_true_box": [mask.any(dim=2 - k).sum(dim=1).double().mean() for k in (1, 0)],
        "perfect_map": _run.score(
            run, "wsol", mask[:, None].float(), mask, size=_ground_truth.SIDE, interval=step
        ).facts,
        "rows": run.numbers,
    }

    loaded = _run.load(run)
    rows = _run.subjects(run, loaded)
    panels = {name: _run.explain(run, loaded, name, rows, **_fewer(run, name)) for name in ORDER}

    caption = _caption(run, loaded, n)
    best = {row: float(tau[_highest(hits[row].mean(axis=0), axis=0)[1]]) for row in [*ORDER, "centred_gaussian"]}
    examples = _examples(found, maps, best, few=run.args.quick)
    figures = [examples, _curves(run, tau, hits), _photographs(run, rows, panels, caption)]
    _run.save(run, figures, caption)


def hits_of(curves: Mapping[str, Float[Tensor, "n t"]]) -> Float[np.ndarray, "n u 3"]:
    """1 where the best of all boxes overlaps enough, at each threshold below 1 and each of DELTAS."""
    best = curves["iou_any"][:, :-1].cpu().numpy()
    return np.stack([best >= delta for delta in DELTAS], axis=2).astype(float)


def resampled(hits: Float[np.ndarray, "n u 3"], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """MaxBoxAccV2 and the places of the best thresholds in bootstrap resamples of the images: R, and R 3.

    Thresholds are chosen anew in every resample, as in the number itself. A maximum of means is a little too high for
    these images, and a little more so in a resample. The same seed draws the same images.
    """
    n, u, k = hits.shape
    rng = np.random.default_rng(seed)
    scores, places = [], []
    for _ in range(RESAMPLES // 250):
        weights = rng.multinomial(n, np.full(n, 1 / n), size=250) / n  # 250 n
        acc = (weights @ hits.reshape(n, -1)).reshape(-1, u, k)  # 250 u 3
        scores.append(acc.max(axis=1).mean(axis=1))
        places.append(_highest(acc, axis=1))
    return np.concatenate(scores), np.concatenate(places)


def _highest(acc: np.ndarray, axis: int) -> np.ndarray:
    """The place of the maximum; of equals the first, and rounding must not choose between them."""
    return acc.round(9).argmax(axis=axis)


def held_out(hits: Float[np.ndarray, "n u 3"]) -> Float[np.ndarray, " n"]:
    """Each image's mean hit over DELTAS, at the thresholds that are best for the other half of the images."""
    half = np.arange(len(hits)) % 2 == 0
    found = np.empty(len(hits))
    for part in (half, ~half):
        place = _highest(hits[~part].mean(axis=0), axis=0)  # 3
        found[part] = np.stack([hits[part, p, k] for k, p in enumerate(place)]).mean(axis=0)
    return found


def reversals(scores: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> list[tuple[str, str]]:
    """Pairs (a, b) where a is surely better by the first of its two lists and surely worse by the second.

    Surely: the 95 % interval of the paired difference is on one side of 0. The pair that changes most comes first.
    """
    changes = {}
    for a, b in itertools.permutations(scores, 2):
        one, other = (interval(scores[a][k] - scores[b][k]) for k in (0, 1))
        if one.low > 0 > other.high:
            changes[a, b] = one.mean - other.mean
    return sorted(changes, key=lambda pair: -changes[pair])


def found_boxes(a: Float[Tensor, "H W"], tau: float) -> Float[np.ndarray, "n 4"]:
    """The boxes that `wsol` judges at a threshold: of all contours, in the pixels of the map."""
    image = (minmax(a.double()).cpu().numpy() * 255).astype(np.uint8)
    rectangles, _ = contours(image > int(tau * image.max()))
    end = np.array([image.shape[1] - 1, image.shape[0] - 1] * 2)
    return (rectangles + np.array([0, 0, 1, 1])).clip(max=end) if len(rectangles) else np.zeros((1, 4))


def true_box(mask: Tensor) -> Float[np.ndarray, "1 4"]:
    """x0 y0 x1 y1 around a mask, both ends inside."""
    y, x = np.nonzero(mask.cpu().numpy())
    return np.array([[x.min(), y.min(), x.max(), y.max()]], dtype=float)


def _numbers(hits: np.ndarray, tau: np.ndarray, facts: Mapping[str, Any]) -> dict[str, Any]:
    acc = hits.mean(axis=0)  # u 3
    scores, places = resampled(hits)
    low, high = np.percentile(scores, [2.5, 97.5])
    ends = tau[np.percentile(places, [2.5, 97.5], axis=0, method="nearest")]  # 2 3
    best = tau[_highest(acc, axis=0)]  # 3
    return {
        "MaxBoxAccV2": {"mean": facts["MaxBoxAccV2"], "low": low, "high": high},
        "MaxBoxAcc": facts["MaxBoxAcc"],
        "PxAP": facts["PxAP"],
        "threshold_of_other_half": asdict(interval(held_out(hits))),
        "threshold_0.2": asdict(interval(_at(hits, tau, FIXED))),
        "best_threshold": {
            str(delta): {"best": best[k], "low": ends[0, k], "high": ends[1, k]} for k, delta in enumerate(DELTAS)
        },
        "BoxAcc": {str(delta): acc[:, k] for k, delta in enumerate(DELTAS)},
    }


def _at(hits: np.ndarray, tau: np.ndarray, level: float) -> np.ndarray:
    """Each image's mean hit over DELTAS at one threshold."""
    return hits[:, int(np.abs(tau - level).argmin())].mean(axis=1)


def _fewer(run: _run.Run, name: str) -> dict[str, Any]:
    return {} if run.args.quick and name != "occlusion" else ON_PHOTOGRAPHS.get(name, {})


def _label(row: str) -> str:
    return CONTROLS[row][0] if row in CONTROLS else METHODS[row].title


def _examples(
    found: _ground_truth.DigitsOnTextures, maps: Mapping[str, Tensor], best: Mapping[str, float], *, few: bool
) -> Figure:
    """The sweep on one image, and boxes on three more at 0.2 and at each method's best threshold."""
    zoom = 6
    rgb = (found.x * _ground_truth.STD + _ground_truth.MEAN).clamp(0, 1).mul(255).byte()
    rgb = rgb.permute(0, 2, 3, 1).cpu().numpy().repeat(zoom, axis=1).repeat(zoom, axis=2)  # n 192 192 3
    levels = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    sweep = []
    shown = SWEPT[:1] if few else SWEPT
    for name in shown:
        a, true = pixels(maps[name][:1].cpu(), found.x[:1])[0], true_box(found.mask[0])
        tinted = _display._pixels(_display.Panel(rgb[0], a, overlay=True))
        line = [_display.Panel(draw((tinted * 255).astype(np.uint8), true, TRUE, zoom))]
        for tau in levels:
            boxes = found_boxes(a, tau)
            iou = box_iou(boxes, true)[:, 0]
            image = (minmax(a.double()).numpy() * 255).astype(np.uint8)
            above = (image > int(tau * image.max())).repeat(zoom, axis=0).repeat(zoom, axis=1)
            picture = np.where(above[..., None], rgb[0], (rgb[0] * 0.3).astype(np.uint8))
            picture = draw(picture, boxes, OTHER, zoom, 1)
            picture = draw(draw(picture, true, TRUE, zoom), boxes[[iou.argmax()]], BEST, zoom)
            line.append(_display.Panel(picture, below=f"{iou.max():.2f}"))
        sweep.append(line)
    several = []
    for i in range(1, 2 if few else 4):
        true = true_box(found.mask[i])
        line = [_display.Panel(draw(rgb[i], true, TRUE, zoom))]
        for name, own in best.items():
            a = pixels(maps[name][i : i + 1].cpu(), found.x[:1])[0]
            picture = draw(
                (_display._pixels(_display.Panel(rgb[i], a, overlay=True)) * 255).astype(np.uint8), true, TRUE, zoom
            )
            for tau, colour in ((FIXED, AT_FIXED), (own, BEST)):
                boxes = found_boxes(a, tau)
                picture = draw(picture, boxes[[box_iou(boxes, true)[:, 0].argmax()]], colour, zoom)
            line.append(_display.Panel(picture, below=f"{own:.2f}"))
        several.append(line)
    above = "One image, the threshold τ from low to high. Dark: below the threshold"
    own = f"More images: one threshold for all (τ = {FIXED}) against each method's own best, which stands below"
    blocks = [
        _display.Block(["Map", *(f"τ = {tau}" for tau in levels)], sweep, [_label(name) for name in shown], above),
        _display.Block(["Image", *map(_label, best)], several, title=own),
    ]
    legend = (
        "Yellow: the true box. Red: of all boxes that are found, the one that fits best (in the second block at the "
        f"best τ for IoU 0.5). Pale blue: that at τ = {FIXED}. Thin grey: the other boxes. Below the first block: the "
        "best IoU."
    )
    return _display.grid(blocks, legend)


def draw(
    rgb: UInt8[np.ndarray, "H W 3"],
    boxes: Float[np.ndarray, "n 4"],
    colour: tuple[int, int, int],
    zoom: float,
    width: int = 4,
) -> UInt8[np.ndarray, "H W 3"]:
    """A copy with the outlines of boxes, given in pixels of an image `zoom` times smaller; both ends inside."""
    rgb = rgb.copy()
    for x0, y0, x1, y1 in boxes:
        left, top, right, bottom = (round(v * zoom) for v in (x0, y0, x1 + 1, y1 + 1))
        edge = np.zeros(rgb.shape[:2], dtype=bool)
        edge[top:bottom, left:right] = True
        edge[top + width : bottom - width, left + width : right - width] = False
        rgb[edge] = colour
    return rgb


def _curves(run: _run.Run, tau: np.ndarray, hits: Mapping[str, np.ndarray]) -> Figure:
    """BoxAcc against the threshold; where each row is best; and MaxBoxAccV2."""
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
            left.plot(tau, hits[name].mean(axis=0)[:, 1], dashes, color=_plot.CONTROL, label=_label(name))
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
        middle.set_yticks(y, [_label(name) for name in rows])
        for text, name in zip(middle.get_yticklabels(), rows, strict=True):
            text.set_color(colours.get(name, _plot.CONTROL))
        right.set(xlim=(0, 1), ylim=(-0.6, len(rows) - 0.4), xlabel="MaxBoxAccV2; tick: at τ = 0.2")
        right.set_yticks([])
        return figure


def _photographs(
    run: _run.Run, rows: Sequence[_run.Subject], panels: Mapping[str, Sequence[_display.Panel | None]], caption: str
) -> Figure:
    """Boxes of the embedded classifier's maps."""
    lines = []
    for i, first in enumerate(_run.photographs(rows)):
        line: list[_display.Panel | None] = [first]
        for name in ORDER:
            panel = panels[name][i]
            if panel is None or panel.a is None:
                line.append(None)
                continue
            rgb = panel.rgb
            a = pixels(panel.a[None, None].cpu(), torch.empty(1, *rgb.shape[:2]))[0]
            picture = (_display._pixels(_display.Panel(rgb, a, overlay=True)) * 255).astype(np.uint8)
            for tau, colour in NESTED.items():
                boxes = found_boxes(a, tau)
                area = (boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1)
                picture = draw(picture, boxes[[area.argmax()]], colour, 1)
            line.append(_display.Panel(picture))
        lines.append(line)
    block = _display.Block(
        ["Photograph", *map(_label, ORDER)],
        lines,
        _run.labels(rows),
        "Photographs: the largest box at τ = 0.2 (pale blue), 0.4 (blue) and 0.6 (black)",
    )
    return _display.grid([block], caption, _run.banner(run))


def _caption(run: _run.Run, loaded: Loaded, n: int) -> str:
    rows, turned = run.numbers["rows"], run.numbers["reversed_pairs"]
    fixed = sorted(ORDER, key=lambda name: -rows[name]["threshold_0.2"]["mean"])
    v2 = {name: rows[name]["MaxBoxAccV2"]["mean"] for name in [*ORDER, *CONTROLS]}
    below = sum(v2[name] < v2["input_magnitude"] for name in ORDER)
    chosen = max(abs(v2[name] - rows[name]["threshold_of_other_half"]["mean"]) for name in ORDER)
    surely = sum(found["low"] > 0 for found in run.numbers["over_the_centre"].values())
    examples = f" ({', '.join(f'{_label(a)} over {_label(b)}' for a, b in turned[:3])})" if turned else ""
    return (
        f"{_nets.NETS['digit_cnn'].title}; {n} test images of 32 x 32 pixels with exact boxes, explained for "
        f"the digit; seed {run.args.seed}. Maps as they come, channels summed, scaled to 0 ... 1. Curves: the share of "
        "images where a box around a region above τ has an IoU of 0.5 or more; dots mark the best τ. At τ = "
        f"{FIXED} for all (black line) {_label(fixed[0])} comes first and {_label(fixed[-1])} last; of "
        f"{run.numbers['pairs']} pairs of methods {len(turned)} have an order there that surely (95 %) turns round "
        f"when each has its own best τ{examples}. Bars: MaxBoxAccV2 with its 95 % bootstrap interval over images (τ "
        "chosen anew in each resample); diamonds: noise with the power spectrum of the method's maps; grey bars: "
        f"controls. With τ chosen on the other half of the images no method changes by more than {chosen:.3f}. "
        f"{surely} of {len(ORDER)} methods surely beat the centred Gaussian ({v2['centred_gaussian']:.2f}), but "
        f"{below} are below |x| ({v2['input_magnitude']:.2f}), as digits are lighter than textures. White noise gets "
        f"{v2['white_noise']:.2f}: many small regions give many boxes, and the best of all counts. A box reaches one "
        "pixel too far right and down, as in the authors' code; a map that is the mask gets "
        f"{run.numbers['perfect_map']['MaxBoxAccV2']:.2f}. Published MaxBoxAccV2 (Choe et al., ImageNet, "
        "networks trained for the task, in per cent): CAM 60.0 (VGG), 63.4 (Inception), 63.7 (ResNet-50), centred "
        f"Gaussian 52.5. Photographs: {loaded.note}; explained for the top class, which stands below with its "
        "probability; no true boxes, so nothing is scored." + _run.refusals(run, "cell left empty")
    )


if __name__ == "__main__":
    main()
