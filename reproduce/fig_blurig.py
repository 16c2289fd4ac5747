"""Blur integrated gradients, split into bands of blur: at which scale of the image the score arises.

Xu, Venugopalan, Sundararajan. Attribution in Scale and Space. CVPR 2020. arXiv:2004.03383, form of figure 1.

The reader should see: coarse bands give blobs, fine bands give edges. The bands add up to the whole map, and their
shares to the change of the score, so each says how much of the score needs detail of this size.

Settings that differ from the paper: another network and photographs; the shares are added.
"""

from itertools import pairwise

import torch
from torch import Tensor

import _run  # puts the repository on the path
from _inputs import picture
from methods import _display, _images
from methods._torch import scores
from methods.blur_ig import gaussian
from sanity_checks._torch import explain

EDGES = (50, 20, 10, 5, 2, 0)  # pixels of blur: the bands lie between them
STEP = 0.25  # pixels of blur
PHOTOS = "chelsea,rocket"


def main() -> None:
    """Draw figures/fig_blurig.png."""
    run = _run.start(__file__, __doc__, photos=PHOTOS, quick_photos="coffee")
    loaded = _run.load(run)
    rows = _run.subjects(run, loaded)
    x = _images.tensor([r.photo for r in rows], loaded)
    target = torch.tensor([r.target for r in rows], device=x.device)
    step = 1.0 if run.args.quick else STEP
    run.bar.reset(total=len(EDGES) - 1)

    up_to: dict[int, Tensor] = {0: torch.zeros_like(x)}  # the map from this blur to none
    for edge in reversed(EDGES[:-1]):
        run.bar.set_postfix_str(f"{edge} px")
        of = _run.bind(run, "blur_ig", loaded.model, x, max_sigma=float(edge), steps=max(1, round(edge / step)))
        up_to[edge] = explain(of, loaded.model, x, target)  # B C H W
        run.bar.update()
    bands = {(a, b): up_to[a] - up_to[b] for a, b in pairwise(EDGES)}
    blurred = {edge: blur(x, edge) for edge in EDGES}
    f = {edge: scores(loaded.model, X[None], target)[0] for edge, X in blurred.items()}  # B
    change = f[0] - f[EDGES[0]]
    parts = {f"{a} to {b} px": m.sum(dim=(1, 2, 3)) / change for (a, b), m in bands.items()}
    run.numbers |= {
        "photographs": [r.photo.name for r in rows],
        "shares": parts,
        "sum": up_to[EDGES[0]].sum(dim=(1, 2, 3)) / change,
        "scores": {str(edge): v for edge, v in f.items()},
    }
    lines, labels = [], []
    for i, (row, photograph) in enumerate(zip(rows, _run.photographs(rows), strict=True)):
        sharp = [_display.Panel(picture(blurred[b][i], loaded), below=f"logit {f[b][i]:.1f}") for _, b in bands]
        blank = _display.Panel(picture(blurred[EDGES[0]][i], loaded), below=f"logit {f[EDGES[0]][i]:.1f}")
        whole = _display.Panel(row.photo.rgb, up_to[EDGES[0]][i].sum(dim=0), below=percent(run.numbers["sum"][i]))
        maps = [
            _display.Panel(row.photo.rgb, m[i].sum(dim=0), below=percent(parts[name][i]))
            for name, m in zip(parts, bands.values(), strict=True)
        ]
        lines += [[photograph, blank, *sharp], [None, whole, *maps]]
        labels += ["", ""]
    header = ["Photograph", f"all, from {EDGES[0]} px", *parts]
    caption = (
        f"{loaded.note}; the top class of each photograph is named below it and explained. First row of each "
        f"photograph: blurred by a Gaussian of {EDGES[0]} pixels and by the lower end of each band, with its logit. "
        "Second row: BlurIG of the whole path, and its parts in bands of blur; below: the sum of the map as a share of "
        f"the change of the logit. Steps of {step:g} pixels. {_display.SCALE} Maps are summed over the colour channels."
    )
    title = headline(parts, [r.photo.name for r in rows])
    _run.save(run, _display.grid([_display.Block(header, lines)], caption, _run.banner(run), title=title), caption)


def blur(x: Tensor, sigma: float) -> Tensor:
    """Images blurred as in the method: zeros (the mean colour) outside."""
    rows, columns = (gaussian(torch.tensor([float(sigma)], dtype=torch.float64), n)[0].to(x) for n in x.shape[2:])
    return rows @ x @ columns


def percent(share: Tensor) -> str:
    """A share in per cent, without a minus zero."""
    return f"{round(float(share), 2) + 0.0:.0%}"


def headline(parts: dict[str, Tensor], names: list[str]) -> str:
    """The band in which the largest part of the score of each photograph arises."""
    found = []
    for i, name in enumerate(names):
        best = max(parts, key=lambda band: float(parts[band][i]))
        found.append(f"{name} {best} ({parts[best][i]:.0%})")
    return f"The score arises where its detail appears: {', '.join(found)}"


if __name__ == "__main__":
    main()
