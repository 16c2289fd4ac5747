"""The cells of the table of time: every method of a network, in every number type and batch."""

import sys
from collections.abc import Sequence
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.benchmark import timer

import _run
from _passes import Pass
from _prices import Price, cost_of, expected_passes, needed, plain, sizes, tail_layers
from _timing import Cell, as_promised, kept, remark, time_method
from methods import METHODS, _images, _models
from methods._cost import Cost
from methods._layers import probe

QUICK_NETWORK = "resnet10t"  # else the default of _models.load: resnet50
TRANSFORMER, QUICK_TRANSFORMER = "vit_small_patch16_224", "vit_tiny_patch16_224"
OTHER_SETTINGS = (  # what the table leaves open: earlier layers, and methods of thousands of passes with fewer of them
    ("ablation_cam", {"layer": "layer3"}),
    ("fd_cam", {"layer": "layer3"}),
    ("recipro_cam", {"layer": "layer3"}),
    ("lift_cam", {"layer": "layer3"}),
    ("score_cam", {"layer": "layer1"}),
    ("ss_cam", {"layer": "layer1", "samples": 2}),
    ("is_cam", {"layer": "layer1", "steps": 2}),
    ("poly_cam", {"layer": "layer1", "layers": (), "variant": "+"}),
    ("rise", {"samples": 500}),
    ("moxi", {"k": 2}),
    ("extremal_perturbation", {"steps": 50}),
)


class Subject(NamedTuple):
    """A network in float32, its batch of photographs, and the methods that are timed on it."""

    loaded: _models.Loaded
    x: Float[Tensor, "B C H W"]  # the largest batch
    methods: list[str]


def subjects(run: _run.Run, names: Sequence[str], largest: int) -> list[Subject]:
    """The network with all methods that it allows, and a transformer for those that need one."""
    loaded = _run.load(run, QUICK_NETWORK if run.args.quick and not run.args.model else None)
    found = [loaded]
    kind = _kind(loaded)
    if any(kind not in METHODS[n].architectures and "vit" in METHODS[n].architectures for n in names):
        tag = QUICK_TRANSFORMER if run.args.quick else TRANSFORMER
        weights, run.args.weights = run.args.weights, "random"
        found.append(_run.load(run, tag))
        run.args.weights = weights
    result, left = [], list(names)
    for one in found:
        photos = _run.photos_of(run, one)
        run.inputs |= {p.name: p for p in photos}
        x = _images.tensor([photos[i % len(photos)] for i in range(largest)], one)
        mine = [n for n in left if _kind(one) in METHODS[n].architectures]
        left = [n for n in left if n not in mine]
        result.append(Subject(one, x, mine))
    run.refused |= dict.fromkeys(left, "not defined for these networks")
    return [s for s in result if s.methods]


def _kind(loaded: _models.Loaded) -> str:
    return probe(loaded.model, (3, *loaded.preprocessing.size)).architecture


class Call(NamedTuple):
    """A method with its keywords bound, for one network, and what it is expected to run."""

    name: str
    fn: partial[Tensor]
    promised: Cost
    tail: tuple[str, ...]  # layers, see `tail_layers`

    def passes(self, batch: int) -> list[Pass]:
        """What is promised, in the batches to expect."""
        chunk = (METHODS[self.name].params | self.fn.keywords).get("chunk", batch)
        return expected_passes(self.promised, batch, chunk)


def call_of(
    run: _run.Run,
    name: str,
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    **settings: Any,  # noqa: ANN401
) -> Call:
    """A method of the registry as the table calls it.

    Raises:
        ValueError: the method is not defined for this kind of model.
    """
    f = _run.bind(run, name, model, x, **settings)
    room = sizes(model, x, f.keywords.get("layer"), settings.get("layers"))
    return Call(name, f, METHODS[name].cost(**(room | f.keywords)), tail_layers(name, model, x, f.keywords))


class Rates:
    """Prices that are measured once: for what is expected of the calls of a network, in one type and batch."""

    def __init__(self, model: nn.Module, x: Float[Tensor, "B C H W"]) -> None:
        self.model, self.x = model, x
        self.known: dict[tuple[Price, tuple[str, ...]], float] = {}

    def expect(self, call: Call) -> float:
        """Seconds that the promised passes of a call take: other work of the method is not in it."""
        passes, prices = call.passes(len(self.x)), {}
        for price in needed(passes, len(self.x)):
            layers = call.tail if price.tail else ()
            if (price, layers) not in self.known:
                timed = plain(self.model, self.x, [price], layers)[price]
                timed(timer)  # warms up
                self.known[price, layers] = median(timed(timer) for _ in range(3))
            prices[price] = self.known[price, layers]
        return cost_of(passes, prices)


def cells_of(run: _run.Run, s: Subject, settings: Sequence[tuple[str, int]], limit: float) -> list[Cell]:
    """All cells of one network; methods that would take too long, or fail, are said to."""
    model = s.loaded.model
    calls: list[Call] = []
    for name in s.methods:
        with _run.attempt(run, name, s.loaded.tag):
            calls.append(call_of(run, name, model, s.x))
    with torch.no_grad():
        target = model(s.x).argmax(dim=1)
    cells: list[Cell] = []
    for i, (dtype, batch) in enumerate(settings):
        net = model.to(getattr(torch, dtype))
        x, t = s.x[:batch].to(getattr(torch, dtype)), target[:batch]
        rates = Rates(net, x)
        for call in calls:
            run.bar.set_postfix_str(f"{call.name}, {dtype}, batch {batch}")
            cell: Cell = {"method": call.name, "model": s.loaded.tag, "dtype": dtype, "batch": batch}
            try:
                cell |= as_promised(call.promised) | {"expected": rates.expect(call)}
                cell |= timed(call, net, x, t, cell["expected"], limit if i == 0 else limit / 16, run.args.quick)
            except torch.cuda.OutOfMemoryError:
                cell |= {"status": "not run", "remark": "not run: out of memory"}
            except Exception as error:  # one cell must not take the others with it; the exit status tells
                words = f"{type(error).__name__}: {error}".splitlines()[0][:150]
                cell |= {"status": "failed", "remark": f"FAILED: {words}"}
                run.bar.write(f"{call.name}, {dtype}, batch {batch}: {words}", file=sys.stderr)
            cells.append(cell)
            run.bar.update()
        if x.is_cuda:
            torch.cuda.empty_cache()
    model.float()
    return cells


def timed(
    call: Call,
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Int[Tensor, " B"],
    expected: float,
    limit: float = float("inf"),
    quick: bool = False,
) -> Cell:
    """What a cell says of its call, which is not made where it is expected to take too long."""
    if expected > limit:
        about = f"not run: about {expected:.0f} s expected, limit {limit:g} s"
        return {"status": "not run", "remark": about}
    cell = time_method(
        call.fn, model, x, target, expected=expected, promised=call.promised, tail=call.tail,
        passes=call.passes(len(x)), budget=0.5 if quick else 1.0,
    )  # fmt: skip
    return cell | {"status": "measured", "remark": remark(call.name, cell)}


def other_settings(run: _run.Run, s: Subject) -> list[Cell]:
    """Cells of OTHER_SETTINGS, float32, one image, for a network that has their layers."""
    model, x = s.loaded.model, s.x[:1]
    with torch.no_grad():
        target = model(x).argmax(dim=1)
    rates, there = Rates(model, x), {name for name, _ in model.named_modules()}
    cells: list[Cell] = []
    for name, settings in OTHER_SETTINGS:
        if name in s.methods and settings.get("layer", "") in there:
            run.bar.set_postfix_str(f"{name}, {settings}")
            call = call_of(run, name, model, x, **settings)
            where = {"method": name, "model": s.loaded.tag, "dtype": "float32", "batch": 1, "keywords": settings}
            cells.append(where | timed(call, model, x, target, rates.expect(call)))
    return cells


def wrong(cells: Sequence[Cell]) -> list[str]:
    """What makes the script exit with an error: promises broken, cells that failed."""
    return [
        f"{c['method']}, {c['dtype']}, batch {c['batch']}: {c['remark']}"
        for c in cells
        if c["status"] == "failed" or (c["status"] == "measured" and not kept(c["method"], c))
    ]
