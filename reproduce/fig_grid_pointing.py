"""Four photographs in one mosaic: how much of the map of a class lies on the photograph of this class?

Boehle, Fritz, Schiele: Convolutional Dynamic Alignment Networks. CVPR 2021. arXiv:2104.00032, and Rao, Boehle, Schiele:
Towards Better Understanding Attribution Methods. CVPR 2022. arXiv:2205.10435 (form of their figures of the localisation
metric: a mosaic with maps, and box plots against chance).
The reader should see: Grad-CAM puts most of its positive mass on the correct photograph in every position. Pixel maps,
and maps that add up only the evidence for a class (LayerCAM, Grad-CAM++), put less than half there.

Differs from the papers: one set of four packaged photographs in all 24 arrangements (--arrangements) instead of 500
mosaics. Photographs need no probability of 0.99. The published medians next to ours were read off a figure by eye; they
are of 3 x 3 mosaics and of B-cos networks. Compare each median with its own chance level.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import permutations
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn

import _plot
import _run  # puts the repository on the path
from _dots import title
from methods import METHODS, _display, _images
from methods._torch import Attribution, Target
from sanity_checks._controls import CONTROLS
from sanity_checks._statistics import interval

N = 2  # cells on a side
ORDER = (
    "grad_cam",
    "layer_cam",
    "grad_cam_plus_plus",
    "full_grad",
    "guided_backprop",
    "gradient",
    "input_x_gradient",
)  # one backward pass each
QUICK = ("grad_cam", "gradient")
NULLS = ("white_noise", "smooth_noise", "sobel_edges", "centred_gaussian")
# Median share in the own cell of 3 x 3; Grad-CAM: DenseNet-121, ResNet-34, VGG-11, Inception.
PUBLISHED = {"grad_cam": (0.27, 0.67, 0.30, 0.16), "gradient": (0.1,), "input_x_gradient": (0.1,)}
PHOTOS = "chelsea,coffee,china,rocket"


def main(argv: Sequence[str] | None = None) -> None:
    """Draw figures/fig_grid_pointing.png."""
    option = {
        "type": int,
        "metavar": "N",
        "help": "4: each photograph in each cell once (default: all 24)",
    }
    run = _run.start(__file__, __doc__, photos=PHOTOS, options={"--arrangements": option}, argv=argv)
    wanted = run.args.arrangements or (1 if run.args.quick else 24)
    loaded = _run.load(run)
    of_class: dict[int, _run.Subject] = {}  # the first photograph of each
    for row in _run.subjects(run, loaded):
        of_class.setdefault(row.target, row)
    rows = list(of_class.values())[: N * N]
    if len(rows) < N * N:
        sys.exit(f"{run.script}: --images: needs photographs of {N * N} different top classes, got {len(rows)}")
    x = _images.tensor([row.photo for row in rows], loaded)
    target = torch.tensor([row.target for row in rows], device=loaded.device)
    names = QUICK if run.args.quick else ORDER
    orders = arrangements(N * N)[:wanted]
    run.bar.unit = "mosaic"
    run.bar.reset(total=(len(names) + len(NULLS)) * len(orders) * N * N)

    shares, maps = {}, {}
    for name in (*names, *NULLS):
        run.bar.set_postfix_str(name)
        with _run.attempt(run, name, loaded.tag):
            of = CONTROLS[name][1](run.args.seed) if name in NULLS else _run.bind(run, name, loaded.model, x)
            kept: list[Tensor] = []
            shares[name] = [share(run, loaded.model, x, target, keeping(of, kept, run), order) for order in orders]
            maps[name] = kept[0].cpu()  # of the first arrangement, photograph by photograph
    if not any(name in shares for name in names):
        sys.exit(f"{run.script}: no method applies: {'; '.join(run.refused.values())}")

    placed = {name: np.stack(s) for name, s in shares.items()}  # arrangements x photographs
    run.numbers |= {
        "photographs": [row.photo.name for row in rows],
        "targets": [row.target_name for row in rows],
        "arrangements": len(orders),
        "chance": 1 / N**2,
        "share": {
            name: asdict(interval(s.mean(axis=0)))
            | {"median": np.median(s), "quartiles": np.percentile(s, [25, 75]), "placed": s}
            for name, s in placed.items()
        },
        "published": PUBLISHED,
    }
    shown = {name: a for name, a in maps.items() if name not in NULLS}
    pictures = grid(rows, shown, orders[0], headline(run.numbers["share"]))
    text = caption(run, loaded.note)
    _run.save(run, [pictures, boxes(run, text)], text)


def arrangements(cells: int) -> list[tuple[int, ...]]:
    """All orders of the photographs; in each group of `cells` orders, each photograph is in each cell once."""
    return [
        tuple((0, *rest)[(k + shift) % cells] for k in range(cells))
        for rest in permutations(range(1, cells))
        for shift in range(cells)
    ]


def keeping(of: Attribution, kept: list[Tensor], run: _run.Run) -> Attribution:
    """The method; its first maps are stored in `kept`."""

    def keep(model: nn.Module, x: Tensor, target: Target) -> Tensor:
        a = of(model, x, target)
        if not kept:
            kept.append(a.detach())
        run.bar.update(len(x))
        return a

    return keep


def share(
    run: _run.Run, model: nn.Module, x: Tensor, target: Tensor, of: Attribution, order: tuple[int, ...]
) -> np.ndarray:
    """For each photograph, the share of its class's positive map on it, with order[k] in cell k."""
    k = torch.tensor(order, device=x.device)
    found = _run.check(run, "grid_pointing_game", model, x[k], target[k], of, n=N, confidence=0.0, chunk=N * N)
    return found.values[k.argsort()].cpu().numpy()


def headline(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The title; the finding where the medians support it."""
    others = [s["median"] for name, s in found.items() if name != "grad_cam"]
    if "grad_cam" in found and max(others) < 0.5 < found["grad_cam"]["median"]:
        return "Grad-CAM puts most of its positive map on the correct photograph; the others less than half (medians)"
    return "How much of a map lies on the photograph of its class"


def grid(rows: Sequence[_run.Subject], maps: dict[str, Tensor], order: tuple[int, ...], head: str) -> Figure:
    """The mosaic, and the maps (B K h w) for the class of each cell; a box marks the cell."""
    cells = [rows[i].photo.rgb for i in order]
    rgb = np.concatenate([np.concatenate(cells[k : k + N], axis=1) for k in range(0, N * N, N)])
    header = ["Mosaic", *(METHODS[name].title for name in maps)]
    block = _display.Block(
        header,
        [
            [
                _display.Panel(rgb),
                *(_display.Panel(rgb, a[i].sum(dim=0), overlay=a.shape[1] == 1) for a in maps.values()),
            ]
            for i in range(N * N)
        ],
        [rows[i].target_name for i in order],
    )
    text = f"The class at the left is explained; a box marks its photograph. {_display.SCALE}"
    figure = _display.grid([block], text, title=head)
    for k, ax in enumerate(figure.axes[: N * N * len(header)]):
        row, column = divmod(k // len(header), N)
        box = Rectangle((column / N, 1 - (row + 1) / N), 1 / N, 1 / N, transform=ax.transAxes, fill=False)
        box.set(edgecolor=_plot.LINES[2], linewidth=1.0)
        ax.add_patch(box)
    return figure


def boxes(run: _run.Run, text: str) -> Figure:
    """Box plots of the shares, a line for each map, and the published medians."""
    found = run.numbers["share"]
    names = list(found)
    with _display.style():
        figure, axes = _plot.chart(1, 2, text, height=2.3, width_ratios=[2.2, 1], sharey=True)
        left, right = axes[0]
        values = [found[k]["placed"].ravel() for k in found]
        line = {"linewidth": 0.6}
        drawn = left.boxplot(
            values,
            positions=range(len(names)),
            orientation="horizontal",
            widths=0.6,
            patch_artist=True,
            medianprops={"color": "black"},
            whiskerprops=line,
            capprops=line,
            flierprops={"markersize": 2},
        )
        for name, box in zip(names, drawn["boxes"], strict=True):
            box.set(facecolor=_plot.CONTROL if name in NULLS else _plot.LINES[5], **line)
        for name, published in PUBLISHED.items():
            if name in found:
                right.plot(published, [names.index(name)] * len(published), "D", ms=3.5, color=_plot.LINES[1])
        for ax, chance, what in (
            (left, 1 / N**2, f"{N} x {N}; dashed: chance, 1/{N**2}"),
            (right, 1 / 9, "published, 3 x 3; chance, 1/9"),
        ):
            ax.axvline(chance, color="black", linewidth=0.8, linestyle="--", zorder=0)
            ax.set(xlim=(0, 1), xticks=(0, 0.5, 1), xlabel="share of positive map in own cell", title=what)
        left.set_yticks(range(len(names)), [title(k) for k in names])
        left.set_ylim(len(names) - 0.4, -0.6)
    return figure


def caption(run: _run.Run, note: str) -> str:
    """What the figure contains and how to read it."""
    n = run.numbers["arrangements"]
    return (
        f"After the localisation metric of Rao et al. (2022), for another network and other photographs. {note}. "
        f"Photographs: {', '.join(run.numbers['photographs'])}; each is explained in every mosaic for its own top "
        f"class (its logit), seed {run.args.seed}. Top: the first mosaic. Left: {n} arrangements x {N * N} "
        f"photographs, so {n * N * N} numbers that depend on each other; quartiles and median, whiskers to "
        "1.5 times the box. Grey: maps that do not use the network. Right: medians read by eye from a figure of "
        "the B-cos repository, for other networks and 3 x 3 mosaics; Grad-CAM for B-cos "
        "DenseNet-121, ResNet-34, VGG-11 and Inception." + _run.refusals(run)
    )


if __name__ == "__main__":
    main()
