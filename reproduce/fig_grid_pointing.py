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
from collections.abc import Sequence
from dataclasses import asdict
from itertools import permutations

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn

import _plot
import _run  # puts the repository on the path
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
            maps[name] = kept[0].sum(dim=1).cpu()  # of the first arrangement, photograph by photograph
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
    pictures = grid(rows, {name: a for name, a in maps.items() if name not in NULLS}, orders[0])
    _run.save(run, [pictures, boxes(run, caption(run, loaded.note))], caption(run, loaded.note))


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


def grid(rows: Sequence[_run.Subject], maps: dict[str, Tensor], order: tuple[int, ...]) -> Figure:
    """The mosaic, and the maps for the class of each cell; a box marks the cell."""
    cells = [rows[i].photo.rgb for i in order]
    rgb = np.concatenate([np.concatenate(cells[k : k + N], axis=1) for k in range(0, N * N, N)])
    header = ["Mosaic", *(METHODS[name].title for name in maps)]
    block = _display.Block(
        header,
        [
            [
                _display.Panel(rgb),
                *(_display.Panel(rgb, a[i], "layer" in METHODS[name].params) for name, a in maps.items()),
            ]
            for i in range(N * N)
        ],
        [rows[i].target_name for i in order],
    )
    figure = _display.grid([block], f"The class at the left is explained; a box marks its photograph. {_display.SCALE}")
    for k, ax in enumerate(figure.axes[: N * N * len(header)]):
        row, column = divmod(k // len(header), N)
        box = Rectangle((column / N, 1 - (row + 1) / N), 1 / N, 1 / N, transform=ax.transAxes, fill=False)
        box.set(edgecolor=_plot.LINES[2], linewidth=1.0)
        ax.add_patch(box)
    return figure


def boxes(run: _run.Run, text: str) -> Figure:
    """Box plot of the shares, and the published medians."""
    found = run.numbers["share"]
    titles = [CONTROLS[k][0] if k in NULLS else METHODS[k].title for k in found]
    with _display.style():
        figure, axes = _plot.chart(1, 2, text, height=2.0, width_ratios=[3.6, 1])
        left, right = axes[0]
        drawn = left.boxplot([found[k]["placed"].ravel() for k in found], widths=0.6, patch_artist=True)
        for name, box, median in zip(found, drawn["boxes"], drawn["medians"], strict=True):
            box.set(facecolor=_plot.CONTROL if name in NULLS else _plot.LINES[5], linewidth=0.6)
            median.set(color="black")
        for part in (*drawn["whiskers"], *drawn["caps"]):
            part.set_linewidth(0.6)
        for flier in drawn["fliers"]:
            flier.set(markersize=2)
        left.set_xticks(range(1, len(titles) + 1), [broken(t) for t in titles])
        left.set(ylabel="share of positive map in own cell", ylim=(0, 1))
        left.set_title("2 x 2; dashed: chance, 1/4")
        left.axhline(1 / N**2, color="black", linewidth=0.8, linestyle="--")
        for k, values in enumerate(PUBLISHED.values()):
            right.scatter([k] * len(values), values, marker="D", s=12, color=_plot.LINES[1], clip_on=False)
        right.axhline(1 / 9, color="black", linewidth=0.8, linestyle="--")
        right.set_xticks(range(len(PUBLISHED)), [broken(METHODS[k].title) for k in PUBLISHED])
        right.set(ylim=(0, 1), xlim=(-0.6, len(PUBLISHED) - 0.4))
        right.set_title("published, 3 x 3; chance, 1/9")
    return figure


def broken(title: str) -> str:
    """One word a line."""
    return title.replace(" ", "\n").replace("-", "-\n", 1)


def caption(run: _run.Run, note: str) -> str:
    """What the figure contains and how to read it."""
    n = run.numbers["arrangements"]
    return (
        f"{note}. Photographs: {', '.join(run.numbers['photographs'])}; each is explained in every mosaic for its own "
        f"top class (its logit), seed {run.args.seed}. Top: the first mosaic. Boxes at the left: {n} arrangements x "
        f"{N * N} photographs, so {n * N * N} numbers that depend on each other; quartiles and median, whiskers "
        "to 1.5 times the box. Grey: maps that do not use the network. Right: medians read by eye from a figure of "
        "the B-cos repository, for other networks and 3 x 3 mosaics; Grad-CAM for B-cos "
        "DenseNet-121, ResNet-34, VGG-11 and Inception." + _run.refusals(run)
    )


if __name__ == "__main__":
    main()
