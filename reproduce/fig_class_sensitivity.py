"""Does the map change with the explained class? The random logit test, compared with a randomised head.

Sixt, Granz, Landgraf. When Explanations Lie. ICML 2020. arXiv:1912.09818, section 5, form of its box plot of SSIM.

The reader should see: maps of guided backpropagation and DeconvNet stay the same when another class is explained. So do
maps of Eigen-CAM, which takes no class. Maps of the gradient, Grad-CAM and HiResCAM change.

Settings that differ from the paper: another network, seven photographs instead of 200, ten random classes for each
photograph instead of one, and methods of this repository (the paper's are mostly variants of relevance propagation).
The figure shows the paper's SSIM and also the rank correlation at the map's own resolution. Randomising the weights of
the last layer alone makes every class a random one: the two tests ask nearly the same, so both are drawn.
SSIM of coarse maps is high whatever they show, as the smooth noise proves; rank correlation does not have this problem.
"""

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from torch import Tensor, nn

import _plot
import _run  # puts the repository on the path
from methods import METHODS, _display, _images
from methods._torch import Attribution
from sanity_checks._cascade import randomized_head
from sanity_checks._controls import CONTROLS
from sanity_checks._statistics import interval

SAME = 0.9  # rank correlation above which two maps are called nearly the same
ORDER = (
    "guided_backprop",
    "deconvnet",
    "gradient",
    "input_x_gradient",
    "full_grad",
    "guided_grad_cam",
    "grad_cam",
    "grad_cam_plus_plus",
    "hires_cam",
    "layer_cam",
    "eigen_grad_cam",
    "eigen_cam",
)
QUICK = ("guided_backprop", "gradient", "grad_cam", "eigen_cam")
CLASSES, SEEDS = 10, 6  # random classes for each photograph; randomised heads
COLUMNS = {"ssim": "SSIM, sign-tolerant (the paper's)", "spearman": "rank correlation of |a|"}


def main() -> None:
    """Draw figures/fig_class_sensitivity.png."""
    photos = ",".join(_images.PACKAGED)
    run = _run.start(__file__, __doc__, photos=photos, quick_photos="chelsea,coffee")
    loaded = _run.load(run)
    rows = _run.subjects(run, loaded)
    x = _images.tensor([r.photo for r in rows], loaded)
    target = torch.tensor([r.target for r in rows], device=loaded.device)
    names = QUICK if run.args.quick else ORDER
    classes, seeds = (2, 1) if run.args.quick else (CLASSES, SEEDS)
    run.bar.reset(total=len(names) + len(CONTROLS))

    found: dict[str, dict[str, Any]] = {}
    for name in names:
        run.bar.set_postfix_str(name)
        with _run.attempt(run, name, loaded.tag):
            of = _run.bind(run, name, loaded.model, x)
            found[METHODS[name].title] = measure(run, loaded.model, x, target, of, classes, seeds)
        run.bar.update()
    for title, control in CONTROLS.values():
        of = control(run.args.seed)
        found[title] = measure(run, loaded.model, x, target, of, classes, seeds)
        run.bar.update()
    run.numbers |= {"photographs": [r.photo.name for r in rows], "classes": classes, "heads": seeds, "measured": found}

    n = len(x)
    caption = (
        f"{loaded.note}. {n} photographs, explained for their top class and for {classes} random other classes. "
        "Dots: similarity of the two maps, averaged over the classes, one dot per photograph. Boxes: from quartile to "
        "quartile; the thick line is the median. 1: the map does not depend on the class. Left: SSIM with the map or "
        "with its negative, whichever is larger; uniform 5 x 5 window, at the resolution of the image. SSIM of coarse "
        "maps is high whatever they show, see the smooth noise. Right: at the map's own resolution. Diamonds: the mean "
        f"when only the weights of the last layer are permuted ({seeds} draws, the same for all photographs). Bars: "
        "between maps of different photographs. Grey: controls that do not use the network; noise is drawn again. "
        f"Seed {run.args.seed}." + _run.refusals(run)
    )
    _run.save(run, boxes(found, caption, _run.banner(run)), caption)


def measure(
    run: _run.Run,
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Int[Tensor, " B"],
    of: Attribution,
    classes: int,
    seeds: int,
) -> dict[str, Any]:
    """Similarities per photograph, with their intervals.

    Returns:
        spearman, ssim, signed: of the maps of random classes. runner_up: of the next class. null: of the maps of
        different photographs. ceiling: of two runs. head: spearman on networks with a permuted last layer.
    """
    seed = run.args.seed
    result = _run.check(run, "random_logit", model, x, target, of, classes=classes, seed=seed)
    values = {"spearman": result.values, "head": randomized_head(model, x, target, of, range(seed, seed + seeds))}
    values |= {k: result.columns[k] for k in ("ssim", "signed", "runner_up", "null", "ceiling")}
    found = {k: v.cpu().numpy() for k, v in values.items()}
    return {k: {"values": v} | asdict(interval(v)) for k, v in found.items()}


def boxes(found: dict[str, dict[str, Any]], caption: str, banner: str) -> Figure:
    """A box per method, most similar first, then the controls; SSIM at the left, rank correlation at the right."""
    blind = {title for title, _ in CONTROLS.values()}
    order = sorted(found, key=lambda title: (title in blind, -found[title]["spearman"]["mean"]))
    fixed = sum(found[title]["spearman"]["low"] > SAME for title in order if title not in blind)
    head = f"{fixed} of {len(order) - len(blind)} methods draw nearly the same map for another class"
    with _display.style():
        height = 0.5 + 0.16 * len(found)
        figure, axes = _plot.chart(1, 2, caption, height=height, banner=banner, title=head, sharey=True)
        for ax, (key, label) in zip(axes[0], COLUMNS.items(), strict=True):
            for i, title in enumerate(order):
                colour, v = _plot.CONTROL if title in blind else _plot.LINES[0], found[title][key]["values"]
                line = {"color": colour, "lw": 0.8}
                ax.boxplot(
                    v[~np.isnan(v)], positions=[i], orientation="horizontal", widths=0.6, whis=(0, 100),
                    showfliers=False, manage_ticks=False,
                    boxprops=line, whiskerprops=line, capprops=line, medianprops=line | {"lw": 1.6},
                )  # fmt: skip
                ax.plot(v, [i] * len(v), ".", color=colour, alpha=0.5, ms=4, mew=0)
            ax.set_xlabel(label)
            ax.grid(axis="x", lw=0.3, color="#dddddd")
            ax.axvline(1, color="black", lw=0.5, zorder=0)
        for i, title in enumerate(order):
            null, head = found[title]["null"]["mean"], found[title]["head"]["mean"]
            axes[0, 1].plot([null, null], [i - 0.42, i + 0.42], color="black", lw=0.9)
            axes[0, 1].plot(head, i, "D", ms=3.2, mfc="white", mec=_plot.LINES[1], mew=0.9, zorder=4)
        axes[0, 0].set_yticks(range(len(order)), order)
        axes[0, 0].set_ylim(len(order) - 0.4, -0.6)
    return figure


if __name__ == "__main__":
    main()
