"""Imported first by every script: the repository on the path, arguments, progress, and `save` with its provenance.

`python reproduce/fig_cam.py` then works from any directory, without an installation.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import argparse
import contextlib
import hashlib
import json
import math
import os
import platform
import re
import shlex
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

import methods
from _sources import sources
from methods import _images, _models
from methods._display import Panel, scale, write_png
from methods._front_door import bind as bind_method
from methods._images import Photo
from methods._layers import default_layer
from methods._models import Loaded
from sanity_checks import CHECKS, Result, _nets
from sanity_checks._provenance import PACKAGES, commit, shortened
from sanity_checks._rows import QUICK

FIGURES = ROOT / "figures"
QUICK_OUT = Path(tempfile.gettempdir()) / "attribution-quick"  # where --quick writes
COMMON = ("--model", "--weights", "--weights-dir", "--images", "--device", "--seed")  # arguments of every script


@dataclass(frozen=True)
class Subject:
    """A photograph and the class to explain: one row of a figure."""

    photo: Photo
    target: int
    target_name: str
    predicted: int
    predicted_name: str
    probability: float  # of the predicted class


@dataclass
class Run:
    """One run of a script: its arguments and, growing, what its sidecar will say."""

    script: str
    argv: Sequence[str]
    args: argparse.Namespace
    out: Path
    bar: tqdm
    started: float
    name: str  # of the outputs; the script's, unless it says otherwise
    models: dict[str, Loaded] = field(default_factory=dict)
    asked: dict[str, str | None] = field(default_factory=dict)  # tag: the name that was asked for; None: the default
    inputs: dict[str, Photo] = field(default_factory=dict)
    methods: dict[str, dict[str, Any]] = field(default_factory=dict)
    checks: dict[str, dict[str, Any]] = field(default_factory=dict)
    nets: dict[str, str] = field(default_factory=dict)  # of ground_truth: name -> hash of the state dict
    numbers: dict[str, Any] = field(default_factory=dict)  # what the script found, as JSON holds it
    predictions: dict[str, dict[str, Any]] = field(default_factory=dict)
    cells: list[dict[str, Any]] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


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
        photos: `--images` when not given; None: the script has networks and images of its own (`ground_truth`), and
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
    add("--model", metavar="NAME", help="any timm classifier; default: resnet50, or the embedded model, with a warning")
    add("--weights", choices=["pretrained", "random"], help="random: initialised with --seed, said so in the figure")
    add("--weights-dir", metavar="FOLDER", help="where to look for the weights file")
    add(
        "--images",
        metavar="WHICH",
        help=f"names ({','.join([*_images.PACKAGED, *_images.COMPOSITES])}), file or folder",
    )
    add("--device", default="cpu", help="cpu, cuda, cuda:1, mps ... (default: %(default)s)")
    add("--seed", type=int, default=0, help="for methods that draw, and for random weights (default: %(default)s)")
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
        torch.zeros(1, device=args.device)
    except (RuntimeError, AssertionError) as error:
        parser.error(f"--device: {args.device!r} cannot be used here ({str(error).splitlines()[0]}); try cpu")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = False
    name = Path(script).stem
    return Run(
        name,
        sys.argv[1:] if argv is None else argv,
        args,
        out,
        tqdm(desc=name, unit="call", disable=None),
        time.perf_counter(),
        name,
    )


def load(run: Run, tag: str | None = None) -> Loaded:
    """The model of a run: `tag`, else --model, else the default; bad arguments end the script with a message."""
    a = run.args
    try:
        loaded = _models.load(
            tag or a.model, weights=a.weights, device=a.device, weights_dir=a.weights_dir, seed=a.seed
        )
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"{run.script}: {error}")
    run.models[loaded.tag], run.asked[loaded.tag] = loaded, tag or a.model
    return loaded


def subjects(run: Run, loaded: Loaded) -> list[Subject]:
    """The rows of a figure: each photograph with its top class; a composite once for the top class of each part."""
    try:
        photos = _images.load(run.args.images, loaded.preprocessing)
        parts = {p for photo in photos for p in photo.parts}
        extra = _images.load(",".join(sorted(parts)), loaded.preprocessing) if parts else []
    except ValueError as error:
        sys.exit(f"{run.script}: {error}")
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


@contextlib.contextmanager
def attempt(run: Run, name: str, on: str = "") -> Iterator[None]:
    """A block that a method leaves, by ValueError, where it is not defined for the model (called `on`)."""
    try:
        yield
    except ValueError as error:
        refuse(run, {name: str(error)}, on)


def refuse(run: Run, refused: Mapping[str, str], on: str = "") -> None:
    """Note for the sidecar, and print, which methods are left out, and why."""
    for name, why in refused.items():
        run.refused[methods.METHODS[name].title + (on and f", {on}")] = why
        run.bar.write(f"{name}{on and f' on {on}'}: {why}", file=sys.stderr)


def score(run: Run, name: str, *inputs: Any, **params: Any) -> Result:  # noqa: ANN401
    """A check of sanity_checks/ on its positional inputs, noted for the sidecar."""
    note_check(run, name, params)
    return CHECKS[name].fn(*inputs, **params)


def net(run: Run, name: str) -> nn.Module:
    """A trained network of ground_truth on --device, noted for the sidecar."""
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


def note_check(run: Run, name: str, params: Mapping[str, Any]) -> None:
    """Note a check and its parameters for the sidecar; the first use of several."""
    run.checks.setdefault(name, {"params": plain(CHECKS[name].params | dict(params))})


def note(run: Run, name: str, params: Mapping[str, Any]) -> None:
    """Note a method, its parameters and its source for the sidecar; the first use of several."""
    run.methods.setdefault(
        name,
        {
            "params": plain(methods.METHODS[name].params | dict(params)),
            "source_sha256": _sha256(ROOT / "methods" / f"{name}.py"),
        },
    )


def save(run: Run, figure: Figure | Sequence[Figure] | None, caption: str, *, markdown: str = "") -> Path:
    """Write <out>/<name>.png (.md for a table) and .json, all or none; print where, how large and how long.

    The PNG has the same bytes for the same run. The JSON says what made it and holds the numbers behind the picture.

    Args:
        run: what was started.
        figure: one figure, or several to be stacked in one picture; None: only a table.
        caption: as it stands in the figure.
        markdown: a table for <name>.md; its first line should be a heading.

    Returns:
        The picture, or the table where there is none.
    """
    run.out.mkdir(parents=True, exist_ok=True)
    kinds = [kind for kind, there in (("png", figure is not None), ("md", markdown), ("json", True)) if there]
    files = {kind: run.out / f"{run.name}.{kind}" for kind in kinds}
    temporary = {kind: file.with_name(f".{file.name}.{os.getpid()}.tmp") for kind, file in files.items()}
    try:
        if figure is not None:
            write_png(figure, temporary["png"])
        if markdown:
            temporary["md"].write_text(markdown.rstrip("\n") + "\n")
        outputs = {files[kind].name: _sha256(temporary[kind]) for kind in kinds[:-1]}
        facts = provenance(run) | {"outputs": outputs, "caption": caption, "numbers": _numbers(run)}
        temporary["json"].write_text(_json(facts))
        for kind in kinds:
            os.replace(temporary[kind], files[kind])
    finally:
        for file in temporary.values():
            file.unlink(missing_ok=True)
    run.bar.close()
    sizes = " + ".join(f"{file.stat().st_size / 1000:.0f} kB" for file in files.values())
    others = " and ".join(f".{kind}" for kind in kinds[1:])
    print(f"{files[kinds[0]]} and {others} ({sizes}) in {facts['seconds']:.1f} s")
    return files[kinds[0]]


def provenance(run: Run) -> dict[str, Any]:
    """What made a figure; no path of this machine is in it."""
    return {
        "command": _command(run),
        "model": [
            {
                "tag": loaded.tag,
                "asked": run.asked[loaded.tag],
                "note": loaded.note,
                "weights_sha256": loaded.weights_sha256,
                "weights_source": loaded.weights_source,
                "preprocessing": asdict(loaded.preprocessing),
            }
            for loaded in run.models.values()
        ],
        "inputs": {
            name: {"sha256": photo.sha256, "licence": photo.licence, "source": photo.source}
            for name, photo in run.inputs.items()
        },
        "methods": run.methods,
        "checks": run.checks,
        "nets": run.nets,
        "sources": sources(ROOT / "reproduce" / f"{run.script}.py", run.methods, run.checks),
        "refused": run.refused,
        "seed": run.args.seed,
        "quick": run.args.quick,
        "packages": {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "device": _device(run.args.device),
        "dtype": "float32",
        "commit": commit(),
        "seconds": round(time.perf_counter() - run.started, 1),
    }


def round4(value: float | Tensor) -> float:
    """Four significant digits."""
    return float(f"{float(value):.4g}")


def _numbers(run: Run) -> dict[str, Any]:
    """Predictions and maps; a map of more than 196 cells is average-pooled (28 x 28, or 14 x 14 in a large figure)."""
    side = 28 if len(run.cells) <= 50 else 14

    def compact(a: Tensor) -> list[list[float]]:
        if a.numel() > 196:
            a = F.adaptive_avg_pool2d(a[None, None], side)[0, 0]
        return [[round4(v) for v in line] for line in a.tolist()]

    cells = [c | {"grid": list(c["map"].shape), "map": compact(c["map"])} for c in run.cells]
    there = {"predictions": run.predictions, "cells": cells}
    return {k: v for k, v in there.items() if v} | plain(run.numbers)


def _json(facts: dict[str, Any]) -> str:
    """Indented, with each list of numbers on one line."""
    text = json.dumps(facts, indent=1, ensure_ascii=False)
    return re.sub(r"\[\s+([-+\d.,e\s]+?)\s+\]", lambda m: f"[{', '.join(m[1].replace(',', ' ').split())}]", text) + "\n"


def plain(value: Any) -> Any:  # noqa: ANN401 keywords of methods are of any type
    """What JSON can hold: functions by name, with what is bound to them; numbers to four digits, NaN is null."""
    match value:
        case dict():
            return {str(k): plain(v) for k, v in value.items()}
        case list() | tuple():
            return [plain(v) for v in value]
        case partial():
            return {"function": value.func.__name__, **plain(value.keywords)}
        case Tensor() | np.ndarray() | np.generic():
            return plain(value.tolist())
        case float():
            return round4(value) if math.isfinite(value) else None
        case None | bool() | int() | str():
            return value
        case _:
            return getattr(value, "__name__", type(value).__name__)


def _command(run: Run) -> str:
    return shlex.join(["python", f"reproduce/{run.script}.py", *shortened(run.argv)])


def _device(name: str) -> str:
    device = torch.device(name)
    return f"{device.type}: {torch.cuda.get_device_name(device)}" if device.type == "cuda" else device.type


def _sha256(file: Path | str) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()
