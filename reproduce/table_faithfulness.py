"""Faithfulness of every method on photographs: what happens to the score when what a map points at is shown or removed.

Scores of Petsiuk et al. 2018 (insertion, deletion), Samek et al. 2017 (pixel flipping), Rong et al. 2022 (ROAD), Rieger
and Hansen 2020 (IROF), Hesse et al. 2024 (single deletion), Ancona et al. 2018 (sensitivity-n), Yeh et al. 2019
(infidelity), each with its 95 % bootstrap interval over images, beside controls that know nothing of the network.

The reader should see: no method leads in every column, and smooth maps gain by being smooth; so a number in bold is one
that is surely better than that of noise as smooth as the map itself.

    python reproduce/table_faithfulness.py
    torchrun --nproc-per-node=4 reproduce/table_faithfulness.py --images DIR --model resnet50 --device cuda --workers 4

With --images DIR every image that can be read is explained for the model's top class. Killed, the same command goes on
where it was. Memory does not grow with the images, but for a few numbers of each.
"""

import sys
from pathlib import Path
from types import MappingProxyType
from typing import Any

import _run  # puts the repository on the path
from _table import ENOUGH, OPTIONS, Column, check_names, markdown, measure, numbers, refusals, rows
from methods import METHODS
from sanity_checks import CHECKS
from sanity_checks import _benches as benches
from sanity_checks._parallel import World, world

COLUMNS = (
    Column("insertion", "insertion_deletion", "insertion"),
    Column("deletion", "insertion_deletion", "deletion", higher=False),
    Column("pixel flipping", "pixel_flipping"),
    Column("ROAD", "road"),
    Column("IROF", "irof"),
    Column("single deletion", "single_deletion"),
    Column("sensitivity-n", "sensitivity_n"),
    Column("infidelity", "infidelity", higher=False),
)
CHECK_OPTIONS = MappingProxyType(
    {
        "--checks": {"metavar": "A,B", "help": "names of checks of maps; default: those of the table"},
        "--full": {
            "action": "store_true",
            "help": "the papers' settings of the checks; default: --quick's of the command",
        },
    }
)


def main() -> None:
    """Write figures/table_faithfulness.md and .json."""
    run = _run.start(
        __file__,
        __doc__,
        photos="chelsea,coffee,rocket,motorcycle,china,flower,astronaut",
        quick_photos="coffee,rocket",
        options=OPTIONS | CHECK_OPTIONS,
    )
    with world() as here:
        run.args.device = here.device(run.args.device)
        try:
            table(run, here)
        except ValueError as error:
            sys.exit(f"{run.script}: {error}")


def table(run: _run.Run, here: World) -> None:
    """Measure with all ranks; the first writes."""
    args = run.args
    few = ["gradient", "grad_cam"], ["insertion_deletion", "single_deletion"]
    names = check_names(args.checks, few[1] if args.quick else dict.fromkeys(c.check for c in COLUMNS))
    columns = [c for c in COLUMNS if c.check in names]
    columns += [Column(CHECKS[n].title, n, "", CHECKS[n].higher_is_better is not False) for n in names
                if n not in {c.check for c in COLUMNS}]  # fmt: skip
    loaded = _run.load(run)
    good, bad = benches.readable(args.images, loaded, workers=args.workers, world=here)
    bench = benches.photographs(loaded, good, args.chunk or (8 if loaded.device.type == "cpu" else 128))
    all_rows = rows(args.methods, few[0] if args.quick else list(METHODS), quick=args.quick)
    checks = {n: {} if args.full else dict(CHECKS[n].quick) for n in names}
    cells: dict[str, dict[str, dict[str, Any]]] = {}
    for (row, check), part in measure(run, here, all_rows, checks, lambda _: bench):
        for column in columns:
            if column.check == check:
                cells.setdefault(row, {})[column.header] = numbers(column, part)
    if here.rank > 0:
        return
    refused = refusals(all_rows, cells)
    run.refused |= {f"{label}, {loaded.tag}": why for label, why in refused.items()}
    run.numbers = {
        "n": len(good),
        "unreadable": bad,
        "images": {Path(i).name: sha for i, sha in good.items()} if len(good) <= 100 else len(good),
        "columns": [c.header for c in columns],
        "cells": cells,
    }
    left_out = f" ({len(bad)} could not be read)" if bad else ""
    settings = "those of the papers" if args.full else "reduced, see the sidecar"
    caption = (
        f"{loaded.note}. {len(good)} images{left_out}, explained for the top class, seed {args.seed}. Mean over images "
        "and 95 % bootstrap interval. ↑ higher is better, ↓ lower. Bold: surely (95 %) better than noise as smooth as "
        f"the map itself, on the same images, {ENOUGH} or more. Settings of the checks: {settings}. "
        + ("With so few images this is a filter, not a ranking." if len(good) < 100 else "")
        + (f" Not defined for this model: {', '.join(refused)}." if refused else "")
    )
    table = markdown(columns, all_rows, cells)
    _run.save(run, None, caption, markdown="\n".join(["# Faithfulness", "", *table, "", caption]))


if __name__ == "__main__":
    main()
