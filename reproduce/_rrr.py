"""Right for the right reasons: digits with a tell-tale swatch, two small networks, and the loss that holds a map.

Ross, Hughes, Doshi-Velez. IJCAI 2017. arXiv:1703.03717. What fig_rrr_decoy.py trains and measures; `train` is the loop
to copy.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Literal, NamedTuple

import timm
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

import _run  # puts the repository on the path
from methods import METHODS
from methods._torch import Attribution, upsample
from sanity_checks._small import digits
from sanity_checks._statistics import of_images

WEIGHT = 10.0  # lambda, the same for all methods
FEW = {"samples": 4, "steps": 4}  # in training
MORE = {"samples": 10, "steps": 10}  # in a map that is looked at
SIDE, DIGIT, SWATCH = 24, 16, 4  # pixels; the swatch is one patch of the ViT
CORNERS = 4


class Decoys(NamedTuple):
    """Digits in the middle, a swatch in a corner; values in [0, 1]."""

    x: Float[Tensor, "n 1 24 24"]
    y: Int[Tensor, " n"]
    mask: Bool[Tensor, "n 24 24"]  # where the swatch is


class CNN(nn.Module):
    """Three convolutions with batch normalisation and ReLU, one linear layer.

    No pooling of the positions: a network with it learns the digits so well that it ignores the swatch.
    """

    num_features = 32

    def __init__(self) -> None:
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i, (before, after, stride) in enumerate([(1, 16, 1), (16, 32, 2), (32, 32, 2)], start=1):
            layers[f"conv{i}"] = nn.Conv2d(before, after, 3, stride, 1, bias=False)
            layers[f"bn{i}"] = nn.BatchNorm2d(after)
            layers[f"relu{i}"] = nn.ReLU()
        self.features = nn.Sequential(layers)
        self.fc = nn.Linear(32 * (SIDE // 4) ** 2, 10)

    def forward(self, x: Float[Tensor, "B 1 24 24"]) -> Float[Tensor, "B 10"]:
        return self.fc(self.features(x).flatten(1))


def vit() -> nn.Module:
    """A ViT by timm: patches of 4 x 4 pixels and a class token, two blocks."""
    return timm.models.VisionTransformer(
        img_size=SIDE,
        patch_size=SWATCH,
        in_chans=1,
        embed_dim=32,
        depth=2,
        num_heads=4,
        mlp_ratio=2,
        num_classes=10,
        weight_init="jax",
    )


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int, float]] = {"CNN": (CNN, 2, 6e-3), "ViT": (vit, 4, 3e-3)}
# name: build, epochs of four images per digit, learning rate


def train(
    model: nn.Module,
    data: Decoys,
    of: Attribution | None,
    *,
    weight: float = WEIGHT,
    epochs: int,
    lr: float,
    seed: int = 0,
    tick: Callable[[], object] = lambda: None,
) -> nn.Module:
    """Cross-entropy + weight * (the label's map inside the mask)^2, in place; the model in evaluation mode.

    Args:
        model: a classifier.
        data: images, labels, and where not to look.
        of: the method, differentiable, with its keywords bound: partial(grad_cam, layer="layer4"); None: no penalty.
        weight: of the penalty.
        epochs: passes through the data.
        lr: highest learning rate of one cycle.
        seed: of the order of the images.
        tick: called after each step.
    """
    rng = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, epochs * -(-len(data.x) // 64), pct_start=0.2)
    for _ in range(epochs):
        for i in torch.randperm(len(data.x), generator=rng).split(64):
            x, y, mask = (v[i.to(v.device)] for v in data)
            model.train()
            loss = F.cross_entropy(model(x), y)
            if of is not None:
                # In evaluation mode: the map is of the network as it will be used. In training mode batch statistics
                # would mix the images of a batch into each other's maps, and each pass of the method would move the
                # running statistics. The derivative does not depend on the mode flag that is set when it is taken.
                model.eval()
                a = of(model, x.requires_grad_(), y)  # B K h w   requires_grad: the map is part of the graph
                loss = loss + weight * penalty(a, mask)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            cycle.step()
            tick()
    return model.eval()


def penalty(a: Float[Tensor, "B K h w"], mask: Bool[Tensor, "B H W"]) -> Float[Tensor, ""]:
    """Squares of the map inside the mask, summed over pixels and channels; the mean over images."""
    return (upsample(a, mask[:, None].to(a)).square() * mask[:, None]).sum(dim=(1, 2, 3)).mean()


def decoys(split: Literal["train", "test"], shades: Literal["label", "random"], seed: int, corners: int) -> Decoys:
    """Each digit in so many corners, a random one first; the shade is 1 - 25/255 of the label or of a random one.

    Args:
        split: of scikit-learn's digits.
        shades: whether the shade gives the label away.
        seed: of corners and random shades.
        corners: 1 to 4 images per digit.
    """
    rng = torch.Generator().manual_seed(seed)
    d = digits()
    x, y = (d.x_train, d.y_train) if split == "train" else (d.x_test, d.y_test)
    first = torch.randint(CORNERS, y.shape, generator=rng)
    corner = torch.cat([(first + k) % CORNERS for k in range(corners)])  # n
    x, y = x.repeat(corners, 1, 1, 1), y.repeat(corners)
    shown = torch.randint(10, y.shape, generator=rng)
    shown = y if shades == "label" else shown
    x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)  # n 1 16 16
    x = F.pad(x, ((SIDE - DIGIT) // 2,) * 4)
    at = torch.arange(SIDE) // SWATCH  # which swatch a row or column belongs to
    rows, columns = (at == (SIDE // SWATCH - 1) * side[:, None] for side in (corner // 2, corner % 2))  # n 24
    mask = rows[:, :, None] & columns[:, None, :]
    return Decoys(torch.where(mask[:, None], (1 - 25 / 255 * shown)[:, None, None, None], x), y, mask)


@torch.no_grad()
def accuracy(model: nn.Module, tests: dict[str, Decoys]) -> dict[str, dict[str, float]]:
    """Share of images whose top class is the label, for each way to shade; and `lost`, the first minus the second."""
    hits = {
        s: torch.cat([model(part).argmax(dim=1) for part in d.x.split(512)]).eq(d.y).double() for s, d in tests.items()
    }
    return {s: over_digits(v) for s, v in (hits | {"lost": hits["label"] - hits["random"]}).items()}


def over_digits(values: Float[Tensor, " n"]) -> dict[str, float]:
    """The mean with its interval; the images of one digit in several corners are one draw, not several."""
    return of_images(values.double().cpu().view(-1, len(digits().x_test)).mean(dim=0))


def on_swatch(run: _run.Run, name: str, model: nn.Module, data: Decoys) -> tuple[Tensor, dict[str, float]]:
    """Maps of the true digits, and their mass on the swatch over its area: 1 if spread evenly, 36 if all is there."""
    of = _run.bind(run, name, model, data.x, **{k: v for k, v in MORE.items() if k in METHODS[name].params})
    parts = zip(data.x.split(256), data.y.split(256), strict=True)
    a = torch.cat([of(model, x.detach(), y).detach() for x, y in parts])
    found = _run.check(run, "relevance_mass", a, data.mask, pooling="sum,abs")
    zero = int((a.flatten(1) == 0).all(dim=1).sum())
    return a, over_digits(found.columns["mu_w"]) | {"maps all zero": zero / len(a)}
