"""The rows of a report: methods of the registry, a user's own functions, and the controls."""

import hashlib
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from methods import METHODS
from methods._front_door import bind, closest
from methods._own_code import code_sha256, import_file
from methods._torch import Attribution
from sanity_checks._controls import CONTROLS
from sanity_checks._guard import ENDS, guarded
from sanity_checks._torch import explain

QUICK = {"samples": 5, "steps": 8}  # keywords of methods in a quick run, if they have them
COARSE = {"size": 48, "stride": 32}  # the same for images above 64 px


@dataclass(frozen=True, kw_only=True)
class Row:
    """A method or a control."""

    key: str  # unique in a report, a valid folder name
    label: str
    fn: Callable[..., Any]  # a method, or for a control: seed -> Attribution
    control: bool = False
    own: ModuleType | None = None  # where a user's function is: each call is guarded
    keywords: Mapping[str, Any] = field(default_factory=dict)
    source_sha256: str = ""  # of a method's file; of a user's function after `try_out`: with all that it imports
    refused: str = ""  # the reason why the row has no number

    def bind(self, model: nn.Module, x: Tensor, seed: int, names: Sequence[str] = ()) -> Attribution:
        """The row as a function of (model, x, target), with its default layer and `seed`.

        Args:
            model: the model to explain.
            x: images of the size that the function will get.
            seed: of everything that the row draws.
            names: of the images, for messages.

        Raises:
            ValueError: a method of the registry that is not defined for this model.
        """
        if self.control:
            return self.fn(seed)
        small = max(x.shape[2:]) <= 64
        keywords = {k: v for k, v in self.keywords.items() if not (small and k in COARSE)}
        fn = guarded(self.fn, names, seed) if self.own else self.fn
        return bind(fn, model, x, **(keywords | {"seed": seed}))


def controls() -> list[Row]:
    """The rows of every report."""
    return [Row(key=key, label=label, fn=fn, control=True) for key, (label, fn) in CONTROLS.items()]


def resolve(spec: str, quick: bool) -> Row:
    """A row from its name on the command line.

    Args:
        spec: a key of METHODS, `package.module:function`, or `path/to/file.py:function`.
        quick: use fewer samples and steps for registered methods.

    Raises:
        ValueError: there is no such method, file or function, or the function cannot be called as a method.
    """
    if ":" not in spec:
        if spec not in METHODS:
            raise ValueError(
                f"METHOD: no method is called {spec!r}{closest(spec, METHODS)}; your own is file.py:function"
            )
        m = METHODS[spec]
        keywords = {k: v for k, v in (QUICK | COARSE).items() if k in m.params} if quick else {}
        return Row(
            key=spec,
            label=m.title,
            fn=m.fn,
            keywords=keywords,
            source_sha256=_hash(inspect.getsourcefile(inspect.unwrap(m.fn))),
        )
    place, _, name = spec.rpartition(":")
    module = import_file(Path(place).expanduser(), "METHOD") if place.endswith(".py") else _from_package(place)
    fn = getattr(module, name, None)
    if not callable(fn):
        functions = [n for n, v in vars(module).items() if callable(v)]
        raise ValueError(f"METHOD: {place} has no function {name!r}{closest(name, functions)}")
    _check_signature(spec, fn)
    return Row(key=name, label=name, fn=fn, own=module)


def try_out(row: Row, of: Attribution, model: nn.Module, x: Tensor, target: Tensor) -> Row:
    """The row, run once on the first image before all other work; if it fails there, it is marked as refused."""
    refused = ""
    try:
        explain(of, model, x, target)
    except ENDS:
        raise
    except ValueError as error:
        refused = str(error)
    except Exception as error:
        refused = f"failed on the first image: {type(error).__name__}: {error}"
    code = code_sha256(row.own) if row.own else row.source_sha256  # what it imports when it runs is there now
    return replace(row, refused=refused, source_sha256=code)


def _from_package(place: str) -> ModuleType:
    try:
        return importlib.import_module(place)
    except ImportError as error:
        raise ValueError(f"METHOD: {place} cannot be imported: {error}; a file is file.py:function") from error
    except (Exception, SystemExit) as error:
        raise ValueError(f"METHOD: {place} cannot be imported: {type(error).__name__}: {error}") from error


def _check_signature(spec: str, fn: Callable[..., Any]) -> None:
    parameters = inspect.signature(fn).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    missing = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty and p.name not in FILLED]
    if len([p for p in positional if p.default is p.empty]) != 3:
        got = ", ".join(p.name for p in positional)
        raise ValueError(f"METHOD: {spec} must be f(model, x, target, *, keywords), got f({got})")
    if missing:
        raise ValueError(
            f"METHOD: {spec} needs a default for {', '.join(missing)}; only {', '.join(FILLED)} are filled in"
        )


FILLED = ("layer", "seed")


def _hash(file: str | None) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""
