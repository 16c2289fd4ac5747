"""What every method costs: seconds, memory, and model passes counted beside those promised; other libraries beside it.

    python reproduce/table_timing.py                    # figures/timing_cpu.md, .json, .png
    python reproduce/table_timing.py --device cuda      # figures/timing_<name of the GPU>.*
    python reproduce/table_timing.py --plan 50000       # hours that so many images would take; writes nothing

Cost is counted in passes, because seconds do not travel between machines. F is the time of a forward pass without
gradients, F + B that of a gradient in torch alone; both are measured between the calls of the method, in its batches:

    overhead  =  seconds / (forward passes * F + backward passes * B)

The reader should see: every method runs the passes that it promises, and one of more than ten passes costs little
beside them (overhead at most 1.1, or the remark says what takes the rest).

The form is that of the times in saliency cards (Boggust et al., FAccT 2023, arXiv:2206.02958, figure 3d), with counts
beside the seconds. Settings: the pinned resnet50's architecture with random weights, which take the same time as
trained ones (attention methods: vit_small_patch16_224, random too); 224 px; the default layer; default keywords.
"""

import _run  # puts the repository on the path

# isort: split
import argparse
import difflib
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from torch import Tensor, nn
from torch.utils.benchmark import timer

import _plot
from _clock import (
    LONG,
    Clock,
    Free,
    Key,
    Pass,
    count,
    counting,
    measure,
    peak_memory,
    plain,
    price,
    rounds_for,
    seconds,
)
from _peers import MODULES, PEERS, Job, job_of, quiet, same, version
from methods import METHODS, _display, _images, _models
from methods._layers import probe, stages
from methods._torch import Attribution, activation

QUICK_NETWORK = "resnet10t"  # else the default of _models.load: resnet50
TRANSFORMER, QUICK_TRANSFORMER = "vit_small_patch16_224", "vit_tiny_patch16_224"
CELLS = (("float32", 1), ("float32", 8), ("bfloat16", 1), ("bfloat16", 8))
QUICK_METHODS = ("gradient", "grad_cam", "integrated_gradients", "ablation_cam", "attention_rollout")
LIMIT = 320.0  # seconds of one call on the CPU; a sixteenth of it in all tables but the first
MANY, MOST = 10, 1.1  # overhead is judged above so many passes
REHEARSED = 5_000  # passes at most: a method of more is not run for its own arithmetic, which takes minutes itself
OTHER_SETTINGS = (  # what the table leaves open: earlier layers, and methods of thousands of passes with fewer of them
    ("ablation_cam", {"layer": "layer3"}),
    ("fd_cam", {"layer": "layer3"}),
    ("recipro_cam", {"layer": "layer3"}),
    ("lift_cam", {"layer": "layer3"}),
    ("score_cam", {"layer": "layer1"}),
    ("ss_cam", {"layer": "layer1", "samples": 2}),
    ("is_cam", {"layer": "layer1", "steps": 2}),
    ("poly_cam", {"layer": "layer1", "layers": (), "variant": "+"}),
)
WHY = {  # what a method does beside the passes, where that shows
    "blur_ig": "it blurs the image twice a step",
    "cameras": "it resizes activations and gradients to the image",
    "guided_ig": "at every step it selects among all pixels and channels, in float64",
    "occlusion": "it writes a masked image a pass",
    "is_cam": "it resizes and rescales a mask a pass",
    "poly_cam": "it resizes a mask a pass",
    "score_cam": "it resizes and rescales a mask a pass",
    "ss_cam": "it draws noise for every pixel a pass",
    "xrai": "it segments the image and grows regions on the CPU",
}

Cell = dict[str, Any]


# ---- our methods


def sizes(
    model: nn.Module, x: Float[Tensor, "B C H W"], layer: str | None, layers: Sequence[str] | None = None
) -> dict[str, int]:
    """What `Method.cost` may need: C, H, W, K, h, w of the layer; depth, channels of it and `layers` (None: stages)."""
    found = dict(zip("CHW", x.shape[1:], strict=True))
    if layer:
        at = [*(stages(model, layer, x.shape[1:]) if layers is None else layers), layer]
        with torch.no_grad():
            grids = [activation(model, x[:1], name)[1].shape[1:] for name in at]
        found |= dict(zip("Khw", grids[-1], strict=True)) | {"depth": len(at), "channels": sum(K for K, _, _ in grids)}
    return found


def rehearse(
    f: partial[Tensor], x: Float[Tensor, "B C H W"], room: Mapping[str, int], classes: int
) -> tuple[list[Pass], float]:
    """The passes that a method of a CNN runs, and the seconds of its own arithmetic: with the network `Free`.

    Args:
        f: the method with its keywords bound.
        x: the batch.
        room: `sizes` of the network that is stood in for.
        classes: its number of classes.
    """
    grid = (room.get("K", 64), room.get("h", 7), room.get("w", 7))
    free = Free((room["C"], room["H"], room["W"]), grid, classes).eval().to(x)
    g = partial(f, **({"layer": "act"} if "layer" in f.keywords else {}))
    target = torch.zeros(len(x), dtype=torch.long, device=x.device)
    with counting(free, x.shape[2:]) as passes:
        took = seconds(lambda: g(free, x, target))
    return passes, took


def expect(
    passes: Sequence[Pass], own: float, prices: Mapping[Key, float], batch: int, own_size: Sequence[int]
) -> float:
    """Seconds to expect of a batch, from the passes and own arithmetic of one image and the prices of a batch.

    Passes behind an edited layer are taken to be free: of ablation_cam at the last layer they are. Those of images of
    another size than the batch's, `own_size`, cost as much more as they have more pixels.
    """
    forward, both = (prices[kind, batch] / batch for kind in ("forward", "gradient"))
    each = {"forward": forward, "backward": both - forward}
    more = [math.prod(p.size) / math.prod(own_size) if p.size else 1.0 for p in passes]
    return batch * (own + sum(m * each[p.kind] * min(p.entered, p.scored) for m, p in zip(more, passes, strict=True)))


def time_method(
    f: Attribution,
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Int[Tensor, " B"],
    *,
    expected: float,
    promised: tuple[int, int],
    rehearsed: tuple[Sequence[Pass], float] | None = None,
    budget: float = 1.0,
    clock: Clock = timer,
) -> Cell:
    """One cell of the table.

    Args:
        f: the method with its keywords bound.
        model: a classifier.
        x: the batch.
        target: its classes.
        expected: seconds of one call; a short one is called once more, to warm up.
        promised: passes for each image, (forward, backward).
        rehearsed: what `rehearse` found.
        budget: see `rounds_for`.
        clock: seconds.

    Returns:
        Seconds (median, interquartile range), rounds, passes and promised passes for each image, the seconds of these
        passes (`priced`), overhead, the ratios to a gradient and to a forward pass of the batch, MiB, own arithmetic.
    """
    rounds, size = rounds_for(expected, budget), len(x)
    hint, own = rehearsed or ((), None)
    passes: list[Pass] = []
    memory: list[float] = []

    def job() -> None:
        if passes:
            f(model, x, target)
            return
        with counting(model, x.shape[2:]) as seen, peak_memory(x.device) as held:
            f(model, x, target)
        passes.extend(seen)
        memory.extend(held)

    if rounds > 1:
        job()  # warms up, counts, and tells in which batches the method runs
    times, around = measure(job, plain(model, x, passes or hint), rounds, clock)
    for key, late in plain(model, x, passes).items():  # batches of a single call that the rehearsal did not have
        if key not in around[0]:
            took = median(seconds(late, clock) for _ in range(3))
            for prices in around:
                prices[key] = took

    low, middle, high = np.percentile(times, (25, 50, 75))
    return {
        "seconds": middle,
        "iqr": high - low if rounds > 1 else None,
        "rounds": rounds,
        "passes": list(count(passes, size)),
        "promised": list(promised),
        "entered": sum(p.entered for p in passes if p.kind == "forward") / size,
        "priced": median(price(passes, prices) for prices in around),
        "overhead": median(t / price(passes, prices) for t, prices in zip(times, around, strict=True)),
        "in_gradients": median(t / prices["gradient", size] for t, prices in zip(times, around, strict=True)),
        "in_forwards": median(t / prices["forward", size] for t, prices in zip(times, around, strict=True)),
        "forward": median(prices["forward", size] for prices in around),
        "gradient": median(prices["gradient", size] for prices in around),
        "mib": memory[0] if memory else None,
        "own": own,
    }


def remark(name: str, cell: Cell) -> str:
    """What the numbers of a cell do not say by themselves: broken promises, shortened passes, where time goes."""
    words = []
    if cell["passes"] != cell["promised"]:
        words.append(f"NOT AS PROMISED: {_passes(cell['promised'])}")
    if cell["entered"] < cell["passes"][0]:
        words.append(f"the network up to the layer runs on {_n(cell['entered'])} image(s), only the rest on all")
    if sum(cell["passes"]) > MANY and cell["overhead"] > MOST:
        excess, own = cell["seconds"] - cell["priced"], cell["own"]
        if own is None:
            words.append(f"{excess / cell['seconds']:.0%} of the time is not in passes: not explained")
        else:
            why = f" ({WHY[name]})" if name in WHY else ""
            words.append(f"its own arithmetic takes up to {own / cell['seconds']:.0%} of the time{why}")
            if excess - own > 0.1 * cell["priced"]:
                words.append(f"{(excess - own) / cell['seconds']:.0%} not explained")
    return "; ".join(words)


# ---- beside other libraries


def compare(
    name: str, model: nn.Module, x: Float[Tensor, "1 C H W"], target: Int[Tensor, "1"], clock: Clock = timer
) -> list[Cell]:
    """One method beside the libraries that have it, in turns: a row per library that is installed."""
    keywords = same(name, model, x)
    jobs: dict[str, Job] = {"ours": partial(METHODS[name].fn, model, x, target, **keywords)}
    for (method, package), call in PEERS.items():
        if method == name and version(package):
            jobs[package] = job_of(call, keywords, model, x, target)
    counted: dict[str, list[float]] = {}
    longest = 0.0
    for who, job in jobs.items():  # warms up as well
        with counting(model, x.shape[2:]) as passes, quiet():
            longest = max(longest, seconds(job, clock))
        counted[who] = list(count(passes, len(x)))
    times: dict[str, list[float]] = {who: [] for who in jobs}
    for _ in range(rounds_for(longest)):
        for who, job in jobs.items():
            with quiet():
                times[who].append(seconds(job, clock))
    return [
        {
            "method": name,
            "package": package,
            "version": version(package),
            "keywords": keywords,
            "rounds": len(times[package]),
            "seconds": median(times["ours"]),
            "their_seconds": median(times[package]),
            "ratio": median(b / a for a, b in zip(times["ours"], times[package], strict=True)),
            "passes": counted["ours"],
            "their_passes": counted[package],
        }
        for package in jobs
        if package != "ours"
    ]


# ---- plans


def plan(cells: Sequence[Cell], images: int) -> list[tuple[str, float, str]]:
    """Hours that a number of images would take: (method, hours, what the number rests on), the longest first.

    For each method the fastest cell of its network; a cell that was not run counts with the seconds expected of it,
    where no cell was measured.
    """
    rows = []
    for name in dict.fromkeys(c["method"] for c in cells):
        mine = [c for c in cells if c["method"] == name]
        measured = [c for c in mine if c["status"] == "measured"]
        if measured:
            best = min(measured, key=lambda c: c["seconds"] / c["batch"])
            each, basis = best["seconds"] / best["batch"], f"measured, {best['dtype']}, batch {best['batch']}"
        else:
            expected = [c for c in mine if c.get("expected")]
            if not expected:
                continue
            best = min(expected, key=lambda c: c["expected"] / c["batch"])
            each, basis = best["expected"] / best["batch"], f"expected, {best['dtype']}, batch {best['batch']}"
        rows.append((name, each * images / 3600, basis))
    return sorted(rows, key=lambda r: -r[1])


def plan_text(rows: Sequence[tuple[str, float, str]], images: int) -> str:
    """The plan as it is printed."""
    lines = [f"{images} images", *(f"{hours:12.3f} h  {name:22} {basis}" for name, hours, basis in rows)]
    return "\n".join([*lines, f"{sum(r[1] for r in rows):12.3f} h  in all"])


# ---- the table


def device_name(device: torch.device) -> str:
    """'cpu', or the name of the GPU, as part of a file name."""
    full = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return re.sub(r"[^a-z0-9]+", "_", full.lower()).strip("_")


def _n(value: float) -> str:
    """A count: whole where it is."""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


def _passes(pair: Sequence[float]) -> str:
    return f"{_n(pair[0])} + {_n(pair[1])}"


def _seconds(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _mib(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def ordered(cells: Sequence[Cell]) -> list[str]:
    """Methods by what they promise, cheapest first."""
    cost = {c["method"]: (c["promised"][0] + 1.5 * c["promised"][1], c["method"]) for c in cells if "promised" in c}
    return sorted(cost, key=lambda name: cost[name])


def rows(cells: Sequence[Cell]) -> list[str]:
    """Lines of a table, one for each cell."""
    lines = [
        "| method | passes | seconds (IQR) | x gradient | F | overhead | MiB | remark |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for c in cells:
        settings = "".join(f", {k}={v}" for k, v in c.get("keywords", {}).items())
        if c["status"] == "measured":
            iqr = "1 call" if c["iqr"] is None else _seconds(c["iqr"])
            row = [_passes(c["passes"]), f"{_seconds(c['seconds'])} ({iqr})", f"{c['in_gradients']:.2f}"]
            row += [f"{c['in_forwards']:.1f}", f"{c['overhead']:.2f}", _mib(c["mib"]), c["remark"]]
        else:
            row = [f"{_passes(c['promised'])} promised", "", "", "", "", "", c["remark"]]
        lines.append(f"| `{c['method']}`{settings} | {' | '.join(row)} |".replace("|  ", "| "))
    return lines


def tables(
    cells: Sequence[Cell], others: Sequence[Cell], peers: Sequence[Cell], missing: Sequence[str], head: str
) -> str:
    """The Markdown page: a table for each number type and batch, those of other settings and of other libraries."""
    lines = ["# Time of every method", "", head]
    order = {name: i for i, name in enumerate(ordered(cells))}
    for dtype, batch in dict.fromkeys((c["dtype"], c["batch"]) for c in cells):
        mine = [c for c in cells if (c["dtype"], c["batch"]) == (dtype, batch)]
        lines += ["", f"## {dtype}, batch {batch}", ""]
        for network in dict.fromkeys(c["model"] for c in mine):
            base = next((c for c in mine if c["model"] == network and c["status"] == "measured"), None)
            if base:
                pair = f"F = {1000 * base['forward']:.3g} ms, a gradient {1000 * base['gradient']:.3g} ms"
                lines += [f"{network}: {pair} for the batch.", ""]
        lines += rows(sorted((c for c in mine if c["method"] in order), key=lambda c: order[c["method"]]))
    if others:
        lines += ["", "## Other layers and settings", "", f"{others[0]['model']}, float32, one image.", ""]
        lines += rows(others)
    if peers or missing:
        lines += [
            "",
            "## Beside other libraries",
            "",
            "The same work, float32, one image, called in turns; ratio: their time over ours. Theirs are called as "
            "their users call them: pytorch-grad-cam also rescales and resizes its map."
            + (f" Not installed: {', '.join(missing)}." if missing else ""),
            "",
            "| method | library | settings | our seconds | theirs | ratio | our passes | theirs |",
            "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
        ]
        for p in peers:
            settings = ", ".join(f"{k}={v}" for k, v in p["keywords"].items())
            row = [f"{p['package']} {p['version']}", settings, _seconds(p["seconds"]), _seconds(p["their_seconds"])]
            row += [f"{p['ratio']:.2f}", _passes(p["passes"]), _passes(p["their_passes"])]
            lines.append(f"| `{p['method']}` | {' | '.join(row)} |")
    return "\n".join(lines)


def figure(cells: Sequence[Cell], peers: Sequence[Cell], caption: str) -> Figure:
    """Left: cost in forward passes, each number type and batch; right: other libraries' time over ours."""
    names = ordered(cells)[::-1]
    at = {name: i for i, name in enumerate(names)}
    done = [c for c in cells if c["status"] == "measured"]
    with _display.style():
        drawn, axes = _plot.chart(
            1, 2, caption, height=0.42 + 0.15 * len(names), sharey=True, gridspec_kw={"width_ratios": [1.6, 1]}
        )
        left, right = axes[0]
        for name in names:
            first = next((c for c in done if c["method"] == name), None)
            if first:
                left.plot(
                    [first["priced"] / first["forward"]] * 2,
                    [at[name] - 0.42, at[name] + 0.42],
                    color=_plot.CONTROL,
                    lw=1.6,
                    zorder=1,
                )
        left.plot([], [], color=_plot.CONTROL, lw=1.6, label="its passes alone")
        settings = list(dict.fromkeys((c["dtype"], c["batch"]) for c in cells))
        for (dtype, batch), colour, marker in zip(settings, _plot.LINES, "osD^", strict=False):
            mine = [c for c in done if (c["dtype"], c["batch"]) == (dtype, batch)]
            left.scatter(
                [c["in_forwards"] for c in mine], [at[c["method"]] for c in mine], s=13, marker=marker,
                facecolors="none", edgecolors=colour, linewidths=0.9, label=f"{dtype}, batch {batch}", zorder=2,
            )  # fmt: skip
        left.set_xscale("log")
        left.set_xlabel("time in forward passes of the batch, F")
        left.set_yticks(range(len(names)), names)
        left.set_ylim(-0.7, len(names) - 0.3)
        right.axvline(1, color=_plot.CONTROL, lw=0.8)
        for package, colour in zip(MODULES, _plot.LINES, strict=False):
            mine = [p for p in peers if p["package"] == package and p["method"] in at]
            if mine:
                right.scatter(
                    [p["ratio"] for p in mine], [at[p["method"]] for p in mine], s=13, color=colour, label=package
                )
        right.set_xscale("log")
        right.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        right.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        right.xaxis.set_minor_formatter(NullFormatter())
        right.set_xlabel("their time / our time")
        right.tick_params(left=False)
        for ax in (left, right):
            ax.grid(visible=True, lw=0.25, color="#cccccc")
            ax.set_axisbelow(True)
            if ax.get_legend_handles_labels()[1]:
                ax.legend(
                    loc="lower left",
                    bbox_to_anchor=(-0.04, 1.0),
                    ncols=3 if ax is left else 4,
                    columnspacing=1.0,
                    handlelength=1.0,
                    handletextpad=0.4,
                )
    return drawn


# ---- the run


def chosen(names: str | None) -> list[str]:
    """--methods as a list.

    Raises:
        argparse.ArgumentTypeError: an unknown name.
    """
    found = [n.strip() for n in names.split(",") if n.strip()] if names else list(METHODS)
    for name in found:
        if name not in METHODS:
            close = difflib.get_close_matches(name, METHODS, n=1)
            raise argparse.ArgumentTypeError(
                f"unknown method {name!r}{f'; did you mean {close[0]!r}?' if close else ''}"
            )
    return found


class Subject(NamedTuple):
    """A network in float32, its batch of photographs, and the methods that are timed on it."""

    loaded: _models.Loaded
    kind: str  # its architecture: "cnn", "vit" or "swin"
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
        photos = _images.load(run.args.images, one.preprocessing)
        run.inputs |= {p.name: p for p in photos}
        x = _images.tensor([photos[i % len(photos)] for i in range(largest)], one)
        mine = [n for n in left if _kind(one) in METHODS[n].architectures]
        left = [n for n in left if n not in mine]
        result.append(Subject(one, _kind(one), x, mine))
    run.refused |= dict.fromkeys(left, "not defined for these networks")
    return [s for s in result if s.methods]


def _kind(loaded: _models.Loaded) -> str:
    return probe(loaded.model, (3, *loaded.preprocessing.size)).architecture


def cells_of(run: _run.Run, s: Subject, settings: Sequence[tuple[str, int]], limit: float) -> list[Cell]:
    """All cells of one network; methods that would take too long, or fail, are said to."""
    model, classes = s.loaded.model, len(s.loaded.classes)
    bound: dict[str, partial[Tensor]] = {}
    rooms: dict[str, dict[str, int]] = {}
    promised: dict[str, tuple[int, int]] = {}
    first: dict[str, tuple[list[Pass], float]] = {}
    for name in s.methods:
        with _run.attempt(run, name, s.loaded.tag):
            f = bound[name] = _run.bind(run, name, model, s.x)
        if name not in bound:
            continue
        rooms[name] = sizes(model, s.x, f.keywords.get("layer"))
        forward, backward = promised[name] = METHODS[name].cost(**(rooms[name] | f.keywords))
        first[name] = [Pass("forward", 1, 1)] * forward + [Pass("backward", 1, 1)] * backward, 0.0
        if s.kind == "cnn" and forward + backward <= REHEARSED:
            run.bar.set_postfix_str(f"rehearsing {name}")
            first[name] = rehearse(f, s.x[:1], rooms[name], classes)
    with torch.no_grad():
        target = model(s.x).argmax(dim=1)
    cells: list[Cell] = []
    for i, (dtype, batch) in enumerate(settings):
        net = model.to(getattr(torch, dtype))
        x, t = s.x[:batch].to(getattr(torch, dtype)), target[:batch]
        prices = prices_now(net, x)
        for name, f in bound.items():
            run.bar.set_postfix_str(f"{name}, {dtype}, batch {batch}")
            expected = expect(first[name][0], first[name][1], prices, batch, x.shape[2:])
            cell: Cell = {"method": name, "model": s.loaded.tag, "dtype": dtype, "batch": batch}
            cell |= {"promised": list(promised[name]), "expected": expected}
            allowed = limit if i == 0 else limit / 16
            if expected > allowed:
                about = f"not run: about {expected:.0f} s expected, limit {allowed:g} s"
                cell |= {"status": "not run", "remark": about}
            else:
                try:
                    again = s.kind == "cnn" and MANY < sum(promised[name]) <= REHEARSED
                    rehearsed = rehearse(f, x, rooms[name], classes) if again else None
                    cell |= time_method(
                        f, net, x, t, expected=expected, promised=promised[name], rehearsed=rehearsed,
                        budget=0.5 if run.args.quick else 1.0,
                    )  # fmt: skip
                    cell |= {"status": "measured", "remark": remark(name, cell)}
                except torch.cuda.OutOfMemoryError:
                    cell |= {"status": "not run", "remark": "not run: out of memory"}
                except Exception as error:  # one cell must not take the others with it; the exit status tells
                    words = f"{type(error).__name__}: {error}".splitlines()[0][:150]
                    cell |= {"status": "failed", "remark": f"FAILED: {words}"}
                    run.bar.write(f"{name}, {dtype}, batch {batch}: {words}", file=sys.stderr)
            cells.append(cell)
            run.bar.update()
        if x.is_cuda:
            torch.cuda.empty_cache()
    model.float()
    return cells


def other_settings(run: _run.Run, s: Subject) -> list[Cell]:
    """Cells of OTHER_SETTINGS, float32, one image, for a network that has their layers."""
    model, x = s.loaded.model, s.x[:1]
    with torch.no_grad():
        target = model(x).argmax(dim=1)
    prices, there = prices_now(model, x), {name for name, _ in model.named_modules()}
    cells: list[Cell] = []
    for name, settings in OTHER_SETTINGS:
        if name in s.methods and settings["layer"] in there:
            run.bar.set_postfix_str(f"{name}, {settings}")
            f = _run.bind(run, name, model, x, **settings)
            assert isinstance(f, partial)
            room = sizes(model, x, settings["layer"], settings.get("layers"))
            promised = METHODS[name].cost(**(room | f.keywords))
            passes, own = rehearse(f, x, room, len(s.loaded.classes))
            expected = expect(passes, own, prices, 1, x.shape[2:])
            cell = time_method(f, model, x, target, expected=expected, promised=promised, rehearsed=(passes, own))
            where = {"method": name, "model": s.loaded.tag, "dtype": "float32", "batch": 1, "keywords": settings}
            cells.append(where | cell | {"status": "measured", "remark": remark(name, cell)})
    return cells


def prices_now(model: nn.Module, x: Float[Tensor, "B C H W"]) -> dict[Key, float]:
    """Seconds of a forward pass and of a gradient of the batch, after a call of each to warm up."""
    jobs = plain(model, x)
    for job in jobs.values():
        job()
    return {k: median(seconds(job) for _ in range(3)) for k, job in jobs.items()}


def wrong(cells: Sequence[Cell]) -> list[str]:
    """What makes the script exit with an error: promises broken, cells that failed."""
    return [
        f"{c['method']}, {c['dtype']}, batch {c['batch']}: {c['remark']}"
        for c in cells
        if c["status"] == "failed" or (c["status"] == "measured" and list(c["passes"]) != list(c["promised"]))
    ]


def planned(run: _run.Run, found: Sequence[Subject], name: str) -> list[Cell]:
    """Cells for `plan`: of the table where there is one for these networks, else expected from passes timed now."""
    tags = {s.loaded.tag for s in found}
    for folder in (run.out, _run.FIGURES):
        file = folder / f"{name}.json"
        facts = json.loads(file.read_text()) if file.is_file() else {}
        if facts and not facts["quick"] and tags <= {m["tag"] for m in facts["model"]}:
            wanted = {n for s in found for n in s.methods}
            print(f"from {file.name} ({facts['device']})")
            return [c for c in facts["numbers"]["cells"] if c["method"] in wanted]
    print("from passes timed now: there is no table of this device and network")
    cells = []
    for s in found:
        x = s.x[:8]
        prices = prices_now(s.loaded.model, x)
        for name in s.methods:
            with _run.attempt(run, name, s.loaded.tag):
                f = _run.bind(run, name, s.loaded.model, x)
                room = sizes(s.loaded.model, x, f.keywords.get("layer"))
                forward, backward = METHODS[name].cost(**(room | f.keywords))
                passes = [Pass("forward", 1, 1)] * forward + [Pass("backward", 1, 1)] * backward
                expected = expect(passes, 0.0, prices, len(x), x.shape[2:])
                cells.append({"method": name, "dtype": "float32", "batch": len(x), "status": "", "expected": expected})
    return cells


def main(argv: Sequence[str] | None = None) -> None:
    """Write figures/timing_<device>.md, .json and .png."""
    run = _run.start(
        __file__,
        __doc__,
        photos=",".join([*_images.PACKAGED, *_images.COMPOSITES]),
        quick_photos="coffee",
        weights="random",
        argv=argv,
        options={
            "--methods": {"metavar": "A,B", "type": chosen, "help": "only these (default: all)"},
            "--limit": {"type": float, "metavar": "SECONDS", "help": f"longest call in the first table, a sixteenth of "
                        f"it in the others; longer cells are not run (default: {LIMIT:g} on the CPU, else none)"},
            "--plan": {"type": int, "metavar": "IMAGES", "help": "print the hours that so many images would take"},
        },
    )  # fmt: skip
    args, device = run.args, torch.device(run.args.device)
    run.name = f"timing_{device_name(device)}"
    limit = args.limit if args.limit is not None else LIMIT if device.type == "cpu" else float("inf")
    names = args.methods or (list(QUICK_METHODS) if args.quick else list(METHODS))
    settings = CELLS[:1] if args.quick else CELLS
    largest = max(batch for _, batch in settings)
    found = subjects(run, names, 8 if args.plan else largest)
    if args.plan is not None:
        run.bar.disable = True
        print(plan_text(plan(planned(run, found, run.name), args.plan), args.plan))
        return

    compared = sorted(n for n in found[0].methods if any(n == m for m, _ in PEERS))
    compared = [n for n in compared if n == "grad_cam"] if args.quick else compared
    run.bar.reset(total=len(settings) * sum(len(s.methods) for s in found) + len(compared))
    cells = [cell for s in found for cell in cells_of(run, s, settings, limit)]
    peers: list[Cell] = []
    main_one = found[0]
    others = [] if args.quick or args.methods else other_settings(run, main_one)
    with torch.no_grad():
        target = main_one.loaded.model(main_one.x[:1]).argmax(dim=1)
    for name in compared:
        run.bar.set_postfix_str(f"{name}, other libraries")
        try:
            peers += compare(name, main_one.loaded.model, main_one.x[:1], target)
        except Exception as error:  # another library may not run on this network or machine
            run.refused[f"{name}, other libraries"] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        run.bar.update()

    missing = [p for p in MODULES if not version(p)]
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    networks = " ".join(
        f"{s.loaded.note}, {s.x.shape[-1]} px{'' if i == 0 else ' (methods for transformers only)'}."
        for i, s in enumerate(found)
    )
    how = (
        f"{networks} {where}, torch {torch.__version__.partition('+')[0]}. Photographs, default layer, default "
        "keywords. F: a forward pass of the batch without gradients. Passes: forward + backward, images through the "
        "classifier for each image, counted during the call; all are as promised unless the remark says so. Seconds: "
        f"median for the batch, with the interquartile range; calls beyond {LONG:g} s are timed once. "
    )
    head = how + (
        "x gradient: beside a gradient of the batch in torch alone. Overhead: seconds over the seconds of these passes "
        "by themselves, timed in the same rounds and batches (a method whose gradient stops at the layer is below 1). "
        f"MiB: the most that a call held, {'allocated by torch' if device.type == 'cuda' else 'resident memory'}."
    )
    caption = how + (
        "Grey bars: what the counted passes cost by themselves (first measured cell of the method). Right: the same "
        "work in other libraries, called in turns with ours, float32, one image, with fewer steps, samples and windows "
        "on both sides; right of the grey line ours is faster."
    )
    many = [c for c in cells if c["status"] == "measured" and sum(c["promised"]) > MANY]
    run.numbers |= {
        "where": where,
        "threads": torch.get_num_threads(),
        "limit": limit if limit < float("inf") else None,
        "cells": cells,
        "other_settings": others,
        "peers": peers,
        "not_installed": missing,
        "largest_overhead": max((c["overhead"] for c in many), default=None),
    }
    if run.refused:
        head += " " + " ".join(f"{k}: {v}." for k, v in run.refused.items())
    _run.save(run, figure(cells, peers, caption), caption, markdown=tables(cells, others, peers, missing, head))
    if bad := wrong([*cells, *others]):
        sys.exit(f"{run.script}: not as promised:\n" + "\n".join(bad))


if __name__ == "__main__":
    main()
