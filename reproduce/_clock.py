"""Seconds, passes and memory of one call: what a timing is made of. No table is written here.

The clock is `torch.utils.benchmark.timer`, which waits for the accelerator; its `Timer` cannot take turns between jobs.
"""

import contextlib
import ctypes
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple
from unittest import mock

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.benchmark import timer

from _peers import Job

Clock = Callable[[], float]
LONG = 20.0  # seconds; longer calls are timed once, without a call to warm up


class Pass(NamedTuple):
    """One call of a model as `counting` sees it."""

    kind: str  # "forward" or "backward"
    entered: int  # images that entered the network
    scored: int  # images that reached the classifier; more, where a layer handed on several versions of each
    size: tuple[int, int] | None = None  # (H, W) of the images; None: that of the batch


Key = tuple[str | int, ...]  # of a price: ("forward" or "gradient", images), and H, W where they have another size


# ---- counting and timing


def seconds(job: Job, clock: Clock = timer) -> float:
    """How long one call takes."""
    start = clock()
    job()
    return clock() - start


@contextlib.contextmanager
def counting(model: nn.Module, own: Sequence[int]) -> Iterator[list[Pass]]:
    """Every forward and backward pass of `model` within the block, in order; `own` is (H, W) of the batch.

    Counted at the classifier, as the tests count them: hooks on one layer, which cost microseconds. Hooks elsewhere
    would change what is timed: for a caller's hooks, methods run the network before a layer every time, not once.
    """
    seen: list[Pass] = []
    entered, size, forward = 0, None, model.forward

    def enter(x: Tensor) -> Tensor:
        nonlocal entered, size
        entered, (h, w) = len(x), x.shape[2:]
        size = None if (h, w) == tuple(own) else (h, w)
        return forward(x)

    head = model.get_classifier()  # type: ignore[operator]
    handles = [
        head.register_forward_hook(lambda _m, _a, out: seen.append(Pass("forward", entered, len(out), size))),
        head.register_full_backward_hook(lambda _m, _i, g: seen.append(Pass("backward", entered, len(g[0]), size))),
    ]
    try:
        with mock.patch.object(model, "forward", enter):
            yield seen
    finally:
        for handle in handles:
            handle.remove()


def count(passes: Sequence[Pass], batch: int) -> tuple[float, float]:
    """Images through the classifier for each image of the batch: (forward, backward), as `Method.cost` promises."""
    forward, backward = (sum(p.scored for p in passes if p.kind == k) for k in ("forward", "backward"))
    return forward / batch, backward / batch


def price(passes: Sequence[Pass], prices: Mapping[Key, float]) -> float:
    """Seconds that the passes take by themselves.

    Args:
        passes: what was counted.
        prices: seconds of ("forward", n): a pass of n images, and ("gradient", n): that with its backward pass; for
            images of another size than the batch ("forward", n, H, W).
    """
    total = 0.0
    for kind, entered, scored, size in passes:
        one = prices["forward", entered, *(size or ())]
        one = one if kind == "forward" else prices["gradient", entered, *(size or ())] - one
        total += one * scored / entered
    return total


def plain(model: nn.Module, x: Float[Tensor, "B C H W"], passes: Sequence[Pass] = ()) -> dict[Key, Job]:
    """The passes that `price` needs, in torch alone: for the whole batch, and for the batches that were counted."""

    def forward(batch: Tensor) -> None:
        with torch.no_grad():
            model(batch)

    def gradient(batch: Tensor) -> None:
        batch = batch.detach().requires_grad_()
        torch.autograd.grad(model(batch)[:, 0].sum(), batch)

    both = {(len(x), None)} | {(p.entered, p.size) for p in passes if p.kind == "backward"}
    jobs: dict[Key, Job] = {}
    for n, size in sorted(both | {(p.entered, p.size) for p in passes}, key=lambda key: (key[1] or (), key[0])):
        batch = x[torch.arange(n, device=x.device) % len(x)]
        batch = F.interpolate(batch, size) if size else batch
        jobs["forward", n, *(size or ())] = partial(forward, batch)
        if (n, size) in both:
            jobs["gradient", n, *(size or ())] = partial(gradient, batch)
    return jobs


def measure(
    job: Job, between: Mapping[Key, Job], rounds: int, clock: Clock = timer
) -> tuple[list[float], list[dict[Key, float]]]:
    """Time a job, and before and after each of its calls the jobs `between`, so that noise of the machine hits both.

    Args:
        job: what is timed.
        between: other jobs, by name.
        rounds: calls of the job; a single one stands between three calls of each of the others.
        clock: seconds.

    Returns:
        The seconds of each call, and what the others took around it: the mean of before and after.
    """

    def others() -> dict[Key, float]:
        return {k: median(seconds(j, clock) for _ in range(3 if rounds == 1 else 1)) for k, j in between.items()}

    times, around, before = [], [], others()
    for _ in range(rounds):
        times.append(seconds(job, clock))
        after = others()
        around.append({k: (before[k] + after[k]) / 2 for k in between})
        before = after
    return times, around


def rounds_for(expected: float, budget: float = 1.0) -> int:
    """Calls to time, by the seconds that one is expected to take: of `budget` seconds in all, but 3 at least."""
    return 1 if expected > LONG else max(3, min(15, int(budget / max(expected, 1e-9))))


@contextlib.contextmanager
def peak_memory(device: torch.device) -> Iterator[list[float]]:
    """Fills the list with the MiB that the block held at most above what was held before; nothing where unknown.

    CUDA: what torch allocated. CPU: the resident memory of the process, after freed memory went back to the system
    (Linux: VmHWM, reset through /proc/self/clear_refs).
    """
    found: list[float] = []
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield found
        found.append((torch.cuda.max_memory_allocated(device) - before) / 2**20)
        return
    resident = None
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        resident = _status("VmRSS")
    yield found
    if resident is not None and device.type == "cpu":
        found.append(max(_status("VmHWM") - resident, 0.0))


def _status(key: str) -> float:
    """A line of /proc/self/status in MiB."""
    return int(re.search(rf"^{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)[1]) / 1024  # type: ignore[index]


class Free(nn.Module):
    """A network that costs next to nothing, with the grid and the channels of another: what is left is the method's.

    Passes: `free`, of 2 K h w multiplications, beside the 4 G of resnet50. A random gate for each pixel and channel
    keeps their gradients different.
    """

    def __init__(self, image: tuple[int, int, int], grid: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.num_features, self.grid = grid[0], grid[1:]
        self.gate = nn.Parameter(torch.rand(image, generator=torch.Generator().manual_seed(0)) + 0.5)
        self.conv, self.act, self.fc = nn.Conv2d(image[0], grid[0], 1), nn.ReLU(), nn.Linear(grid[0], classes)

    def get_classifier(self) -> nn.Module:
        return self.fc

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N"]:
        gate = (
            self.gate if x.shape[1:] == self.gate.shape else F.adaptive_avg_pool2d(self.gate, (x.shape[2], x.shape[3]))
        )
        x = F.adaptive_avg_pool2d(x * gate, self.grid)  # B C h w
        return self.fc(self.act(self.conv(x)).mean(dim=(2, 3)))
