"""Grad-CAM and LayerCAM at five depths of a network, and LayerCAM's five maps fused into one.

Jiang, Zhang, Hou, Cheng, Wei. LayerCAM: Exploring Hierarchical Class Activation Maps for Localization. IEEE
Transactions on Image Processing 2021. doi:10.1109/TIP.2021.3089943, form of its comparison of the stages of a network.

The reader should see: Grad-CAM gives each feature map one weight for all positions. Before the last stage it puts
little or nothing more on the object than chance. LayerCAM has a weight for each position; it stays on the object at
every depth and shows finer and finer parts. At the last layer Grad-CAM is the better one of the two.

Settings that differ from the paper: another network instead of VGG-16. Numbers are added where the position of the
evidence is known: digits on textures, with the mask of the digit, and two photographs side by side, with the half of
the explained class. The fused map is the maximum over the five maps; the shallow ones are scaled by tanh as in the
paper.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from torch import Tensor, nn

import _plot
import _run  # puts the repository on the path
from _pairs import PHOTOS, both_classes, side_by_side
from methods import METHODS, _display
from methods._layers import default_layer, finer_layers
from methods._models import Loaded
from methods._torch import Attribution
from sanity_checks import _ground_truth
from sanity_checks._statistics import of_images
from sanity_checks._torch import explain

NAMES = ("grad_cam", "layer_cam")
FUSED = "fused"
NET, BORDER = "digit_cnn", 1  # pixels added around the mask: a network may use the border of a digit
DIGITS, QUICK_DIGITS = 300, 30


def main() -> None:
    """Draw figures/fig_layercam.png."""
    run = _run.start(__file__, __doc__, photos="rocket,coffee", quick_photos="coffee")
    loaded = _run.load(run)
    last = default_layer(loaded.model)
    layers = [*finer_layers(loaded.model, last), last]
    rows = _run.subjects(run, loaded)
    model, digits = _run.net(run, NET), [f"features.relu{i}" for i in range(1, 5)]
    run.bar.reset(total=len(NAMES) * (2 * len(layers) + len(digits)) + 3)

    maps = {name: [_run.explain(run, loaded, name, rows, layer=layer) for layer in layers] for name in NAMES}
    fused = _run.explain(run, loaded, "fuse", rows, layer=layers[-1], layers=tuple(layers[:-1]))
    blocks = [
        _display.Block(
            ["Photograph", *layers, FUSED],
            [
                [_run.photographs(rows)[i] if k == 0 else None, *(c[i] for c in maps[name]), fused[i] if k else None]
                for k, name in enumerate(NAMES)
            ],
            [METHODS[name].title for name in NAMES],
            title=_run.labels(rows)[i],
        )
        for i in range(len(rows))
    ]
    n = QUICK_DIGITS if run.args.quick else DIGITS
    data = _ground_truth.digits_on_textures(n, run.args.seed)
    mask = _ground_truth.dilated(data.mask, BORDER)  # n H W
    found = {
        "digits": measure(run, model, digits, partial(on_digits, run, model, data, mask)),
        "pairs": measure(run, loaded.model, layers, on_halves(run, loaded)),
    }
    area = float(mask.double().mean())
    run.numbers |= {"chance": {"digits": area, "pairs": 0.5}, "measured": found}

    above = (
        f"{loaded.note}, explained for the top class of each photograph (named below it). Columns: the last layer of "
        f"each stage, from the first to the last. Fused: the maximum of LayerCAM's five maps; the shallow ones are "
        f"scaled by tanh. {_display.SCALE} Maps are on the layer's grid, resized bilinearly over the photograph."
        + _run.refusals(run, "cell left empty")
    )
    below = (
        f"The share of each map's positive part on the object, mean with 95 % bootstrap interval. Left: {n} digits "
        "on textures, a CNN of four layers, explained for the true digit; the object is the digit and a border of "
        f"{BORDER} pixel, {area:.0%} of the image. Right: the network above, pairs of photographs side by side "
        f"({PHOTOS.replace(',', ', ')}). Each pair is explained for the top classes of both its photographs (mean of "
        "the two; pairs share photographs, so intervals are somewhat too short). The object is the half of the "
        "explained class. Dashed: the chance level."
    )
    pictures = _display.grid(blocks, above, _run.banner(run), title=headline(found["pairs"]))
    _run.save(run, [pictures, draw(found, run.numbers["chance"], below)], f"{above}\n{below}")


def headline(pairs: dict[str, dict[str, Any]]) -> str:
    """Who stays on the object at the early layers, if the intervals say so for certain."""
    *earlier, _last, _fused = pairs.values()
    if all(row["layer_cam"]["low"] > max(0.5, row["grad_cam"]["high"]) for row in earlier):
        return "Before the last stage LayerCAM stays on the object; Grad-CAM does not"
    return "Grad-CAM and LayerCAM at five depths"


def on_digits(
    run: _run.Run,
    model: nn.Module,
    data: _ground_truth.DigitsOnTextures,
    mask: Bool[Tensor, "n H W"],
    of: Attribution,
) -> Float[Tensor, " n"]:
    """The share of each map on the digit."""
    device = run.args.device
    maps = explain(of, model, data.x.to(device), data.digit.to(device))
    return _run.check(run, "energy_pointing_game", maps, mask.to(device)).values


def on_halves(run: _run.Run, loaded: Loaded) -> Callable[[Attribution], Float[Tensor, " n"]]:
    """A function: method -> its share in the half of the class, for each pair of photographs; mean of two classes."""
    pairs = side_by_side(run, loaded)

    def shares(of: Attribution) -> Float[Tensor, " n"]:
        return torch.cat([share.mean(dim=1) for *_, share in both_classes(run, loaded.model, pairs, of)])

    return shares


def measure(
    run: _run.Run, model: nn.Module, layers: list[str], share: Callable[[Attribution], Float[Tensor, " n"]]
) -> dict[str, dict[str, Any]]:
    """For each layer, and for the fused map, the share of each method."""
    like = torch.zeros(1, 3, 32, 32, device=run.args.device)
    found: dict[str, dict[str, Any]] = {}
    for layer in layers:
        run.bar.set_postfix_str(layer)
        found[layer] = {}
        for name in NAMES:
            found[layer][name] = of_images(share(_run.bind(run, name, model, like, layer=layer)))
            run.bar.update()
    of = _run.bind(run, "fuse", model, like, layer=layers[-1], layers=tuple(layers[:-1]))
    found[FUSED] = {"layer_cam": of_images(share(of))}
    run.bar.update()
    return found


def draw(found: dict[str, dict[str, dict[str, Any]]], chance: dict[str, float], caption: str) -> Figure:
    """The share on the object by depth: digits at the left, pairs of photographs at the right."""
    titles = {"digits": "on the digit", "pairs": "in the half of the class"}
    with _display.style():
        figure, axes = _plot.chart(1, 2, caption, height=1.7)
        for ax, (name, rows) in zip(axes[0], found.items(), strict=True):
            for k, method in enumerate(NAMES):
                values = [row[method] for row in rows.values() if method in row]
                at = [i + 0.06 * (2 * k - 1) for i in range(len(values))]
                line = len(rows) - 1  # the fused map is not joined to the line
                means = [v["mean"] for v in values]
                ax.plot(at[:line], means[:line], "o-", ms=3, color=_plot.LINES[k], label=METHODS[method].title)
                ax.plot(at[line:], means[line:], "D", ms=4, color=_plot.LINES[k])
                for i, v in zip(at, values, strict=True):
                    ax.plot([i, i], [v["low"], v["high"]], color=_plot.LINES[k], lw=0.8)
            ax.axhline(chance[name], color="black", lw=0.8, ls="--")
            ax.set_xticks(range(len(rows)), [layer.removeprefix("features.") for layer in rows])
            ax.set(ylim=(0, 1), ylabel=f"share of positive map\n{titles[name]}")
        axes[0, 0].legend(loc="upper right")
    return figure


if __name__ == "__main__":
    main()
