"""The benches: photographs with the user's model, and small networks whose evidence or training is known."""

import hashlib
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from methods import _images
from methods._calls import logits
from methods._images import Item
from methods._layers import probe
from methods._models import Loaded, Preprocessing, state_sha256
from sanity_checks import _ground_truth, _nets
from sanity_checks._parallel import World, ahead
from sanity_checks._registry import Check
from sanity_checks._runner import Bench
from sanity_checks._small import Data, digits, idx, small_cnn
from sanity_checks.label_randomization import LabelNets, train_nets

ALONE = World()
TEXTURED = {"quick": 48, "full": 500}  # images of digits on textures
TESTED = {"quick": 100, "full": 360}  # test images of the small networks


def readable(
    which: str, loaded: Loaded, *, workers: int = 0, world: World = ALONE
) -> tuple[dict[Item, Any], dict[str, str]]:
    """The images of --images: (readable ones with their hashes; the reasons why the others are left out, by name).

    Args:
        which: see `_images.find`.
        loaded: the model they are prepared for.
        workers: processes that try to read them.
        world: each rank tries its share.

    Raises:
        ValueError: unknown name, empty folder, or no readable image.
    """
    items, bad = _images.find(which)
    found: list[tuple[Item, Any, str]] = []
    for part in world.gather(list(ahead(partial(_try, loaded.preprocessing), world.share(items), workers))):
        found += part
    good = {item: sha256 for item, sha256, why in found if not why}
    bad |= {item.name: why for item, _, why in found if why}
    if not good:
        name, why = next(iter(bad.items()))
        raise ValueError(f"--images: none of {len(bad)} images can be read; the first, {name}: {why}")
    return good, bad


def photographs(loaded: Loaded, found: Mapping[Item, Any], chunk: int) -> Bench:
    """The user's model on photographs (from `readable`); each is explained for its top class."""
    items = list(found)

    def read(first: int, end: int) -> list[_images.Photo]:
        return [_images.read(item, loaded.preprocessing) for item in items[first:end]]

    def prepare(photos: list[_images.Photo]) -> Mapping[str, Any]:
        x = _images.tensor(photos, loaded)
        with torch.no_grad():
            return {"x": x, "target": logits(loaded.model, x).argmax(dim=1)}

    return Bench(
        name="photographs",
        note=f"{len(items)} photographs, each explained for the top class of {loaded.tag}",
        model=loaded.model,
        names=[item.name for item in items],
        read=read,
        prepare=prepare,
        stamp=_sha256(loaded.facts, list(found.values())),
        keywords={"mean": loaded.preprocessing.mean, "std": loaded.preprocessing.std, "chunk": chunk}
        | {"companions": "drawn", "shrink": None},
    )


def textured(loaded: Loaded, size: str, seed: int) -> Bench:
    """Digits on textures, with masks: a small CNN, or a small ViT if the user's model has attention."""
    kind = "cnn" if probe(loaded.model, (3, *loaded.preprocessing.size)).architecture == "cnn" else "vit"
    net, n = _nets.net(f"digit_{kind}").to(loaded.device), TEXTURED[size]
    note = f"{n} digits on textures of 32 x 32 pixels, explained for the digit; the masks are exact ({kind.upper()})"
    return on_textures(net, n, seed, name="digits on textures", note=note)


def on_textures(net: nn.Module, n: int, seed: int, *, name: str, note: str, **keywords: Any) -> Bench:
    """Digits on textures with their masks, explained for the digit.

    Args:
        net: trained for the digits.
        n: images.
        seed: of the images.
        name: of the bench.
        note: its description, for a caption.
        keywords: of the checks, in addition to the one for no margin around the digit.
    """
    found, device = _ground_truth.digits_on_textures(n, seed), next(net.parameters()).device

    def prepare(part: slice) -> Mapping[str, Any]:
        x, digit, mask = (v[part].to(device) for v in (found.x, found.digit, found.mask))
        return {"x": x, "target": digit, "mask": mask}

    return Bench(
        name=name,
        note=note,
        model=net,
        names=[str(i) for i in range(n)],
        read=slice,
        prepare=prepare,
        stamp=_sha256(state_sha256(net), seed, n, device.type),
        keywords={"margin": 0.0} | keywords,
    )


def labels(loaded: Loaded, size: str, folder: str | None, seed: int) -> Bench:
    """Networks trained on true and on permuted labels, and test images."""
    data = idx(folder) if folder else digits()
    if folder:
        nets = train_nets(_subset(data, 5000), seed=seed)
    else:
        A, again, B = (_nets.net(f"digits_{name}") for name in ("true", "again", "permuted"))
        nets = LabelNets(A, again, B, _nets.recorded("digits_permuted")["accuracy"]["train"])
    for net in nets[:3]:
        net.to(loaded.device)
    x = data.x_test[: TESTED[size]]

    def prepare(part: slice) -> Mapping[str, Any]:
        these = x[part].to(loaded.device)
        with torch.no_grad():
            return {"x": these, "nets": nets, "target": nets.A(these).argmax(dim=1)}

    return Bench(
        name="labels",
        note=f"{len(x)} test images of {data.name}; networks trained on true and on permuted labels",
        model=nets.A,
        names=[str(i) for i in range(len(x))],
        read=slice,
        prepare=prepare,
        stamp=_sha256([state_sha256(net) for net in nets[:3]], len(x), loaded.device.type),
    )


def retrained(loaded: Loaded, folder: str | None) -> Bench:
    """Data for protocols that train networks themselves, in one shard."""
    data = _subset(idx(folder) if folder else digits(), 5000)

    def prepare(part: slice) -> Mapping[str, Any]:
        return {"data": data, "x": data.x_test}

    return Bench(
        name="retraining",
        note=f"small networks retrained on {data.name}",
        model=small_cnn(data, 0).eval(),  # the form of the networks, for a method to find its layer
        names=[data.name],
        read=slice,
        prepare=prepare,
        stamp=_sha256(data.name, len(data.x_train)),
    )


def bench_of(check: Check, found: Mapping[str, Bench]) -> Bench:
    """The bench of a check, chosen by the check's inputs."""
    for wanted, name in (("mask", "textured"), ("nets", "labels"), ("data", "retrained")):
        if wanted in check.inputs:
            return found[name]
    return found["photographs"]


def _try(prep: Preprocessing, item: Item) -> tuple[Item, Any, str]:
    """(item, hashes of its files, the reason why it cannot be read)."""
    try:
        return item, _images.read(item, prep).sha256, ""
    except ValueError as error:
        return item, {}, str(error)


def _subset(data: Data, n: int) -> Data:
    return data._replace(
        x_train=data.x_train[:n], y_train=data.y_train[:n], x_test=data.x_test[:n], y_test=data.y_test[:n]
    )


def _sha256(*facts: Any) -> str:
    return hashlib.sha256(repr(facts).encode()).hexdigest()
