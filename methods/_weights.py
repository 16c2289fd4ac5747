"""A weights file of the user's own: read without running code from it, and loaded completely or not at all."""

import argparse
import hashlib
import pickle
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import nn

SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".tar", ".safetensors")
CONTAINERS = ("state_dict", "model_state_dict", "model", "state_dict_ema", "model_ema")  # the first one counts
PREFIXES = ("module.", "_orig_mod.", "model.")  # of DataParallel, torch.compile, Lightning


class Built(NamedTuple):
    """A model as its source makes it."""

    model: nn.Module
    tag: str
    facts: Mapping[str, Any]  # fields of Preprocessing, `classes` and `descriptions`, as far as the source knows them
    source: str  # of the weights
    note: str
    code_sha256: str = ""  # of the user's files that make it


class Checkpoint(NamedTuple):
    """The tensors of a weights file, by name."""

    name: str  # of the file, and of the entry in it
    state: Mapping[str, Any]


def read(file: str | Path) -> Checkpoint:
    """The state dict in a file, alone or in an entry such as `state_dict` or `model` of a training checkpoint.

    Raises:
        ValueError: no such file, no state dict in it, or a file that would run code.
    """
    path = Path(file).expanduser()
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(
            f"weights: got {str(file)!r}; must be 'pretrained', 'random' or a file ({', '.join(SUFFIXES)})"
        )
    if not path.is_file():
        raise ValueError(f"weights: there is no file {file}")
    state, name = _load(path), path.name
    while isinstance(state, Mapping) and (key := next((c for c in CONTAINERS if isinstance(state.get(c), dict)), "")):
        state, name = state[key], f"{name}, entry {key}"
    if not isinstance(state, Mapping) or not any(isinstance(v, torch.Tensor) for v in state.values()):
        got = _few(map(str, state)) if isinstance(state, Mapping) else type(state).__name__
        raise ValueError(f"weights: {path.name} has no state dict, only {got or 'nothing'}; save model.state_dict()")
    return Checkpoint(name, state)


def fill(checkpoint: Checkpoint, make: Callable[[int | None], nn.Module]) -> nn.Module:
    """A model with the tensors of a checkpoint, all of them.

    Args:
        checkpoint: its names may have the prefixes of wrappers.
        make: number of classes -> model; None: its default. It is asked for the number that the checkpoint's head has.

    Raises:
        ValueError: names or shapes differ; it lists them.
    """
    model = make(None)
    state = _unwrapped(checkpoint.state, model)
    head = _head(model)
    if head in state and len(state[head]) != len(model.state_dict()[head]):
        model = make(len(state[head]))
    ours = model.state_dict()
    missing = [k for k in ours if k not in state and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in state if k not in ours]
    pairs = {k: (_shape(state[k]), _shape(ours[k])) for k in ours if k in state}
    shapes = [
        f"{k} ({theirs} in the file, {mine} in the model)" for k, (theirs, mine) in pairs.items() if theirs != mine
    ]
    parts = (("missing", missing), ("not in the model", unexpected), ("of another shape", shapes))
    wrong = "; ".join(f"{len(names)} {what}: {_few(names)}" for what, names in parts if names)
    if wrong:
        raise ValueError(f"weights: {checkpoint.name} does not fit the model. {wrong}")
    model.load_state_dict(dict(state), strict=False)  # compared above
    return model


def drawn(make: Callable[[], Any], seed: int) -> Any:
    """What `make` returns, a model whose initial weights are drawn with `seed`; the global generator stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def check_hash(file: Path) -> None:
    """Check a file against the sha256 in its name (`x-0676ba61.pth`, or a blob of the hub cache); ValueError if not."""
    promised = re.search(r"(?:^|-)([0-9a-f]{64}|[0-9a-f]{8})(?:\.\w+)?$", file.resolve().name)
    if promised is None:
        return
    with file.open("rb") as f:
        found = hashlib.file_digest(f, "sha256").hexdigest()
    if not found.startswith(promised[1]):
        raise ValueError(
            f"model: {shown(file)} is damaged or not what its name says: its sha256 starts with {found[:8]}, "
            f"not {promised[1][:8]}. Delete it and fetch it again"
        )


def shown(path: Path) -> str:
    """A path for messages, with the home folder as ~."""
    return str(path).replace(str(Path.home()), "~", 1)


def _load(path: Path) -> Any:
    way = "load it where it was trained, torch.save(model.state_dict(), 'weights.pth'), and give that file"
    try:
        if path.suffix.lower() == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):  # timm's own options
            warnings.simplefilter("ignore")  # about old formats
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damage shows in many ways
        if isinstance(error, pickle.UnpicklingError) and "Unsupported global" in str(error):
            raise ValueError(f"weights: {path.name} is a pickle that runs code when it is read; {way}") from error
        if "TorchScript" in str(error):
            raise ValueError(f"weights: {path.name} is a TorchScript archive, not a state dict; {way}") from error
        raise ValueError(f"weights: {path.name} is damaged or no weights file ({type(error).__name__})") from error


def _unwrapped(state: Mapping[str, Any], model: nn.Module) -> Mapping[str, Any]:
    """The state dict without the prefixes of wrappers, as far as this gives more names of the model."""
    found = [{k: v for k, v in state.items() if k != "n_averaged"}]  # of torch's AveragedModel
    while prefix := next((p for p in PREFIXES if any(k.startswith(p) for k in found[-1])), None):
        bare = {k.removeprefix(prefix): v for k, v in found[-1].items()}
        if len(bare) < len(found[-1]):  # two names became one
            break
        found.append(bare)
    return max(found, key=lambda s: len(s.keys() & model.state_dict().keys()))


def _head(model: nn.Module) -> str:
    """The weight whose rows are the classes: that of the last linear layer or convolution."""
    head = getattr(model, "get_classifier", lambda: model)()
    head = head[0] if isinstance(head, tuple) else head  # of two heads
    last = [m for m in head.modules() if isinstance(m, (nn.Linear, nn.Conv2d))] if isinstance(head, nn.Module) else []
    return next((f"{name}.weight" for name, m in model.named_modules() if last and m is last[-1]), "")


def _shape(v: Any) -> str:
    return " x ".join(map(str, v.shape)) or "one number" if isinstance(v, torch.Tensor) else type(v).__name__


def _few(names: Iterable[str], most: int = 6) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f", and {len(names) - most} more" if names[most:] else "")
