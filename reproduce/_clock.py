"""Seconds and memory of one call. What a call is made of: _passes.py.

The clock is `torch.utils.benchmark.timer`, which waits for the accelerator; its `Timer` cannot take turns between jobs.
"""

import contextlib
import ctypes
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import torch
from torch.utils.benchmark import timer

Clock = Callable[[], float]
Job = Callable[[], Any]
Timed = Callable[[Clock], float]  # runs, and returns the seconds of what it is to time
Key = TypeVar("Key")
LONG = 20.0  # seconds; longer calls are timed once, without a call to warm up


def seconds(job: Job, clock: Clock = timer) -> float:
    """How long one call takes."""
    start = clock()
    job()
    return clock() - start


def measure(
    job: Job, between: Mapping[Key, Timed], rounds: int, clock: Clock = timer
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
        return {k: median(timed(clock) for _ in range(3 if rounds == 1 else 1)) for k, timed in between.items()}

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
