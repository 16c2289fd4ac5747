"""The numbers behind a committed figure or table: what its sidecar says."""

import json
import os
from pathlib import Path

# Methods, and a control, that were added after the long tables were made; the next run of a table has them.
LATER = {
    "local_variance",
    "extremal_perturbation", "hipe", "hsic_attribution", "kernel_shap", "lime", "meaningful_perturbation", "moxi",
    "rise", "shap_bpt", "smdl", "sobol_attribution",
}  # fmt: skip
FIGURES = Path(os.environ.get("FIGURES_FOLDER") or Path(__file__).resolve().parent.parent / "figures")


def numbers(name):
    """`numbers` of figures/<name>.json, which a run without --quick wrote."""
    facts = json.loads((FIGURES / f"{name}.json").read_text())
    assert facts["quick"] is False
    return facts["numbers"]
