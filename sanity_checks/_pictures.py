"""The pictures of a report: each row's maps of the first photographs, and its map while weights are randomised."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from methods._display import Block, Panel, grid
from sanity_checks._randomize import lost_stages, randomizations, stages
from sanity_checks._rows import Row
from sanity_checks._runner import Bench
from sanity_checks._torch import explain

PHOTOGRAPHS, STEPS, SIDE = 7, 5, 112  # photographs shown; steps of the cascade; maximum side of a stored map, in pixels


def picture(row: Row, bench: Bench, seed: int) -> dict[str, Any]:
    """A row's maps, channels summed: `maps` of the photographs, `cascade` of the first of them.

    The cascade is top-down: the trained network, then STEPS networks with more and more randomised stages.
    If the row is refused, there is only `refused`, the reason.
    """
    try:
        return _picture(row, bench, seed)
    except ValueError as error:
        return {"refused": str(error)}


def _picture(row: Row, bench: Bench, seed: int) -> dict[str, Any]:
    names = bench.names[:PHOTOGRAPHS]
    found = bench.load(0, len(names))
    x, target = found["x"], found["target"]
    of = row.bind(bench.model, x, seed, names)
    maps = _small(explain(of, bench.model, x, target))
    L = stages(bench.model, x)
    cascade, lost_to = [], []
    for _, lost, f in randomizations(bench.model, L, lost_stages("top-down", len(L), STEPS), seeds=(seed,)):
        cascade.append(_small(explain(of, f, x[:1], target[:1]))[0])
        lost_to.append(L[min(lost)].name)
    return {"maps": maps, "cascade": torch.stack(cascade), "names": lost_to}


def maps_figure(rows: Sequence[Row], found: Mapping[str, Any], rgb: Sequence[Any], caption: str) -> Figure:
    """A row for each photograph, a column for each method and control."""
    shown = [r for r in rows if r.key in found]
    header = ["photograph", *(r.label for r in shown)]
    lines = [[Panel(photo), *(_panel(photo, found[r.key]["maps"][i]) for r in shown)] for i, photo in enumerate(rgb)]
    return grid([Block(header, lines)], caption)


def cascade_figure(rows: Sequence[Row], found: Mapping[str, Any], photo: Any, caption: str) -> Figure:
    """A row for each method and control, a column for each step."""
    shown = [r for r in rows if r.key in found]
    names = found[shown[0].key]["names"]
    header = ["trained", *(f"{'to ' if i else ''}{name} gone" for i, name in enumerate(names))]
    lines = [[_panel(photo, a) for a in [found[r.key]["maps"][0], *found[r.key]["cascade"]]] for r in shown]
    return grid([Block(header, lines, labels=[r.label for r in shown])], caption)


def _panel(photo: Any, a: list[list[float]]) -> Panel:
    return Panel(photo, torch.tensor(a), overlay=len(a) < SIDE)


def _small(maps: Float[Tensor, "B K h w"]) -> Float[Tensor, "B _ _"]:
    """Maps summed over channels, averaged down to SIDE if they are larger, and rounded to four digits."""
    a = maps.float().sum(dim=1, keepdim=True).cpu()
    if max(a.shape[2:]) > SIDE:
        a = F.adaptive_avg_pool2d(a, (min(SIDE, a.shape[2]), min(SIDE, a.shape[3])))
    scale = a.abs().amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-30)
    return ((a / scale * 1e4).round() / 1e4)[:, 0]
