"""The numbers behind a committed figure or table: what its sidecar says."""

import json
import os
from pathlib import Path

FIGURES = Path(os.environ.get("FIGURES_FOLDER") or Path(__file__).resolve().parent.parent / "figures")


def numbers(name):
    """`numbers` of figures/<name>.json, which a run without --quick wrote."""
    facts = json.loads((FIGURES / f"{name}.json").read_text())
    assert facts["quick"] is False
    return facts["numbers"]
