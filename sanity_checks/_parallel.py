"""One or several processes: the processes of torchrun share the work; worker processes read ahead.

    torchrun --nproc-per-node=4 -m sanity_checks grad_cam --images DIR
    torchrun --nproc-per-node=4 reproduce/table_faithfulness.py --images DIR

The ranks exchange small Python objects only, so gloo is enough, also with GPUs. Results are files in a folder that all
ranks can reach.
"""

import contextlib
import datetime
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset

T = TypeVar("T")
PATIENCE = datetime.timedelta(days=30)  # time limit for waiting; torchrun ends all ranks if one dies


class World(NamedTuple):
    """The rank of this process and the number of processes."""

    rank: int = 0
    size: int = 1

    def share(self, things: Sequence[T]) -> Sequence[T]:
        """This rank's part: contiguous, each item on exactly one rank, sizes differ by at most one."""
        edge = [len(things) * r // self.size for r in (self.rank, self.rank + 1)]
        return things[edge[0] : edge[1]]

    def gather(self, thing: T) -> list[T]:
        """The items of all ranks, in order of rank, on every rank; all ranks wait for each other."""
        if self.size == 1:
            return [thing]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, thing)
        return found

    def device(self, name: str) -> str:
        """The device of this rank; with `cuda`, each rank of a machine has its own GPU."""
        return f"cuda:{os.environ['LOCAL_RANK']}" if self.size > 1 and name == "cuda" else name


@contextlib.contextmanager
def world() -> Iterator[World]:
    """The processes that torchrun started, or this one alone."""
    if not dist.is_torchelastic_launched():
        yield World()
        return
    dist.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield World(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def ahead(read: Callable[[Any], T], items: Sequence[Any], workers: int) -> Iterator[T]:
    """Yield read(item) for each item, in order; each of `workers` processes reads two items ahead.

    Results are sent between processes, so memory holds 2 * workers of them, for any number of items.
    """
    if workers == 0 or not items:
        yield from map(read, items)
        return
    begin = partial(_end_with, os.getpid())
    each = _Each(read, items)
    yield from DataLoader(each, batch_size=None, num_workers=workers, collate_fn=_unchanged, worker_init_fn=begin)


class _Each(Dataset[Any]):
    def __init__(self, read: Callable[[Any], Any], items: Sequence[Any]) -> None:
        self.read, self.items = read, items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Any:
        return self.read(self.items[i])


def _end_with(parent: int, _worker: int) -> None:
    """A worker whose parent was killed would wait forever for somebody to take its results."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _unchanged(thing: Any) -> Any:
    return thing
