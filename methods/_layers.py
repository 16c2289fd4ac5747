"""The default layer of a model, and how its layers hold the image. There is no table of models: a probe finds all."""

from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from methods._grids import Layout
from methods._probe import Probe, look

Image = Tensor | tuple[int, ...]  # a batch of images, or C H W

_PROBES: WeakKeyDictionary[nn.Module, tuple[int, dict[Any, Probe]]] = WeakKeyDictionary()  # with the build; see `known`


def default_layer(model: nn.Module, image: Image | None = None) -> str:
    """The last layer that holds the model's final features on a grid and can still change the score.

    Args:
        model: a classifier.
        image: a batch of images, or C H W; None: of the size that the model declares, as timm's models do.

    Returns:
        The name of the last module in execution order whose output has the channels that the head pools and a grid of
        more than one position, with a gradient at more than half of the positions, or at one where a maximum is pooled.
        Of several names for one tensor, the outermost. A module that runs more than once does not count.

    Raises:
        ValueError: no layer qualifies; the message lists candidates for `layer=`.
    """
    found = probe(model, image)
    if found.layer is None and found.candidates:
        raise ValueError(f"layer: none found by default; name one, for example of {found.candidates[-8:]}")
    if found.layer is None:
        name, why = next(reversed(found.refused.items()), ("the model", "it has no modules"))
        raise ValueError(f"layer: no module has a grid of whole images that can change the score; {name!r}: {why}")
    return found.layer


def layout(model: nn.Module, layer: str, image: Image) -> Layout:
    """How a layer holds the image.

    Raises:
        ValueError: its output is no grid of cells of one image each; the message says what it is.
    """
    for found in known(model).values():  # whatever the size, the axes are the same
        if layer in found.grids and found.grids[layer].cells is None:
            return found.grids[layer]
    found = probe(model, image)
    if layer in found.grids:
        return found.grids[layer]
    why = found.refused.get(layer, "it did not run exactly once in a forward pass")
    near = next(
        (name for name in blocks_around(layer) if name in found.grids), found.layer or next(reversed(found.grids), None)
    )
    raise ValueError(f"layer: {layer!r}: {why}{f'; the nearest layer with whole images is {near!r}' if near else ''}")


def finer_layers(model: nn.Module, layer: str, image: Image | None = None) -> list[str]:
    """The last layer on each finer grid before `layer`: act1, layer1, layer2 and layer3 for layer4 of a resnet50.

    A layer inside a module that only changes the grid does not count: layer1 counts, the start of layer2 does not.

    Args:
        model: a classifier.
        layer: the deepest layer.
        image: as in `default_layer`.

    Returns:
        Names from shallow to deep; an empty list for a network with one grid, such as a ViT.
    """
    found = probe(model, image)
    if layer not in found.grids:
        return []
    deepest, names = found.grids[layer], [*found.grids]
    h, w = deepest.h, deepest.w
    before = {n: found.grids[n] for n in names[: names.index(layer)]}
    grid = {n: (at.h, at.w) for n, at in before.items() if at[:3] == deepest[:3] and at.h * at.w > 1}  # no pooled ones
    grid = {n: (a, b) for n, (a, b) in grid.items() if abs(a * w - b * h) <= max(a, b) * (h != w)}

    def step(name: str) -> bool:
        outer = [o for o in blocks_around(name) if grid.get(o, grid[name]) != grid[name]]
        return any(len({g for n, g in grid.items() if f"{n}.".startswith(f"{o}.")}) == 2 for o in outer)

    finer = [n for n in found.candidates if n in grid and min(grid[n][0] - h, grid[n][1] - w) > 0]
    return [*{grid[n]: n for n in finer if not step(n)}.values()]


def probe(model: nn.Module, image: Image | None = None) -> Probe:
    """Run the model once on noise of this size. Remembered for this model as it is built now; changes no state.

    Raises:
        ValueError: the model does not take such images.
    """
    image = _declared(model) if image is None else image
    like = image if isinstance(image, Tensor) else next(_floating(model), torch.zeros((), device="cpu"))
    size = tuple(image.shape[1:]) if isinstance(image, Tensor) else tuple(image)
    there, key = known(model), (size, like.dtype, like.device)
    if key not in there:
        there[key] = look(model, size, like)
    return there[key]


def known(model: nn.Module) -> dict[Any, Probe]:
    """The probes of a model as it is built now, by (C H W, data type, device); empty if it has changed since."""
    build = _build(model)
    if _PROBES.get(model, (None,))[0] != build:
        _PROBES[model] = build, {}
    return _PROBES[model][1]


def classes(model: nn.Module, image: Image) -> int:
    """The number of logits.

    Raises:
        ValueError: the model returns something else.
    """
    found = probe(model, image)
    if found.classes is None:
        raise ValueError(found.no_logits)
    return found.classes


def blocks_around(layer: str) -> list[str]:
    """The names of the modules that a layer is in, from the inside to the outside; without the model itself."""
    return [layer.rsplit(".", i)[0] for i in range(1, layer.count(".") + 1)]


def _declared(model: nn.Module) -> tuple[int, ...]:
    """C H W of a model from timm, also where it was built with another size."""
    channels, *size = (getattr(model, "pretrained_cfg", None) or {}).get("input_size", (3, 224, 224))
    built: Any = next((vars(m)["img_size"] for m in model.modules() if "img_size" in vars(m)), None) or size
    return (getattr(model, "in_chans", channels), *((built, built) if isinstance(built, int) else built))


def _floating(model: nn.Module) -> Iterator[Tensor]:
    return (p for p in model.parameters() if p.is_floating_point())


def _build(model: nn.Module) -> int:
    """A number that changes if a module or a parameter is replaced, or a setting of a module with children."""
    parts: list[Any] = []
    for m in model.modules():
        parts.append(id(m))
        parts += [(id(p), p.shape) for p in m._parameters.values() if p is not None]
        if m._modules:
            parts += [v for k, v in vars(m).items() if type(v) in (bool, int, float, str) and k != "training"]
    return hash(tuple(parts))
