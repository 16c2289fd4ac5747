"""Every method on every family of classifiers: what runs, what is refused with which sentence, and that nothing fails.

    python reproduce/table_models.py --jobs 2
    python reproduce/table_models.py --only resnet18,levit_128s --out atlas

The reader should see: each method either runs on a model or says in one sentence why not, and the class activation
maps of nearly all families are alive.

The models: the smallest classifier of every module of timm that has one, and of torchvision; ten classes of
transformers, built small. Random weights. What the probe finds is at the model's own size; methods run on two images
at the smallest of several sizes where it finds the same, with few samples and steps. `runs` means that the map is
finite, that the map of the second image is the same alone, and that model, hooks and modes are as before. If the run
was stopped, the same command continues it. Needs tests/requirements.txt; runs on the CPU.
"""

import _run  # puts the repository on the path

# isort: split
import importlib.util
import json
import multiprocessing
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import _atlas
from _atlas import Member
from _models_page import compact, in_words, outcomes, page, totals
from methods import METHODS
from methods._options import keep_freed_memory
from sanity_checks._provenance import versions
from sanity_checks._runner import code_sha256, write_json

QUICK_MODELS = ("resnet10t", "vit_tiny_patch16_224", "xcit_nano_12_p8_224")


def main(argv: Sequence[str] | None = None) -> None:
    """Write figures/table_models.md and .json."""
    run = _run.start(
        __file__,
        __doc__,
        photos=None,
        argv=argv,
        options={
            "--only": {"metavar": "A,B", "help": "names of models (default: all)"},
            "--jobs": {"type": int, "default": 1, "metavar": "N", "help": "processes (default: %(default)s)"},
        },
    )
    members = chosen(run.args.only.split(",") if run.args.only else QUICK_MODELS if run.args.quick else None)
    if any(m.source == "transformers" for m in members) and not importlib.util.find_spec("transformers"):
        sys.exit(f"{run.script}: needs transformers; run: pip install -r tests/requirements.txt")
    rows = examined(run, members, run.out / ".parts" / run.script)
    for name in METHODS:
        _run.note(run, name, _atlas.fewer(METHODS[name]))
    run.numbers |= {"totals": totals(rows)} | compact(rows)
    caption = f"{in_words(run.numbers['totals'])} Random weights, seed 0."
    _run.save(run, None, caption, markdown=page(rows))
    if failed := [f"{r['name']}, {name}: {m['why']}" for r in rows for name, m in outcomes(r, "fails").items()]:
        sys.exit(f"{run.script}: {len(failed)} fail\n" + "\n".join(failed))


def chosen(names: Sequence[str] | None) -> list[Member]:
    """The models by name; None: all."""
    every = {m.name: m for m in _atlas.members()}
    every |= {f"{m.source}:{m.name}": m for m in _atlas.members()}
    if unknown := [n for n in names or () if n not in every]:
        sys.exit(f"table_models: --only: no model of the table is called {unknown[0]!r}")
    return [every[n] for n in names] if names else list(_atlas.members())


def examined(run: _run.Run, members: Sequence[Member], folder: Path) -> list[dict[str, Any]]:
    """The rows, in order; each is a file as soon as it is known, and is read from there the next time."""
    stamp = json.dumps([code_sha256(), Path(_atlas.__file__).read_text(), versions()])
    rows: dict[Member, dict[str, Any]] = {}
    run.bar.reset(total=len(members))
    waiting = []
    for member in members:
        if (found := _read(_file(folder, member), stamp)) is not None:
            rows[member] = found
            run.bar.update()
        else:
            waiting.append(member)
    with multiprocessing.get_context("spawn").Pool(run.args.jobs, _begin, maxtasksperchild=8) as pool:
        for member, row in pool.imap_unordered(_examine, waiting):
            write_json(_file(folder, member), {"stamp": stamp, "row": row})
            rows[member] = json.loads(_file(folder, member).read_text())["row"]
            run.bar.set_postfix_str(member.name)
            run.bar.update()
    return [rows[member] for member in members]


def _begin() -> None:
    torch.set_num_threads(1)
    keep_freed_memory()


def _examine(member: Member) -> tuple[Member, dict[str, Any]]:
    try:
        return member, _atlas.examine(member)
    except Exception as error:
        raise RuntimeError(f"{member.source}: {member.name} could not be examined") from error


def _file(folder: Path, member: Member) -> Path:
    return folder / f"{member.source}-{member.name}.json"


def _read(file: Path, stamp: str) -> dict[str, Any] | None:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return found["row"] if found.get("stamp") == stamp else None


if __name__ == "__main__":
    main()
