"""Maps inside the training loss: networks that are told not to look at a swatch which gives the label away.

Ross, Hughes, Doshi-Velez: Right for the Right Reasons. IJCAI 2017. arXiv:1703.03717 (form of its decoy figure).
The reader should see: networks trained on digits with a tell-tale swatch lose accuracy once the swatch lies; with a
penalty on their gradient, HiResCAM or integrated gradients inside the swatch they lose little or none, and these maps
hold no more there than about an even share. A penalty on Grad-CAM empties that map, and helps accuracy least.

Any differentiable method serves: --method layer_cam smooth_grad. `train` is the loop to copy.

Differs from the paper: digits are scikit-learn's, 16 x 16 pixels in 24 x 24, with a swatch of 4 x 4; the networks are a
CNN with batch normalisation and a ViT instead of a perceptron; the map is that of the label's logit, not of the sum of
all log-probabilities, so that it is the map that one would look at. The penalty has the paper's form.
"""

import argparse
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Literal, NamedTuple

import numpy as np
import timm
import torch
from jaxtyping import Bool, Float, Int
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn
from torch.nn import functional as F

import _plot
import _run  # puts the repository on the path
from methods import METHODS, _display
from methods._torch import Attribution, upsample
from sanity_checks._small import digits
from sanity_checks._statistics import interval

METHODS_SHOWN = ("gradient", "grad_cam", "hires_cam", "integrated_gradients")
WEIGHT = 10.0  # lambda, of all methods alike
FEW = {"samples": 4, "steps": 4}  # in training
MORE = {"samples": 10, "steps": 10}  # in a map that is looked at
SIDE, DIGIT, SWATCH = 24, 16, 4  # pixels; the swatch is one patch of the ViT
CORNERS = 4
SHOWN = 3  # test digits in the picture


class Decoys(NamedTuple):
    """Digits in the middle, a swatch in a corner; values in [0, 1]."""

    x: Float[Tensor, "n 1 24 24"]
    y: Int[Tensor, " n"]
    mask: Bool[Tensor, "n 24 24"]  # where the swatch is


class CNN(nn.Module):
    """Three convolutions with batch normalisation and ReLU, one linear layer.

    No pooling of the positions: a network with it learns the digits so well that it ignores the swatch.
    """

    num_features = 32

    def __init__(self) -> None:
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i, (before, after, stride) in enumerate([(1, 16, 1), (16, 32, 2), (32, 32, 2)], start=1):
            layers[f"conv{i}"] = nn.Conv2d(before, after, 3, stride, 1, bias=False)
            layers[f"bn{i}"] = nn.BatchNorm2d(after)
            layers[f"relu{i}"] = nn.ReLU()
        self.features = nn.Sequential(layers)
        self.fc = nn.Linear(32 * (SIDE // 4) ** 2, 10)

    def forward(self, x: Float[Tensor, "B 1 24 24"]) -> Float[Tensor, "B 10"]:
        return self.fc(self.features(x).flatten(1))


def vit() -> nn.Module:
    """A ViT by timm: patches of 4 x 4 pixels and a class token, two blocks."""
    return timm.models.VisionTransformer(
        img_size=SIDE,
        patch_size=SWATCH,
        in_chans=1,
        embed_dim=32,
        depth=2,
        num_heads=4,
        mlp_ratio=2,
        num_classes=10,
        weight_init="jax",
    )


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int, float]] = {"CNN": (CNN, 2, 6e-3), "ViT": (vit, 4, 3e-3)}
# name: build, epochs of four images per digit, learning rate


def train(
    model: nn.Module,
    data: Decoys,
    of: Attribution | None,
    *,
    weight: float = WEIGHT,
    epochs: int,
    lr: float,
    seed: int = 0,
    tick: Callable[[], object] = lambda: None,
) -> nn.Module:
    """Cross-entropy + weight * (the label's map inside the mask)^2, in place; the model in evaluation mode.

    Args:
        model: a classifier.
        data: images, labels, and where not to look.
        of: the method, differentiable, with its keywords bound: partial(grad_cam, layer="layer4"); None: no penalty.
        weight: of the penalty.
        epochs: passes through the data.
        lr: highest learning rate of one cycle.
        seed: of the order of the images.
        tick: called after each step.
    """
    rng = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, epochs * -(-len(data.x) // 64), pct_start=0.2)
    for _ in range(epochs):
        for i in torch.randperm(len(data.x), generator=rng).split(64):
            x, y, mask = (v[i.to(v.device)] for v in data)
            model.train()
            loss = F.cross_entropy(model(x), y)
            if of is not None:
                # In evaluation mode: the map is of the network as it will be used. In training mode batch statistics
                # would mix the images of a batch into each other's maps, and each pass of the method would move the
                # running statistics. The derivative does not depend on the mode flag that is set when it is taken.
                model.eval()
                a = of(model, x.requires_grad_(), y)  # B K h w   requires_grad: the map is part of the graph
                loss = loss + weight * penalty(a, mask)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            cycle.step()
            tick()
    return model.eval()


def penalty(a: Float[Tensor, "B K h w"], mask: Bool[Tensor, "B H W"]) -> Float[Tensor, ""]:
    """Squares of the map inside the mask, summed over pixels and channels; the mean over images."""
    return (upsample(a, mask[:, None].to(a)).square() * mask[:, None]).sum(dim=(1, 2, 3)).mean()


def decoys(split: Literal["train", "test"], shades: Literal["label", "random"], seed: int, corners: int) -> Decoys:
    """Each digit in so many corners, a random one first; the shade is 1 - 25/255 of the label or of a random one.

    Args:
        split: of scikit-learn's digits.
        shades: whether the shade gives the label away.
        seed: of corners and random shades.
        corners: 1 to 4 images per digit.
    """
    rng = torch.Generator().manual_seed(seed)
    d = digits()
    x, y = (d.x_train, d.y_train) if split == "train" else (d.x_test, d.y_test)
    first = torch.randint(CORNERS, y.shape, generator=rng)
    corner = torch.cat([(first + k) % CORNERS for k in range(corners)])  # n
    x, y = x.repeat(corners, 1, 1, 1), y.repeat(corners)
    shown = torch.randint(10, y.shape, generator=rng)
    shown = y if shades == "label" else shown
    x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)  # n 1 16 16
    x = F.pad(x, ((SIDE - DIGIT) // 2,) * 4)
    at = torch.arange(SIDE) // SWATCH  # which swatch a row or column belongs to
    rows, columns = (at == (SIDE // SWATCH - 1) * side[:, None] for side in (corner // 2, corner % 2))  # n 24
    mask = rows[:, :, None] & columns[:, None, :]
    return Decoys(torch.where(mask[:, None], (1 - 25 / 255 * shown)[:, None, None, None], x), y, mask)


def differentiable(name: str) -> str:
    """The name of a method that can be trained on, for argparse.

    Raises:
        argparse.ArgumentTypeError: there is no such method, or its map has no derivative.
    """
    there = [n for n in METHODS if METHODS[n].differentiable]
    if name not in there:
        why = "is not differentiable, so no loss can hold its map" if name in METHODS else "is no method"
        raise argparse.ArgumentTypeError(f"{name} {why}; there are: {', '.join(there)}")
    return name


def main(argv: Sequence[str] | None = None) -> None:
    """Draw figures/fig_rrr_decoy.png."""
    option = {"nargs": "+", "type": differentiable, "metavar": "NAME", "help": "methods whose map is in the loss"}
    run = _run.start(__file__, __doc__, photos=None, options={"--method": option}, argv=argv)
    names = run.args.method or (METHODS_SHOWN[:1] if run.args.quick else METHODS_SHOWN)
    if run.args.method:
        run.name += "_" + "_".join(names)
    networks = {k: v for k, v in NETWORKS.items() if k == "CNN" or not run.args.quick}
    corners = 1 if run.args.quick else CORNERS
    shift = 1000 * run.args.seed
    sets = {s: decoys("train", s, shift + 1, corners) for s in ("label", "random")}
    tests = {s: decoys("test", s, shift + 2, corners) for s in ("label", "random")}
    sets, tests = ({s: Decoys(*(v.to(run.args.device) for v in d)) for s, d in part.items()} for part in (sets, tests))
    steps = -(-len(sets["label"].x) // 64)
    run.bar.unit = "step"
    run.bar.reset(total=sum(epochs * steps * (2 + len(names)) for _, epochs, _ in networks.values()))

    panels: dict[str, list[list[Any]]] = {}
    for network, (build, epochs, lr) in networks.items():
        found = run.numbers[network] = {}
        maps = {}  # training, method -> maps of the digits shown
        for training in ("none", *names, "random shade"):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(run.args.seed)
                model = build().to(run.args.device).eval()
            data = sets["random" if training == "random shade" else "label"]
            few = {k: v for k, v in FEW.items() if k in METHODS.get(training, METHODS["gradient"]).params}
            of = _run.bind(run, training, model, data.x, **few) if training in names else None
            run.bar.set_postfix_str(f"{network}, {training}")
            train(model, data, of, epochs=epochs, lr=lr, seed=run.args.seed, tick=run.bar.update)
            found[training] = {"accuracy": accuracy(model, tests)}
            for name in names:
                a, found[training][name] = on_swatch(run, name, model, tests["random"])
                maps[training, name] = a[:SHOWN]
        panels[network] = rows_of_maps(tests["random"], maps, names)
    run.numbers["settings"] = {
        "weight": WEIGHT,
        "in training": FEW,
        "measured": MORE,
        "training images": len(sets["label"].x),
        "corners": corners,
    }
    run.numbers["area"] = tests["random"].mask.float().mean()

    titles = [METHODS[name].title for name in names]
    header = ["Image", *(f"{t}\n{after}" for t in titles for after in ("no penalty", "penalty"))]
    blocks = [_display.Block(header, rows, title=f"{k}: test digits, random shade") for k, rows in panels.items()]
    pictures = _display.grid(
        blocks,
        f"Upper part: maps of the true digit without a penalty and with one on the same kind of map. The box is the "
        f"swatch. {_display.SCALE} So a map of small numbers looks as strong as one of large numbers.",
    )
    outline(pictures, tests["random"].mask[:SHOWN].repeat(len(blocks), 1, 1), 1 + 2 * len(names))
    _run.save(run, [pictures, bars(run, names)], caption(run, names))


@torch.no_grad()
def accuracy(model: nn.Module, tests: dict[str, Decoys]) -> dict[str, dict[str, float]]:
    """Share of images whose top class is the label, for each way to shade; and `lost`, the first minus the second."""
    hits = {
        s: torch.cat([model(part).argmax(dim=1) for part in d.x.split(512)]).eq(d.y).double() for s, d in tests.items()
    }
    return {s: over_digits(v) for s, v in (hits | {"lost": hits["label"] - hits["random"]}).items()}


def over_digits(values: Float[Tensor, " n"]) -> dict[str, float]:
    """The mean with its interval; the images of one digit in several corners are one draw, not several."""
    return asdict(interval(values.double().cpu().view(-1, len(digits().x_test)).mean(dim=0).numpy()))


def on_swatch(run: _run.Run, name: str, model: nn.Module, data: Decoys) -> tuple[Tensor, dict[str, float]]:
    """Maps of the true digits, and their mass on the swatch over its area: 1 if spread evenly, 36 if all is there."""
    of = _run.bind(run, name, model, data.x, **{k: v for k, v in MORE.items() if k in METHODS[name].params})
    parts = zip(data.x.split(256), data.y.split(256), strict=True)
    a = torch.cat([of(model, x.detach(), y).detach() for x, y in parts])
    found = _run.score(run, "relevance_mass", a, data.mask, pooling="sum,abs")
    zero = int((a.flatten(1) == 0).all(dim=1).sum())
    return a, over_digits(found.columns["mu_w"]) | {"maps all zero": zero / len(a)}


def rows_of_maps(data: Decoys, maps: dict[tuple[str, str], Tensor], names: Sequence[str]) -> list[list[_display.Panel]]:
    """For each digit: the image, and each method's map without and with its penalty."""
    rows = []
    for i in range(SHOWN):
        grey = (data.x[i, 0].detach().cpu().numpy() * 255).round().astype(np.uint8).repeat(8, 0).repeat(8, 1)
        rgb = np.stack([grey] * 3, axis=2)
        cells = [
            _display.Panel(rgb, maps[training, name][i].sum(dim=0).cpu(), overlay="layer" in METHODS[name].params)
            for name in names
            for training in ("none", name)
        ]
        rows.append([_display.Panel(rgb), *cells])
    return rows


def outline(figure: Figure, masks: Bool[Tensor, "rows 24 24"], columns: int) -> None:
    """A box around the swatch in every panel; the panels are the figure's first axes, row by row."""
    for k, ax in enumerate(figure.axes[: len(masks) * columns]):
        row, column = (int(v) / SIDE for v in masks[k // columns].nonzero()[0])
        side = SWATCH / SIDE
        box = Rectangle((column, 1 - row - side), side, side, transform=ax.transAxes, fill=False, clip_on=False)
        box.set(edgecolor=_plot.LINES[2], linewidth=0.8)
        ax.add_patch(box)


def bars(run: _run.Run, names: Sequence[str]) -> Figure:
    """Accuracies and mass on the swatch, one row of axes per network."""
    networks = [k for k in NETWORKS if k in run.numbers]
    trainings = ["none", *names, "random shade"]
    ticks = [
        "no\npenalty",
        *(re.sub("(?<=[a-z])(?=CAM)|(?<=-)| ", "\n", METHODS[n].title) for n in names),
        "random\nshades",
    ]
    with _display.style():
        figure, axes = _plot.chart(len(networks), 2, caption(run, names), height=1.55, width_ratios=[1, 1.25])
        for (left, right), network in zip(axes, networks, strict=True):
            found = run.numbers[network]
            kinds = {"label": "shade tells the label", "random": "random shade"}
            for k, (shades, label) in enumerate(kinds.items()):
                values = [found[t]["accuracy"][shades] for t in trainings]
                _bars(left, values, k, len(kinds), _plot.LINES[k], label)
            left.set(ylim=(0, 1), ylabel="accuracy on test digits")
            for k, name in enumerate(names):
                values = [found[t][name] for t in trainings]
                _bars(right, values, k, len(names), _plot.LINES[2 + k], METHODS[name].title)
            right.axhline(1, color=_plot.CONTROL, linewidth=0.8, linestyle="--")
            right.set(ylabel="mass on swatch / area")
            for ax, what in ((left, "accuracy"), (right, "where the maps lie, random shade")):
                ax.set_title(f"{network}: {what}", pad=14)
                ax.set_xticks(range(len(trainings)), ticks)
                ax.legend(loc="lower center", bbox_to_anchor=(0.5, 0.98), ncols=4, handlelength=1.2, columnspacing=1.0)
    return figure


def _bars(ax: Any, values: list[dict[str, float]], k: int, of: int, colour: str, label: str) -> None:  # noqa: ANN401
    """The k-th of so many bars in each group, with intervals."""
    width = 0.8 / of
    mean, low, high = (np.array([v[key] for v in values]) for key in ("mean", "low", "high"))
    at = np.arange(len(values)) + (k - (of - 1) / 2) * width
    ax.bar(at, mean, width, color=colour, label=label)
    ax.errorbar(at, mean, [mean - low, high - mean], fmt="none", ecolor="black", elinewidth=0.6)


def caption(run: _run.Run, names: Sequence[str]) -> str:
    """What the figure is made of and how to read it."""
    networks = [k for k in NETWORKS if k in run.numbers]
    n = run.numbers[networks[0]]["none"]["accuracy"]["label"]["n"]
    nets = {"CNN": "a CNN with batch normalisation", "ViT": "a ViT with 4 x 4 patches"}
    corners = run.numbers["settings"]["corners"]
    zero = {f"{k}, {METHODS[m].title}": run.numbers[k]["none"][m]["maps all zero"] for k in networks for m in names}
    zeros = "".join(
        f" {k}: {100 * v:.0f} % of the maps without penalty are all zero." for k, v in zero.items() if v > 0.01
    )
    few = [
        f"{METHODS[m].title} with {v} {k}, {MORE[k]} for the maps"
        for m in names
        for k, v in FEW.items()
        if k in METHODS[m].params
    ]
    return (
        f"Networks: {' and '.join(nets[k] for k in networks)}, trained here (seed {run.args.seed}) on "
        f"{run.numbers['settings']['training images']} images whose swatch tells the digit, with no penalty or with "
        f"{WEIGHT:g} x the squared map of the label inside the swatch; "
        f"{'in training ' + ' and '.join(few) + '; ' if few else ''}at the right the reference, trained with random "
        f"shades. One network each. Bars: means and 95 % bootstrap intervals over {n} test "
        f"digits, each with the swatch in {corners} of 4 corners. Mass: share of |map| on the swatch, divided by the "
        "swatch's share of the image, 0 for a map of zeros; dashed: spread evenly. Names below the bars: what the "
        "penalty was on; colours at "
        "the right: what was measured. A penalty that empties its own map but leaves accuracy at random shades low has "
        f"taught the network to hide the swatch from that map, not to ignore it.{zeros}"
    )


if __name__ == "__main__":
    main()
