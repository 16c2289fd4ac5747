"""Two classes in one photograph: which methods show the one that is asked for, and which show both.

Selvaraju, Cogswell, Das, Vedantam, Parikh, Batra. Grad-CAM. ICCV 2017. arXiv:1610.02391, form of figure 1.

The reader should see: Grad-CAM and its relatives put about nine tenths of their mass on the half of the picture with
the class that is explained, while guided backpropagation draws nearly the same map for both classes.

Settings that differ from the paper: two photographs side by side in place of its cat and dog, so that the halves are
ground truth; another network; and numbers, which the paper's figure does not have: the share of the map's positive part
in the half of its class. They are taken from all pairs of six photographs that the network recognises. A map that does
not look at the class has a mean share of exactly one half over the two classes, whatever it shows. A 7 x 7 map has a
column of cells over the seam: one that fills its half and that column evenly gets 0.875.
"""

import itertools
import sys
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from torch import Tensor, nn

import _plot
import _run  # puts the repository on the path
from methods import METHODS, _display, _images, _models
from methods._images import Photo
from methods._models import Loaded
from methods._torch import Attribution
from sanity_checks._controls import CONTROLS
from sanity_checks._statistics import interval
from sanity_checks._torch import explain
from sanity_checks.similarity import similarities

ORDER: dict[str, dict[str, Any]] = {  # method: keywords
    "guided_backprop": {},
    "grad_cam": {},
    "guided_grad_cam": {},
    "hires_cam": {},
    "occlusion": {"size": 32, "stride": 16},
}
QUICK: dict[str, dict[str, Any]] = {"occlusion": {"size": 64, "stride": 64}}
PHOTOS, QUICK_PHOTOS = "chelsea,coffee,rocket,motorcycle,china,flower", "chelsea,coffee,motorcycle"
BATCH = 8  # pairs at a time


class Pairs(NamedTuple):
    """Photographs side by side."""

    photos: list[Photo]
    x: Float[Tensor, "n 3 H W"]
    classes: Int[Tensor, "n 2"]  # of the left and of the right half


def main() -> None:
    """Draw figures/fig_cam_discrimination.png."""
    run = _run.start(__file__, __doc__, photos="chelsea_coffee")
    loaded = _run.load(run)
    rows = _run.subjects(run, loaded)
    if not all(r.photo.parts for r in rows):
        sys.exit(
            f"{run.script}: --images must name composites, whose halves are known: {', '.join(_images.COMPOSITES)}"
        )
    settings = ORDER | (QUICK if run.args.quick else {})
    pairs = side_by_side(run, loaded, QUICK_PHOTOS if run.args.quick else PHOTOS)
    run.bar.reset(total=2 * len(settings) + len(CONTROLS))

    columns, shown, found = [], {}, {}
    for name, params in settings.items():
        columns.append(_run.explain(run, loaded, name, rows, **params))
        panels = [panel for panel in columns[-1] if panel]
        if panels:  # else the method is not defined for the model
            maps = [p.a[None, None] for p in panels if p.a is not None]
            shown[name] = [float(share(run, a, pairs.x, i % 2)) for i, a in enumerate(maps)]
            columns[-1] = [replace(p, below=f"{s:.2f} in its half") for p, s in zip(panels, shown[name], strict=True)]
            of = _run.bind(run, name, loaded.model, pairs.x, **params)
            found[METHODS[name].title] = measure(run, loaded.model, pairs, of)
        run.bar.update()
    for title, control in CONTROLS.values():
        found[title] = measure(run, loaded.model, pairs, control(run.args.seed))
        run.bar.update()
    run.numbers |= {"shown": shown, "pairs": [p.name for p in pairs.photos], "measured": found}

    windows = [f"{METHODS[name].title} {p['size']} px, stride {p['stride']}" for name, p in settings.items() if p]
    above = (
        f"{loaded.note}. One picture, explained for the top class of each of its two photographs, named at the "
        "left. Below the photograph: the top class of the whole and its probability. Below a map: the share of its "
        f"positive part in the half of the class that is explained. {', '.join(windows)}. {_display.SCALE}"
        + _run.refusals(run, "cell left empty")
    )
    below = (
        f"Left: that share in all {len(pairs.photos)} pairs of the photographs "
        f"{(QUICK_PHOTOS if run.args.quick else PHOTOS).replace(',', ', ')}, each explained for the top class of both "
        "halves. Small: the mean of the two classes of one pair. Large: the mean over pairs with its 95 % bootstrap "
        "interval (pairs share photographs: it is somewhat too short). A map that is the same for both classes has "
        "exactly 0.5. Right: Spearman's correlation of |a| between the maps of the two classes, at the map's own "
        "resolution; 1 is the same map. Grey: controls that see no network; noise is drawn anew for each class, seed "
        f"{run.args.seed}."
    )
    header = ["Photograph", *(METHODS[name].title for name in settings)]
    block = _display.Block(header, list(zip(_run.photographs(rows), *columns, strict=True)), _run.labels(rows))
    _run.save(run, [_display.grid([block], above, _run.banner(run)), dots(found, below)], f"{above}\n{below}")


def side_by_side(run: _run.Run, loaded: Loaded, names: str) -> Pairs:
    """All pairs of photographs, each with the classes that its two photographs have alone."""
    photos = _images.load(names, loaded.preprocessing)
    top = [c for c, *_ in _models.predict(loaded, _images.tensor(photos, loaded))]
    run.inputs |= {p.name: p for p in photos}
    order = [pair[:: (-1) ** k] for k, pair in enumerate(itertools.combinations(range(len(photos)), 2))]  # sides differ
    pictures = [beside(photos[i], photos[j]) for i, j in order]
    classes = torch.tensor([(top[i], top[j]) for i, j in order], device=loaded.device)
    return Pairs(pictures, _images.tensor(pictures, loaded), classes)


def beside(a: Photo, b: Photo) -> Photo:
    """The middle columns of a, then those of b."""
    width = a.rgb.shape[1]
    parts = [p.rgb[:, (width - w) // 2 :][:, :w] for p, w in ((a, width // 2), (b, width - width // 2))]
    return replace(a, name=f"{a.name}_{b.name}", rgb=np.concatenate(parts, axis=1), parts=(a.name, b.name))


def share(run: _run.Run, maps: Float[Tensor, "B K h w"], like: Tensor, side: int) -> Float[Tensor, " B"]:
    """The part of the positive mass that lies in the left (0) or right (1) half of images like `like`."""
    width = like.shape[-1]
    own = (torch.arange(width, device=maps.device) >= width // 2) == bool(side)  # W
    own = own.expand(len(maps), like.shape[-2], width)
    return _run.score(run, "energy_pointing_game", maps, own).values


def measure(run: _run.Run, model: nn.Module, pairs: Pairs, of: Attribution) -> dict[str, Any]:
    """For each pair: the share of both classes in their own halves, and how alike the maps of the two are."""
    shares, alike = [], []
    for k in range(0, len(pairs.x), BATCH):
        x, classes = pairs.x[k : k + BATCH], pairs.classes[k : k + BATCH]
        maps = [explain(of, model, x, classes[:, side]) for side in (0, 1)]
        shares.append(torch.stack([share(run, a, x, side) for side, a in enumerate(maps)], dim=1))  # B 2
        alike.append(similarities(maps[0], maps[1], x, ("spearman",))["spearman"])
    own, rho = torch.cat(shares).cpu().numpy(), torch.cat(alike).cpu().numpy()  # n 2, n
    both = {"share": own.mean(axis=1), "spearman": rho}
    return {k: {"values": v} | asdict(interval(v)) for k, v in both.items()} | {"own_half": own}


def dots(found: dict[str, dict[str, Any]], caption: str) -> Figure:
    """A line for each method and control: every pair, the mean and its interval; share at the left, likeness right."""
    blind = {title for title, _ in CONTROLS.values()}
    with _display.style():
        figure, axes = _plot.chart(1, 2, caption, height=0.5 + 0.16 * len(found), sharey=True)
        labels = (
            "share of the positive mass in the half of the class",
            "rank correlation of the maps of the two classes",
        )
        for ax, key, label in zip(axes[0], ("share", "spearman"), labels, strict=True):
            for i, (title, numbers) in enumerate(found.items()):
                colour, v = _plot.CONTROL if title in blind else _plot.LINES[0], numbers[key]
                ax.plot(v["values"], [i] * len(v["values"]), ".", color=colour, alpha=0.4, ms=4.5, mew=0, zorder=3)
                ax.plot([v["low"], v["high"]], [i, i], color=colour, lw=1.2)
                ax.plot(v["mean"], i, "o", color=colour, ms=4.5, mec="white", mew=0.6)
            ax.set_xlabel(label)
            ax.grid(axis="x", lw=0.3, color="#dddddd")
        axes[0, 0].axvline(0.5, color="black", lw=0.6, zorder=0)
        axes[0, 0].set_xlim(0.38, 1.02)
        axes[0, 0].set_yticks(range(len(found)), list(found))
        axes[0, 0].invert_yaxis()
    return figure


if __name__ == "__main__":
    main()
