"""Does a map know which part of the image matters most? Attribution of 16 cells against the drop when each is deleted.

Hesse, Schaub-Meyer, Roth. Benchmarking the Attribution Quality of Vision Models. NeurIPS 2024. arXiv:2407.11910, form
of its example (attribution of a cell against the effect of deleting it) and of its comparison of methods.

The reader should see: the Grad-CAM family orders the cells better than chance, and the order of the methods is the
published one. The gradient and guided backpropagation are not certainly above chance. There are few photographs, so the
intervals are wide.

Settings that differ from the paper: the network is another one and is NOT fine-tuned on images with a deleted cell. So
this is the single-deletion score, out of domain, not the paper's in-domain IDSDS. It uses seven photographs, not the
whole validation set. The published numbers (fine-tuned ResNet-50, read off a poster by eye, within 0.01) are drawn next
to ours to compare the order, not the values. Occlusion with the cells as windows is right by construction: 1.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from torch import Tensor, nn

import _plot
import _run  # puts the repository on the path
from methods import METHODS, _display, _images
from methods._torch import scores
from methods.input_x_gradient import input_x_gradient
from sanity_checks._controls import CONTROLS
from sanity_checks._statistics import interval
from sanity_checks._torch import explain, pixels
from sanity_checks.similarity import spearman

GRID = 4
ORDER: dict[str, dict[str, Any]] = {  # method: keywords
    "grad_cam": {},
    "xgrad_cam": {},
    "grad_cam_plus_plus": {},
    "hires_cam": {},
    "layer_cam": {},
    "full_grad": {},
    "integrated_gradients": {},
    "input_x_gradient": {},
    "smooth_grad": {"of": input_x_gradient, "samples": 25},
    "gradient": {},
    "guided_backprop": {},
    "eigen_cam": {},
    "occlusion": {},  # with the cells as windows
}
TITLES = {"smooth_grad": "SmoothGrad of input x gradient", "occlusion": "Occlusion of the cells"}
PUBLISHED = {  # IDSDS of a fine-tuned ResNet-50, 4 x 4 cells
    "integrated_gradients": 0.195,
    "grad_cam": 0.235,
    "xgrad_cam": 0.235,
    "grad_cam_plus_plus": 0.21,
    "input_x_gradient": 0.07,
    "smooth_grad": 0.0,
}
SCATTERED = ("grad_cam", "integrated_gradients", "input_x_gradient")
QUICK = ("grad_cam", "input_x_gradient", "occlusion")
DRAWS = 5  # of the random controls


def main() -> None:
    """Draw figures/fig_idsds.png."""
    run = _run.start(__file__, __doc__, photos=",".join(_images.PACKAGED), quick_photos="coffee,chelsea")
    loaded = _run.load(run)
    rows = _run.subjects(run, loaded)
    x = _images.tensor([r.photo for r in rows], loaded)
    target = torch.tensor([r.target for r in rows], device=loaded.device)
    names = QUICK if run.args.quick else ORDER
    draws = 1 if run.args.quick else DRAWS
    run.bar.reset(total=len(names) + len(CONTROLS))

    def score(maps: Float[Tensor, "B K h w"]) -> Float[Tensor, " B"]:
        return _run.check(run, "single_deletion", loaded.model, x, target, maps, grid=GRID).values

    found, sums = {}, {}
    for name in names:
        run.bar.set_postfix_str(name)
        cell = {"size": x.shape[-1] // GRID, "stride": x.shape[-1] // GRID} if name == "occlusion" else {}
        with _run.attempt(run, name, loaded.tag):
            of = _run.bind(run, name, loaded.model, x, **ORDER[name], **cell)
            maps = explain(of, loaded.model, x, target)
            found[name] = summary(score(maps)) | {"title": TITLES.get(name, METHODS[name].title)}
            sums[name] = cell_sums(maps, x)
        run.bar.update()
    for name, (title, control) in CONTROLS.items():
        many = draws if "noise" in name else 1
        tries = [score(explain(control(run.args.seed + k), loaded.model, x, target)) for k in range(many)]
        found[name] = summary(torch.stack(tries).mean(dim=0)) | {"title": title, "draws": many}
        run.bar.update()
    drop = drops(loaded.model, x, target)  # B 16
    best = max(range(len(rows)), key=lambda i: rows[i].probability)  # the photograph that is shown
    shown = [name for name in SCATTERED if name in sums]
    run.numbers |= {
        "photographs": [r.photo.name for r in rows],
        "measured": found,
        "published": PUBLISHED,
        "drops": drop,
        "sums": {name: sums[name] for name in shown},
    }
    caption = (
        f"{loaded.note}. Single deletion WITHOUT fine-tuning: the score of the paper on a network that has never seen "
        f"a deleted cell. Top: {rows[best].photo.name}, class {rows[best].target_name}. Each of the {GRID} x {GRID} "
        "cells alone is set to the mean colour. The number is the drop of the logit; red: the logit falls. Next to "
        "it: the drop against the sum of the map in the cell, one dot per cell, with Spearman's rank correlation. "
        f"Bottom: this correlation for {len(x)} photographs (small dots), explained for their top class, and its mean "
        "with a 95 % bootstrap interval. Grey: controls that do not use the network; noise is the mean of "
        f"{draws} draws per photograph. "
        "Line at 0: chance. Occlusion of the cells is right by construction. Diamonds: published for the "
        "paper's own protocol (ResNet-50, fine-tuned, all of the ImageNet validation set; read off a poster by eye). "
        "They are for another network: compare the "
        f"order, not the values. Seed {run.args.seed}." + _run.refusals(run)
    )
    sums_of = {found[name]["title"]: sums[name][best] for name in shown}
    example = scatter(rows[best].photo.rgb, drop[best], sums_of, headline(found), _run.banner(run))
    _run.save(run, [example, ranking(found, caption)], caption)


def summary(rho: Float[Tensor, " B"]) -> dict[str, Any]:
    """One number per photograph, and the interval of their mean."""
    values = rho.double().cpu().numpy()
    return {"values": values} | asdict(interval(values))


def cells(height: int, width: int) -> Int[Tensor, "H W"]:
    """The number of the cell that contains each pixel, row by row."""
    row, column = (torch.arange(n) * GRID // n for n in (height, width))
    return row[:, None] * GRID + column


def cell_sums(maps: Float[Tensor, "B K h w"], x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B n"]:
    """The sum of each map over channels and pixels in each cell."""
    inside = cells(*x.shape[2:]).flatten() == torch.arange(GRID**2)[:, None]  # n HW
    return pixels(maps, x).flatten(1).double() @ inside.double().T.to(x.device)  # B n


@torch.no_grad()
def drops(model: nn.Module, x: Float[Tensor, "B C H W"], target: Int[Tensor, " B"]) -> Float[Tensor, "B n"]:
    """How much the logit falls when a cell is set to zero."""
    cell = cells(*x.shape[2:]).to(x.device)
    y = scores(model, x[None], target)[0]  # B
    return torch.stack([y - scores(model, x[None] * (cell != k), target)[0] for k in range(GRID**2)], dim=1)


def headline(found: Mapping[str, Mapping[str, Any]]) -> str:
    """How many methods order the cells certainly better than chance."""
    judged = {name: v for name, v in found.items() if name not in CONTROLS and name != "occlusion"}
    above = sum(v["low"] > 0 for v in judged.values())
    return f"{above} of {len(judged)} methods order the cells by their effect better than chance"


def scatter(
    rgb: UInt8[np.ndarray, "H W 3"],
    drop: Float[Tensor, " n"],
    sums: Mapping[str, Float[Tensor, " n"]],
    head: str,
    banner: str,
) -> Figure:
    """One photograph: the drops over it, and a panel per method."""
    y = drop.cpu()
    with _display.style():
        figure, axes = _plot.chart(1, 1 + len(sums), "", height=1.75, banner=banner, title=head)
        picture, *others = axes[0]
        h, w = rgb.shape[0] / GRID, rgb.shape[1] / GRID
        picture.imshow(rgb)
        tint = _display.COLOURS(0.5 + 0.5 * y.view(GRID, GRID).numpy() / float(y.abs().max()))
        picture.imshow(tint, extent=(0, rgb.shape[1], rgb.shape[0], 0), alpha=0.55, interpolation="nearest")
        for k, v in enumerate(y.tolist()):
            place = ((k % GRID + 0.5) * w, (k // GRID + 0.5) * h)
            text = picture.text(*place, f"{round(v, 1) + 0:.1f}", ha="center", va="center", weight="bold")
            text.set_path_effects([withStroke(linewidth=1.5, foreground="white")])
        picture.set_xticks([])
        picture.set_yticks([])
        picture.set_title("Drop of the logit")
        for ax, (title, a) in zip(others, sums.items(), strict=True):
            a = a.cpu()
            rho = float(spearman(a[None], y[None].double()))
            ax.plot(a / a.abs().max(), y, "o", color=_plot.LINES[0], ms=3.5, mew=0, alpha=0.8)
            ax.axhline(0, color="#aaaaaa", lw=0.5, zorder=0)
            ax.axvline(0, color="#aaaaaa", lw=0.5, zorder=0)
            ax.set_title(f"{title}: {rho:.2f}")
            ax.set_xlabel("sum in the cell / the largest")
        others[0].set_ylabel("drop of the logit")
    return figure


def ranking(found: Mapping[str, dict[str, Any]], caption: str) -> Figure:
    """A line per method, best first, then the controls; with the published numbers."""
    order = sorted(found, key=lambda name: (name in CONTROLS, -found[name]["mean"]))
    with _display.style():
        figure, axes = _plot.chart(1, 1, caption, height=0.5 + 0.16 * len(order))
        ax = axes[0, 0]
        for i, name in enumerate(order):
            v, colour = found[name], _plot.CONTROL if name in CONTROLS else _plot.LINES[0]
            ax.plot(v["values"], [i] * len(v["values"]), ".", color=colour, alpha=0.4, ms=4.5, mew=0)
            ax.plot([v["low"], v["high"]], [i, i], color=colour, lw=1.4)
            ax.plot(v["mean"], i, "o", color=colour, ms=4.5, mec="white", mew=0.6)
            if name in PUBLISHED:
                ax.plot(PUBLISHED[name], i, "D", ms=4, mfc="none", mec=_plot.LINES[1], mew=1)
        ax.axvline(0, color="black", lw=0.6, zorder=0)
        ax.set_yticks(range(len(order)), [found[name]["title"] for name in order])
        ax.set_ylim(len(order) - 0.4, -0.6)
        ax.set_xlabel("rank correlation of attribution and drop over the cells")
        ax.grid(axis="x", lw=0.3, color="#dddddd")
    return figure


if __name__ == "__main__":
    main()
