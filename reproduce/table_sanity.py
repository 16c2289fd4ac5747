"""What the sanity checks say about eight methods and six controls: `python -m sanity_checks` in its quick settings.

The reader should see: maps that follow the network and the class are told from maps that do not, and from controls
that never saw the network.

R is the share of a map's similarity that is left after a change of the network or of the class, by the size of the rank
correlation: 1, nothing changed; 0, no more similar than maps of different images; with 95 % intervals over images, and
no number where noise would give the same. Same function: the correlation of the maps of two networks that compute the
same. Asked cell: the share of the map on the image that is asked for, of a mosaic of four. Mass / area: on images with
known evidence. In brackets: the best of the controls that the method must beat.
"""

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import _run  # puts the repository on the path
from methods import METHODS
from sanity_checks import CHECKS
from sanity_checks import __main__ as command
from sanity_checks._verdict import FOUR_SENTENCES, TABLE_CHECKS, WORDS

SHOWN = (
    "gradient",
    "smooth_grad",
    "integrated_gradients",
    "guided_backprop",
    "grad_cam",
    "layer_cam",
    "ablation_cam",
    "eigen_cam",
)
QUICK = ("gradient", "grad_cam")
KEPT = ("mean", "low", "high", "word", "meaningless", "value", "best control", "n")  # of a cell
COLUMNS = {  # of the report: as headed here
    "R, head gone": "R, head randomised",
    "R, all gone": "R, all randomised",
    "R, as sure": "R, all randomised, as sure",
    "R, other class": "R, other class",
    "R, labels": "R, permuted labels",
    "same function": "same function",
    "asked cell": "asked cell",
    "insertion": "insertion",
    "ROAD": "ROAD",
    "mass / area": "mass / area",
}


def main() -> None:
    """Write figures/table_sanity.md and .json."""
    run = _run.start(__file__, __doc__, photos=command.PHOTOGRAPHS, quick_photos="chelsea,coffee")
    loaded = _run.load(run)
    shown = QUICK if run.args.quick else SHOWN
    for photo in _run.photos_of(run, loaded):
        run.inputs[photo.name] = photo
    run.bar.close()  # the command has its own
    with tempfile.TemporaryDirectory() as folder:
        words = ["--model", loaded.tag, "--images", run.args.images, "--device", run.args.device]
        if status := command.main([*shown, *words, "--quick", "--seed", str(run.args.seed), "--out", folder]):
            sys.exit(status)
        report = json.loads((Path(folder) / "report.json").read_text())
    for name in shown:
        _run.note(run, name, report["rows"][name]["keywords"])
    for name in TABLE_CHECKS:
        _run.note_check(run, name, CHECKS[name].quick)
    run.numbers |= {
        row: {
            "label": found["label"],
            "control": found["control"],
            "verdict": found["verdict"],
            "conditions": found["conditions"],
            "sentence": found["sentence"],
            "cells": {c: {k: found["table"][c].get(k) for k in KEPT} for c in COLUMNS},
        }
        for row, found in report["rows"].items()
    }
    caption = f"{loaded.note}. {'; '.join(report['benches'])}."
    said = "\n".join(f"- {row['sentence']}" for row in run.numbers.values() if not row["control"])
    page = f"# What the sanity checks say\n\n{caption}\n\n{table(run.numbers)}\n\n{FOUR_SENTENCES}\n\n{said}"
    _run.save(run, None, caption, markdown=page)


def table(rows: Mapping[str, Any]) -> str:
    """The rows as Markdown."""
    lines = [f"| | verdict | {' | '.join(COLUMNS.values())} |", f"| --- | --- |{' ---: |' * len(COLUMNS)}"]
    for name, row in rows.items():
        label = row["label"].replace("|", "\\|")
        link = f"[{label}](../methods/{name}.py)" if name in METHODS else label
        cells = [_cell(row["cells"][c]) for c in COLUMNS]
        lines.append(f"| {link} | {WORDS[row['verdict']]} {row['verdict']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(cell: Mapping[str, Any]) -> str:
    if cell["mean"] is None or cell["meaningless"]:
        return ""
    if cell["best control"] is not None:
        return f"{WORDS[cell['word']]} {cell['value']:.2f} <sub>({cell['best control']:.2f})</sub>"
    return f"{cell['mean']:.2f} <sub>{cell['low']:.2f} to {cell['high']:.2f}</sub>"


if __name__ == "__main__":
    main()
