"""XRAI: its best regions up to a share of the image, compared with as many of the best single pixels.

Kapishnikov, Bolukbasi, Viegas, Terry. XRAI: Better Attributions Through Regions. ICCV 2019. arXiv:1906.02825, form of
its figures of the top regions.

The reader should see: both start from the same attribution, the mean of Integrated Gradients from black and from white.
The regions are parts of the object that a person can name. The single pixels lie all over the image. The network
recognises the class in the regions much more often than in as many pixels.

Settings that differ from the paper: another network and photographs, and the numbers: the probability of the class when
all other pixels have the mean colour.
"""

from collections.abc import Mapping
from functools import partial
from math import ceil
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

import _run  # puts the repository on the path
from _inputs import picture
from methods import _display, _images
from methods._models import Loaded
from sanity_checks._statistics import of_images
from sanity_checks._torch import explain

AREAS = (0.05, 0.1, 0.2, 0.3)
SHOWN = 2  # photographs in the picture; all of them are measured
STEPS = 50


def main() -> None:
    """Draw figures/fig_xrai.png."""
    photos = ",".join(_images.PACKAGED)
    run = _run.start(__file__, __doc__, photos=photos, quick_photos="coffee,chelsea")
    loaded = _run.load(run)
    rows = _run.subjects(run, loaded)
    x = _images.tensor([r.photo for r in rows], loaded)
    target = torch.tensor([r.target for r in rows], device=x.device)
    areas = AREAS[1:3] if run.args.quick else AREAS
    run.bar.reset(total=4 + len(areas))

    steps = {} if run.args.quick else {"steps": STEPS}
    ends = x.amin(dim=(1, 2, 3), keepdim=True), x.amax(dim=(1, 2, 3), keepdim=True)  # B 1 1 1: black, white
    both = []
    for end in ends:
        of = _run.bind(run, "integrated_gradients", loaded.model, x, baseline=end, **steps)
        both.append(explain(of, loaded.model, x, target))
        run.bar.update()
    attribution = (both[0] + both[1]) / 2  # B C H W
    of = _run.bind(run, "xrai", loaded.model, x)
    regions = explain(partial(of, attribution=attribution), loaded.model, x, target)  # B 1 H W
    run.bar.update()
    maps = {"XRAI": regions, "Single pixels": attribution.amax(dim=1, keepdim=True)}  # XRAI's A is this maximum
    full = probability(loaded, x, target)
    run.bar.update()
    kept: dict[str, dict[float, Tensor]] = {name: {} for name in maps}
    masks: dict[str, dict[float, Tensor]] = {name: {} for name in maps}
    for area in areas:
        count = torch.stack([inside(a, area).sum() for a in regions])  # B   whole regions: a little more than the area
        for name, a in maps.items():
            masks[name][area] = torch.stack([best(a_i, int(n)) for a_i, n in zip(a, count, strict=True)])  # B 1 H W
            kept[name][area] = probability(loaded, x * masks[name][area], target)
        run.bar.update()
    run.numbers |= {
        "photographs": [r.photo.name for r in rows],
        "whole": full,
        "kept": {name: {str(k): of_images(v) for k, v in by.items()} for name, by in kept.items()},
        "area": {str(k): m.double().mean(dim=(1, 2, 3)) for k, m in masks["XRAI"].items()},
    }
    drawn = range(min(SHOWN, len(rows)))
    photographs, blocks = _run.photographs(rows), []
    for i in drawn:
        lines = []
        for name, a in maps.items():
            parts = [
                _display.Panel(picture((x * masks[name][area])[i], loaded), below=f"{kept[name][area][i]:.2f}")
                for area in areas
            ]
            a_i = a[i, 0] if name == "XRAI" else attribution[i].sum(dim=0)
            shown = _display.Panel(rows[i].photo.rgb, a_i, overlay=name == "XRAI")
            lines.append([None if lines else photographs[i], shown, *parts])
        header = ["Photograph", "Map", *(f"best {area:.0%}" for area in areas)]
        blocks.append(_display.Block(header, lines, list(maps)))
    caption = (
        f"{loaded.note}; the top class of each photograph is named below it, with its probability, and explained. "
        "Best: whole regions of XRAI until the share of the image is reached, and as many of the pixels with "
        "the highest "
        "attribution (Integrated Gradients from black and white, the same as XRAI's). All other pixels have the mean "
        f"colour; below: the probability that is left. {_display.SCALE}" + _run.refusals(run, "cell left empty")
    )
    title = headline(run.numbers["kept"], len(rows))
    _run.save(run, _display.grid(blocks, caption, _run.banner(run), title=title), caption)


def inside(a: Float[Tensor, "1 H W"], area: float) -> Bool[Tensor, "1 H W"]:
    """Whole regions (pixels of one value), best first, until they cover this share of the image."""
    lowest = a.flatten().sort(descending=True).values[ceil(area * a.numel()) - 1]
    return a >= lowest


def best(a: Float[Tensor, "1 H W"], n: int) -> Bool[Tensor, "1 H W"]:
    """The n pixels of the highest values."""
    mask = torch.zeros(a.numel(), dtype=torch.bool, device=a.device)
    mask[a.flatten().argsort(descending=True, stable=True)[:n]] = True
    return mask.view_as(a)


@torch.no_grad()
def probability(loaded: Loaded, x: Float[Tensor, "B C H W"], target: Tensor) -> Float[Tensor, " B"]:
    """Of the class, image by image."""
    return loaded.model(x).softmax(dim=1).gather(1, target[:, None])[:, 0]


def headline(kept: Mapping[str, Mapping[str, Mapping[str, Any]]], n: int) -> str:
    """The probability that is left with a fifth of the pixels."""
    area = "0.2" if "0.2" in kept["XRAI"] else next(iter(kept["XRAI"]))
    regions, pixels = (kept[name][area]["mean"] for name in kept)
    return (
        f"{float(area):.0%} of the image keep a probability of {regions:.2f} as regions, "
        f"{pixels:.2f} as pixels ({n} photographs)"
    )


if __name__ == "__main__":
    main()
