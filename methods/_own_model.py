"""A model from a Python file of the user's own: `path/to/model.py:make_model`."""

import dataclasses
from pathlib import Path
from typing import Any

from torch import nn

from methods import _own_code, _weights
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
    with _own_code.importing_from(path.parent):
        module = _own_code.import_file(path, "model")
        make = getattr(module, name, None)
        if not callable(make):
            raise ValueError(f"model: {place} has no function {name!r}")
        try:
            made = _weights.drawn(make, seed)
        except (Exception, SystemExit) as error:
            raise ValueError(f"model: {short} failed: {type(error).__name__}: {error}") from error
    model, facts = made if isinstance(made, tuple) and len(made) == 2 else (made, {})
    if not isinstance(model, nn.Module):
        raise ValueError(f"model: {short} must return a torch.nn.Module, or one and a dict, got {type(model).__name__}")
    facts, code = _facts(facts, short), _own_code.code_sha256(module)
    if isinstance(weights, str):
        note = f"Model: own file {short}, with the weights that the function sets"
        return Built(model, short, facts, f"set by {short}", note, code)
    source = f"weights file {weights.name}"
    filled = _weights.fill(weights, lambda _: model)
    return Built(filled, short, facts, source, f"Model: own file {short}, {source}", code)


def _facts(given: Any, short: str) -> dict[str, Any]:
    facts = dataclasses.asdict(given) if dataclasses.is_dataclass(given) and not isinstance(given, type) else given
    if not isinstance(facts, dict):
        raise ValueError(f"model: {short} must return a dict after the model, got {type(given).__name__}")
    unknown = [k for k in facts if k not in KEYS]
    if unknown:
        raise ValueError(f"model: {short} returns {unknown[0]!r}, which is none of {', '.join(KEYS)}")
    return facts
