"""Averaging the gradient over positions: Grad-CAM compared with HiResCAM, on a network with a known exact answer.

Draelos, Carin. Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural networks. 2020.
arXiv:2011.08891, form of its counterexample.

The reader should see: the network has one linear layer after two feature maps. Grad-CAM marks a cell that lowers the
score as strongly as a cell that raises it, and it misses evidence for the class where the mean weight is 0. HiResCAM
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
from _hirescam import Example, draw_example, picture
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


def main() -> None:
    """Draw figures/fig_hirescam.png."""
    run = _run.start(__file__, __doc__, photos="rocket,coffee", quick_photos="coffee")
    loaded = _run.load(run)
    layers = chosen(loaded)[: 2 if run.args.quick else 3]
    run.bar.reset(total=1 + len(METHODS) * (len(layers) - 1) + len(layers))

    run.numbers["example"] = example(run)
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
    names, columns, titles, found = ["Photograph"], [_run.photographs(rows)], {}, {}
    for layer in layers:
        run.bar.set_postfix_str(layer)
        effect = without(loaded.model, x, target, layer)  # B 1 h w
        found[layer] = agreement(run, loaded.model, x, target, layer, effect)
        if layer != layers[0]:  # at layers[0] the maps agree
            titles[len(names)] = f"At {layer}"
            columns += [_run.explain(run, loaded, name, rows, layer=layer) for name in METHODS]
            columns.append([_display.Panel(r.photo.rgb, a[0].cpu(), True) for r, a in zip(rows, effect, strict=False)])
            names += ["Grad-CAM", "HiResCAM", "Score lost"]
        run.bar.update()
    run.numbers |= {"photographs": [p.name for p in photos], "layers": found}
    above = (
        f"{loaded.note}; the top class of each photograph is named below it. Score lost: how much the logit falls when "
        "all channels are 0 at a place (a position of the layer, or a square of positions: "
        f"{SIDE} x {SIDE} places at most). {_display.SCALE} Maps are resized bilinearly."
        + _run.refusals(run, "cell left empty")
    )
    below = (
        f"Rank correlation of each map with the score lost, over the places of {len(layers)} layers; the last layer is "
        f"at the left. Mean over {len(photos)} photographs ({', '.join(p.name for p in photos)}) with its 95 % "
        "bootstrap interval; one dot per photograph. Grad-CAM is shown as published (negative values set to 0) and "
        f"before this ReLU. Grey: controls that do not use the network, seed {run.args.seed}. Example at the top: one "
        "linear layer adds up weight times map over the cells of a red and a blue map. It has the form of the "
        "counterexample of Draelos and Carin (2020), whose networks classify CT volumes; the photographs are new."
    )
    maps = _display.grid(
        [_display.Block(names, list(zip(*columns, strict=True)), title=titles)], above, _run.banner(run)
    )
    closer = all(found[k]["hires_cam"]["mean"] > found[k]["grad_cam"]["mean"] for k in layers[1:])
    title = f"HiResCAM is {'' if closer else 'not '}closer than Grad-CAM to what the score loses without a place"
    toy = draw_example(run.numbers["example"], title)
    toy.set_dpi(maps.dpi)  # the first decides for all
    _run.save(run, [toy, maps, draw(found, below)], f"{above}\n{below}")


def chosen(loaded: _models.Loaded) -> list[str]:
    """The last layer, and the ends of the two stages before it."""
    last = default_layer(loaded.model)
    return [last, *finer_layers(loaded.model, last)[:-3:-1]]


def example(run: _run.Run) -> dict[str, Any]:
    """The numbers of the counterexample."""
    model, x, target = Example().eval(), picture(), torch.zeros(1, dtype=torch.long)
    maps = {name: _run.bind(run, name, model, x, layer="features")(model, x, target)[0, 0] for name in METHODS}
    with torch.no_grad():
        score = model(x).item()
    weights = model.head.weight.detach().unflatten(1, (2, 3, 3))[0]
    return {
        "picture": x[0].tolist(),
        "score": score,
        "weights": weights.tolist(),
        "alpha": weights.mean(dim=(1, 2)).tolist(),
        "effect": without(model, x, target, "features")[0, 0].tolist(),
        "maps": {k: a.tolist() for k, a in maps.items()},
        "sum": {k: float(a.sum()) for k, a in maps.items()},
    }


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
        figure, axes = _plot.chart(1, len(found), caption, height=1.4, sharey=True)
        for ax, (layer, rows) in zip(axes[0], found.items(), strict=True):
            for i, row in enumerate(rows.values()):
                ax.plot(row["values"], np.full(len(row["values"]), i), ".", color="#bbbbbb", ms=3, zorder=0)
            dots(ax, rows, names={name: names.get(name) or title(name) for name in rows}, marker="o")
            ax.axvline(0, color="black", lw=0.5, zorder=0)
            ax.set_xlim(-1.05, 1.05)
            ax.set_title(layer)
        axes[0, len(found) // 2].set_xlabel("rank correlation with the score lost without each place")
    return figure


if __name__ == "__main__":
    main()
