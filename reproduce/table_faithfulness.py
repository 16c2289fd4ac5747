"""Faithfulness of every method: the change of the score when the pixels that a map marks are shown or removed.

Scores of Petsiuk et al. 2018 (insertion, deletion), Rong et al. 2022 (ROAD), Rieger and Hansen 2020 (IROF), Hesse et
al. 2024 (single deletion), Samek et al. 2017 (pixel flipping), Ancona et al. 2018 (sensitivity-n), Yeh et al. 2019
(infidelity), Walker et al. 2024 (MAS), Wu et al. 2024 (SaCo), Bluecher et al. 2024 (SRG), each with its 95 % bootstrap
interval over images. The table also has controls that do not use the network. The images are photographs, and digits
on textures with a small CNN and a small ViT, where all scores are cheap.

The reader should see: no method is the best in every column, and on photographs smooth noise beats white noise in
insertion. So a number is bold only if it is certainly better than that of noise as smooth as the map itself.

    python reproduce/table_faithfulness.py
    torchrun --nproc-per-node=4 reproduce/table_faithfulness.py --images DIR --model resnet50 --device cuda --workers 4

With --images DIR every readable image is explained for the model's top class. If the run was killed, start the same
command again to continue it. Memory grows only by a few numbers per image.
"""

import sys
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import _run  # puts the repository on the path
from _table import (
    ENOUGH,
    LONG,
    OPTIONS,
    SIZED,
    Column,
    check_names,
    chunk,
    described,
    digits,
    fewer,
    for_digits,
    measure,
    numbers,
    rows,
)
from methods import METHODS, _images
from sanity_checks import CHECKS
from sanity_checks import _benches as benches
from sanity_checks._parallel import World, world
from sanity_checks._runner import Bench

COLUMNS = (
    Column("insertion", "insertion_deletion", "insertion"),
    Column("deletion", "insertion_deletion", "deletion", higher=False),
    Column("ROAD", "road"),
    Column("IROF", "irof"),
    Column("single deletion", "single_deletion"),
    Column("pixel flipping", "pixel_flipping"),
    Column("sensitivity-n", "sensitivity_n"),
    Column("infidelity", "infidelity", higher=False),
    Column("MAS", "mas"),
    Column("SaCo", "saco"),
    Column("SRG", "srg"),
)
ON_PHOTOGRAPHS = (
    "insertion_deletion",
    "road",
    "irof",
    "single_deletion",
    "saco",
)  # the others cost as much as these together
ON_DIGITS = tuple(dict.fromkeys(c.check for c in COLUMNS))
FEW = ["gradient", "grad_cam"]  # methods of a quick run
CHECK_OPTIONS = MappingProxyType(
    {
        "--checks": {"metavar": "A,B", "help": "names of checks of maps; default: the checks of the tables"},
        "--full": {"action": "store_true", "help": "the papers' settings of the checks, not those of a quick report"},
        "--digits": {"type": int, "default": 32, "metavar": "N", "help": "digits on textures; 0: none"},
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
            tables(run, here)
        except ValueError as error:
            sys.exit(f"{run.script}: {error}")


def tables(run: _run.Run, here: World) -> None:
    """Measure with all ranks; the first rank writes the table."""
    args = run.args
    n = min(args.digits, 12) if args.quick else args.digits
    loaded = _run.load(run)
    good, bad = benches.readable(args.images, loaded, workers=args.workers, world=here)
    if bad and here.rank == 0:
        run.bar.write(_images.in_words(bad), file=sys.stderr)
    photographs = benches.photographs(loaded, good, chunk(run, loaded))
    few = ["single_deletion"]
    names = check_names(args.checks, few if args.quick else ON_PHOTOGRAPHS)
    short = [name for name in METHODS if name not in LONG]
    found = {f"{len(good)} photographs, {loaded.tag}": table(run, here, photographs, names, short)}
    names = check_names(args.checks, few if args.quick else ON_DIGITS)
    nets = [("digit_cnn", "small CNN"), ("digit_vit", "small ViT")]
    for net, kind in nets[: 1 if args.quick else 2] if n else ():
        bench = digits(run, net, n)
        found[f"{n} digits on textures, {kind}"] = table(run, here, bench, names, list(METHODS), small=True)
    if here.rank > 0:
        return
    long = ", ".join(METHODS[m].title for m in LONG)
    left_out = f" ({len(bad)} more could not be read)" if bad else ""
    caption = (
        f"{loaded.note}. Photographs{left_out} are explained for the top class, digits for the digit, seed "
        f"{args.seed}. Mean over images and 95 % bootstrap interval. ↑ higher is better, ↓ lower is better. Bold: "
        f"certainly (95 %) better than noise as smooth as the map itself, on the same images, at least {ENOUGH}. "
        f"Settings of the checks: {'those of the papers' if args.full else 'reduced, see the sidecar'}. Fewer steps on "
        f"the digits: {fewer()}. "
        + f"These need thousands of passes and run on photographs only if --methods names them: {long}. "
        + ("With so few photographs this is a filter, not a ranking." if len(good) < 100 else "")
        + "".join(f" Not defined for {title}: {', '.join(f['refused'])}." for title, f in found.items() if f["refused"])
    )
    lines = [line for title, f in found.items() for line in (f"## {title}", "", *f.pop("lines"), "")]
    shas = {i.name: sha for i, sha in good.items()} if len(good) <= 100 else {}
    run.numbers = {"n": len(good), "unreadable": bad, "images": shas, "tables": found}
    _run.save(run, None, caption, markdown="\n".join(["# Faithfulness", "", *lines, caption]))


def table(
    run: _run.Run, here: World, bench: Bench, names: Sequence[str], methods: Sequence[str], *, small: bool = False
) -> dict[str, Any]:
    """Every check of `methods` or --methods on one bench. The first rank returns the table, the others nothing."""
    args = run.args
    columns = [c for c in COLUMNS if c.check in names]
    columns += [
        Column(CHECKS[name].title, name, "", CHECKS[name].higher_is_better is not False)
        for name in names
        if name not in ON_DIGITS
    ]
    every = rows(args.methods, FEW if args.quick else methods, quick=args.quick)
    every = [for_digits(row) for row in every] if small else every
    sized = SIZED if small else {}
    checks = {name: ({} if args.full else dict(CHECKS[name].quick)) | dict(sized.get(name, {})) for name in names}
    cells: dict[str, dict[str, Any]] = {}
    for (row, check), part in measure(run, here, every, checks, bench):
        for column in columns:
            if column.check == check:
                cells.setdefault(row, {})[column.header] = numbers(column, part)
    if here.rank > 0:
        return {}
    return described(run, bench, columns, every, cells)


if __name__ == "__main__":
    main()
