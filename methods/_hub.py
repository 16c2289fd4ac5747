"""Whether a server can be reached, within a time limit."""

import os
import threading
from collections.abc import Callable

SECONDS = 10.0  # time limit of one attempt


def offline() -> bool:
    """Whether the user forbids downloads (HF_HUB_OFFLINE)."""
    return os.environ.get("HF_HUB_OFFLINE", "").strip().upper() in {"1", "ON", "YES", "TRUE"}


def answers(ask: Callable[[], object]) -> bool:
    """Whether `ask`, one request without retries, succeeds within SECONDS; never without a network or when offline."""
    if offline():
        return False
    got = []

    def attempt() -> None:
        try:
            ask()
            got.append(True)
        except Exception:  # any failure, from DNS to a missing file
            got.append(False)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(SECONDS)
    return got == [True]
