"""One call of a method timed: its seconds, its passes counted and priced, other libraries in turns with it."""

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import median
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.benchmark import timer

from _clock import Clock, Job, measure, peak_memory, rounds_for, seconds
from _passes import Pass, count, counting
from _peers import PEERS, job_of, quiet, same, version
from _prices import Price, cost_of, needed, plain
from methods import METHODS
from methods._cost import Cost
from methods._torch import Attribution

MANY, MOST = 10, 1.1  # overhead is judged above so many passes
WHY = {  # what a method does in addition to its passes, where that shows
    "ablation_cam": "it sets a channel to 0 in each copy of the activations",
    "blur_ig": "it blurs the image twice a step",
    "cameras": "it resizes activations and gradients to the image",
    "fd_cam": "it switches channels in each copy of the activations, and compares all pairs of them",
    "guided_ig": "at every step it selects among all pixels and channels, in float64",
    "iia": "it weighs activations with their gradients at each step",
    "is_cam": "it resizes and rescales a mask a pass",
    "extremal_perturbation": "at every step it makes masks from 81 parameters a pixel, and sorts them",
    "hipe": "it writes a masked image a pass",
    "kernel_shap": "it segments the image, and writes a masked image a pass",
    "lime": "it segments the image, and writes a masked image a pass",
    "occlusion": "it writes a masked image a pass",
    "poly_cam": "it resizes a mask a pass",
    "recipro_cam": "it writes a position into each copy of the activations",
    "rise": "it enlarges a mask a pass",
    "score_cam": "it resizes and rescales a mask a pass",
    "shap_bpt": "it merges pixels to a tree, in Python, and waits for each pass",
    "ss_cam": "it draws noise for every pixel a pass",
    "xrai": "it segments the image and grows regions on the CPU",
}

Cell = dict[str, Any]


def time_method(
    f: Attribution,
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Int[Tensor, " B"],
    *,
    expected: float,
    promised: Cost,
    tail: Sequence[str] = (),
    passes: Sequence[Pass] = (),
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
        promised: what the method declares for these keywords.
        tail: layers where the tail starts, see `tail_layers`.
        passes: those to expect of a call that is made only once.
        budget: see `rounds_for`.
        clock: seconds.

    Returns:
        Seconds (median, interquartile range), rounds, counted and promised passes for each image, the seconds of these
        passes (`priced`), overhead, the ratios to a gradient and to a forward pass of the batch, MiB.
    """
    rounds, size = rounds_for(expected, budget), len(x)
    counted: list[Pass] = []
    memory: list[float] = []

    def job() -> None:
        if counted:
            f(model, x, target)
            return
        with counting(model, x) as seen, peak_memory(x.device) as held:
            f(model, x, target)
        counted.extend(seen)
        memory.extend(held)

    if rounds > 1:
        job()  # warms up, counts, and tells in which batches the method runs
    times, around = measure(job, plain(model, x, needed(counted or passes, size), tail), rounds, clock)
    late = [price for price in needed(counted, size) if price not in around[0]]  # of a single call, in other batches
    for price, timed in plain(model, x, late, tail).items():
        took = median(timed(clock) for _ in range(3))
        for prices in around:
            prices[price] = took

    found, forward, gradient = count(counted, size), Price("forward", size), Price("gradient", size)
    low, middle, high = np.percentile(times, (25, 50, 75))
    return {
        "seconds": middle,
        "iqr": high - low if rounds > 1 else None,
        "rounds": rounds,
        "passes": list(found.passes),
        "before": list(found.before),
        **as_promised(promised),
        "priced": median(cost_of(counted, prices) for prices in around),
        "overhead": median(t / cost_of(counted, prices) for t, prices in zip(times, around, strict=True)),
        "in_gradients": median(t / prices[gradient] for t, prices in zip(times, around, strict=True)),
        "in_forwards": median(t / prices[forward] for t, prices in zip(times, around, strict=True)),
        "forward": median(prices[forward] for prices in around),
        "gradient": median(prices[gradient] for prices in around),
        "mib": memory[0] if memory else None,
    }


def as_promised(cost: Cost) -> Cell:
    """What a method declares, as fields of a cell: (forward, backward)."""
    before = [cost.forward.before, cost.backward.before]
    return {"promised": list(cost.total), "promised_before": before}


def kept(name: str, cell: Cell) -> bool:
    """Whether the passes are those promised, or at most those, before the layer and in all."""
    pairs = (cell["passes"], cell["promised"]), (cell["before"], cell["promised_before"])
    at_most = getattr(METHODS[name].forward.total, "at_most", False)
    return all((a <= b if at_most else a == b) for both in pairs for a, b in zip(*both, strict=True))


def number(value: float) -> str:
    """A count: whole where it is."""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


def passes_text(total: Sequence[float], before: Sequence[float] | None = None) -> str:
    """Forward + backward passes; in brackets how many run through the part before the layer, where fewer do."""
    parts = zip(total, before or total, strict=True)
    return " + ".join(number(n) + (f" ({number(b)})" if b != n else "") for n, b in parts)


def remark(name: str, cell: Cell) -> str:
    """What the numbers of a cell do not say by themselves: broken promises, and where time goes."""
    words = []
    if not kept(name, cell):
        words.append(f"NOT AS PROMISED: {passes_text(cell['promised'], cell['promised_before'])}")
    if sum(cell["passes"]) > MANY and cell["overhead"] > MOST:
        share = f"{1 - 1 / cell['overhead']:.0%} of the time"
        words.append(
            f"its own arithmetic takes {share}: {WHY[name]}"
            if name in WHY
            else f"{share} is not in passes: not explained"
        )
    return "; ".join(words)


def compare(
    name: str,
    model: nn.Module,
    x: Float[Tensor, "1 C H W"],
    target: Int[Tensor, "1"],
    settings: Mapping[str, Any] = MappingProxyType({}),
    clock: Clock = timer,
) -> list[Cell]:
    """One method and the libraries that have it, in turns: a row per library that is installed.

    Args:
        name: of the method.
        model: a classifier.
        x: one image.
        target: its class.
        settings: keywords in place of those that `same` takes, on both sides.
        clock: seconds.
    """
    keywords = same(name, model, x) | dict(settings)
    jobs: dict[str, Job] = {"ours": partial(METHODS[name].fn, model, x, target, **keywords)}
    for (method, package), call in PEERS.items():
        if method == name and version(package):
            jobs[package] = job_of(call, keywords, model, x, target)
    counted: dict[str, list[float]] = {}
    times: dict[str, list[float]] = {}
    for who, job in jobs.items():  # warms up as well
        with counting(model, x) as passes, quiet():
            times[who] = [seconds(job, clock)]
        counted[who] = list(count(passes, len(x)).passes)
    rounds = rounds_for(max(t for (t,) in times.values()))
    times = times if rounds == 1 else {who: [] for who in jobs}  # a long call is timed once
    for _ in range(rounds if rounds > 1 else 0):
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
