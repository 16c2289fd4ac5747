"""Progress of a command: a bar on a terminal; in a log, a line every ten seconds."""

import sys
import threading
import time
import weakref
from typing import TextIO, cast

from tqdm import tqdm

EVERY = 10.0  # seconds
LINE = "{desc}: {n_fmt} of {total_fmt} {unit}s, {elapsed} passed, {remaining} left{postfix}"


def progress(desc: str, unit: str, total: int | None = None, *, silent: bool = False) -> tqdm:
    """A tqdm bar; where stderr is no terminal, it prints whole lines, also while one unit takes long.

    Args:
        desc: the name of the command.
        unit: what is counted, in the singular.
        total: how many; None: not known yet, see `tqdm.reset`.
        silent: print nothing, as all ranks but the first.
    """
    if silent or sys.stderr.isatty():
        return tqdm(desc=desc, unit=unit, total=total, disable=silent)
    bar = tqdm(desc=desc, unit=unit, total=total, file=cast(TextIO, _Lines()), bar_format=LINE)
    threading.Thread(target=_refresh, args=(weakref.ref(bar),), daemon=True).start()
    return bar


def _refresh(bar: weakref.ref[tqdm]) -> None:
    """Until the bar is closed."""
    while (open_bar := bar()) is not None and not open_bar.disable:
        open_bar.refresh()
        del open_bar
        time.sleep(EVERY)


class _Lines:
    """A file for tqdm, which writes the whole line again and again; at most one is printed in `EVERY` seconds."""

    def __init__(self) -> None:
        self.printed = time.monotonic()

    def write(self, text: str) -> None:
        now = time.monotonic()
        if text.strip() and now - self.printed >= EVERY:
            print(text.strip(), file=sys.stderr, flush=True)
            self.printed = now

    def flush(self) -> None:
        sys.stderr.flush()
