"""Sanity checks of attribution methods: one command, one report.

python -m sanity_checks grad_cam integrated_gradients path/to/mine.py:my_method --out report/
python -m sanity_checks --list

Writes report.html (one self-contained page), report.json (every number) and the pictures into --out. A METHOD is a
name from methods/, module:function or file.py:function with the signature f(model, x, target, *, keywords) -> B K h w;
`layer` and `seed` are set if it has them. If a run was killed or interrupted, the same command continues it: results
in --out are used again where this code, the user's own files with all that they import, the versions of packages, the
model and the images are the same. Data files that a function reads are not compared: --fresh.
`torchrun --nproc-per-node=N -m sanity_checks ...` shares the images among N processes.
Exit status: 0 finished, 1 --require was not met, 2 wrong input, 3 the program failed (results up to then are kept),
130 interrupted (the report has what was finished).
"""

import argparse
import contextlib
import dataclasses
import importlib.metadata
import platform
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from methods import _images, _models, _options
from methods._display import write_png
from methods._front_door import closest
from methods._progress import progress
from methods._references import citation, references
from sanity_checks import CHECKS
from sanity_checks import _benches as benches
from sanity_checks._claim import claimed
from sanity_checks._parallel import World, world
from sanity_checks._pictures import cascade_figure, maps_figure, picture
from sanity_checks._provenance import PACKAGES, commit, shortened
from sanity_checks._report import curves_figure, summarise, write_html
from sanity_checks._rows import Row, controls, resolve, try_out
from sanity_checks._runner import Bench, Folder, Unit, cached, collect, plan, run, share, write_json
from sanity_checks._verdict import ORDER, TABLE_CHECKS, sentence, verdict_of_row

PHOTOGRAPHS = "chelsea,coffee,rocket,motorcycle,china,flower,astronaut,grace_hopper"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.list:
        print(
            "\n".join(f"{c.kind:14} {name:32} {c.title}" for name, c in sorted(CHECKS.items(), key=lambda i: i[1].kind))
        )
        return 0
    try:
        with world() as here:
            return _run(args, sys.argv[1:] if argv is None else argv, here)
    except Exception as error:
        return _options.ended("sanity_checks", error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sanity_checks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("methods", metavar="METHOD", nargs="*", help="name in methods/, module:function or file.py:function")
    _options.add(parser)
    parser.set_defaults(images=PHOTOGRAPHS)
    add(
        "--data",
        metavar="FOLDER",
        help="idx files of (Fashion-)MNIST for label randomisation and ROAR; default: digits",
    )
    add("--out", metavar="FOLDER", default="report", help="default: %(default)s/")
    add("--checks", metavar="A,B", help="names, or all; default: those of the main table")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="about a minute a method on two cores (default)")
    size.add_argument("--full", action="store_true", help="the papers' settings: seeds, steps, samples")
    add("--chunk", type=int, metavar="N", help="images per forward pass of a check (default: 8, on a GPU 128)")
    add("--workers", type=int, default=0, metavar="N", help="processes that decode images (default: %(default)s)")
    add("--shard", type=int, default=8, metavar="N", help="images per result file, at least 2 (default: %(default)s)")
    add("--fresh", action="store_true", help="use no result of an earlier run in --out")
    add("--require", choices=ORDER[1:], help="exit with 1 if a method's verdict is below this")
    add("--list", action="store_true", help="list the checks and exit")
    return parser


def _run(args: argparse.Namespace, argv: Sequence[str], here: World) -> int:
    mode = "full" if args.full else "quick"
    checks = _checks(args.checks, mode)
    rows = _rows(args.methods, mode)
    if args.require and "model_randomization" not in checks:
        raise ValueError("--require: the verdict comes from model_randomization; add it to --checks")
    if args.chunk is not None and args.chunk < 1:
        raise ValueError(f"--chunk: at least 1 image per forward pass, got {args.chunk}")
    if args.shard < 2:
        raise ValueError(f"--shard: the null of a randomisation needs 2 images at least in a shard, got {args.shard}")
    args.device = here.device(args.device)
    _options.use_device(args.device)
    with claimed(Path(args.out).expanduser(), "--out") if here.rank == 0 else contextlib.nullcontext():
        return _report(args, argv, here, mode, checks, rows)


def _report(
    args: argparse.Namespace,
    argv: Sequence[str],
    here: World,
    mode: str,
    checks: Mapping[str, Mapping[str, Any]],
    rows: list[Row],
) -> int:
    """Measure, write the report and say on the terminal what it says; returns the exit status."""
    loaded = _options.load(args)
    good, bad = benches.readable(args.images, loaded, workers=args.workers, world=here)
    if bad and here.rank == 0:
        print(_images.in_words(bad), file=sys.stderr)
    found = _benches(checks, loaded, good, mode, args)
    photographs = found["photographs"]
    first = photographs.load(0, 1)
    x, target, names = first["x"], first["target"], photographs.names[:1]
    rows = [try_out(row, row.bind(loaded.model, x, args.seed, names), loaded.model, x, target) for row in rows]
    if all(row.refused or row.control for row in rows):
        raise ValueError("; ".join(f"{row.label}: {row.refused}" for row in rows if row.refused))
    measured = [row for row in rows if not row.refused]
    units = plan(measured, checks, lambda check: benches.bench_of(check, found), args.shard)
    out = Path(args.out).expanduser()
    folder = Folder(path=out / "parts", seed=args.seed, draws=1 if mode == "quick" else 5, verdicts=True)
    if args.fresh and here.rank == 0:
        shutil.rmtree(folder.path, ignore_errors=True)
    here.gather(None)
    shown, reused, stopped = _work(units, measured, photographs, folder, args.workers, here)
    if here.rank > 0:
        return 0
    parts, done = {}, 0
    for pair, count, part in collect(units, folder):
        parts[pair] = part
        done += count
    report = summarise(rows, parts)
    for row in report["rows"].values():
        row["sentence"] = sentence(row["label"], row, len(good), loaded.tag) if row["verdict"] else ""
    report |= _provenance(args, argv, mode, loaded, rows, found, good, bad)
    report |= {
        "settings": {name: dict(params) for name, params in checks.items()},
        "units": len(units),
        "done": done,
        "complete": done == len(units) and not stopped,
        "refusals": sorted(
            {f"{row} {check}: {part.refused}" for (row, check), part in parts.items() if part.refused}
            | {f"{row} pictures: {found['refused']}" for row, found in shown.items() if "refused" in found}
            | {f"{row.key}: {row.refused}" for row in rows if row.refused}
        ),
    }
    shown = {row: found for row, found in shown.items() if "refused" not in found}
    _write(report, rows, shown, loaded, list(good), out)
    state = "complete" if report["complete"] else "INCOMPLETE"
    print(f"{out / 'report.html'}, report.json and pictures")
    print(f"  {state}: {done} of {len(units)} results, {reused} of them from an earlier run")
    for row in report["rows"].values():
        if not row["control"]:
            print(f"  {verdict_of_row(row)}")
    if stopped:
        return 130
    if args.require:
        reached = [report["rows"][r.key]["verdict"] for r in rows if not r.control]
        return int(any(v is None or ORDER.index(v) < ORDER.index(args.require) for v in reached))
    return 0


def _checks(names: str | None, mode: str) -> dict[str, Mapping[str, Any]]:
    """Checks by name, with their keywords."""
    wanted = list(CHECKS) if names == "all" else names.split(",") if names else list(TABLE_CHECKS)
    for name in wanted:
        if name not in CHECKS:
            raise ValueError(f"--checks: no check is called {name!r}{closest(name, CHECKS)}; see --list")
    return {name: CHECKS[name].quick if mode == "quick" else {} for name in dict.fromkeys(wanted)}


def _rows(specs: Sequence[str], mode: str) -> list[Row]:
    """Methods, then controls."""
    if not specs:
        raise ValueError("METHOD: name at least one, such as grad_cam or mine.py:my_method")
    rows = [*(resolve(spec, mode == "quick") for spec in specs), *controls()]
    keys = [row.key for row in rows]
    twice = next((k for k in keys if keys.count(k) > 1), None)
    if twice:
        raise ValueError(f"METHOD: two rows would be called {twice!r}; give one of the functions another name")
    return rows


def _benches(
    checks: Mapping[str, Any],
    loaded: _models.Loaded,
    good: Mapping[_images.Item, Any],
    mode: str,
    args: argparse.Namespace,
) -> dict[str, Bench]:
    """The benches that the checks need; photographs are always among them."""
    needed = {name for check in checks for name in ("mask", "nets", "data") if name in CHECKS[check].inputs}
    chunk = args.chunk or (8 if loaded.device.type == "cpu" else 128)
    found = {"photographs": benches.photographs(loaded, good, chunk)}
    if "mask" in needed:
        found["textured"] = benches.textured(loaded, mode, args.seed)
    if "nets" in needed:
        found["labels"] = benches.labels(loaded, mode, args.data, args.seed)
    if "data" in needed:
        found["retrained"] = benches.retrained(loaded, args.data)
    return found


def _work(
    units: Sequence[Unit], rows: Sequence[Row], photographs: Bench, folder: Folder, workers: int, here: World
) -> tuple[dict[str, Any], int, bool]:
    """All the expensive work, shared among the ranks.

    Returns:
        Pictures by row, the number of results that were there before, and whether it was interrupted.
    """
    shown: dict[str, Any] = {}
    reused = 0
    mine, my_rows = share(units, here), here.share(rows)

    def pictures(row: Row) -> dict[str, Any]:
        return cached(folder.path / row.key / "pictures.json", row, photographs, folder.seed, picture)

    total = len(mine) + len(my_rows)
    with progress("sanity checks", "result", total, silent=here.rank > 0) as bar:
        try:
            for row in my_rows:
                bar.set_postfix_str(f"{row.key} pictures")
                shown[row.key] = pictures(row)
                bar.update()
            for unit, there in run(mine, folder, workers=workers):
                reused += there
                bar.set_postfix_str(unit.label)
                bar.update()
        except KeyboardInterrupt:
            if here.size > 1:
                raise
            print("\ninterrupted: writing a report of what there is", file=sys.stderr)
            return shown, reused, True
    reused = sum(here.gather(reused))
    return {row.key: pictures(row) for row in rows} if here.rank == 0 else {}, reused, False


def _provenance(
    args: argparse.Namespace,
    argv: Sequence[str],
    mode: str,
    loaded: _models.Loaded,
    rows: Sequence[Row],
    found: Mapping[str, Bench],
    good: Mapping[_images.Item, Any],
    bad: Mapping[str, str],
) -> dict[str, Any]:
    """What made the report, without times and paths of this machine, so that a resumed run writes the same."""
    return {
        "command": shlex.join(["python", "-m", "sanity_checks", *shortened(argv)]),
        "methods": [row.key for row in rows if not row.control],
        "labels": [row.label for row in rows if not row.control],
        "mode": mode,
        "seed": args.seed,
        "model": {
            "tag": loaded.tag,
            "note": loaded.note,
            "source": loaded.weights_source,
            "weights_sha256": loaded.weights_sha256,
            "code_sha256": loaded.code_sha256,
            "preprocessing": dataclasses.asdict(loaded.preprocessing),
        },
        "images": {"used": {i.name: sha for i, sha in good.items()}, "skipped": sorted(bad)},
        "benches": [bench.note for bench in found.values()],
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "device": args.device,
        "commit": commit(),
    }


def _write(
    report: dict[str, Any],
    rows: Sequence[Row],
    shown: Mapping[str, Any],
    loaded: _models.Loaded,
    items: Sequence[_images.Item],
    out: Path,
) -> None:
    """Write report.json, the PNGs and report.html; each file is complete or absent."""
    report["captions"] = {
        "maps": f"Maps of {loaded.tag} for its top class: channels summed, each divided by its own "
        "99.5th percentile of |a|.",
        "cascade": f"{items[0].name}: the map of the trained network, then with its weights permuted from the "
        "head down to the stage named.",
        "curves": "Rank correlation of the absolute maps with those of the trained network while weights are "
        "discarded, and class probability while pixels are shown or removed. Mean over images; the band is a pointwise "
        "95 % bootstrap interval. The steps of a cascade are spread evenly over the stages; the last has lost all.",
    }
    figures = {}
    if shown:
        photos = [_images.read(i, loaded.preprocessing).rgb for i in items[: len(next(iter(shown.values()))["maps"])]]
        figures["maps"] = maps_figure(rows, shown, photos, "")
        few = [row for row in rows if not row.control or row.key in ("white_noise", "sobel_edges")]
        figures["cascade"] = cascade_figure(few, shown, photos[0], "")
    curves = curves_figure(report)
    if curves is not None:
        figures["curves"] = curves
    out.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        temporary = out / f".{name}.png.tmp"
        write_png(figure, temporary, optimize=False)
        temporary.replace(out / f"{name}.png")
    write_json(out / "report.json", report, indent=1)
    bib = {key: f"{citation(entry)}." for key, entry in references().items()}
    write_html(out / "report.html", report, {name: out / f"{name}.png" for name in figures}, bib)


if __name__ == "__main__":
    sys.exit(main())
