"""Run checks on rows, shard by shard. Every result is a file, written once, so a run can be killed and resumed."""

import functools
import hashlib
import itertools
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from methods._torch import Attribution
from sanity_checks import CHECKS, Check, Result
from sanity_checks._controls import matched
from sanity_checks._parallel import World, ahead
from sanity_checks._provenance import versions
from sanity_checks._randomize import randomized, whole
from sanity_checks._rows import Row
from sanity_checks._torch import explain

ROOT = Path(__file__).resolve().parent.parent
EVIDENCE = ("insertion_deletion", "road", "energy_pointing_game")  # their gains over controls decide on a verdict


@dataclass(frozen=True, kw_only=True, eq=False)
class Bench:
    """A network and the images on which rows are evaluated.

    `read(first, end)` decodes the images first to end, in a worker process if there are any. `prepare(its result)`
    gives x, target, mask, nets ... with the names of the checks.
    """

    name: str
    note: str  # one sentence for the report
    model: nn.Module
    names: Sequence[str]  # of the images
    read: Callable[[int, int], Any]
    prepare: Callable[[Any], Mapping[str, Any]]
    stamp: str  # hash of everything that the numbers depend on: weights, images
    keywords: Mapping[str, Any] = field(default_factory=dict)  # of checks that have them: facts of the bench

    def shards(self, size: int) -> list[tuple[int, int]]:
        """(first, end) of nearly equal shards of at most `size` images."""
        n = len(self.names)
        k = max(1, math.ceil(n / size))
        edges = [round(i * n / k) for i in range(k + 1)]
        return list(itertools.pairwise(edges))

    def load(self, first: int, end: int) -> Mapping[str, Any]:
        """Inputs of the images first to end."""
        return self.prepare(self.read(first, end))


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One check of one row on one shard."""

    row: Row
    check: Check
    bench: Bench
    shard: tuple[int, int]
    params: Mapping[str, Any]

    @property
    def label(self) -> str:
        return f"{self.row.key} {self.check.name}"


@dataclass(frozen=True)
class Part:
    """The outcome of one unit: a result and those of two nulls, or the reason why there is none."""

    result: Result | None
    matched: Result | None = None  # of noise as smooth as the maps
    randomized: Result | None = None  # of the method's own maps of the network with randomised weights
    refused: str = ""


@dataclass(frozen=True, kw_only=True)
class Folder:
    """The folder of the parts, and what they depend on in addition to the unit."""

    path: Path
    seed: int  # of stochastic methods, controls and checks
    draws: int  # of noise as smooth as the maps; they are averaged
    verdicts: bool = False  # with the method's own maps of a randomised network, where a verdict needs them

    def file(self, unit: Unit) -> Path:
        """The part's file."""
        return self.path / unit.row.key / unit.check.name / f"{unit.shard[0]}-{unit.shard[1]}.json"

    def find(self, unit: Unit) -> Part | None:
        """The unit's part, if it was written by the same code on the same inputs."""
        return read_part(self.file(unit), _stamp(unit, code_sha256(), self))


def plan(
    rows: Sequence[Row], checks: Mapping[str, Mapping[str, Any]], bench: Callable[[Check], Bench], shard: int
) -> list[Unit]:
    """Every unit of a run, in the order bench, shard, row, check, so that images are read once.

    Args:
        rows: of the report.
        checks: name -> keywords.
        bench: where a check runs.
        shard: images per unit, at most.
    """
    where = {name: bench(CHECKS[name]) for name in checks}
    units = []
    for place in dict.fromkeys(where.values()):
        here = [name for name in checks if where[name] is place]
        for part, row, name in itertools.product(place.shards(shard), rows, here):
            known = {k: v for k, v in place.keywords.items() if k in CHECKS[name].params}
            units.append(Unit(row=row, check=CHECKS[name], bench=place, shard=part, params=known | dict(checks[name])))
    return units


def share(units: Sequence[Unit], world: World) -> list[Unit]:
    """The units of this rank: its part of the pairs (shard, row) of each bench."""
    mine = []
    for _, group in itertools.groupby(units, key=lambda u: u.bench.name):
        pairs = [list(pair) for _, pair in itertools.groupby(group, key=lambda u: (u.shard, u.row.key))]
        mine += [unit for pair in world.share(pairs) for unit in pair]
    return mine


def run(units: Sequence[Unit], folder: Folder, *, workers: int = 0) -> Iterator[tuple[Unit, bool]]:
    """Compute and write the parts that `folder` does not have; yields each unit, when its part exists, and if it did.

    Args:
        units: from `plan` or `share`.
        folder: of the parts.
        workers: processes that decode images ahead.
    """
    for bench, group in itertools.groupby(units, key=lambda u: u.bench):
        here = [(unit, folder.find(unit) is None) for unit in group]
        shards = list(dict.fromkeys(unit.shard for unit, missing in here if missing))
        inputs = ahead(lambda shard, bench=bench: bench.read(*shard), shards, workers)
        shard, shared, row = None, {}, ""  # the current shard, its inputs, the row whose maps are among them
        for unit, missing in here:
            if missing:
                if shard != unit.shard:
                    shard, shared, row = unit.shard, dict(bench.prepare(next(inputs))), ""
                if row != unit.row.key:
                    row = unit.row.key
                    shared.pop("maps", None)
                    shared.pop("randomized", None)
                found = _plain_part(_compute(unit, shared, folder))
                stamp = _stamp(unit, code_sha256(), folder)
                write_json(folder.file(unit), {"stamp": stamp, **found})
            yield unit, not missing


def collect(units: Sequence[Unit], folder: Folder) -> Iterator[tuple[tuple[str, str], int, Part]]:
    """Yield (row, check), the number of its parts, and the merged parts: one row and check in memory at a time.

    The parts are read from the files, so that a resumed run finds exactly the same. A pair without parts is omitted.
    """
    pairs: dict[tuple[str, str], list[Unit]] = {}
    for unit in units:
        pairs.setdefault((unit.row.key, unit.check.name), []).append(unit)
    for pair, members in pairs.items():
        parts = [part for unit in members if (part := folder.find(unit)) is not None]
        if parts:
            yield pair, len(parts), merge(parts)


def cached(
    file: Path, row: Row, bench: Bench, seed: int, make: Callable[[Row, Bench, int], dict[str, Any]]
) -> dict[str, Any]:
    """make(row, bench, seed), stored in a file like a part."""
    stamp = _sha256([code_sha256(), _row(row), bench.stamp, seed, versions()])
    found = _read(file, stamp)
    if found is None:
        write_json(file, {"stamp": stamp, **make(row, bench, seed)})
        found = _read(file, stamp)
    assert found is not None
    return found


def _compute(unit: Unit, shared: dict[str, Any], folder: Folder) -> Part:
    c, seed = unit.check, folder.seed
    params = {k: shared[k] for k in c.params if k in shared} | dict(unit.params)  # facts about these images
    if "seed" in c.params:
        params["seed"] = seed
    inputs = {k: shared[k] for k in c.inputs if k in shared}
    inputs["model"] = unit.bench.model
    try:
        draw = seed + 7919 * unit.shard[0]  # each shard has its own noise
        of: Attribution = unit.row.bind(
            unit.bench.model, shared["x"], draw if unit.row.control else seed, unit.bench.names[slice(*unit.shard)]
        )
        inputs["of"] = of
        if "maps" not in c.inputs:
            return Part(c.fn(*(inputs[k] for k in c.inputs), **params))
        if "maps" not in shared:
            shared["maps"] = explain(of, unit.bench.model, shared["x"], shared["target"])
        inputs["maps"] = shared["maps"]
        found = c.fn(*(inputs[k] for k in c.inputs), **params)
        if c.kind not in ("faithfulness", "localization"):
            return Part(found)
        noise = []
        for k in range(folder.draws):
            inputs["maps"] = matched(shared["maps"], draw + k).to(shared["x"].dtype)
            noise.append(c.fn(*(inputs[k] for k in c.inputs), **params))
        if not folder.verdicts or c.name not in EVIDENCE or unit.row.control:
            return Part(found, _mean(noise))
        if "randomized" not in shared:
            f = randomized(unit.bench.model, whole(unit.bench.model).parameters, seed=draw)
            shared["randomized"] = explain(of, f, shared["x"], shared["target"])
        inputs["maps"] = shared["randomized"]
        return Part(found, _mean(noise), c.fn(*(inputs[k] for k in c.inputs), **params))
    except ValueError as error:
        return Part(None, refused=str(error))


def merge(parts: Sequence[Part]) -> Part:
    """The merged parts of one check, images in order; facts are those of the first part."""
    refused = next((p.refused for p in parts if p.refused), "")
    if refused:
        return Part(None, refused=refused)
    joined = lambda name: _join([r for p in parts if (r := getattr(p, name))])  # noqa: E731
    return Part(joined("result"), joined("matched"), joined("randomized"))


def write_json(file: Path, content: Any, indent: int | None = None) -> None:
    """Write JSON to a temporary name, then rename: a file is complete or absent. NaN becomes null."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(_plain(content), indent=indent, ensure_ascii=False, allow_nan=False) + "\n")
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def read_part(file: Path, stamp: str) -> Part | None:
    """A part that was written by the same code on the same inputs, or None."""
    found = _read(file, stamp)
    if not found:
        return None
    result, noise, random = (_result(found[name]) for name in ("result", "matched", "randomized"))
    return Part(result, noise, random, found["refused"])


@functools.cache
def code_sha256() -> str:
    """Hash of the sources that every number depends on: this package and methods/."""
    digest = hashlib.sha256()
    for file in sorted([*(ROOT / "sanity_checks").glob("*.py"), *(ROOT / "methods").glob("*.py")]):
        if file.stem not in ("_report", "_verdict", "_pictures", "__main__"):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _read(file: Path, stamp: str) -> dict[str, Any] | None:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return found if found.get("stamp") == stamp else None


def _stamp(unit: Unit, code: str, folder: Folder) -> str:
    check, bench = [unit.check.name, dict(unit.params)], [unit.bench.stamp, unit.shard]
    nulls = [folder.seed, folder.draws, folder.verdicts]
    return _sha256([code, _row(unit.row), check, bench, nulls, versions()])


def _row(row: Row) -> list[Any]:
    return [row.key, row.source_sha256, dict(row.keywords)]


def _sha256(facts: Any) -> str:
    return hashlib.sha256(json.dumps(_plain(facts), sort_keys=True).encode()).hexdigest()


def _mean(results: Sequence[Result]) -> Result:
    first = results[0]
    average = lambda of: torch.stack([of(r).double() for r in results]).mean(dim=0)  # noqa: E731
    return Result(
        values=average(lambda r: r.values),
        columns={k: average(lambda r, k=k: r.columns[k]) for k in first.columns},
        curves={k: average(lambda r, k=k: r.curves[k]) for k in first.curves},
        at=first.at,
    )


def _join(results: Sequence[Result]) -> Result | None:
    if not results:
        return None
    first = results[0]
    same = all(r.at == first.at for r in results)
    return Result(
        values=torch.cat([r.values for r in results]),
        columns={k: torch.cat([r.columns[k] for r in results]) for k in first.columns},
        curves={k: torch.cat([r.curves[k] for r in results]) for k in first.curves} if same else {},
        at=first.at,
        facts=first.facts,
    )


def _plain_part(part: Part) -> dict[str, Any]:
    plain = lambda r: r and {k: getattr(r, k) for k in ("values", "columns", "curves", "at", "facts")}  # noqa: E731
    found = {name: plain(getattr(part, name)) for name in ("result", "matched", "randomized")}
    return found | {"refused": part.refused}


def _result(found: dict[str, Any] | None) -> Result | None:
    if found is None:
        return None
    return Result(
        values=_tensor(found["values"]),
        columns={k: _tensor(v) for k, v in found["columns"].items()},
        curves={k: _tensor(v) for k, v in found["curves"].items()},
        at=tuple(found["at"]),
        facts=found["facts"],
    )


def _tensor(numbers: list[Any]) -> Tensor:
    nan = lambda v: [nan(w) for w in v] if isinstance(v, list) else math.nan if v is None else v  # noqa: E731
    return torch.tensor(nan(numbers), dtype=torch.float64)


def _plain(value: Any) -> Any:
    """Tensors and tuples as lists, NaN and infinity as None."""
    match value:
        case Tensor():
            numbers = value.detach().cpu().double()
            return numbers.tolist() if bool(numbers.isfinite().all()) else _plain(numbers.tolist())
        case Mapping():
            return {str(k): _plain(v) for k, v in value.items()}
        case list() | tuple():
            return [_plain(v) for v in value]
        case float():
            return value if math.isfinite(value) else None
        case None | bool() | int() | str():
            return value
        case _:
            return getattr(value, "__name__", type(value).__name__)
