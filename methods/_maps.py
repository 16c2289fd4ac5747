"""One photograph with the maps of several methods, as a picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from methods._calls import probabilities, run
from methods._display import SCALE, Block, Panel, grid, write_png
from methods._front_door import attribute, closest
from methods._images import Photo, tensor
from methods._models import Loaded
from methods._registry import METHODS

COLUMNS = 6


@dataclass(frozen=True)
class Picture:
    """The maps of a photograph, each K h w, and why methods have none."""

    maps: Mapping[str, Tensor]
    refused: Mapping[str, str]
    figure: Figure
    words: str  # for the terminal

    def save(self, file: Path) -> None:
        """Write the PNG; it is complete or absent."""
        temporary = file.with_name(f".{file.name}.tmp")
        write_png(self.figure, temporary, optimize=False)
        temporary.replace(file)

    def save_maps(self, file: Path) -> None:
        """Write each map as `<file>.<method>.npy`."""
        for name, a in self.maps.items():
            np.save(file.with_name(f"{file.name}.{name}.npy"), a.numpy())


def draw(loaded: Loaded, photo: Photo, names: Sequence[str], target: int | None, params: Mapping[str, Any]) -> Picture:
    """Run the methods on a photograph.

    Args:
        loaded: the model.
        photo: prepared for it.
        names: of methods.
        target: the class to explain; None: the top class.
        params: keywords; each method gets those that it has.
    """
    x = tensor([photo], loaded)
    with torch.no_grad():
        p = probabilities(run(loaded.model, x))[0]  # N
    top = int(p.argmax())
    c = top if target is None else target
    maps, refused = {}, {}
    for name in names:
        m = METHODS[name]
        these = {k: v for k, v in params.items() if k in m.params}
        try:
            maps[name] = attribute(name, loaded.model, x, c, resize=False, **these)[0].detach().float().cpu()  # K h w
        except (ValueError, TypeError) as error:
            refused[name] = str(error)
    explained, first = (f"{loaded.classes[i]} ({i}), probability {p[i]:.2g}" for i in (c, top))
    words = explained if c == top else f"{explained}; top class {first}"
    panels = [Panel(photo.rgb, below=f"{loaded.classes[c]} {p[c]:.2g}")]
    panels += [Panel(photo.rgb, a.sum(dim=0), overlay=len(a) == 1) for a in maps.values()]
    titles = ["photograph", *(METHODS[name].title for name in maps)]
    starts = range(0, len(panels), COLUMNS)
    blocks = [Block(titles[i : i + COLUMNS], [panels[i : i + COLUMNS]]) for i in starts]
    caption = f"{photo.name}. Explained: {words}. {loaded.note}. {SCALE}"
    caption += f" No map from: {', '.join(METHODS[name].title for name in refused)}." * bool(refused)
    banner = "RANDOM WEIGHTS" if loaded.note.startswith("RANDOM") else ""
    return Picture(maps, refused, grid(blocks, caption, banner, widest=2.2), words)


def class_index(loaded: Loaded, text: str) -> int:
    """A class by its index, its name or one of its synonyms, or by a part that only one of the names has.

    Args:
        loaded: the model.
        text: a number is always an index.

    Raises:
        ValueError: no class or several classes fit; it lists those that fit, or the closest.
    """
    count = len(loaded.classes)
    if text.isdecimal():
        if int(text) >= count:
            raise ValueError(f"--target: classes are 0 to {count - 1}, got {text}")
        return int(text)
    wanted, full = text.strip().casefold(), [d.casefold() for d in loaded.descriptions]
    synonyms = [{d, *(s.strip() for s in d.split(","))} for d in full]
    found = [i for i in range(count) if wanted in synonyms[i]] or [i for i in range(count) if wanted in full[i]]
    if len(found) == 1:
        return found[0]
    if not found:
        near = closest(wanted, sorted(set().union(*synonyms)))
        raise ValueError(f"--target: no class is called {text!r}{near}")
    some = "; ".join(f"{i} {loaded.descriptions[i]}" for i in found[:8]) + " ..." * (len(found) > 8)
    raise ValueError(f"--target: {text!r} fits {len(found)} classes, choose by index: {some}")
