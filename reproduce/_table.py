"""Tables of methods x checks: the code that table_faithfulness.py and table_localization.py share.

Every result is stored in a file, so a run that was killed continues from there when it is started again.
`torchrun --nproc-per-node=N` divides the work by shards of images and by methods. All ranks need access to the folder
of the result files.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

import _run
from _run import Run
from methods import METHODS
from methods._front_door import closest
from methods._models import Loaded
from methods._registry import FAMILIES
from sanity_checks import CHECKS, _nets
from sanity_checks._benches import on_textures
from sanity_checks._parallel import World
from sanity_checks._rows import Row, controls, resolve
from sanity_checks._runner import Bench, Folder, Part, collect, plan, run, share
from sanity_checks._statistics import interval

OPTIONS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "--methods": {"metavar": "A,B", "help": "names in methods/, module:function or file.py:function; default: all"},
        "--chunk": {"type": int, "metavar": "N", "help": "images per forward pass (default: 8, on a GPU 128)"},
        "--shard": {"type": int, "default": 8, "metavar": "N", "help": "images per result file (default: %(default)s)"},
        "--workers": {"type": int, "default": 0, "metavar": "N", "help": "processes that decode images (default: 0)"},
        "--parts": {"metavar": "FOLDER", "help": "of the result files (default: .parts/<script>/ in --out)"},
    }
)


FEWER: Mapping[str, Mapping[str, Any]] = {  # fewer steps, on the digits
    "rise": {"samples": 1000, "cells": 5},
    "lime": {"samples": 500, "segments": 6},
    "kernel_shap": {"samples": 500, "segments": 6},
    "sobol_attribution": {"designs": 8, "segments": 6},
    "hsic_attribution": {"segments": 6},
    "shap_bpt": {"samples": 300, "together": 16},
    "moxi": {"segments": 6},
    "smdl": {"segments": 5, "k": 10},
    "meaningful_perturbation": {"steps": 100, "cell": 4, "blur": 1.0, "jitter": 1},
    "extremal_perturbation": {"steps": 100, "step": 3, "sigma": 4.0},
    "xrai": {"steps": 50},
    "guided_ig": {"steps": 50},
    "ss_cam": {"samples": 4},
    "cameras": {"steps": 4, "stride": 8},
}
LONG = (  # thousands of passes per image: only on the digits, unless asked for
    "ss_cam", "is_cam", "poly_cam", "rise", "sobol_attribution", "moxi", "smdl", "extremal_perturbation",
)  # fmt: skip
SIZED: Mapping[str, Mapping[str, Any]] = {  # keywords for images of 32 pixels
    "insertion_deletion": {"step": 32},
    "irof": {"segments": 50},
    "pixel_flipping": {"region": 4, "steps": 64, "repeats": 1},
    "infidelity": {"side": 4},
    "mas": {"step": 32},
    "srg": {"points": 13, "segments": 5},
}
ENOUGH = 5  # so many images are needed before an interval counts as certain


@dataclass(frozen=True)
class Column:
    """One number of a check."""

    header: str
    check: str
    value: str = ""  # a column of the check's result; "": its values
    higher: bool = True  # is better


def rows(given: str | None, default: Sequence[str], *, quick: bool) -> list[Row]:
    """The methods of --methods or of `default`, then the controls.

    Raises:
        ValueError: there is no such method.
    """
    return [*(resolve(name, quick) for name in (given.split(",") if given else default)), *controls()]


def digits(r: Run, net: str, n: int) -> Bench:
    """Digits on textures with their masks, for one of the networks of `_nets.NETS`."""
    note = f"{n} digits on textures, {_nets.NETS[net].title}"
    return on_textures(_run.net(r, net), n, r.args.seed, name=net, note=note, chunk=512)


def for_digits(row: Row) -> Row:
    """A row for images of 32 pixels: large batches (they change no map), and fewer steps if a method is slow."""
    params = METHODS[row.key].params if row.key in METHODS else {}
    keywords = {"chunk": 512} if "chunk" in params else {}
    return replace(row, keywords=keywords | dict(FEWER.get(row.key, {})) | dict(row.keywords))


def measure(
    r: Run, here: World, rows: Sequence[Row], checks: Mapping[str, Mapping[str, Any]], bench: Bench
) -> Iterator[tuple[tuple[str, str], Part]]:
    """Run every check of every row. The first rank yields ((row, check), result of all images); the others nothing.

    Args:
        r: the run; its sidecar will name the checks and methods.
        here: this rank.
        rows: methods and controls.
        checks: name -> keywords.
        bench: network and images.
    """
    path = Path(r.args.parts or r.out / ".parts" / r.script) / bench.name.replace(" ", "_")
    folder = Folder(path=path, seed=r.args.seed, draws=1)
    units = plan(rows, checks, lambda _: bench, r.args.shard)
    mine = share(units, here)
    r.bar.reset(total=len(mine))
    for unit, _ in run(mine, folder, workers=r.args.workers):
        r.bar.set_postfix_str(unit.label)
        r.bar.update()
    here.gather(None)  # now all parts exist
    if here.rank > 0:
        return
    for name, keywords in checks.items():
        _run.note_check(r, name, keywords)
    for row in rows:
        if row.key in METHODS:
            _run.note(r, row.key, row.keywords)
    expected = len(bench.shards(r.args.shard))
    for pair, count, part in collect(units, folder):
        if count < expected:
            sys.exit(f"{r.script}: {expected - count} parts of {pair} are not in {folder.path}: do all ranks share it?")
        yield pair, part


def numbers(column: Column, part: Part) -> dict[str, Any]:
    """A cell: mean over images, 95 % bootstrap interval, n; `gain` over equally smooth noise, where > 0 is better."""
    if part.result is None:
        return {"refused": part.refused}
    values = part.result.column(column.value)
    found = asdict(interval(values))
    if part.matched is not None:
        noise = part.matched.column(column.value)
        found |= {"noise": float(np.nanmean(noise)) if not np.isnan(noise).all() else None}
        found |= {"gain": asdict(interval((values - noise) * (1 if column.higher else -1)))}
    return found


def fewer() -> str:
    """For the caption: the methods that take fewer steps on the digits."""
    return ", ".join(f"{METHODS[m].title} ({', '.join(f'{k} = {v}' for k, v in p.items())})" for m, p in FEWER.items())


def chunk(r: Run, loaded: Loaded) -> int:
    """Images per forward pass: --chunk, or a value that fits the device."""
    return r.args.chunk or (8 if loaded.device.type == "cpu" else 128)


def described(
    r: Run,
    bench: Bench,
    columns: Sequence[Column],
    rows: Sequence[Row],
    cells: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> dict[str, Any]:
    """The table of one bench: n, columns, cells, refused rows (the run notes them), and `lines` of Markdown."""
    refused = refusals(rows, cells)
    r.refused |= {f"{label}, {bench.name}": why for label, why in refused.items()}
    return {
        "n": len(bench.names),
        "columns": [c.header for c in columns],
        "cells": cells,
        "refused": list(refused),
        "lines": markdown(columns, rows, cells),
    }


def refusals(rows: Sequence[Row], cells: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, str]:
    """The reason for each row that has no number at all, by label."""
    why = {row.label: [cell.get("refused", "") for cell in cells[row.key].values()] for row in rows}
    return {label: reasons[0] for label, reasons in why.items() if all(reasons)}


def markdown(
    columns: Sequence[Column], rows: Sequence[Row], cells: Mapping[str, Mapping[str, Mapping[str, Any]]]
) -> list[str]:
    """Lines of a table: families of methods, then the controls; rows that have no number at all are left out.

    Args:
        columns: of the table.
        rows: methods and controls, in order.
        cells: row key -> column header -> from `numbers`.
    """
    refused = refusals(rows, cells)
    rows = [row for row in rows if row.label not in refused]
    head = [f"{c.header} {'↑' if c.higher else '↓'}" for c in columns]
    lines = [f"| method | {' | '.join(head)} |", f"| --- |{' ---: |' * len(columns)}"]
    for title, members in _families(rows):
        lines.append(f"| **{title}** |{' |' * len(columns)}")
        for row in members:
            name = f"[`{row.key}`](../methods/{row.key}.py)" if row.key in METHODS else row.label.replace("|", "\\|")
            lines.append(f"| {name} | {' | '.join(_shown(cells[row.key].get(c.header)) for c in columns)} |")
    return lines


def check_names(given: str | None, default: Iterable[str]) -> list[str]:
    """Names of checks from a command line.

    Raises:
        ValueError: there is no such check.
    """
    names = given.split(",") if given else list(default)
    for name in names:
        if name not in CHECKS:
            raise ValueError(f"--checks: no check is called {name!r}{closest(name, CHECKS)}")
    return names


def _families(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    for family, title in FAMILIES.items():
        members = [r for r in rows if not r.control and r.key in METHODS and METHODS[r.key].family == family]
        if members:
            yield title, members
    for title, members in (
        ("Other methods", [r for r in rows if not r.control and r.key not in METHODS]),
        ("Controls", [r for r in rows if r.control]),
    ):
        if members:
            yield title, members


def _shown(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return ""
    if cell.get("refused"):
        return "—"
    if not cell["n"]:
        return "no number"
    mean = f"{cell['mean']:.3f}"
    sure = (cell.get("gain") or {}).get("low")
    if sure is not None and sure > 0 and cell["n"] >= ENOUGH:
        mean = f"**{mean}**"
    return f"{mean} <sub>{cell['low']:.2f} to {cell['high']:.2f}</sub>" if cell["n"] > 1 else mean
