"""What the sanity checks say about eight methods and five controls: `python -m sanity_checks` in its quick settings.

The reader should see: maps that follow the network and the class are told from maps that do not, and from controls
that never saw the network.

R is the share of a map's similarity that is left after a change of the network or of the class, by rank correlation:
1, nothing changed; 0, no more similar than maps of different images. Insertion and ROAD are gains over noise as smooth
as the map; mass / area is measured on images with known evidence. With 95 % bootstrap intervals over images; no number
where noise would give the same.
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
from sanity_checks._report import TABLE_CHECKS, WORDS

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
KEPT = ("mean", "low", "high", "word", "meaningless")  # of a cell
COLUMNS = {  # of the report: as headed here
    "R, head gone": "R, head randomised",
    "R, all gone": "R, all randomised",
    "R, other class": "R, other class",
    "R, labels": "R, permuted labels",
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
            "cells": {c: {k: found["table"][c].get(k) for k in KEPT} for c in COLUMNS},
        }
        for row, found in report["rows"].items()
    }
    caption = f"{loaded.note}. {'; '.join(report['benches'])}."
    _run.save(run, None, caption, markdown=f"# What the sanity checks say\n\n{caption}\n\n{table(run.numbers)}")


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
    return f"{cell['mean']:.2f} <sub>{cell['low']:.2f} to {cell['high']:.2f}</sub>"


if __name__ == "__main__":
    main()
