"""How a result was made: versions of packages, the command, the commit."""

import functools
import os
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NUMBERS = ("torch", "torchvision", "timm", "numpy", "scipy", "pillow", "scikit-image", "scikit-learn")  # they make them
PACKAGES = (*NUMBERS, "matplotlib", "huggingface_hub")


@functools.cache
def versions() -> dict[str, str]:
    """The versions of the packages that results depend on."""
    return {name: version(name) for name in NUMBERS}


def shortened(argv: Sequence[str]) -> list[str]:
    """A command line with paths relative to the repository; other paths are cut to their last part."""
    words = []
    for word in argv:
        option, equals, value = word.rpartition("=") if word.startswith("--") else ("", "", word)
        if os.path.isabs(os.path.expanduser(value)):
            path = Path(value).expanduser()
            value = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
        words.append(option + equals + value)
    return words


def commit() -> str | None:
    """The git commit, "-dirty" when tracked or new files outside figures/ differ from it; None outside a checkout."""

    def git(*words: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(ROOT), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != ROOT:
            return None
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--", ".", ":!figures") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
