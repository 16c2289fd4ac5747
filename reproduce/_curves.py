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
CONTROLS_SHOWN = ("white_noise", "sobel_edges")
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
        CONTROLS_SHOWN,
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


def maps(found: Cascade, photo: _images.Photo, names: Sequence[str], header: Sequence[str]) -> _display.Block:
    """A row for each of `names` that there is, with the map at each step; the photograph is shown once."""
    side = min(len(photo.rgb), 1180 // (1 + len(header)))  # about the dots of a panel, so that a pixel is a dot
    rgb = np.asarray(Image.fromarray(photo.rgb).resize((side, side)))
    names = [name for name in names if name in found.maps]

    def panel(a: Float[Tensor, "K h w"]) -> _display.Panel:
        small = a.shape[1] < side
        a = a.sum(dim=0)
        return _display.Panel(rgb, a if small else F.adaptive_avg_pool2d(a[None, None], side)[0, 0], overlay=small)

    rows = [[None if i else _display.Panel(rgb), *map(panel, found.maps[name])] for i, name in enumerate(names)]
    return _display.Block(
        ["Photograph", *header], rows, labels=[title(name).replace("Backprop", "Back-prop") for name in names]
    )


def area(ax: Any, found: Mapping[str, Any]) -> None:  # noqa: ANN401
    """The similarity of the logits, as a grey area."""
    logits = [max(v["mean"], 0) for v in found["logits"]]
    ax.fill_between(range(len(logits)), 0, logits, color="#e4e4e4", linewidth=0, label="logits of the network")
    ax.axhline(0, color="black", linewidth=0.4)


def band(ax: Any, curve: Sequence[Mapping[str, float]], colour: str) -> None:  # noqa: ANN401
    """The intervals along a curve."""
    low, high = ([v[end] for v in curve] for end in ("low", "high"))
    ax.fill_between(range(len(curve)), low, high, color=colour, alpha=0.13, linewidth=0)


def above(loaded: _models.Loaded, subject: _run.Subject) -> str:
    """The caption of the maps."""
    return (
        f"{loaded.note}. Maps of {subject.photo.name} for the trained network's top class, {subject.target_name}; "
        f"the first randomisation. {_display.SCALE}"
    )


def weights(run: _run.Run, found: Cascade, rows: Mapping[str, tuple[Attribution, int]]) -> str:
    """For the caption: how weights are randomised, how often, and how many maps had no rank."""
    times = max(k for _, k in rows.values())
    few = [
        f"{METHODS[name].title} ({key} {run.methods[name]['params'][key]})"
        for name, key in (("smooth_grad", "samples"), ("integrated_gradients", "steps"))
        if name in rows
    ]
    return (
        f"Weights are randomised {times} time{'s' * (times > 1)} (init {run.args.init}, first seed {run.args.seed}), "
        f"once for {', '.join([*few, 'controls'])}. White noise also changes at every step: a map that changes need "
        "not be faithful." + flat(found) + _run.refusals(run)
    )


def flat(found: Cascade) -> str:
    """For the caption: how many maps are constant and so have no rank."""
    most = {METHODS[name].title: max(share) for name, share in found.flat.items() if name in METHODS and max(share) > 0}
    shares = ", ".join(f"{share:.0%} of {name}" for name, share in most.items())
    return (
        f" Maps that are zero everywhere have no rank and are left out: at the worst step {shares}." if shares else ""
    )
