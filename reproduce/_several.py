"""Several classes of one image, in one call of `attribute` and one class at a time: seconds and passes."""

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.benchmark import timer

from _clock import Clock, rounds_for, seconds
from _passes import count, counting
from methods import attribute

CLASSES = (1, 5, 20)
METHODS: dict[str, Mapping[str, Any]] = {  # few passes: the ratios do not depend on their number
    "gradient": {},
    "integrated_gradients": {"steps": 8},
    "grad_cam": {},
    "eigen_cam": {},
    "recipro_cam": {},
    "ablation_cam": {},
    "score_cam": {"layer": "layer1"},
    "occlusion": {"size": 48, "stride": 24},
}

Row = dict[str, Any]


def several(
    model: nn.Module,
    x: Float[Tensor, "1 C H W"],
    targets: Int[Tensor, " n"],
    names: Sequence[str],
    clock: Clock = timer,
) -> list[Row]:
    """A row for each method that the network has the layer for.

    Args:
        model: a classifier.
        x: one image.
        targets: as many classes as the largest of CLASSES.
        names: of methods.
        clock: seconds.

    Returns:
        For each number of classes: the seconds of a call (median), its passes (forward, backward) in all, and the
        seconds of as many calls with one class each over it.
    """
    there = dict(model.named_modules())
    chosen = {name: k for name, k in METHODS.items() if name in names and k.get("layer", "") in there}
    rows = []
    for name, keywords in chosen.items():
        calls = {n: partial(attribute, name, model, x.expand(n, -1, -1, -1), targets[:n], **keywords) for n in CLASSES}
        passes, longest = {}, 0.0
        for n, call in calls.items():  # warms up as well
            with counting(model, x) as seen:
                longest = max(longest, seconds(call, clock))
            passes[n] = count(seen, 1).passes
        times: dict[int, list[float]] = {n: [] for n in calls}
        for _ in range(rounds_for(longest)):
            for n, call in calls.items():
                times[n].append(seconds(call, clock))
        for n in calls:
            gain = median(n * one / many for one, many in zip(times[1], times[n], strict=True))
            found = {"classes": n, "seconds": median(times[n]), "passes": list(passes[n]), "gain": gain}
            rows.append({"method": name, "keywords": dict(keywords), **found})
    return rows


def page(rows: Sequence[Row]) -> list[str]:
    """Lines of Markdown."""
    lines = [
        "",
        "## Several classes of one image",
        "",
        "One call, `attribute(name, model, x.expand(n, -1, -1, -1), classes)`, float32. Passes: forward + backward, in "
        "all. Gain: the seconds of n calls with one class each over those of the call.",
        "",
        f"| method | {' | '.join(f'seconds, {n}' for n in CLASSES)} | {' | '.join(f'passes, {n}' for n in CLASSES)} | "
        f"{' | '.join(f'gain, {n}' for n in CLASSES[1:])} |",
        f"| --- |{' ---: |' * (3 * len(CLASSES) - 1)}",
    ]
    for name in dict.fromkeys(r["method"] for r in rows):
        mine = [r for r in rows if r["method"] == name]
        settings = "".join(f", {k}={v}" for k, v in mine[0]["keywords"].items())
        cells = [f"{r['seconds']:.3g}" for r in mine]
        cells += [f"{r['passes'][0]:,.0f} + {r['passes'][1]:,.0f}" for r in mine]
        cells += [f"{r['gain']:.1f}" for r in mine[1:]]
        lines.append(f"| `{name}`{settings} | {' | '.join(cells)} |")
    return lines
