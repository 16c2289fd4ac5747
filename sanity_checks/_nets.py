"""Small trained networks with committed weights: for digits on textures, two digits, decoys and plain digits.

python -m sanity_checks._nets                         # measures the committed networks; exits 1 if one has changed
python -m sanity_checks._nets --retrain               # trains all of them: about seven minutes on one core
python -m sanity_checks._nets --retrain decoy_clean   # ... or some

A small ViT cannot learn digits at arbitrary positions, so they are on its grid of 4 pixels. The decoys have no ViT: on
12 x 12 pixels it would have nine patches, each larger than the swatch. Their network has no global pooling: with global
pooling it learns the digits so well that it ignores the swatch.
"""

import argparse
import difflib
import hashlib
import importlib.metadata
import io
import json
import os
import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from jaxtyping import Float, Int
from timm.layers.hybrid_embed import HybridEmbed
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from methods._models import state_sha256
from methods._progress import progress
from sanity_checks._ground_truth import (
    GRID,
    SIDE,
    TEXTURES,
    decoy_digits,
    digits_of,
    digits_on_textures,
    on_texture,
    two_digits,
    two_on_texture,
    with_decoy,
)
from sanity_checks._small import SmallCNN, accuracy, digits, small_cnn, train

WEIGHTS = Path(__file__).resolve().parent / "weights"
TOLERANCE = 0.003  # of an accuracy: on another machine rounding may change a few images


class CNN(nn.Module):
    """Four 3 x 3 convolutions with batch normalisation and ReLU, mean over positions, one linear layer."""

    num_features = 64

    def __init__(self, channels: int, classes: int, strides: tuple[int, int, int, int]) -> None:
        super().__init__()
        widths = (channels, 16, 32, 64, 64)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i in range(4):
            layers[f"conv{i + 1}"] = nn.Conv2d(widths[i], widths[i + 1], 3, strides[i], 1, bias=False)
            layers[f"bn{i + 1}"] = nn.BatchNorm2d(widths[i + 1])
            layers[f"relu{i + 1}"] = nn.ReLU()
        self.features = nn.Sequential(layers)
        self.fc = nn.Linear(64, classes)

    def get_classifier(self) -> nn.Linear:
        return self.fc

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "n N"]:  # n is B, or more where a layer is edited
        return self.fc(self.features(x).mean(dim=(2, 3)))


def vit(size: tuple[int, int], classes: int) -> nn.Module:
    """A ViT by timm on a stem of two strided convolutions: tokens of 4 x 4 pixels and a class token, three blocks."""
    stem = nn.Sequential(
        nn.Conv2d(3, 32, 3, 2, 1, bias=False),
        nn.BatchNorm2d(32),
        nn.GELU(),
        nn.Conv2d(32, 64, 3, 2, 1, bias=False),
        nn.BatchNorm2d(64),
        nn.GELU(),
    )
    return timm.models.VisionTransformer(
        img_size=size,
        patch_size=1,  # of the stem's output
        embed_layer=partial(HybridEmbed, stem),
        embed_dim=64,
        depth=3,
        num_heads=4,
        mlp_ratio=2,
        num_classes=classes,
        weight_init="jax",
    )


@dataclass(frozen=True, kw_only=True)
class Net:
    """How a network is trained and measured."""

    title: str
    build: Callable[[], nn.Module]
    measure: Callable[[nn.Module], dict[str, float]]  # accuracies, by name
    data: Callable[[], tuple[Tensor, Tensor]] = lambda: digits_of("train")
    augment: Callable[[Tensor, Tensor, Generator], tuple[Tensor, Tensor]] | None = None
    loss: Callable[[nn.Module, Tensor, Tensor], Tensor] | None = None
    epochs: int
    lr: float
    weight_decay: float = 0.0
    warmup: float | None = None
    until: float = 1.1
    seed: int = 0
    start: str | None = None  # the ViT of NETS whose weights are the initial ones


def net(name: str, folder: Path = WEIGHTS) -> nn.Module:
    """A trained network, in evaluation mode, with the committed weights.

    Args:
        name: a key of NETS.
        folder: folder of <name>.pt and <name>.json.

    Raises:
        ValueError: unknown name, or the weights differ from the recorded ones.
        FileNotFoundError: there are no weights.
    """
    facts, file = recorded(name, folder), folder / f"{name}.pt"
    again = f"; run: python -m sanity_checks._nets --retrain {name}"
    if not file.is_file():
        raise FileNotFoundError(f"net: the weights {file.name} are missing{again}")
    raw = file.read_bytes()
    if hashlib.sha256(raw).hexdigest() != facts["file_sha256"]:
        raise ValueError(f"net: {file.name} is damaged or not what {name}.json records: another sha256{again}")
    with torch.random.fork_rng(devices=[]):  # building draws weights that are replaced
        model = NETS[name].build()
    model.load_state_dict(torch.load(io.BytesIO(raw), weights_only=True))  # float16 -> float32
    if state_sha256(model) != facts["sha256"]:
        raise ValueError(f"net: the state dict of {name} is not what {name}.json records: another sha256{again}")
    return model.eval()


def recorded(name: str, folder: Path = WEIGHTS) -> dict[str, Any]:
    """The record of a trained network: its training, accuracies and hashes."""
    if name not in NETS:
        close = difflib.get_close_matches(name, NETS, n=1)
        raise ValueError(
            f"net: {name!r} is none of {', '.join(NETS)}{f'; did you mean {close[0]!r}?' if close else ''}"
        )
    file, again = folder / f"{name}.json", f"run: python -m sanity_checks._nets --retrain {name}"
    if not file.is_file():
        raise FileNotFoundError(f"net: the record {file.name} is missing; {again}")
    try:
        return json.loads(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"net: the record {file.name} is damaged ({error}); {again}") from error


def retrain(name: str, folder: Path = WEIGHTS, epochs: int | None = None) -> dict[str, Any]:
    """Train a network, write <name>.pt (float16) and <name>.json, and return the record.

    All random numbers come from the network's seed, on one thread: one machine gives the same bytes each time.

    Args:
        name: a key of NETS.
        folder: folder for the two files.
        epochs: replaces the number of the recipe.
    """
    recipe = NETS[name]
    epochs = recipe.epochs if epochs is None else epochs
    x, y = recipe.data()
    steps, threads = 0, torch.get_num_threads()
    with (
        torch.random.fork_rng(devices=[]),
        progress(name, "step", epochs * -(-len(x) // 64)) as bar,
    ):
        torch.manual_seed(recipe.seed)
        model = recipe.build()
        if recipe.start:
            there = (folder / f"{recipe.start}.pt").is_file()
            _widen(model, net(recipe.start, folder if there else WEIGHTS).state_dict())

        def tick() -> None:
            nonlocal steps
            steps += 1
            bar.update()

        torch.set_num_threads(1)
        try:
            keywords = {
                k: getattr(recipe, k) for k in ("augment", "loss", "lr", "weight_decay", "warmup", "until", "seed")
            }
            train(model, x, y, epochs=epochs, tick=tick, **keywords)
        finally:
            torch.set_num_threads(threads)
    state = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    model.load_state_dict(state)  # measure the weights that the file holds
    buffer = io.BytesIO()
    torch.save(state, buffer)
    facts = {
        "net": name,
        "title": recipe.title,
        "command": f"python -m sanity_checks._nets --retrain {name}",
        "seed": recipe.seed,
        **({"start": recipe.start} if recipe.start else {}),
        "steps": steps,
        "batch": 64,
        "lr": recipe.lr,
        "parameters": sum(p.numel() for p in model.parameters()),
        "accuracy": {k: round(v, 4) for k, v in recipe.measure(model).items()},
        "sha256": state_sha256(model),
        "file_sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
        "packages": {p: importlib.metadata.version(p) for p in ("torch", "timm", "scikit-image", "scikit-learn")},
    }
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in (
        (f"{name}.pt", buffer.getvalue()),
        (f"{name}.json", (json.dumps(facts, indent=1) + "\n").encode()),
    ):
        temporary = folder / f".{file}.{os.getpid()}.tmp"
        try:
            temporary.write_bytes(content)
            os.replace(temporary, folder / file)
        finally:
            temporary.unlink(missing_ok=True)
    return facts


def _widen(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Load the weights of a ViT for one square into a ViT for two; both squares start with the same positions."""
    position, side = state["pos_embed"], SIDE // GRID
    grid = position[:, 1:].unflatten(1, (side, side)).repeat(1, 1, 2, 1).flatten(1, 2)  # 1 hw K, after the class token
    model.load_state_dict(state | {"pos_embed": torch.cat([position[:, :1], grid], dim=1)})


def permuted(y: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """The labels in random order, independent of the images: those of digits_permuted."""
    return y[torch.randperm(len(y), generator=Generator().manual_seed(0))]


def _measure(
    draw: Callable[..., Any], label: str, score: Callable[..., float], model: nn.Module, **more: dict[str, Any]
) -> dict[str, float]:
    """Accuracy on new images of each split, and with other settings of the draw."""
    settings = {"train": {"split": "train"}, "test": {"split": "test"}, **more}
    sets = {name: draw(1800, 1000, **keywords) for name, keywords in settings.items()}
    return {name: score(model, images.x, getattr(images, label)) for name, images in sets.items()}


@torch.no_grad()
def among_top_two(model: nn.Module, x: Float[Tensor, "n C H W"], y: Int[Tensor, "n 2"]) -> float:
    """Share of the digits that are among their image's two highest logits."""
    model.eval()
    top = torch.cat([model(part).topk(2, dim=1).indices for part in x.split(512)])  # n 2
    return float((y[:, :, None] == top[:, None, :]).any(dim=2).float().mean())


def _on_digits(permute: bool, model: nn.Module) -> dict[str, float]:
    data = digits()
    y = permuted(data.y_train) if permute else data.y_train
    return {"train": accuracy(model, data.x_train, y), "test": accuracy(model, data.x_test, data.y_test)}


def _permuted_digits() -> tuple[Tensor, Tensor]:
    x, y = digits_of("train")
    return x, permuted(y)


def _both(model: nn.Module, x: Tensor, y: Int[Tensor, "n 2"]) -> Tensor:
    """Binary cross-entropy: each logit says whether its digit is there."""
    logits = model(x)
    return F.binary_cross_entropy_with_logits(logits, F.one_hot(y, logits.shape[1]).sum(dim=1).to(logits))


def _textured(label: str, x: Tensor, y: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
    images = on_texture(x, y, rng, "train")
    return images.x, getattr(images, label)


def _paired(x: Tensor, y: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
    images = two_on_texture(x, y, rng, "train")
    return images.x, images.digits


def _decoyed(shades: str, x: Tensor, y: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
    return with_decoy(x, y, rng, shades).x, y


_FOR_CNN: dict[str, Any] = {"lr": 6e-3, "weight_decay": 0.01, "warmup": 0.2}
_FOR_VIT: dict[str, Any] = {"lr": 2e-3, "weight_decay": 0.05, "warmup": 0.2}


def _dot(label: str, kind: str, epochs: int) -> Net:
    classes = 10 if label == "digit" else len(TEXTURES)
    return Net(
        title=f"{kind} for the {label}s of digits on textures",
        build=partial(CNN, 3, classes, (2, 2, 1, 1)) if kind == "CNN" else partial(vit, (SIDE, SIDE), classes),
        augment=partial(_textured, label),
        measure=partial(_measure, digits_on_textures, label, accuracy),
        epochs=epochs,
        **(_FOR_CNN if kind == "CNN" else _FOR_VIT),
    )


def _two(kind: str, epochs: int) -> Net:
    how = (
        _FOR_CNN if kind == "CNN" else {**_FOR_VIT, "lr": 1.5e-3, "start": "digit_vit"}
    )  # from random weights: at chance
    return Net(
        title=f"{kind} for both digits of two",
        build=partial(CNN, 3, 10, (2, 2, 1, 1)) if kind == "CNN" else partial(vit, (SIDE, 2 * SIDE), 10),
        augment=_paired,
        loss=_both,
        measure=partial(_measure, two_digits, "digits", among_top_two),
        epochs=epochs,
        **how,
    )


def _decoy(shades: str, epochs: int) -> Net:
    more = {"test, shade = label": {"split": "test", "shades": "label"}}
    return Net(
        title=f"SmallCNN on decoy digits, trained with the shade of {'the' if shades == 'label' else 'a random'} label",
        build=lambda: SmallCNN(1, (12, 12)),
        augment=partial(_decoyed, shades),
        measure=partial(_measure, decoy_digits, "digit", accuracy, **more),
        epochs=epochs,
        **_FOR_CNN,
    )


def _digit(title: str, epochs: int, seed: int, permute: bool = False) -> Net:
    return Net(
        title=f"SmallCNN on 8 x 8 digits, {title}",
        build=lambda: small_cnn(digits(), seed),
        data=_permuted_digits if permute else partial(digits_of, "train"),
        measure=partial(_on_digits, permute),
        epochs=epochs,
        lr=2e-3,
        until=1.0 if permute else 1.1,
        seed=seed,
    )


NETS: dict[str, Net] = {
    "digit_cnn": _dot("digit", "CNN", 26),
    "texture_cnn": _dot("texture", "CNN", 13),
    "digit_vit": _dot("digit", "ViT", 45),
    "texture_vit": _dot("texture", "ViT", 12),
    "two_digits_cnn": _two("CNN", 26),
    "two_digits_vit": _two("ViT", 48),
    "decoy_biased": _decoy("label", 15),
    "decoy_clean": _decoy("random", 15),
    "digits_true": _digit("true labels", 15, 0),
    "digits_again": _digit("true labels, another seed", 15, 1),
    "digits_permuted": _digit("permuted labels, memorised", 200, 0, permute=True),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure or retrain; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--retrain", nargs="*", metavar="NAME", help=f"train these, or all of: {', '.join(NETS)}")
    add("--weights", type=Path, default=WEIGHTS, metavar="FOLDER", help="default: sanity_checks/weights")
    args = parser.parse_args(argv)
    unknown = [name for name in args.retrain or () if name not in NETS]
    if unknown:
        parser.error(f"--retrain: {', '.join(unknown)}: no such network; there are {', '.join(NETS)}")
    names = args.retrain or list(NETS)
    for name in names if args.retrain is not None else ():
        retrain(name, args.weights)
    return table(names, args.weights)


def table(names: Sequence[str], folder: Path = WEIGHTS) -> int:
    """Print the accuracies of each network, measured and recorded; 1 if one is missing, damaged or different."""
    wrong = 0
    print(f"{'network':18} {'parameters':>10} {'kB':>5}  {'accuracy':20} {'measured':>8} {'recorded':>8}")
    for name in names:
        try:
            model, facts = net(name, folder), recorded(name, folder)
        except (ValueError, FileNotFoundError) as error:
            print(f"{name:18} {error}")
            wrong += 1
            continue
        size = (folder / f"{name}.pt").stat().st_size / 1000
        head = f"{name:18} {facts['parameters']:10} {size:5.0f}"
        for what, measured in NETS[name].measure(model).items():
            differs = abs(measured - facts["accuracy"][what]) > TOLERANCE
            wrong += differs
            print(f"{head:35}  {what:20} {measured:8.4f} {facts['accuracy'][what]:8.4f}{'  DIFFERS' * differs}")
            head = ""
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
