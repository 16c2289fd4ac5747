"""A model from a Python file of the user's own: `path/to/model.py:make_model`."""

import contextlib
import dataclasses
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from methods import _weights
from methods._weights import Built, Checkpoint

KEYS = ("mean", "std", "size", "crop_pct", "interpolation", "classes")


def build(tag: str, weights: str | Checkpoint, seed: int) -> Built:
    """Call the function. It returns the model, or the model and a dict or Preprocessing: how images become its input.

    Args:
        tag: `path/to/file.py:function`.
        weights: "pretrained": as the function sets them; or a checkpoint.
        seed: of weights that the function draws.

    Raises:
        ValueError: no such file or function, it fails or returns something else, or "random", which only the function
            can give.
    """
    place, _, name = tag.rpartition(":")
    path = Path(place).expanduser()
    short = f"{path.name}:{name}"
    if weights == "random":
        raise ValueError(f"weights: 'random' is for named models; the weights of {short} are what the function sets")
    with _importing_from(path.parent):
        make = getattr(import_file(path, "model"), name, None)
        if not callable(make):
            raise ValueError(f"model: {place} has no function {name!r}")
        try:
            made = _weights.drawn(make, seed)
        except (Exception, SystemExit) as error:
            raise ValueError(f"model: {short} failed: {type(error).__name__}: {error}") from error
    model, facts = made if isinstance(made, tuple) and len(made) == 2 else (made, {})
    if not isinstance(model, nn.Module):
        raise ValueError(f"model: {short} must return a torch.nn.Module, or one and a dict, got {type(model).__name__}")
    facts, network = _facts(facts, short), model
    if isinstance(weights, str):
        note = f"Model: own file {short}, with the weights that the function sets"
        return Built(network, short, facts, f"set by {short}", note)
    source = f"weights file {weights.name}"
    return Built(_weights.fill(weights, lambda _: network), short, facts, source, f"Model: own file {short}, {source}")


def _facts(given: Any, short: str) -> dict[str, Any]:
    facts = dataclasses.asdict(given) if dataclasses.is_dataclass(given) and not isinstance(given, type) else given
    if not isinstance(facts, dict):
        raise ValueError(f"model: {short} must return a dict after the model, got {type(given).__name__}")
    unknown = [k for k in facts if k not in KEYS]
    if unknown:
        raise ValueError(f"model: {short} returns {unknown[0]!r}, which is none of {', '.join(KEYS)}")
    return facts


def import_file(path: Path, argument: str) -> Any:
    """The module in a Python file of the user's own, which may import from its own folder.

    Raises:
        ValueError: there is no such file, or it fails; the message starts with `argument`.
    """
    if not path.is_file():
        raise ValueError(f"{argument}: there is no file {path}")
    spec = importlib.util.spec_from_file_location(f"own_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{argument}: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look
    with _importing_from(path.parent):
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            raise ValueError(f"{argument}: {path} cannot be imported: {type(error).__name__}: {error}") from error
    return module


@contextlib.contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    before, sys.path = sys.path, [str(folder.resolve()), *sys.path]
    try:
        yield
    finally:
        sys.path = before
