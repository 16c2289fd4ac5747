"""The declaration of each method, in one place. README, front door, tests and figures all read it."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from torch import Tensor

from methods._cost import Cost, Number, Passes
from methods._references import references

FAMILIES = {  # in the order of every list and table, with their titles
    "gradient": "Gradients",
    "path": "Path integrals",
    "backprop-rule": "Backward rules",
    "cam": "Class activation maps",
    "attention": "Attention",
    "perturbation": "Perturbation",
    "combinator": "Combinations",
}
Family = Literal["gradient", "path", "backprop-rule", "cam", "attention", "perturbation", "combinator"]
Architecture = Literal["cnn", "vit", "swin"]

METHODS: dict[str, "Method"] = {}


@dataclass(frozen=True, kw_only=True)
class Method:
    """One attribution method: the plain function and its declared properties."""

    name: str  # = file stem = function name = registry key
    fn: Callable[..., Tensor]
    title: str  # as printed in the paper
    cite: str  # key in references.bib; authors, year, venue and url come from there
    family: Family
    forward: Passes  # images through the network for each input image; `method` also takes an int or a keyword's name
    backward: Passes  # the same with gradients; both are counted by a test
    signed: bool  # False: never negative (tested); it decides the colour map
    verified: tuple[str, ...]  # independent implementations that tests/reference compares with
    source: Literal["paper", "authors' code", "package"] = "paper"  # where the equations in the file come from
    differentiable: bool = True  # False if the mathematics is not; the file says why
    needs: Literal["", "relu", "linear head", "rule"] = ""  # what a model must have, or the method raises
    architectures: tuple[Architecture, ...] = ("cnn", "vit", "swin")  # see _layers.Probe
    satisfies: tuple[str, ...] = ()  # axioms that tests check, e.g. "completeness"
    fails: Mapping[str, str] = field(default_factory=dict)  # sanity check -> known reason; strict xfail

    @property
    def params(self) -> dict[str, Any]:
        """Keyword-only parameters and their defaults, read off the signature."""
        kinds = inspect.signature(self.fn).parameters.values()
        return {p.name: p.default for p in kinds if p.kind is p.KEYWORD_ONLY}

    @property
    def paper(self) -> Mapping[str, str]:
        """The fields of `cite` in references.bib."""
        return references()[self.cite]

    @property
    def order(self) -> tuple[int, str, str]:
        """Sort key in lists: family, year, name."""
        return list(FAMILIES).index(self.family), self.paper["year"], self.name

    @property
    def stochastic(self) -> bool:
        """Whether the map depends on `seed`."""
        return "seed" in self.params

    @property
    def output(self) -> str:
        """Shape of the map, read off the return annotation: 'B 1 h w' (layer grid) or 'B C H W' (image)."""
        return inspect.signature(self.fn).return_annotation.dim_str

    def cost(self, **values: Any) -> Cost:
        """The passes of a call as numbers; `values` are its keywords and the sizes that a `Formula` may need."""
        values = self.params | values
        return Cost(self.forward.count(values), self.backward.count(values))


F = TypeVar("F", bound=Callable[..., Tensor])


def method(*, forward: Passes | Number, backward: Passes | Number, **declared: Any) -> Callable[[F], F]:
    """Register the function below under its file's name and return it unchanged.

    Raises:
        ValueError: the file defines another function name, or more than one method.
    """
    cost = {k: n if isinstance(n, Passes) else Passes(n) for k, n in (("forward", forward), ("backward", backward))}

    def register(fn: F) -> F:
        stem = fn.__module__.rpartition(".")[2]
        if fn.__name__ != stem or stem in METHODS:
            raise ValueError(f"{stem}.py must define exactly one method, called {stem}; got {fn.__name__}")
        METHODS[stem] = Method(name=stem, fn=fn, **cost, **declared)
        return fn

    return register
