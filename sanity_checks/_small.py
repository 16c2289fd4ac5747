"""Small real data and small networks for the protocols that train: seconds on a CPU."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F


class Data(NamedTuple):
    """Labelled images, with one fixed split."""

    name: str
    x_train: Float[Tensor, "n C H W"]
    y_train: Int[Tensor, " n"]
    x_test: Float[Tensor, "m C H W"]
    y_test: Int[Tensor, " m"]


def digits() -> Data:
    """scikit-learn's digits: 1437 + 360 images of 1 x 8 x 8 in [0, 1], split by a fixed permutation."""
    pictures, labels = load_digits(return_X_y=True)
    x = torch.tensor(pictures, dtype=torch.float32).view(-1, 1, 8, 8) / 16
    y = torch.tensor(labels, dtype=torch.long)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return Data("scikit-learn digits", x[order[:1437]], y[order[:1437]], x[order[1437:]], y[order[1437:]])


def idx(folder: str | Path) -> Data:
    """A folder with the four idx files of MNIST or Fashion-MNIST, gzipped or not; images 1 x 28 x 28 in [0, 1].

    Raises:
        ValueError: a file is missing or is not idx.
    """
    folder = Path(folder).expanduser()
    parts = [_read_idx(folder, f"{part}-{kind}") for part in ("train", "t10k") for kind in ("images", "labels")]
    x_train, y_train, x_test, y_test = (torch.from_numpy(part) for part in parts)
    return Data(folder.name, x_train[:, None] / 255, y_train.long(), x_test[:, None] / 255, y_test.long())


def _read_idx(folder: Path, stem: str) -> np.ndarray:
    files = [f for f in (sorted(folder.iterdir()) if folder.is_dir() else []) if f.name.startswith(stem)]
    if not files:
        raise ValueError(f"data: {folder} has no {stem}-idx?-ubyte or {stem}-idx?-ubyte.gz")
    raw = files[0].read_bytes()
    raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    if len(raw) < 4 or raw[:3] != b"\0\0\x08":
        raise ValueError(f"data: {files[0].name} is not an idx file of bytes")
    shape = np.frombuffer(raw, ">i4", raw[3], 4)
    found = np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3])
    if found.size != shape.prod():
        raise ValueError(f"data: {files[0].name} is cut short: {found.size} bytes for {tuple(shape.tolist())}")
    return found.reshape(shape).copy()


class SmallCNN(nn.Module):
    """Two convolutions, pooling and two linear layers: the form of the MNIST network of Adebayo et al. (2018)."""

    num_features = 32

    def __init__(self, channels: int, size: tuple[int, int], classes: int = 10) -> None:
        super().__init__()
        self.num_classes = classes
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.relu2 = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(32 * (size[0] // 2) * (size[1] // 2), 64)
        self.relu3 = nn.ReLU()
        self.fc2 = nn.Linear(64, classes)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "n N"]:  # n is B, or more where a layer is edited
        x = self.pool(self.relu2(self.conv2(self.relu1(self.conv1(x)))))
        return self.fc2(self.relu3(self.fc1(x.flatten(1))))


def small_cnn(data: Data, seed: int) -> SmallCNN:
    """A SmallCNN for the data, freshly initialised."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SmallCNN(
            data.x_train.shape[1], (data.x_train.shape[2], data.x_train.shape[3]), int(data.y_train.max()) + 1
        )


def train(
    model: nn.Module,
    x: Float[Tensor, "n C H W"],
    y: Int[Tensor, " n"],
    *,
    epochs: int,
    lr: float = 2e-3,
    batch: int = 64,
    seed: int = 0,
    until: float = 1.1,
    loss: Callable[[nn.Module, Tensor, Tensor], Tensor] | None = None,
    augment: Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]] | None = None,
    warmup: float | None = None,
    weight_decay: float = 0.0,
    tick: Callable[[], object] | None = None,
) -> nn.Module:
    """AdamW with cross-entropy (or `loss(model, x, y)`), in place; stops early at training accuracy `until`.

    Returns the model in evaluation mode. `seed` decides the order of the images and the random numbers of
    `augment(x, y, rng)`, which changes each batch. With `warmup` the learning rate follows one cycle: up to `lr` in
    this share of the steps, and down to zero in the rest. `tick` is called after each step.
    """
    rng = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)
    steps = epochs * -(-len(x) // batch)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, steps, pct_start=warmup) if warmup is not None else None
    loss = loss or (lambda model, x, y: F.cross_entropy(model(x), y))
    for _ in range(epochs):
        model.train()
        for i in torch.randperm(len(x), generator=rng).split(batch):
            optimiser.zero_grad()
            loss(model, *(augment(x[i], y[i], rng) if augment else (x[i], y[i]))).backward()
            optimiser.step()
            if cycle:
                cycle.step()
            if tick:
                tick()
        if until <= 1 and accuracy(model, x, y) >= until:
            break
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, x: Float[Tensor, "n C H W"], y: Int[Tensor, " n"]) -> float:
    """Share of images whose top class is y, in evaluation mode."""
    model.eval()
    return float(torch.cat([model(part).argmax(dim=1) for part in x.split(512)]).eq(y).float().mean())
