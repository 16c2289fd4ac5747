"""Imported first by every script: the repository on the path, arguments, models, photographs, methods bound to them.

`python reproduce/fig_cam.py` then works from any directory, without an installation.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

import methods
from _sidecar import Run, attempt, note, note_check, plain, refuse, round4, save  # noqa: F401  scripts use _run.save
from methods import _images, _models, _options
from methods._display import Panel, scale
from methods._front_door import bind as bind_method
from methods._images import Photo
from methods._layers import default_layer
from methods._models import Loaded
from methods._progress import progress
from sanity_checks import CHECKS, Result, _nets
from sanity_checks._provenance import shortened
from sanity_checks._rows import QUICK

FIGURES = ROOT / "figures"
QUICK_OUT = Path(tempfile.gettempdir()) / "attribution-quick"  # where --quick writes
COMMON = _options.NAMES  # arguments of every script


@dataclass(frozen=True)
class Subject:
    """A photograph and the class to explain: one row of a figure."""

    photo: Photo
    target: int
    target_name: str
    predicted: int
    predicted_name: str
    probability: float  # of the predicted class


def start(
    script: str,
    doc: str | None,
    *,
    photos: str | None,
    quick_photos: str | None = None,
    weights: str = "pretrained",
    argv: Sequence[str] | None = None,
    options: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> Run:
    """Read the arguments, set the determinism switches, start the clock and the progress bar.

    Args:
        script: `__file__` of the script.
        doc: its docstring, the help text.
        photos: `--images` when not given; None: the script has networks and images of its own (`_nets`), and
            says so where --model, --weights or --images is given.
        quick_photos: the same under `--quick`; None: as `photos`.
        weights: `--weights` when neither it nor `--model` is given.
        argv: the command line; None: that of the process.
        options: further arguments of the script: "--name" -> keywords of `add_argument`.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    for option, keywords in options.items():
        add(option, **keywords)
    _options.add(parser)
    add("--out", metavar="FOLDER", help="default: figures/ of the repository; under --quick a temporary folder")
    add("--quick", action="store_true", help="fewer images, samples and steps; never writes into figures/")
    args = parser.parse_args(argv)
    if photos is None and (args.model or args.weights or args.images):
        print(f"{Path(script).stem}: has networks and images of its own; --model, --images not used", file=sys.stderr)
    args.weights = args.weights or ("pretrained" if args.model else weights)
    args.images = args.images or ((quick_photos or photos) if args.quick else photos)
    out = Path(args.out) if args.out else QUICK_OUT if args.quick else FIGURES
    if args.quick and out.resolve() == FIGURES:
        parser.error("--out: a --quick run must not overwrite figures/; choose another folder")
    try:
        _options.use_device(args.device)
    except ValueError as error:
        parser.error(str(error))
    name = Path(script).stem
    return Run(
        name,
        sys.argv[1:] if argv is None else argv,
        args,
        out,
        progress(name, "call"),
        time.perf_counter(),
        name,
    )


def load(run: Run, tag: str | None = None) -> Loaded:
    """The model of a run: `tag`, else --model, else the default; bad arguments end the script with a message."""
    try:
        loaded = _options.load(run.args, tag)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"{run.script}: {error}")
    asked = tag or run.args.model
    run.models[loaded.tag], run.asked[loaded.tag] = loaded, asked and shortened([asked])[0]
    return loaded


def photos_of(run: Run, loaded: Loaded) -> list[Photo]:
    """The photographs of --images for a model; those that cannot be read are named. Without any, the script ends."""
    try:
        items, left_out = _images.find(run.args.images)
    except ValueError as error:
        sys.exit(f"{run.script}: {error}")
    photos, unread = _images.readable(items, loaded.preprocessing)
    if left_out | unread:
        run.bar.write(_images.in_words(left_out | unread), file=sys.stderr)
    return photos or sys.exit(f"{run.script}: --images: no image can be read")


def subjects(run: Run, loaded: Loaded) -> list[Subject]:
    """The rows of a figure: each photograph with its top class; a composite once for the top class of each part."""
    photos = photos_of(run, loaded)
    parts = {p for photo in photos for p in photo.parts}
    extra = _images.load(",".join(sorted(parts)), loaded.preprocessing) if parts else []
    top = {p.name: _models.predict(loaded, _images.tensor([p], loaded))[0] for p in [*photos, *extra]}
    rows = []
    for photo in photos:
        run.inputs[photo.name] = photo
        c, name, p = top[photo.name]
        run.predictions.setdefault(loaded.tag, {})[photo.name] = {"class": c, "name": name, "probability": round4(p)}
        rows += [Subject(photo, *top[part][:2], c, name, p) for part in photo.parts or (photo.name,)]
    return rows


def explain(
    run: Run,
    loaded: Loaded,
    name: str,
    rows: Sequence[Subject],
    *,
    layer: str | None = None,
    **params: Any,  # noqa: ANN401
) -> list[Panel | None]:
    """One method on all rows, in one batch: a panel per row. What was run and the maps go into the sidecar.

    A method that is not defined for the model (its ValueError says why) gives empty cells; the reason is printed and
    goes into the sidecar and, through `refusals`, into the caption.
    """
    if name not in methods.METHODS:
        raise KeyError(f"this figure shows {name}, which is not in methods/")
    m = methods.METHODS[name]
    x = _images.tensor([r.photo for r in rows], loaded)
    target = torch.tensor([r.target for r in rows], device=loaded.device)
    if "seed" in m.params:
        params.setdefault("seed", run.args.seed)
    if run.args.quick:
        params |= {k: v for k, v in QUICK.items() if k in m.params and k not in params}
    run.bar.set_postfix_str(name)
    panels: list[Panel] = []
    with attempt(run, name, loaded.tag):
        a = methods.attribute(name, loaded.model, x, target, layer=layer, resize=False, **params).detach()  # B K h w
        panels = [Panel(r.photo.rgb, a_i.sum(dim=0), overlay=len(a_i) == 1) for r, a_i in zip(rows, a, strict=True)]
        _record(run, loaded, name, rows, panels, params | ({"layer": layer} if layer else {}))
    run.bar.update()
    return [*panels] or [None] * len(rows)


def bind(run: Run, name: str, model: nn.Module, x: Tensor, **params: Any) -> partial[Tensor]:  # noqa: ANN401
    """A method of the registry as a function of (model, x, target), noted for the sidecar.

    Where the method has them: `layer` is the model's default layer, `seed` is --seed, and --quick takes fewer samples
    and steps, unless `params` says otherwise.

    Raises:
        ValueError: the method is not defined for this kind of model.
    """
    m = methods.METHODS[name]
    if run.args.quick:
        params = {k: v for k, v in QUICK.items() if k in m.params} | params
    of = bind_method(m.fn, model, x, **{"seed": run.args.seed} | params)
    note(run, name, of.keywords)
    return of


def check(run: Run, name: str, *inputs: Any, **params: Any) -> Result:  # noqa: ANN401
    """A check of sanity_checks/ on its positional inputs, noted for the sidecar."""
    note_check(run, name, params)
    return CHECKS[name].fn(*inputs, **params)


def net(run: Run, name: str) -> nn.Module:
    """A trained network of sanity_checks/_nets.py on --device, noted for the sidecar."""
    model = _nets.net(name)
    run.nets[name] = _models.state_sha256(model)
    return model.to(run.args.device)


def photographs(rows: Sequence[Subject]) -> list[Panel]:
    """The first column of a figure: each photograph above its predicted class and probability."""
    return [Panel(r.photo.rgb, below=f"{r.predicted_name} {r.probability:.2g}") for r in rows]


def labels(rows: Sequence[Subject]) -> list[str]:
    """Row labels: the explained class, for a photograph with several."""
    return [r.target_name if r.photo.parts else "" for r in rows]


def refusals(run: Run, cell: str = "left out") -> str:
    """For the caption: which methods do not apply to the model, and what became of their cells."""
    return f" Not defined for this model, {cell}: {'; '.join(run.refused)}." if run.refused else ""


def banner(run: Run) -> str:
    """A loud line for figures from random weights."""
    return "RANDOM WEIGHTS" if run.args.weights == "random" else ""


def _record(
    run: Run,
    loaded: Loaded,
    name: str,
    rows: Sequence[Subject],
    panels: Sequence[Panel],
    params: dict[str, Any],
) -> None:
    """Note a method's parameters and source, and each panel's numbers, for the sidecar."""
    if "layer" in methods.METHODS[name].params and "layer" not in params:
        params = {"layer": default_layer(loaded.model, (3, *loaded.preprocessing.size)), **params}
    note(run, name, params)
    for row, panel in zip(rows, panels, strict=True):
        assert panel.a is not None
        run.cells.append(
            {
                "model": loaded.tag,
                "method": name,
                "params": plain(params),
                "image": row.photo.name,
                "target": row.target,
                "target_name": row.target_name,
                "min": round4(panel.a.min()),
                "max": round4(panel.a.max()),
                "p99.5_abs": round4(scale(panel.a)),
                "map": panel.a.float().cpu(),
            }
        )
