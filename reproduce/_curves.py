"""Code that the cascade figures share: rows, maps and curves of networks that are randomised stage by stage."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import _plot
import _run  # puts the repository on the path
from _dots import title
from methods import METHODS, _display, _images, _models
from methods._torch import Attribution
from sanity_checks._cascade import Cascade
from sanity_checks._controls import CONTROLS
from sanity_checks._randomize import INITS

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
class Setting:
    """The inputs of the figures of photographs."""

    loaded: _models.Loaded
    subjects: list[_run.Subject]
    x: Float[Tensor, "B C H W"]
    target: Int[Tensor, " B"]
    rows: dict[str, tuple[Attribution, int]]


def setting(run: _run.Run, seeds: int) -> Setting:
    """Model, photographs and rows of a run; expensive methods and controls run once, the others `seeds` times."""
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


def bound(
    run: _run.Run,
    model: nn.Module,
    x: Tensor,
    names: Sequence[str],
    controls: Sequence[str],
    seeds: Callable[[str], int],
    params: Mapping[str, Mapping[str, Any]],
) -> dict[str, tuple[Attribution, int]]:
    """Rows for `cascade`: methods and controls, each with its number of randomisations.

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
    """A row for each method and control with the map at each step; the photograph is shown once."""
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
    """Curves of all rows of a `summary` with their bands; the logits are a grey area, the null is at the right."""
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
    """The similarity of the logits, as a grey area."""
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


def one_scale(axes: Sequence[Any]) -> None:
    """Give all axes the same limits."""
    low = min(ax.get_ylim()[0] for ax in axes)
    for ax in axes:
        ax.set_ylim(low, 1.05)


def above(loaded: _models.Loaded, subject: _run.Subject) -> str:
    """The caption of the maps."""
    return (
        f"{loaded.note}. Maps of {subject.photo.name} for the trained network's top class, {subject.target_name}; "
        f"the first randomisation. {_display.SCALE} A map in one colour has nearly the same value everywhere."
    )


def below(run: _run.Run, found: Cascade, rows: Mapping[str, tuple[Attribution, int]], n: int) -> str:
    """The caption of the curves: the numbers of images and seeds, the marks, and how many maps had no rank."""
    times = max(k for _, k in rows.values())
    few = [
        f"{METHODS[name].title} ({key} {run.methods[name]['params'][key]})"
        for name, key in (("smooth_grad", "samples"), ("integrated_gradients", "steps"))
        if name in rows
    ]
    return (
        f"Means over {n} photographs with 95 % bootstrap intervals. Weights are randomised {times} "
        f"time{'s' * (times > 1)} (init {run.args.init}, first seed {run.args.seed}), once for "
        f"{', '.join([*few, 'controls'])}. First step: a second run on the trained network. Grey area: rank "
        "correlation of the logits. Diamonds: maps of different photographs by the trained network; where a curve is "
        "at its diamond, nothing is left of the photograph's own map. Spearman is on the map's own grid, SSIM and HOG "
        "are at the image's resolution. White noise also changes at every step: a map that changes need not be "
        "faithful." + flat(found) + _run.refusals(run)
    )


def flat(found: Cascade) -> str:
    """For the caption: how many maps are constant and so have no rank."""
    most = {METHODS[name].title: max(share) for name, share in found.flat.items() if name in METHODS and max(share) > 0}
    shares = ", ".join(f"{share:.0%} of {name}" for name, share in most.items())
    return (
        f" Maps that are zero everywhere have no rank and are left out: at the worst step {shares}." if shares else ""
    )
