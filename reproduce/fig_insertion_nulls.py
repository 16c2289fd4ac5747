"""Insertion and deletion of methods, compared with random maps that are equally smooth.

Not from a paper; the two curves are those of Petsiuk, Das, Saenko. RISE. BMVC 2018. arXiv:1806.07421.

The reader should see: smooth random maps beat white noise in insertion and lose to it in deletion. The differences are
as large as those between methods. So a method's score is meaningful only in comparison with equally smooth noise.

Settings: 15 points per curve (the paper: 225 in its demo, 29 for its tables). Equally smooth noise has the power
spectrum of the method's map with random phases, image by image. Noise of c px is drawn on a grid with cells of c x c
pixels and resized bilinearly, like the map of a layer. Noise is the mean of several draws, so its interval is over
images only.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import _plot
import _run  # puts the repository on the path
from methods import METHODS, _display, _images
from sanity_checks import Result
from sanity_checks._controls import CONTROLS, matched
from sanity_checks._statistics import interval
from sanity_checks._torch import explain

ORDER: dict[str, dict[str, Any]] = {  # method: keywords
    "grad_cam": {},
    "full_grad": {},
    "integrated_gradients": {"steps": 20},
    "gradient": {},
    "guided_backprop": {},
}
ABSOLUTE = {"gradient", "guided_backprop"}  # the literature orders pixels by |a|, summed over channels
DRAWN = ("grad_cam", "gradient")  # whose curves are shown
QUICK = ("grad_cam", "gradient")
CELLS = (1, 4, 8, 16, 32)  # pixels
IMAGES_ONLY = ("sobel_edges", "input_magnitude", "centred_gaussian")
STEPS, DRAWS = 14, 3
SIDES = ("insertion", "deletion")


def main() -> None:
    """Draw figures/fig_insertion_nulls.png."""
    run = _run.start(__file__, __doc__, photos=",".join(_images.PACKAGED), quick_photos="chelsea,coffee")
    loaded = _run.load(run)
    rows = _run.subjects(run, loaded)
    x = _images.tensor([r.photo for r in rows], loaded)
    target = torch.tensor([r.target for r in rows], device=loaded.device)
    quick = run.args.quick
    names, cells, draws = (QUICK, CELLS[::4], 1) if quick else (ORDER, CELLS, DRAWS)
    seeds = range(run.args.seed, run.args.seed + draws)
    step = -(-x.shape[2] * x.shape[3] // (7 if quick else STEPS))
    run.bar.reset(total=len(names) * (1 + draws) + len(cells) * draws + len(IMAGES_ONLY))

    def judge(maps: Float[Tensor, "B K h w"]) -> Result:
        run.bar.update()
        return _run.check(run, "insertion_deletion", loaded.model, x, target, maps, step=step)

    methods, controls = {}, {}
    for name in names:
        with _run.attempt(run, name, loaded.tag):
            a = explain(_run.bind(run, name, loaded.model, x, **ORDER[name]), loaded.model, x, target)
            a = a.abs() if name in ABSOLUTE else a
            noise = [judge(matched(a, seed)) for seed in seeds]
            methods[name] = {"title": title(name), "itself": measured([judge(a)]), "matched": measured(noise)}
            methods[name]["above matched"] = above(methods[name]["itself"], methods[name]["matched"])
    for c in cells:
        label = "white noise" if c == 1 else f"noise, {c} px"
        controls[label] = measured([judge(noise_of(x, c, seed)) for seed in seeds])
    for name in IMAGES_ONLY:
        label, control = CONTROLS[name]
        controls[label] = measured([judge(explain(control(run.args.seed), loaded.model, x, target))])
    white, widest = controls["white noise"], f"noise, {cells[-1]} px"
    for m in (*(methods[name][kind] for name in methods for kind in ("itself", "matched")), *controls.values()):
        m["above white"] = above(m, white)
    run.numbers |= {
        "photographs": [r.photo.name for r in rows],
        "draws": draws,
        "methods": methods,
        "controls": controls,
        "smooth above white": controls[widest]["above white"],
    }

    noisy, points = f", mean of {draws} draws" if draws > 1 else "", len(controls[widest]["at"])
    caption = (
        f"{loaded.note}. {len(x)} photographs, explained for their top class. Top: its probability while pixels are "
        "inserted into a blurred image (insertion: high is good) or replaced by the mean colour (deletion: low is "
        f"good), highest value first; mean over photographs, {points} points. Bottom: area under the curve minus that "
        "of white noise on the same photograph, mean and 95 % bootstrap interval over photographs. Full dots: methods. "
        f"Hollow dots: random maps with the power spectrum of the method's own maps{noisy}. A star at the right: the "
        "whole interval of the difference between the two is on the good side. Grey: controls that do not use the "
        f"network; noise of c px is drawn on cells of c x c pixels and resized{noisy}. |a|: pixels are ordered by the "
        "absolute value. "
        f"Seed {run.args.seed}." + _run.refusals(run)
    )
    _run.save(
        run, draw(methods, controls, caption, headline(controls[widest]["above white"]), _run.banner(run)), caption
    )


def title(name: str) -> str:
    """The method's name in the figure."""
    return METHODS[name].title + (", |a|" if name in ABSOLUTE else "")


def noise_of(x: Float[Tensor, "B C H W"], cell: int, seed: int) -> Float[Tensor, "B 1 h w"]:
    """Standard normal numbers, one for each cell of `cell` x `cell` pixels of each image."""
    size = (len(x), 1, *(max(2, n // cell) for n in x.shape[2:]))
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)).to(x.device)


def measured(results: Sequence[Result]) -> dict[str, Any]:
    """Both areas (their interval over images, each the mean over `results`) and the mean curves."""
    found: dict[str, Any] = {"at": results[0].at}
    for side in SIDES:
        values = torch.stack([r.columns[side] for r in results]).mean(dim=0).double().cpu().numpy()  # B
        curve = torch.stack([r.curves[side] for r in results]).mean(dim=(0, 1))  # n
        found[side] = {"values": values, "curve": curve} | asdict(interval(values))
    return found


def above(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """The interval of the mean difference of the areas, a minus b, image by image."""
    return {side: asdict(interval(a[side]["values"] - b[side]["values"])) for side in SIDES}


def headline(smooth: dict[str, dict[str, float]]) -> str:
    """What smoothness alone does to the two curves, if the intervals say so for certain."""
    if smooth["insertion"]["low"] > 0 and smooth["deletion"]["low"] > 0:
        return "Smooth noise beats white noise in insertion and loses to it in deletion"
    return "Insertion and deletion, compared with noise that is equally smooth"


def draw(
    methods: dict[str, dict[str, Any]], controls: dict[str, dict[str, Any]], caption: str, head: str, banner: str
) -> Figure:
    """Curves of a few methods above, areas of all methods and controls below."""
    colours = dict(zip(methods, _plot.LINES, strict=False))
    lines = len(methods) + len(controls)
    with _display.style():
        heights = [1.9, 0.4 + 0.16 * lines]
        figure, axes = _plot.chart(
            2, 2, caption, height=sum(heights) / 2, banner=banner, title=head, height_ratios=heights, sharey="row"
        )
        for ax, bottom, side in zip(*axes, SIDES, strict=True):
            for name in DRAWN:
                if name in methods:
                    m, look = methods[name], {"color": colours[name]}
                    ax.plot(m["itself"]["at"], m["itself"][side]["curve"], **look, label=m["title"])
                    ax.plot(m["itself"]["at"], m["matched"][side]["curve"], "--", **look, label="equally smooth noise")
            white = controls["white noise"]
            ax.plot(white["at"], white[side]["curve"], ":", color=_plot.CONTROL, label="white noise")
            ax.set_xlabel(f"share of pixels {'shown' if side == 'insertion' else 'removed'}")
            ax.text(0.98, 0.02 if side == "insertion" else 0.9, side, transform=ax.transAxes, ha="right", weight="bold")
            for i, (name, m) in enumerate(methods.items()):
                dot(bottom, m["matched"]["above white"][side], i + 0.2, colours[name], "white")
                dot(bottom, m["itself"]["above white"][side], i - 0.12, colours[name], colours[name])
                if surely_better(m["above matched"][side], side):
                    bottom.text(1, i + 0.12, "*", transform=bottom.get_yaxis_transform(), va="center", fontsize=10)
            for i, m in enumerate(controls.values(), len(methods)):
                dot(bottom, m["above white"][side], i, _plot.CONTROL, _plot.CONTROL)
            bottom.axvline(0, color="black", lw=0.6, zorder=0)
            bottom.set_xlabel(f"area of {side}, minus white noise's")
            bottom.grid(axis="x", lw=0.3, color="#dddddd")
        axes[0, 0].set_ylabel("probability of the class")
        axes[0, 0].set_title(" \n \n ")  # room for the legend, which is wider than its axes
        legend = axes[0, 0].legend(loc="lower center", bbox_to_anchor=(1.0, 1.02), ncols=3)
        legend.set_in_layout(False)
        axes[1, 0].set_yticks(range(lines), [*(m["title"] for m in methods.values()), *controls])
        axes[1, 0].set_ylim(lines - 0.4, -0.6)
    return figure


def surely_better(difference: dict[str, float], side: str) -> bool:
    """Whether an interval lies on the good side of 0."""
    return difference["low"] > 0 if side == "insertion" else difference["high"] < 0


def dot(ax: Axes, v: dict[str, Any], y: float, colour: str, face: str) -> None:
    """A mean and its interval."""
    ax.plot([v["low"], v["high"]], [y, y], color=colour, lw=0.9)
    ax.plot(v["mean"], y, "o", ms=4, mfc=face, mec=colour, mew=0.9)


if __name__ == "__main__":
    main()
