"""Networks with weights set by hand, and properties of every correct attribution of them.

Similar to the unit tests of XAI-Units: Lee et al., FAccT 2025, arXiv:2506.01059.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn


class Answer(NamedTuple):
    """Properties of every correct attribution of a toy, relative to the image of zeros."""

    change: Float[Tensor, " B"]  # f(x) - f(0): what a complete map sums to
    null: Bool[Tensor, "B C H W"]  # exactly 0 here: the score does not depend on it, or it is already zero
    alike: Int[Tensor, "B C H W"]  # elements with the same number above 0 are interchangeable, and hold the same value
    exact: Float[Tensor, "B C H W"] | None  # the whole map, if the above (or linearity) determines it


class Toy(NamedTuple):
    """A network with hand-set weights; the score of class 1 is explained."""

    model: nn.Module
    x: Float[Tensor, "B C H W"]
    target: Int[Tensor, " B"]
    answer: Answer


def linear() -> Toy:
    """A linear score f = w x + b: the map is w x, the gradient w."""
    rng = Generator().manual_seed(0)
    x, w = torch.randn(2, 3, 8, 8, generator=rng), torch.randn(3, 8, 8, generator=rng)
    model = nn.Sequential(nn.Flatten(), _linear([[0.0] * 192, w.flatten().tolist()], [0.0, 0.5]))
    return _toy(model, x, torch.zeros_like(x, dtype=torch.bool), exact=w * x)


def logic_and() -> Toy:
    """Both of two blocks, of means a and b, are white: f = ReLU(a + b - 1). Half for each; nothing if one is black."""
    return _blocks([1.0, 1.0, 0.0, 0.0], -1.0, 1.0, 0.0)


def logic_or() -> Toy:
    """At least one is white: f = 1 - ReLU(1 - a - b). All for the white one; if both are, half each, at gradient 0."""
    return _blocks([-1.0, -1.0, 0.0, 0.0], 1.0, -1.0, 1.0)


def logic_not() -> Toy:
    """A block is black: f = ReLU(1 - a). Minus one for a white block, at gradient 0."""
    return _blocks([-1.0, 0.0, 0.0, 0.0], 1.0, 1.0, 0.0)


def saturating() -> Toy:
    """Saturated at each pixel: f = mean of 1 - ReLU(1 - x_1 - x_2), at x_1 = x_2 = 1.

    The gradient is 0 everywhere, the change is 1: an equal share for each element (Shrikumar, Greenside, Kundaje,
    ICML 2017, arXiv:1704.02685).
    """
    model = nn.Sequential(
        _conv([[[[-1.0]], [[-1.0]]]], [1.0]),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        _linear([[0.0], [-1.0]], [0.0, 1.0]),
    )
    x = torch.ones(1, 2, 4, 4)
    return _toy(model, x, x == 0, alike=torch.ones_like(x).long(), exact=x / x.numel())


def symmetric_twins() -> Toy:
    """Channels 0 and 1 hold the same picture and have the same weights: each element and its twin get the same."""
    model, conv, x = _random_cnn()
    conv.weight.data[:, 1] = conv.weight.data[:, 0]
    x[:, 1] = x[:, 0]
    alike = torch.zeros_like(x).long()
    alike[:, :2] = 1 + torch.arange(64).view(8, 8)
    return _toy(model, x, x != x, alike=alike)


def duplicate_feature() -> Toy:
    """Channel 1 holds the same picture as channel 0, but the network reads only channel 0: 0 for the copy."""
    model, conv, x = _random_cnn()
    conv.weight.data[:, 1] = 0
    x[:, 1] = x[:, 0]
    return _toy(model, x, _channel(x, 1))


def null_feature() -> Toy:
    """Channel 2 holds large noise and has zero weights: its attribution is 0."""
    model, conv, x = _random_cnn()
    conv.weight.data[:, 2] = 0
    x[:, 2] *= 10
    return _toy(model, x, _channel(x, 2))


def looked_away() -> Toy:
    """The right half is ignored: f = sum of the left half of A = ReLU(x), where x is 1 on the left and 2 on the right.

    Layer "relu" has the grid of the image, so `exact` is the map of HiResCAM there. Grad-CAM averages the gradient over
    positions before it multiplies, and is highest on the right, which the network does not use (Draelos, Carin,
    arXiv:2011.08891).
    """
    right = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    right[..., 4:] = True
    w = (~right).flatten().float().tolist()
    model = nn.Sequential(
        OrderedDict(
            conv=_conv([[[[1.0]]]], [0.0]), relu=nn.ReLU(), flat=nn.Flatten(), fc=_linear([[0.0] * 64, w], [0.0, 0.0])
        )
    )
    x = 1.0 + right.float()
    return _toy(model, x, right, exact=x * ~right)


TOYS: dict[str, Callable[[], Toy]] = {
    "linear": linear,
    "logic_and": logic_and,
    "logic_or": logic_or,
    "logic_not": logic_not,
    "saturating": saturating,
    "symmetric_twins": symmetric_twins,
    "duplicate_feature": duplicate_feature,
    "null_feature": null_feature,
    "looked_away": looked_away,
}


def _toy(
    model: nn.Module,
    x: Tensor,
    null: Bool[Tensor, "B C H W"],
    *,
    alike: Int[Tensor, "B C H W"] | None = None,
    exact: Tensor | None = None,
) -> Toy:
    model.eval()
    with torch.no_grad():
        change = (model(x) - model(torch.zeros_like(x)))[:, 1]
    alike = torch.zeros_like(x).long() if alike is None else alike
    return Toy(model, x, torch.ones(len(x), dtype=torch.long), Answer(change, null, alike, exact))


def _blocks(w: list[float], b: float, v: float, c: float) -> Toy:
    """A gate f = v ReLU(w u + b) + c on the means u of four blocks, at the four cases of the first two.

    Equal pixels of blocks with equal weights share the change; black pixels and blocks without weight get nothing.
    """
    model = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), _linear([w], [b]), nn.ReLU(), _linear([[0.0], [v]], [0.0, c]))
    u = torch.tensor([[1.0, 1, 1, 0], [1, 0, 1, 0], [0, 1, 1, 0], [0, 0, 1, 0]])  # the third is white and has no weight
    x = u.view(4, 1, 2, 2).repeat_interleave(4, 2).repeat_interleave(4, 3)  # B 1 8 8
    used = (u * torch.tensor(w)).view(4, 1, 2, 2).repeat_interleave(4, 2).repeat_interleave(4, 3) != 0
    toy = _toy(model, x, ~used, alike=used.long())
    share = toy.answer.change / used.sum(dim=(1, 2, 3)).clamp(min=1)
    return toy._replace(answer=toy.answer._replace(exact=used * share[:, None, None, None]))


def _random_cnn() -> tuple[nn.Sequential, nn.Conv2d, Float[Tensor, "2 3 8 8"]]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        conv = nn.Conv2d(3, 8, 3, padding=1)
        model = nn.Sequential(
            conv,
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 2),
        )
        return model, conv, torch.randn(2, 3, 8, 8)


def _channel(x: Tensor, c: int) -> Bool[Tensor, "B C H W"]:
    only = torch.zeros_like(x, dtype=torch.bool)
    only[:, c] = True
    return only


def _linear(weight: list[list[float]], bias: list[float]) -> nn.Linear:
    return _filled(nn.Linear(len(weight[0]), len(weight)), weight, bias)


def _conv(weight: list[list[list[list[float]]]], bias: list[float]) -> nn.Conv2d:
    return _filled(nn.Conv2d(len(weight[0]), len(weight), 1), weight, bias)


def _filled(layer: Any, weight: Any, bias: list[float]) -> Any:
    layer.weight.data, layer.bias.data = torch.tensor(weight), torch.tensor(bias)
    return layer
