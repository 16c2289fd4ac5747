"""The record of a run that becomes its sidecar: arguments, models, methods, numbers; and `save`, which writes it."""

import argparse
import contextlib
import hashlib
import json
import math
import os
import platform
import re
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

import methods
from _sources import ROOT, sources
from methods._display import write_png
from methods._images import Photo
from methods._models import Loaded
from sanity_checks import CHECKS
from sanity_checks._provenance import PACKAGES, commit, shortened


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
    nets: dict[str, str] = field(default_factory=dict)  # of _nets.NETS: name -> hash of the state dict
    numbers: dict[str, Any] = field(default_factory=dict)  # what the script found, as JSON holds it
    predictions: dict[str, dict[str, Any]] = field(default_factory=dict)
    cells: list[dict[str, Any]] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


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

    The PNG has the same bytes for the same run. The JSON says what made it and holds the numbers in the picture.

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
