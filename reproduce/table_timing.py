"""What every method costs: seconds, memory, and model passes, counted and promised; other libraries in the same run.

    python reproduce/table_timing.py                    # figures/timing_cpu.md, .json, .png
    python reproduce/table_timing.py --device cuda      # figures/timing_<name of the GPU>.*
    python reproduce/table_timing.py --plan 50000       # hours that so many images would take; writes nothing

Cost is counted in passes, because seconds do not travel between machines. Not all passes are of the whole network:
where a layer's output is edited, or a gradient ends there, the others are of the tail, the part after the layer. Both
are timed in torch alone, between the calls of the method, in its batches. F is a forward pass without gradients.

    overhead  =  seconds / (passes before the layer * a whole pass  +  the others * a pass of the tail)

The reader should see: every method runs the passes that it promises, and its other work takes little where
the passes are more than ten (overhead at most 1.1, or the remark says what takes the rest).

The form is that of the times in saliency cards (Boggust et al., FAccT 2023, arXiv:2206.02958, figure 3d), with counts
next to the seconds. Settings: the pinned resnet50's architecture with random weights, which take the same time as
trained ones (attention methods: vit_small_patch16_224, random too); 224 px; the default layer; default keywords.
"""

import _run  # puts the repository on the path

# isort: split
import argparse
import difflib
import json
import re
import sys
from collections.abc import Sequence

import torch

import _several
from _cells import OTHER_SETTINGS, Rates, Subject, as_promised, call_of, cells_of, other_settings, subjects, wrong
from _clock import LONG
from _peers import MODULES, PEERS, version
from _timing import MANY, Cell, compare
from _timing_page import BRACKETS, figure, plan, plan_text, tables
from methods import METHODS, _images

CELLS = (("float32", 1), ("float32", 8), ("bfloat16", 1), ("bfloat16", 8))
QUICK_METHODS = ("gradient", "grad_cam", "integrated_gradients", "ablation_cam", "attention_rollout")
AT_THE_END = [("ablation_cam", {"layer": "layer4"})]  # where only the part after the layer need run
LIMIT = 320.0  # seconds of one call on the CPU; a sixteenth of it in all tables but the first


def device_name(device: torch.device) -> str:
    """'cpu', or the name of the GPU, as part of a file name."""
    full = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return re.sub(r"[^a-z0-9]+", "_", full.lower()).strip("_")


def chosen(names: str | None) -> list[str]:
    """--methods as a list.

    Raises:
        argparse.ArgumentTypeError: an unknown name.
    """
    found = [n.strip() for n in names.split(",") if n.strip()] if names else list(METHODS)
    for name in found:
        if name not in METHODS:
            close = difflib.get_close_matches(name, METHODS, n=1)
            raise argparse.ArgumentTypeError(
                f"unknown method {name!r}{f'; did you mean {close[0]!r}?' if close else ''}"
            )
    return found


def planned(run: _run.Run, found: Sequence[Subject], name: str) -> list[Cell]:
    """Cells for `plan`: of the table where there is one for these networks, else expected from passes timed now."""
    tags = {s.loaded.tag for s in found}
    for folder in (run.out, _run.FIGURES):
        file = folder / f"{name}.json"
        facts = json.loads(file.read_text()) if file.is_file() else {}
        if facts and not facts["quick"] and tags <= {m["tag"] for m in facts["model"]}:
            wanted = {n for s in found for n in s.methods}
            print(f"from {file.name} ({facts['device']})")
            return [c for c in facts["numbers"]["cells"] if c["method"] in wanted]
    print("from passes timed now: there is no table of this device and network")
    cells = []
    for s in found:
        rates = Rates(s.loaded.model, s.x[:8])
        for name in s.methods:
            with _run.attempt(run, name, s.loaded.tag):
                call = call_of(run, name, s.loaded.model, s.x)
                cell = {"method": name, "dtype": "float32", "batch": len(rates.x), "status": ""}
                cells.append(cell | as_promised(call.promised) | {"expected": rates.expect(call)})
    return cells


def main(argv: Sequence[str] | None = None) -> None:
    """Write figures/timing_<device>.md, .json and .png."""
    run = _run.start(
        __file__,
        __doc__,
        photos=",".join([*_images.PACKAGED, *_images.COMPOSITES]),
        quick_photos="coffee",
        weights="random",
        argv=argv,
        options={
            "--methods": {"metavar": "A,B", "type": chosen, "help": "only these (default: all)"},
            "--keep": {"action": "store_true", "help": "with --methods: keep all else of the table that is in --out"},
            "--limit": {"type": float, "metavar": "SECONDS", "help": f"longest call in the first table, a sixteenth of "
                        f"it in the others; longer cells are not run (default: {LIMIT:g} on the CPU, else none)"},
            "--plan": {"type": int, "metavar": "IMAGES", "help": "print the hours that so many images would take"},
        },
    )  # fmt: skip
    args, device = run.args, torch.device(run.args.device)
    run.name = f"timing_{device_name(device)}"
    limit = args.limit if args.limit is not None else LIMIT if device.type == "cpu" else float("inf")
    names = args.methods or (list(QUICK_METHODS) if args.quick else list(METHODS))
    settings = CELLS[:1] if args.quick else CELLS
    largest = max(batch for _, batch in settings)
    found = subjects(run, list(METHODS) if args.keep else names, 8 if args.plan else largest)
    found = [s._replace(methods=[n for n in s.methods if n in names]) for s in found]
    if args.plan is not None:
        run.bar.disable = True
        print(plan_text(plan(planned(run, found, run.name), args.plan), args.plan))
        return

    compared = sorted(n for n in found[0].methods if any(n == m for m, _ in PEERS))
    compared = [n for n in compared if n == "grad_cam"] if args.quick else compared
    run.bar.reset(total=len(settings) * sum(len(s.methods) for s in found) + len(compared))
    cells = [cell for s in found for cell in cells_of(run, s, settings, limit)]
    peers: list[Cell] = []
    main_one = found[0]
    others = [] if args.quick or args.methods else other_settings(run, main_one)
    with torch.no_grad():
        target = main_one.loaded.model(main_one.x[:1]).argmax(dim=1)
    if args.keep:
        cells, others, peers, shared = kept(run, cells, other_settings(run, main_one))
        write(run, found, cells, others, peers, shared, limit)
        return
    for name in compared:
        run.bar.set_postfix_str(f"{name}, other libraries")
        try:
            peers += compare(name, main_one.loaded.model, main_one.x[:1], target)
        except Exception as error:  # another library may not run on this network or machine
            run.refused[f"{name}, other libraries"] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        run.bar.update()
    for name, settings in [] if args.quick or args.methods else AT_THE_END:
        run.bar.set_postfix_str(f"{name}, {settings}, other libraries")
        peers += compare(name, main_one.loaded.model, main_one.x[:1], target, settings)
    with torch.no_grad():
        classes = main_one.loaded.model(main_one.x[:1]).topk(max(_several.CLASSES)).indices[0]
    run.bar.set_postfix_str("several classes")
    shared = _several.several(main_one.loaded.model, main_one.x[:1], classes, main_one.methods)
    write(run, found, cells, others, peers, shared, limit)


def kept(run: _run.Run, cells: list[Cell], others: list[Cell]) -> tuple[list[Cell], list[Cell], list[Cell], list[Cell]]:
    """The new cells and other settings, and all else of the table that is there; its commit goes into the sidecar."""
    file = run.out / f"{run.name}.json"
    facts = json.loads(file.read_text()) if file.is_file() else None
    if not facts or facts["quick"] or not run.args.methods or facts["numbers"]["threads"] != torch.get_num_threads():
        sys.exit(f"{run.script}: --keep: needs --methods and a table of this device with as many threads in {run.out}")
    new = {c["method"] for c in cells}
    there = facts["numbers"]
    for name in set(facts["methods"]) - new:
        run.methods[name] = facts["methods"][name]
    run.numbers["kept"] = [*there.get("kept", []), {"commit": facts["commit"], "again": sorted(new)}]

    networks = list(dict.fromkeys(c["model"] for c in there["cells"]))
    settings, names = [name for name, _ in OTHER_SETTINGS], list(METHODS)
    cells += [c for c in there["cells"] if c["method"] not in new]
    others += [c for c in there["other_settings"] if c["method"] not in new]

    def place(c: Cell) -> tuple[int, int, int]:
        return networks.index(c["model"]), CELLS.index((c["dtype"], c["batch"])), names.index(c["method"])

    cells.sort(key=place)
    others.sort(key=lambda c: settings.index(c["method"]))
    return cells, others, there["peers"], there["classes"]


def write(
    run: _run.Run,
    found: Sequence[Subject],
    cells: list[Cell],
    others: list[Cell],
    peers: list[Cell],
    shared: list[Cell],
    limit: float,
) -> None:
    """The table, the figure and the sidecar; ends the script with an error where a promise is broken."""
    device = torch.device(run.args.device)
    missing = [p for p in MODULES if not version(p)]
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    networks = " ".join(
        f"{s.loaded.note}, {s.x.shape[-1]} px{'' if i == 0 else ' (methods for transformers only)'}."
        for i, s in enumerate(found)
    )
    how = (
        f"{networks} {where}, torch {torch.__version__.partition('+')[0]}. Photographs, default layer, default "
        "keywords. F: a forward pass of the batch without gradients. "
    )
    once = f"calls beyond {LONG:g} s are timed once"
    head = how + (
        "Passes: forward + backward, images through the classifier for each image, counted during the call; "
        f"{BRACKETS}. All are as promised unless the remark says so. Seconds: median for the batch, with the "
        f"interquartile range; {once}. x gradient: compared with a gradient of the batch in torch alone. Overhead: "
        "seconds over the seconds of these passes by themselves, whole ones and those of the tail, timed in the same "
        "rounds and batches. MiB: the most that a call held, "
        f"{'allocated by torch' if device.type == 'cuda' else 'resident memory'}."
    )
    caption = how + (
        f"Medians; {once}. Grey bars: what the counted passes cost by themselves, whole ones and those of the part "
        "after the layer alone (first measured cell of the method). Right: the same work in other libraries, called in "
        "turns with ours, float32, one image, with fewer steps, samples and windows on both sides; right of the grey "
        "line ours is faster."
    )
    many = [c for c in cells if c["status"] == "measured" and sum(c["promised"]) > MANY]
    run.numbers |= {
        "where": where,
        "threads": torch.get_num_threads(),
        "limit": limit if limit < float("inf") else None,
        "cells": cells,
        "other_settings": others,
        "classes": shared,
        "peers": peers,
        "not_installed": missing,
        "largest_overhead": max((c["overhead"] for c in many), default=None),
    }
    if run.refused:
        head += " " + " ".join(f"{k}: {v}." for k, v in run.refused.items())
    _run.save(run, figure(cells, peers, caption), caption, markdown=tables(cells, others, shared, peers, missing, head))
    if bad := wrong([*cells, *others]):
        sys.exit(f"{run.script}: not as promised:\n" + "\n".join(bad))


if __name__ == "__main__":
    main()
