"""Averaging the gradient over positions: Grad-CAM compared with HiResCAM, on a network with a known exact answer.

Draelos, Carin. Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural networks. 2020.
arXiv:2011.08891, form of its counterexample.

The reader should see: the network has one linear layer after two feature maps. Grad-CAM marks a place that lowers the
score as strongly as a place that raises it, and it misses evidence for the class where the mean gradient is 0. HiResCAM
is, cell by cell, the loss of score without the cell. In a real network both agree after the last layer. Before it,
HiResCAM is closer to the effect of removing a place.

Settings that differ from the paper: the numbers of the example are made for this figure; the paper's networks classify
volumes of chest CT. The comparison on photographs is new: every position of a layer is set to 0 in all channels, and
the logit is measured again. HiResCAM is the first-order term of this effect, and the networks after the layer are not
linear.
"""

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

import _plot
import _run  # puts the repository on the path
from _dots import controls, dots, title
from methods import _display, _images, _models
from methods._edits import edited_scores
from methods._layers import default_layer, finer_layers
from methods._torch import Attribution, activation
from sanity_checks._statistics import interval
from sanity_checks._torch import explain
from sanity_checks.similarity import similarities

PHOTOS, QUICK_PHOTOS = "chelsea,coffee,rocket,motorcycle,china,flower", "coffee"
METHODS = ("grad_cam", "hires_cam")
BEFORE = "grad_cam, before its ReLU"
CONTROLS = ("smooth_noise", "sobel_edges", "centred_gaussian")
SIDE = 14  # at most so many places on a side; they are removed one by one
CHUNK = 49  # edited copies of one photograph at a time


class Example(nn.Module):
    """Two feature maps, one of red and one of blue, and a linear layer with a weight for each of their cells."""

    num_features = 2

    def __init__(self) -> None:
        super().__init__()
        conv = nn.Conv2d(3, 2, 1, bias=False)
        self.features = nn.Sequential(conv, nn.ReLU())
        self.head = nn.Linear(2 * 36, 1, bias=False)
        weight = torch.zeros(2, 6, 6)
        weight[0, :, :3], weight[0, :, 3:] = 3, -1  # red is for the class at the left, against it at the right
        weight[1, :3], weight[1, 3:] = 2, -2  # blue is for it at the top, against it at the bottom: the mean is 0
        with torch.no_grad():
            conv.weight[:] = torch.tensor([[1.0, 0, 0], [0, 0, 1]])[..., None, None]
            self.head.weight[:] = weight.flatten()

    def forward(self, x: Float[Tensor, "B 3 6 6"]) -> Float[Tensor, "B 1"]:
        """The score of the only class."""
        return self.head(self.features(x).flatten(1))


def picture() -> Float[Tensor, "1 3 6 6"]:
    """A red square at the left and at the right, a blue square at the top and half of one at the bottom, on black."""
    x = torch.zeros(1, 3, 6, 6)
    for left in (0, 4):
        x[0, 0, 2:4, left : left + 2] = 1
    x[0, 2, :2, 2:4] = x[0, 2, 5:, 2:4] = 1
    return x


def main() -> None:
    """Draw figures/fig_hirescam.png."""
    run = _run.start(__file__, __doc__, photos="rocket,coffee", quick_photos="coffee")
    loaded = _run.load(run)
    layers = chosen(loaded)[: 2 if run.args.quick else 3]
    run.bar.reset(total=1 + len(METHODS) * (len(layers) - 1) + len(layers))

    header, panels, exact = example(run)
    run.bar.update()
    rows = _run.subjects(run, loaded)
    shown = {r.photo.name for r in rows}
    others = _images.load(QUICK_PHOTOS if run.args.quick else PHOTOS, loaded.preprocessing)
    others = [p for p in others if p.name not in shown]
    run.inputs |= {p.name: p for p in others}
    photos = [*(r.photo for r in rows), *others]
    x = _images.tensor(photos, loaded)
    classes = [*(r.target for r in rows), *(c for c, *_ in _models.predict(loaded, x)[len(rows) :])]
    target = torch.tensor(classes, device=x.device)
    names, columns, found = ["Photograph"], [_run.photographs(rows)], {}
    for layer in layers:
        run.bar.set_postfix_str(layer)
        effect = without(loaded.model, x, target, layer)  # B 1 h w
        found[layer] = agreement(run, loaded.model, x, target, layer, effect)
        if layer != layers[0]:  # at layers[0] the maps agree
            columns += [_run.explain(run, loaded, name, rows, layer=layer) for name in METHODS]
            columns.append([_display.Panel(r.photo.rgb, a[0].cpu(), True) for r, a in zip(rows, effect, strict=False)])
            names += [f"{layer}\n{word}" for word in ("Grad-CAM", "HiResCAM", "loss of score without the place")]
        run.bar.update()
    run.numbers |= {"example": exact, "photographs": [p.name for p in photos], "layers": found}
    blocks = [
        _display.Block(header, [panels], title="The example"),
        _display.Block(names, list(zip(*columns, strict=True)), title="Photographs, at layers before the last"),
    ]

    above = (
        "Top: red and blue squares on black. A1 is the red channel, A2 is the blue channel. The score is the sum of "
        f"both, each cell times its weight (ds/dA). Grad-CAM takes the mean weight of a map, {exact['alpha'][0]:g} and "
        f"{exact['alpha'][1]:g}. Bottom: {loaded.note}, the top class of each photograph (named below it). Loss of "
        "score: how much the logit falls when all channels are 0 at a place (a position of the layer, or a square of "
        f"positions: {SIDE} x {SIDE} places at most). {_display.SCALE} Over photographs, maps are resized bilinearly."
        + _run.refusals(run, "cell left empty")
    )
    below = (
        f"Rank correlation of each map with this loss, over the places of {len(layers)} layers; the last layer is at "
        f"the left. Mean over {len(photos)} photographs ({', '.join(p.name for p in photos)}) with its 95 % bootstrap "
        "interval; one dot per photograph. Grad-CAM is shown as published (negative values set to 0) and before this "
        f"ReLU. Grey: controls that do not use the network, seed {run.args.seed}."
    )
    pictures = _display.grid(blocks, above, _run.banner(run))
    _run.save(run, [pictures, draw(found, below)], f"{above}\n{below}")


def chosen(loaded: _models.Loaded) -> list[str]:
    """The last layer, and the ends of the two stages before it."""
    last = default_layer(loaded.model)
    return [last, *finer_layers(loaded.model, last)[:-3:-1]]


def example(run: _run.Run) -> tuple[list[str], list[_display.Panel], dict[str, Any]]:
    """The counterexample: its panels, and its numbers."""
    model, x, target = Example().eval(), picture(), torch.zeros(1, dtype=torch.long)
    maps = {name: _run.bind(run, name, model, x, layer="features")(model, x, target)[0, 0] for name in METHODS}
    effect = without(model, x, target, "features")[0, 0]
    with torch.no_grad():
        score, maps_ = activation(model, x, "features")
    g = model.head.weight.detach().unflatten(1, (2, 6, 6))[0]
    rgb = (x[0].permute(1, 2, 0) * 255).byte().numpy()
    panels = [_display.Panel(rgb, below=f"score {score.item():g}")]
    panels += [_display.Panel(rgb, maps_[0, k], below="feature map") for k in range(2)]
    panels += [_display.Panel(rgb, g[k], below=f"mean {g[k].mean():g}") for k in range(2)]
    panels += [_display.Panel(rgb, a, below=f"sum {a.sum():g}") for a in (*maps.values(), effect)]
    header = ["Picture", "A1: red", "A2: blue", "ds/dA1", "ds/dA2", "Grad-CAM", "HiResCAM", "Loss without the cell"]
    numbers = {"score": score.item(), "alpha": g.mean(dim=(1, 2)).tolist(), "effect": effect.tolist()}
    numbers |= {"maps": {k: a.tolist() for k, a in maps.items()}, "sum": {k: float(a.sum()) for k, a in maps.items()}}
    return header, panels, numbers


def without(
    model: nn.Module, x: Float[Tensor, "B C H W"], target: Int[Tensor, " B"], layer: str
) -> Float[Tensor, "B 1 h w"]:
    """How much the logit falls when `layer` is 0 at a place: a position or a square of them, SIDE x SIDE at most."""
    with torch.no_grad():
        logits, features = activation(model, x, layer)  # B N, B K h w
    rows, columns = features.shape[2:]
    b = -(-rows // SIDE)  # positions on a side of a place
    h, w = -(-rows // b), -(-columns // b)
    keep = 1 - torch.eye(h * w, device=x.device).unflatten(1, (h, w))  # hw h w
    keep = keep.repeat_interleave(b, 1).repeat_interleave(b, 2)[:, None, None, :rows, :columns]
    left = []
    for image, t in zip(x, target, strict=True):
        parts = [edited_scores(model, image[None], t[None], layer, m.mul, len(m)) for m in keep.split(CHUNK)]
        left.append(torch.cat(parts)[:, 0])  # hw
    y = logits.gather(1, target[:, None])  # B 1
    return (y - torch.stack(left)).unflatten(1, (h, w))[:, None]  # B 1 h w


def pooled(a: Float[Tensor, "B K h w"], like: Float[Tensor, "B 1 h_ w_"]) -> Float[Tensor, "B 1 h_ w_"]:
    """The mean of a map over each place."""
    return F.adaptive_avg_pool2d(a.sum(dim=1, keepdim=True), (like.shape[2], like.shape[3]))


def agreement(
    run: _run.Run,
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Int[Tensor, " B"],
    layer: str,
    effect: Float[Tensor, "B 1 h w"],
) -> dict[str, Any]:
    """For each map: its rank correlation with the loss of score without each place, photograph by photograph."""
    bound = {name: _run.bind(run, name, model, x, layer=layer) for name in METHODS}
    maps: dict[str, Attribution] = {"grad_cam": bound["grad_cam"], BEFORE: unclipped(bound["grad_cam"])}
    maps |= {"hires_cam": bound["hires_cam"]} | controls(run.args.seed, CONTROLS)
    found = {}
    for name, of in maps.items():
        a = pooled(explain(of, model, x, target), effect)
        rho = similarities(a, effect, x, ("signed",))["signed"].cpu().numpy()
        found[name] = {"values": rho} | asdict(interval(rho))
    return found


def unclipped(of: Attribution) -> Attribution:
    """Grad-CAM before its ReLU: the map of the score minus the map of the negative score."""

    def both(model: nn.Module, x: Float[Tensor, "B C H W"], target: Int[Tensor, " B"]) -> Float[Tensor, "B 1 h w"]:
        return of(model, x, target) - of(model, x, lambda y: -y.gather(1, target[:, None])[:, 0])

    return both  # type: ignore[return-value]


def draw(found: dict[str, dict[str, Any]], caption: str) -> Figure:
    """One axes per layer, deepest first, with a line for each map."""
    names = {BEFORE: "Grad-CAM before its ReLU"}
    with _display.style():
        figure, axes = _plot.chart(1, len(found), caption, height=1.3, sharey=True)
        for ax, (layer, rows) in zip(axes[0], found.items(), strict=True):
            for i, row in enumerate(rows.values()):
                ax.plot(row["values"], np.full(len(row["values"]), i), ".", color="#bbbbbb", ms=3, zorder=0)
            dots(ax, rows, names={name: names.get(name) or title(name) for name in rows}, marker="o")
            ax.axvline(0, color="black", lw=0.5, zorder=0)
            ax.set_xlim(-1.05, 1.05)
            ax.set_title(layer)
        axes[0, len(found) // 2].set_xlabel("rank correlation with the loss of score without each place")
    return figure


if __name__ == "__main__":
    main()
