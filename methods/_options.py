"""The options of every command that say which model, which images, which device."""

import argparse
import ctypes
import platform
import sys
import traceback
from pathlib import Path

import torch
from torch import nn

from methods import _images, _models, _weights

PREPROCESSING = ("--mean", "--std", "--size", "--crop-pct")
KEEP = ((-3, 2_000_000_000), (-1, 2_000_000_000), (-2, 2**28))  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_TOP_PAD: bytes
NAMES = ("--model", "--weights", "--weights-dir", "--classes", *PREPROCESSING, "--images", "--device", "--seed")


def add(parser: argparse.ArgumentParser, *, images: bool = True) -> None:
    """Add the options to a parser.

    Args:
        parser: of a command.
        images: also --images.
    """
    group = parser.add_argument_group("model and images")
    option = group.add_argument
    option(
        "--model",
        metavar="NAME",
        help="a timm name, hf-hub:owner/name, torchvision:NAME, or your own: path/to/model.py:make_model (returns the "
        "module, or the module and a dict with mean, std, size); default: resnet50, or the embedded model, with a "
        "warning",
    )
    option(
        "--weights",
        type=_which,
        metavar="WHICH",
        help="pretrained (default), random (initialised with --seed), or your file: .pth, .pt, .safetensors",
    )
    option("--weights-dir", metavar="FOLDER", help="where to look for the pretrained weights")
    option("--classes", metavar="FILE", help="names of the classes, one a line (default: those of the model)")
    numbers = {"type": _numbers, "metavar": "A,B,C"}
    option("--mean", help="of each channel, pixels from 0 to 1; if the model does not say, or to replace it", **numbers)
    option("--std", help="of each channel", **numbers)
    option("--size", type=_pixels, metavar="H,W", help="of the model's images, or one number for both")
    option("--crop-pct", type=float, metavar="P", help="share of the shorter side that stays in the crop (default: 1)")
    if images:
        known = ",".join([*_images.PACKAGED, *_images.COMPOSITES])
        option("--images", metavar="WHICH", help=f"names ({known}), file or folder")
    option(
        "--device",
        default="cpu",
        help="cpu, cuda, cuda:1, mps ... (default: %(default)s). On a CPU, convolutions of timm and torchvision run in "
        "channels_last; on Linux, the program keeps memory that it frees: a third less time, a seventh more memory",
    )
    option("--seed", type=int, default=0, help="of everything that draws (default: %(default)s)")


def ended(program: str, error: Exception) -> int:
    """Say on the terminal why a command ended early; returns its exit status, 2 for wrong input and 3 for the rest."""
    if isinstance(error, ValueError | FileNotFoundError):
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    traceback.print_exception(error)
    print(f"{program}: failed ({type(error).__name__}); what was finished is kept", file=sys.stderr)
    return 3


def use_device(name: str) -> None:
    """Try the device, switch off what would round more on it, and keep freed memory.

    Raises:
        ValueError: it cannot be used here.
    """
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device: {name!r} cannot be used here ({str(error).splitlines()[0]}); try cpu") from error
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = False
    keep_freed_memory()


def keep_freed_memory() -> bool:
    """Glibc gives each large buffer back to the system and asks for it again: keep it. Returns whether it was done.

    For commands; a library leaves the memory of its process alone.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(*option) for option in KEEP)


def load(args: argparse.Namespace, tag: str | None = None) -> _models.Loaded:
    """The model that the parsed options ask for; on a CPU in `channels_last`, unless it is the user's own file.

    Args:
        args: from a parser with `add`.
        tag: in place of --model.

    Raises:
        ValueError: see `_models.load`.
        FileNotFoundError: see `_models.load`.
    """
    loaded = _models.load(
        tag or args.model,
        weights=args.weights or "pretrained",
        device=args.device,
        weights_dir=args.weights_dir,
        seed=args.seed,
        classes=args.classes and Path(args.classes),
        mean=args.mean,
        std=args.std,
        size=args.size,
        crop_pct=args.crop_pct,
    )
    if loaded.device.type == "cpu" and not loaded.code_sha256:
        channels_last(loaded.model)
    return loaded


def channels_last(model: nn.Module) -> None:
    """Convolutions keep their weights, and so their outputs, in channels_last: a tenth to a sixth less time on a CPU.

    Not for every model: `view` after a convolution may fail.
    """
    for m in model.modules():
        if isinstance(m, nn.Conv2d) and (weight := m._parameters.get("weight")) is not None:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)


def _which(text: str) -> str:
    if text not in ("pretrained", "random") and Path(text).suffix.lower() not in _weights.SUFFIXES:
        kinds = f"pretrained, random or a file ({', '.join(_weights.SUFFIXES)})"
        raise argparse.ArgumentTypeError(f"got {text!r}; must be {kinds}")
    return text


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def _pixels(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


_numbers.__name__, _pixels.__name__ = "numbers with commas", "pixels"  # argparse: invalid pixels value: 'x'
