"""The declaration of each check, in one place, and the result of every check: one number per image."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
from jaxtyping import Float
from torch import Tensor

from methods._cost import Number, number

Kind = Literal["randomization", "faithfulness", "robustness", "complexity", "axiom", "localization"]

# The inputs that a check may use, by the names of its positional parameters:
INPUTS = {
    "model": "the classifier, in evaluation mode",
    "x": "normalised images, B C H W",
    "target": "the class that is explained, an integer tensor B",
    "maps": "the method's maps of x, B K h w, as the method returns them",
    "of": "the method itself, an Attribution: the protocol runs it again",
    "mask": "where the object is, a boolean B H W",
    "nets": "small networks trained for the protocol",
    "data": "labelled images for protocols that train",
}

CHECKS: dict[str, "Check"] = {}


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result of a check on B images. NaN exactly where an image gives no number; these are counted and printed."""

    values: Float[Tensor, " B"]  # the number of the check, one per image
    columns: Mapping[str, Float[Tensor, " B"]] = field(default_factory=dict)  # further numbers, by name
    curves: Mapping[str, Float[Tensor, "B n"]] = field(default_factory=dict)  # each image's curves, by name
    at: tuple[float, ...] = ()  # their n abscissae
    facts: Mapping[str, Any] = field(default_factory=dict)  # about the whole run; JSON types

    def column(self, name: str) -> Float[np.ndarray, " B"]:
        """Numbers by the name of their column, `values` by the name ""; in float64 on the CPU."""
        return (self.columns[name] if name else self.values).double().cpu().numpy()


@dataclass(frozen=True, kw_only=True)
class Check:
    """One protocol: the plain function and what it declares."""

    name: str  # = file stem = function name = registry key
    fn: Callable[..., Result]
    title: str  # the usual name
    cite: str  # key in methods/references.bib
    kind: Kind
    protocol: str  # one sentence for the report: the procedure and the meaning of the number
    higher_is_better: bool | None  # None: neither
    forward: Number  # images through the classifier for each image, and
    runs: Number  # runs of the method; counted by a test, but for the ten or so images a batch that a protocol needs to
    # look at a network
    verified: tuple[str, ...]  # what tests compare with: "captum", "quantus", "grad_cam", "literal", "closed form"
    quick: Mapping[str, Any] = field(default_factory=dict)  # keywords under --quick; the defaults are the paper's

    @property
    def inputs(self) -> tuple[str, ...]:
        """Positional parameters: keys of INPUTS."""
        kinds = inspect.signature(self.fn).parameters.values()
        return tuple(p.name for p in kinds if p.kind is p.POSITIONAL_OR_KEYWORD)

    @property
    def params(self) -> dict[str, Any]:
        """Keyword-only parameters and their defaults, read off the signature."""
        kinds = inspect.signature(self.fn).parameters.values()
        return {p.name: p.default for p in kinds if p.kind is p.KEYWORD_ONLY}

    def cost(self, **values: Any) -> tuple[int, int]:
        """(`forward`, `runs`) as numbers; `values` are keywords and the sizes that a `Formula` needs."""
        values = self.params | values
        return number(self.forward, values), number(self.runs, values)


F = TypeVar("F", bound=Callable[..., Result])


def check(**declared: Any) -> Callable[[F], F]:
    """Register the function below under its file's name and return it unchanged."""

    def register(fn: F) -> F:
        stem = fn.__module__.rpartition(".")[2]
        if fn.__name__ != stem or stem in CHECKS:
            raise ValueError(f"{stem}.py must define exactly one check, called {stem}; got {fn.__name__}")
        CHECKS[stem] = Check(name=stem, fn=fn, **declared)
        return fn

    return register
