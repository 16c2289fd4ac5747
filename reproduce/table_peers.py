"""Our maps compared with every independent implementation: the largest difference, and the rank correlation of pixels.

    python reproduce/table_peers.py

The reader should see: every implementation that a method claims to be compared with (`verified`) has a row, and its
maps are ours up to rounding, or up to what the remark names.

Two parts. Small networks in float64: every function of tests/reference, on the networks and layers and with the
tolerances of tests/test_reference.py, which asserts the same. ImageNet weights, photographs, float32: the libraries,
with the embedded tf_efficientnet_lite0; what differs there by more than rounding is compared in float64 too. Exits
with an error if a tolerance is exceeded or a claim has no row. Needs tests/requirements.txt; runs on the CPU.
"""

import _run  # puts the repository on the path

# isort: split
import argparse
import hashlib
import importlib.util
import sys
import warnings
from collections.abc import Mapping, Sequence

import torch

from _agreement import LARGEST, LIBRARIES, LOWEST, TESTS, Row, photo_rows, small_rows
from methods import METHODS, _images, _models

NETWORK = "tf_efficientnet_lite0"
IMPORTS = {"pytest": "pytest", **LIBRARIES, "pytorch_grad_cam": "grad-cam"}
QUICK_METHODS = ("gradient", "grad_cam", "cam", "guided_backprop", "attention_rollout")


def claims_without_row(rows: Sequence[Row], names: Sequence[str]) -> list[str]:
    """Names in `verified` that no row on the small networks stands for; `authors` are stored maps: test_golden.py."""
    there = {(r["method"], r["reference"]) for r in rows if r["part"] == "small"} | {(n, "authors") for n in names}
    return [f"{n}: {claim}" for n in names for claim in METHODS[n].verified if (n, claim) not in there]


def table(rows: Sequence[Row], parts: Mapping[str, str]) -> str:
    """The Markdown page, a section for each part: `parts` has their headings."""
    lines = ["# Our maps compared with other implementations", ""]
    lines += ["Difference: max |ours - theirs| / max |ours| of an image, the largest of all cases; Spearman: the rank "]
    lines[-1] += "correlation of the positions of a map, the lowest of all cases. A case is the map of one image."
    for part, heading in ((p, h) for p, h in parts.items() if any(r["part"] == p for r in rows)):
        lines += ["", f"## {heading}", ""]
        lines += ["| method | compared with | networks | cases | difference | Spearman | remark |"]
        lines += ["| --- | --- | --- | ---: | ---: | ---: | --- |"]
        for r in (r for r in rows if r["part"] == part):
            words = [r["remark"]] if r["remark"] else []
            words += [] if r["within"] else ["TOLERANCE EXCEEDED"]
            cells = [f"{r['with']} {r['version']}".strip(), ", ".join(r["networks"]), str(r["cases"])]
            cells += [f"{r['difference']:.0e}" if r["difference"] else "0", f"{r['spearman']:.5f}", "; ".join(words)]
            lines.append(f"| `{r['method']}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def missing() -> list[str]:
    """Packages of tests/requirements.txt that are needed here and not installed."""
    modules = {"grad_cam": "pytorch_grad_cam"}
    return sorted({p for module, p in IMPORTS.items() if importlib.util.find_spec(modules.get(module, module)) is None})


def chosen(names: str) -> list[str]:
    """--methods as a list.

    Raises:
        argparse.ArgumentTypeError: an unknown name.
    """
    found = [n.strip() for n in names.split(",") if n.strip()]
    if unknown := [n for n in found if n not in METHODS]:
        raise argparse.ArgumentTypeError(f"unknown method {unknown[0]!r}; known: {', '.join(METHODS)}")
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Write figures/table_peers.md and .json."""
    run = _run.start(
        __file__,
        __doc__,
        photos="chelsea,coffee,rocket",
        quick_photos="coffee",
        argv=argv,
        options={"--methods": {"metavar": "A,B", "type": chosen, "help": "only these (default: all)"}},
    )
    if needed := missing():
        sys.exit(f"{run.script}: needs {', '.join(needed)}; run: pip install -r tests/requirements.txt")
    if run.args.device != "cpu":
        sys.exit(f"{run.script}: --device: got {run.args.device!r}; the other libraries are compared on the CPU")
    sys.path.insert(0, str(TESTS))
    warnings.simplefilter("ignore")  # of the other libraries
    names = run.args.methods or (list(QUICK_METHODS) if run.args.quick else list(METHODS))

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tiny networks: threads cost more than they bring
    rows = small_rows(run, names)
    torch.set_num_threads(threads)

    loaded = _run.load(run, run.args.model or NETWORK)
    photos = _run.photos_of(run, loaded)
    run.inputs |= {p.name: p for p in photos}
    x = _images.tensor(photos, loaded)
    target = torch.tensor([c for c, _, _ in _models.predict(loaded, x)])
    rows += photo_rows(run, names, loaded, x, target)

    parts = {
        "small": "Small networks, float64: everything that a method is verified against",
        "float32": f"{loaded.note}, float32, {len(photos)} photograph(s): the libraries",
        "float64": f"The same in float64, one photograph: what differs by more than {LARGEST:g} in float32",
    }
    files = sorted((TESTS / "reference").glob("*.py"))
    run.numbers |= {
        "rows": rows,
        "tolerance_on_photographs": {"difference": LARGEST, "spearman": LOWEST},
        "reference_sha256": {f.stem: hashlib.sha256(f.read_bytes()).hexdigest()[:16] for f in files},
    }
    caption = f"{loaded.note}. {len(rows)} comparisons of {len(names)} methods."
    _run.save(run, None, caption, markdown=table(rows, parts))
    wrong = [f"{r['method']}, {r['reference']}: tolerance exceeded ({r['part']})" for r in rows if not r["within"]]
    wrong += [f"{claim}: claimed, but not compared" for claim in claims_without_row(rows, names) if not run.args.quick]
    if wrong:
        sys.exit(f"{run.script}:\n" + "\n".join(wrong))


if __name__ == "__main__":
    main()
