"""Gradients, integrated paths and backward rules on photographs, for each photograph's top class.

The reader should see: these maps differ a lot for one class of one photograph. DeconvNet draws the same chequerboard
for both photographs, although their classes differ too.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

import _run  # puts the repository on the path

# isort: split
import torch
from torch import nn

from methods import METHODS, _display
from methods._display import Block, Panel
from methods._models import Loaded

GROUPS = {  # title, family: its methods in this order, then those that are not named here
    ("Gradients", "gradient"): (
        "gradient",
        "input_x_gradient",
        "smooth_grad",
        "smooth_grad_squared",
        "var_grad",
        "full_grad",
    ),
    ("Gradients along a path", "path"): ("integrated_gradients", "blur_ig", "guided_ig", "xrai"),
    ("Backward rules", "backprop-rule"): ("guided_backprop", "deconvnet"),
}
COLUMNS = 6  # methods in one row; the others follow below


def main() -> None:
    """Draw figures/fig_gradients.png."""
    run = _run.start(__file__, __doc__, photos="chelsea,rocket", quick_photos="chelsea")
    loaded = _run.load(run)
    rows = _run.subjects(run, loaded)
    found = groups()
    run.bar.reset(total=len(found))
    maps = {name: _run.explain(run, loaded, name, rows) for name in found}
    run.numbers["alike"] = alike(maps)
    caption = (
        f"{loaded.note}. Below each photograph: its top class and probability; this class is explained. "
        f"{_display.SCALE} Pixel maps are summed over the colour channels and drawn on white; other maps are drawn "
        f"over the photograph.{chequerboard(run, loaded)}" + _run.refusals(run, "cell left empty")
    )
    title = f"{len(found)} maps of the top class"
    if run.numbers["alike"].get("deconvnet", 0) > 0.99:
        title += ": DeconvNet's hardly depends on the photograph"
    blocks = lines(found, maps, _run.photographs(rows), _run.labels(rows))
    _run.save(run, _display.grid(blocks, caption, _run.banner(run), title=title), caption)


def groups() -> dict[str, str]:
    """Methods in the order of the picture: name -> title of its group."""
    found = {}
    for (title, family), first in GROUPS.items():
        found |= dict.fromkeys([*first, *(name for name, m in METHODS.items() if m.family == family)], title)
    return found


def lines(
    found: Mapping[str, str],
    maps: Mapping[str, Sequence[Panel | None]],
    photographs: Sequence[Panel],
    labels: list[str],
) -> list[Block]:
    """Blocks of the photographs and COLUMNS methods, with the title of a group above its first map in the block."""
    blocks, names = [], list(found)
    for bank in (names[i : i + COLUMNS] for i in range(0, len(names), COLUMNS)):
        titles = {found[name]: column for column, name in reversed([*enumerate(bank, start=1)])}
        blocks.append(
            Block(
                ["Photograph", *(METHODS[name].title for name in bank)],
                [*zip(photographs, *(maps[name] for name in bank), strict=True)],
                labels,
                {column: title for title, column in titles.items()},
            )
        )
    return blocks


def alike(maps: Mapping[str, Sequence[Panel | None]]) -> dict[str, float]:
    """Pearson's correlation of a method's maps of two photographs; of several pairs the lowest."""
    found = {}
    for name, panels in maps.items():
        flat = [panel.a.double().flatten() for panel in panels if panel and panel.a is not None]
        pairs = [float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in combinations(flat, 2)]
        if pairs:
            found[name] = min(pairs)
    return found


def chequerboard(run: _run.Run, loaded: Loaded) -> str:
    """For the caption: why the maps of DeconvNet are alike, where the network has no max-pooling."""
    r = run.numbers["alike"].get("deconvnet", 0)
    if r < 0.99 or any(isinstance(m, nn.MaxPool2d) for m in loaded.model.modules()):
        return ""
    return (
        " DeconvNet: its backward pass ignores which ReLUs were active, and this network has no max-pooling, so almost "
        f"nothing of the image enters this pass; the maps of the photographs correlate with {r:.3f}. Strided "
        "convolutions, run backwards, reach some pixels through more weights than others, which leaves a chequerboard. "
        "Guided Backpropagation also keeps the mask of the forward ReLU."
    )


if __name__ == "__main__":
    main()
