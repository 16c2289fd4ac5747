"""The cost of a call in passes: images through the network for each input image. README, tests and tables read it.

A number of passes is an int, the name of a keyword ("steps"), or a `Formula`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Formula:
    """A number of passes that depends on several things.

    `number` gets a namespace: the keywords of the method and the sizes H, W (image), K, h, w (channels and grid of the
    layer), depth (number of stages) and channels (of all stages together).
    """

    words: str  # shown to the reader: "1 + K"
    number: Callable[[Any], int]
    at_most: bool = False  # it depends on the image, too; `number` is the most there can be


Number = int | str | Formula


class Images(NamedTuple):
    """Images for each input image: through the classifier, and through the part of the network before the layer."""

    total: int
    before: int

    @property
    def tail(self) -> int:
        """How many run only through the part after the layer."""
        return self.total - self.before


@dataclass(frozen=True)
class Passes:
    """Passes in one direction. If a layer's output is edited, fewer images enter the network than leave it."""

    total: Number  # through the classifier
    before: Number | None = None  # through the part before the layer; None: all

    @property
    def words(self) -> str:
        """As Markdown; the number for the part before the layer follows in brackets if it is smaller."""
        before = "" if self.before is None else f" ({words(self.before)})"
        return words(self.total) + before

    def count(self, values: Mapping[str, Any]) -> Images:
        """The numbers, for these keywords and sizes."""
        total = number(self.total, values)
        return Images(total, total if self.before is None else number(self.before, values))


class Cost(NamedTuple):
    """Images for each input image, in both directions."""

    forward: Images
    backward: Images

    @property
    def total(self) -> tuple[int, int]:
        """Images through the classifier, (forward, backward)."""
        return self.forward.total, self.backward.total


def words(n: Number) -> str:
    """The text that a reader sees."""
    if isinstance(n, Formula):
        return ("at most " if n.at_most else "") + n.words
    return str(n)


def number(n: Number, values: Mapping[str, Any]) -> int:
    """The number, for these keywords and sizes."""
    return n if isinstance(n, int) else values[n] if isinstance(n, str) else n.number(SimpleNamespace(**values))
