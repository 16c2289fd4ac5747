"""Classifiers of torchvision: `torchvision:resnet50`, `torchvision:resnet50.IMAGENET1K_V1`. torchvision is optional."""

import difflib
import importlib
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from methods import _hub, _weights
from methods._weights import Built, Checkpoint

PREFIX = "torchvision:"


def build(tag: str, weights: str | Checkpoint, weights_dir: str | Path | None, seed: int) -> Built:
    """A model of torchvision.

    Args:
        tag: `torchvision:NAME`, or with the name of its weights, `torchvision:NAME.IMAGENET1K_V1`; without it, those
            that torchvision calls the default. Their entry also says how images are prepared.
        weights: "pretrained", "random" or a checkpoint.
        weights_dir: folder with the file of pretrained weights, under its name at torchvision.
        seed: for random weights.

    Raises:
        ValueError: torchvision is not installed, or has no such model or weights.
        FileNotFoundError: the weights are not on this machine and cannot be downloaded.
    """
    name, _, version = tag.removeprefix(PREFIX).partition(".")
    make, entry = _entry(name, version)
    tag = f"{PREFIX}{name}"
    if isinstance(weights, Checkpoint):
        source = f"weights file {weights.name}"
        model = _weights.fill(weights, lambda n: make() if n is None else make(num_classes=n))
        return Built(model, tag, _facts(entry), source, f"Model: {tag}, {source}")
    if weights == "random":
        note = f"RANDOM WEIGHTS: {tag}, not trained (seed {seed})"
        return Built(_weights.drawn(make, seed), tag, _facts(entry), f"random initialisation, seed {seed}", note)
    tag = f"{tag}.{entry.name}"
    file = _file(entry, tag, weights_dir)
    _weights.check_hash(file)
    model = make(weights=None, num_classes=len(entry.meta["categories"]))
    model = _weights.fill(_weights.read(file), lambda _: model)
    return Built(model, tag, _facts(entry), f"torchvision {entry.name}, {file.name}", f"Model: {tag}")


def _entry(name: str, version: str) -> tuple[Callable[..., nn.Module], Any]:
    try:
        models = importlib.import_module("torchvision").models
    except ImportError as error:
        raise ValueError(f"model: {PREFIX}{name} needs torchvision; run: pip install torchvision") from error
    known = models.list_models(module=models)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3)
        raise ValueError(f"model: torchvision has no classifier {name!r}; close names: {', '.join(close) or 'none'}")
    versions = models.get_model_weights(name)
    if version and version not in versions.__members__:
        raise ValueError(f"model: {name} has no weights {version!r}; there are: {', '.join(versions.__members__)}")
    more = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    return partial(models.get_model, name, **more), versions[version or "DEFAULT"]


def _facts(entry: Any) -> dict[str, Any]:
    """How the training of these weights prepared images, and the names of its classes."""
    p = entry.transforms()
    (size,), (resized,) = p.crop_size, p.resize_size
    return {
        "mean": tuple(p.mean),
        "std": tuple(p.std),
        "size": (size, size),
        "crop_pct": size / resized,
        "interpolation": p.interpolation.value,
        "descriptions": tuple(entry.meta["categories"]),
    }


def _file(entry: Any, tag: str, weights_dir: str | Path | None) -> Path:
    name = entry.url.rpartition("/")[2]
    cached = Path(torch.hub.get_dir()) / "checkpoints" / name
    file = Path(weights_dir) / name if weights_dir is not None else cached
    if file.is_file():
        return file
    if weights_dir is not None:
        raise FileNotFoundError(f"weights-dir: {weights_dir} has no {name} (weights of {tag})")
    if not _hub.answers(partial(urllib.request.urlopen, entry.url, timeout=_hub.SECONDS)):
        raise FileNotFoundError(
            f"model: the weights of {tag} are not on this machine and cannot be downloaded. With a network, run once:\n"
            f"  curl -L --create-dirs -o {_weights.shown(cached)} {entry.url}\n"
            f"or put {name} into a folder and pass --weights-dir FOLDER"
        )
    cached.parent.mkdir(parents=True, exist_ok=True)
    torch.hub.download_url_to_file(entry.url, str(cached), hash_prefix=name.rpartition("-")[2].partition(".")[0])
    return cached
