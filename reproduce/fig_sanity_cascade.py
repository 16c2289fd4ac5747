"""Maps while the weights are thrown away from the head down, and how alike they stay to those of the trained network.

Adebayo, Gilmer, Muelly, Goodfellow, Hardt, Kim, NeurIPS 2018, arXiv:1810.03292: form of figures 2 (maps) and 4
(curves); last panel, from the image up: after Binder et al., CVPR 2023, arXiv:2211.12486.
The reader should see: guided backpropagation keeps its ranks while the upper stages go (0.95 with six of nineteen gone,
though the logits are random from the first on), as do the image's edges, which know of no network; the gradient and
Grad-CAM change with the head. (With all stages gone it does change, as the erratum in the authors' repository says;
LayerCAM, too, hardly notices the classifier; and noise passes at every step.)
Differs from the paper: another network, six photographs that it recognises instead of ImageNet's, eight of its stages;
weights are permuted within each tensor, not drawn anew (which leaves some networks dead); the class stays the trained
network's choice; SmoothGrad and Integrated Gradients take 16 evaluations and one randomisation, the others three.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import _plot
import _run  # puts the repository on the path
from _dots import title
from methods import METHODS, _display, _images, _models
from methods._torch import Attribution
from sanity_checks._controls import CONTROLS
from sanity_checks._randomize import INITS, Stage, alive, randomized, stages
from sanity_checks._statistics import interval, retained, verdict
from sanity_checks._torch import constant, explain
from sanity_checks.model_randomization import lost_stages, parameters
from sanity_checks.similarity import between_images, similarities, spearman

METHODS_SHOWN = (
    "gradient",
    "smooth_grad",
    "input_x_gradient",
    "integrated_gradients",
    "guided_backprop",
    "grad_cam",
    "layer_cam",
    "guided_grad_cam",
)
EXPENSIVE = {"smooth_grad": {"samples": 16}, "integrated_gradients": {"steps": 16, "rule": "middle"}}
FEW = {"integrated_gradients": {"steps": 2, "rule": "middle"}}  # under --quick
NOT_QUICK = {"smooth_grad", "guided_grad_cam"}
CONTROLS_SHOWN = {"white_noise": ":", "sobel_edges": "-."}
MEASURES = {
    "spearman": "Spearman of |a|",
    "signed": "Spearman of a",
    "ssim": "SSIM of |a|",
    "hog": "Spearman of HOG of |a|",
}
INIT = {"--init": {"choices": INITS, "default": "permute", "help": "new weights (default: %(default)s)"}}


@dataclass(frozen=True)
class Cascade:
    """What is left of maps while stages are lost; the first step is a second run on the trained network."""

    labels: list[str]  # of the steps
    lost: list[list[str]]  # names of the stages lost at each step
    maps: dict[str, list[Float[Tensor, "K h w"]]]  # row: of the first image, first randomisation
    curves: dict[str, dict[str, Float[Tensor, "B steps"]]]  # row: measure: mean over the randomisations
    null: dict[str, dict[str, Float[Tensor, " B"]]]  # row: measure: between images, trained network
    flat: dict[str, list[float]]  # row: share of maps without a rank, because they are constant
    logits: Float[Tensor, "B steps"]  # Spearman of the logits
    variation: list[float]  # of the logits over images, as a share of the trained network's; first randomisation
    refused: dict[str, str]  # row: why it is not defined for this model


def cascade(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Int[Tensor, " B"],
    rows: Mapping[str, tuple[Attribution, int]],
    *,
    order: str = "top-down",
    points: int | None = None,
    measures: Sequence[str] = tuple(MEASURES),
    init: str = "permute",
    seed: int = 0,
    tick: Callable[[str], object] = lambda name: None,
) -> Cascade:
    """Lose stages step by step and compare each row's maps with those of the trained network.

    Args:
        model: classifier, left as it is.
        x: normalised images.
        target: classes to explain.
        rows: name -> the method and over how many randomisations its similarities are averaged.
        order: "top-down", "bottom-up" or "independent", as in sanity_checks.model_randomization.
        points: steps, evenly spread over the stages; None: all stages.
        measures: of sanity_checks.similarity.
        init: see `sanity_checks._randomize.randomized`.
        seed: of the first randomisation.
        tick: called with the row's name after each run of a method.

    Raises:
        ValueError: unknown init, or a network that is dead with so many stages lost.
    """
    blocks = stages(model, x)
    sets = [frozenset(), *lost_stages(order, len(blocks), points)]
    ref, refused = {}, {}
    for name, (of, _) in rows.items():
        try:
            ref[name] = explain(of, model, x, target)  # B K h w
        except ValueError as error:
            refused[name] = str(error)
        tick(name)
    y = _logits(model, x)  # B N
    found: dict[str, list[list[dict[str, Tensor]]]] = {name: [[] for _ in sets] for name in [*ref, "logits"]}
    maps: dict[str, list[Tensor]] = {name: [] for name in ref}
    variation = []
    for k in range(max(n for _, n in rows.values())):
        for i, lost in enumerate(sets):
            f = randomized(model, parameters(blocks, lost), init=init, seed=seed + k)
            found["logits"][i].append({"spearman": spearman(y, _logits(f, x))})
            if k == 0:
                variation.append(alive(f, model, x, init)["variation"])
            for name in ref:
                of, n = rows[name]
                if k < n and (k == 0 or lost):  # the trained network is the same for every seed
                    a = explain(of, f, x, target)  # B K h w
                    s = similarities(ref[name], a, x, measures)
                    found[name][i].append(s | {"flat": constant(a.abs().sum(dim=1)).double()})
                    if k == 0:
                        maps[name].append(a[0].cpu())
                    tick(name)

    def mean(name: str, measure: str) -> Float[Tensor, "B steps"]:
        return torch.stack(
            [torch.stack([s[measure] for s in step]).nanmean(dim=0) for step in found[name]], dim=1
        ).cpu()

    return Cascade(
        labels=["trained", *(_label(blocks, lost, order) for lost in sets[1:])],
        lost=[[blocks[j].name for j in sorted(lost)] for lost in sets],
        maps=maps,
        curves={name: {m: mean(name, m) for m in measures} for name in ref},
        null={name: {m: v.cpu() for m, v in between_images(a, x, measures).items()} for name, a in ref.items()},
        flat={name: mean(name, "flat").mean(dim=0).tolist() for name in ref},
        logits=mean("logits", "spearman"),
        variation=variation,
        refused=refused,
    )


def summary(found: Cascade, measures: Sequence[str] = tuple(MEASURES)) -> dict[str, Any]:
    """Means over images with 95 % intervals, for the sidecar and the picture.

    `retained` and `verdict` are of the first measure, at the first and at the last step, as in the report of a method.
    """

    def of(values: Tensor) -> dict[str, float]:
        return asdict(interval(values.double().numpy()))

    rows = {}
    for name, curves in found.curves.items():
        s, null = curves[measures[0]].numpy(), found.null[name][measures[0]].numpy()
        ends = {"first": (s[:, 1], null, s[:, 0]), "last": (s[:, -1], null, s[:, 0])}
        rows[name] = {
            "curves": {m: [of(v) for v in curves[m].T] for m in measures},
            "null": {m: of(found.null[name][m]) for m in measures},
            "retained": {end: asdict(retained(*numbers)) for end, numbers in ends.items()},
            "verdict": {end: verdict(*numbers) for end, numbers in ends.items()},
            "flat": found.flat[name],
        }
    return {
        "labels": found.labels,
        "lost": found.lost,
        "rows": rows,
        "logits": [of(v) for v in found.logits.T],
        "variation": found.variation,
    }


def bound(
    run: _run.Run,
    model: nn.Module,
    x: Tensor,
    names: Sequence[str],
    controls: Sequence[str],
    seeds: Callable[[str], int],
    params: Mapping[str, Mapping[str, Any]],
) -> dict[str, tuple[Attribution, int]]:
    """Rows for `cascade`: methods and controls, with how often each is repeated.

    A method that is not defined for the model is noted and left out.
    """
    rows: dict[str, tuple[Attribution, int]] = {}
    for name in names:
        with _run.attempt(run, name):
            rows[name] = _run.bind(run, name, model, x, **params.get(name, {})), seeds(name)
    return rows | {name: (CONTROLS[name][1](run.args.seed), 1) for name in controls}


def tick(run: _run.Run, name: str) -> None:
    """One step of the progress bar."""
    run.bar.set_postfix_str(name)
    run.bar.update()


def maps(found: Cascade, photo: _images.Photo, header: Sequence[str], title_: str = "") -> _display.Block:
    """A row for each method and control: the map at each step; the photograph once."""
    side = min(len(photo.rgb), 1180 // (1 + len(header)))  # about the dots of a panel, so that a pixel is a dot
    rgb = np.asarray(Image.fromarray(photo.rgb).resize((side, side)))

    def panel(a: Float[Tensor, "K h w"]) -> _display.Panel:
        small = a.shape[1] < side
        a = a.sum(dim=0)
        return _display.Panel(rgb, a if small else F.adaptive_avg_pool2d(a[None, None], side)[0, 0], overlay=small)

    rows = [
        [_display.Panel(rgb) if i == 0 else None, *map(panel, steps)] for i, steps in enumerate(found.maps.values())
    ]
    return _display.Block(["Photograph", *header], rows, labels=[title(name) for name in found.maps], title=title_)


def draw(ax: Any, found: Mapping[str, Any], measure: str, heading: str) -> None:  # noqa: ANN401
    """Curves of all rows of a `summary` with their bands, the logits as a grey area, and the null at the right."""
    at, n = range(len(found["labels"])), len(found["rows"])
    area(ax, found)
    for j, (name, row) in enumerate(found["rows"].items()):
        colour, line = look(name)
        curve, null = row["curves"][measure], row["null"][measure]
        ax.plot(at, [v["mean"] for v in curve], line, color=colour, label=title(name), marker=".", markersize=3)
        band(ax, curve, colour)
        x = at[-1] + 0.75 + 0.9 * j / max(n - 1, 1)
        ax.plot([x, x], [null["low"], null["high"]], color=colour, linewidth=0.7)
        ax.plot(x, null["mean"], "D", color=colour, markersize=2.5)
    ax.axvline(at[-1] + 0.5, color="black", linewidth=0.4)
    ax.set_xticks([*at, at[-1] + 1.2], [*found["labels"], "another\nphotograph"], rotation=90, linespacing=0.9)
    ax.set_xlim(-0.2, at[-1] + 1.9)
    ax.set_title(heading)


def area(ax: Any, found: Mapping[str, Any]) -> None:  # noqa: ANN401
    """How alike the logits are, in grey."""
    logits = [max(v["mean"], 0) for v in found["logits"]]
    ax.fill_between(range(len(logits)), 0, logits, color="#e4e4e4", linewidth=0, label="logits of the network")
    ax.axhline(0, color="black", linewidth=0.4)


def band(ax: Any, curve: Sequence[Mapping[str, float]], colour: str) -> None:  # noqa: ANN401
    """The intervals along a curve."""
    low, high = ([v[end] for v in curve] for end in ("low", "high"))
    ax.fill_between(range(len(curve)), low, high, color=colour, alpha=0.13, linewidth=0)


def look(name: str) -> tuple[str, str]:
    """Colour and line style of a row."""
    if name in CONTROLS_SHOWN:
        return _plot.CONTROL, CONTROLS_SHOWN[name]
    return _plot.LINES[METHODS_SHOWN.index(name)], "-"


def above(loaded: _models.Loaded, subject: _run.Subject) -> str:
    """The caption of the maps."""
    return (
        f"{loaded.note}. Maps of {subject.photo.name} for its top class by the trained network, {subject.target_name}; "
        f"the first randomisation. {_display.SCALE} A map in one colour is nearly the same everywhere."
    )


def below(run: _run.Run, found: Cascade, rows: Mapping[str, tuple[Attribution, int]], n: int) -> str:
    """The caption of the curves: how many, what is drawn, and how many maps had no rank."""
    times = max(k for _, k in rows.values())
    few = [
        f"{METHODS[name].title} ({key} {run.methods[name]['params'][key]})"
        for name, key in (("smooth_grad", "samples"), ("integrated_gradients", "steps"))
        if name in rows
    ]
    return (
        f"Means over {n} photographs with 95 % bootstrap intervals; weights are thrown away {times} "
        f"time{'s' * (times > 1)} (init {run.args.init}, seed {run.args.seed} on), once for "
        f"{', '.join([*few, 'controls'])}. First step: a second run on the trained network. Grey area: rank "
        "correlation of the logits. Diamonds: maps of different photographs by the trained network; a curve at its "
        "diamond has kept nothing of the photograph's own map. Spearman is on the map's own grid, SSIM and HOG are "
        "at the image's resolution. White noise changes at every step, too: to change is not to be faithful."
        + flat(found)
        + _run.refusals(run)
    )


def flat(found: Cascade) -> str:
    """For the caption: how many maps are constant and so have no rank."""
    most = {METHODS[name].title: max(share) for name, share in found.flat.items() if name in METHODS and max(share) > 0}
    shares = ", ".join(f"{share:.0%} of {name}" for name, share in most.items())
    return (
        f" Maps that are zero everywhere have no rank and are left out: at the worst step {shares}." if shares else ""
    )


def _label(blocks: Sequence[Stage], lost: frozenset[int], order: str) -> str:
    return blocks[max(lost) if order == "bottom-up" else min(lost)].name


@torch.no_grad()
def _logits(model: nn.Module, x: Tensor) -> Float[Tensor, "B N"]:
    return model(x).float()


@dataclass(frozen=True)
class Setting:
    """What the figures of photographs start from."""

    loaded: _models.Loaded
    subjects: list[_run.Subject]
    x: Float[Tensor, "B C H W"]
    target: Int[Tensor, " B"]
    rows: dict[str, tuple[Attribution, int]]


def setting(run: _run.Run, seeds: int) -> Setting:
    """Model, photographs and rows of a run; the expensive methods and the controls once, the others `seeds` times."""
    loaded = _run.load(run)
    subjects = _run.subjects(run, loaded)
    x = _images.tensor([s.photo for s in subjects], loaded)
    target = torch.tensor([s.target for s in subjects], device=loaded.device)
    rows = bound(
        run,
        loaded.model,
        x,
        [name for name in METHODS_SHOWN if not (run.args.quick and name in NOT_QUICK)],
        list(CONTROLS_SHOWN),
        lambda name: 1 if name in EXPENSIVE else seeds,
        FEW if run.args.quick else EXPENSIVE,
    )
    return Setting(loaded, subjects, x, target, rows)


def main() -> None:
    """Draw figures/fig_sanity_cascade.png."""
    run = _run.start(
        __file__,
        __doc__,
        photos="chelsea,coffee,rocket,motorcycle,china,flower",
        quick_photos="chelsea,coffee",
        options=INIT,
    )
    seeds, points, fewer = (1, 2, 2) if run.args.quick else (3, 8, 5)
    it = setting(run, seeds)
    cheap = {name: row for name, row in it.rows.items() if name not in EXPENSIVE and name not in CONTROLS}
    run.bar.reset(total=passes(it.rows, points) + passes(cheap, fewer))
    more: dict[str, Any] = {"init": run.args.init, "seed": run.args.seed, "tick": partial(tick, run)}
    down = cascade(it.loaded.model, it.x, it.target, it.rows, points=points, **more)
    _run.refuse(run, down.refused)
    cheap = {name: row for name, row in cheap.items() if name not in down.refused}
    more |= {"order": "bottom-up", "points": fewer, "measures": ("spearman",)}
    up = cascade(it.loaded.model, it.x, it.target, cheap, **more)
    found = {"top-down": summary(down), "bottom-up": summary(up, ("spearman",))}
    counts = {name: n for name, (_, n) in it.rows.items()}
    run.numbers = {"images": len(it.x), "seeds": counts, "init": run.args.init} | found

    captions = above(it.loaded, it.subjects[0]), below(run, down, it.rows, len(it.x))
    header = ["trained", *(f"{'down to ' if i else ''}{name}" for i, name in enumerate(down.labels[1:]))]
    block = maps(down, it.subjects[0].photo, header, "Weights thrown away from the head down")
    grid = _display.grid([block], captions[0], _run.banner(run))
    _run.save(run, [grid, curves(found, captions[1])], " ".join(captions))


def passes(rows: Mapping[str, tuple[Attribution, int]], points: int) -> int:
    """How often `cascade` runs a method, all in all."""
    return sum(2 + n * points for _, n in rows.values())


def curves(found: Mapping[str, Mapping[str, Any]], caption: str) -> Figure:
    """The four measures from the head down, and the first of them from the image up."""
    with _display.style():
        figure, axes = _plot.chart(2, 3, caption, height=2.1)
        for ax, (measure, heading) in zip(axes.flat, MEASURES.items(), strict=False):
            draw(ax, found["top-down"], measure, f"{heading}, from the head down")
        one_scale(axes.flat[: len(MEASURES)])
        draw(axes[1, 1], found["bottom-up"], "spearman", f"{MEASURES['spearman']}, from the image up")
        axes[1, 2].axis("off")
        axes[1, 2].legend(*axes[0, 0].get_legend_handles_labels(), loc="center left")
        return figure


def one_scale(axes: Sequence[Any]) -> None:
    """The same limits for all."""
    low = min(ax.get_ylim()[0] for ax in axes)
    for ax in axes:
        ax.set_ylim(low, 1.05)


if __name__ == "__main__":
    main()
