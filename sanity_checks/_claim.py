"""One run at a time writes into a folder."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout


@contextlib.contextmanager
def claimed(folder: Path, argument: str) -> Iterator[None]:
    """In the block the folder exists and belongs to this process; if nothing was written, it is gone afterwards.

    The operating system ends the claim of a process that was killed.

    Raises:
        ValueError: the folder cannot be written, or another process has claimed it; the message starts with `argument`.
    """
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
            lock.acquire()
        except Timeout as error:
            raise ValueError(
                f"{argument}: another run is writing into {folder}; wait for its end, or choose another folder"
            ) from error
        except OSError as error:
            raise ValueError(f"{argument}: {folder} cannot be written ({error.strerror})") from error
        yield
    finally:
        if lock.is_locked:
            lock.release()
            with contextlib.suppress(OSError):
                if [path.name for path in folder.iterdir()] == [".lock"]:
                    (folder / ".lock").unlink()
        with contextlib.suppress(OSError):  # not empty: it stays
            for path in new:
                path.rmdir()
