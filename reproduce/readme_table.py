"""Write the tables and counts in the READMEs, from the registries, the bibliography and the sidecars.

python reproduce/readme_table.py            # writes
python reproduce/readme_table.py --check    # exits 1 if a table is out of date
"""

import argparse
import ast
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scipy import stats

from methods import METHODS, Method
from methods._references import paper, references
from methods._registry import FAMILIES
from sanity_checks import CHECKS, Check
from sanity_checks._statistics import FEWEST
from sanity_checks._verdict import FOUR_SENTENCES, GAINS, WORDS


def tells(of: Method | Check) -> str:
    """What it says, in a sentence: the first of its function's docstring."""
    return (of.fn.__doc__ or "").strip().partition("\n")[0].replace("|", "\\|")


def methods() -> str:
    """What each method tells and costs, by family."""
    lines = ["| method | tells | passes | for | known to fail |", "| --- | --- | --- | --- | --- |"]
    for family, title in FAMILIES.items():
        lines.append(f"| **{title}** | | | | |")
        lines += [_method(m) for m in METHODS.values() if m.family == family]
    return "\n".join(lines)


def _method(m: Method) -> str:
    rule = ", with a rule for each operation after the layer"
    needs = {"": "", "relu": ", with ReLUs", "linear head": ", with a pooled linear head", "rule": rule}[m.needs]
    kinds = "all" if len(m.architectures) == 3 else ", ".join(m.architectures)
    name = f"[`{m.name}`]({m.name}.py) {m.title}"
    cells = [name, tells(m), f"{m.forward.words} + {m.backward.words}", f"{kinds}{needs}", "; ".join(m.fails)]
    return f"| {' | '.join(cells)} |"


def facts() -> str:
    """Where the equations of each method come from, what its map is, and with what it is compared."""
    bib = references()
    lines = ["| method | paper | equations from | map | differentiable | compared with |"]
    lines += ["| --- | --- | --- | --- | --- | --- |"]
    for m in METHODS.values():
        sign = "±" if m.signed else "≥ 0"
        cells = [f"`{m.name}`", paper(bib[m.cite]), m.source, f"`{m.output}` {sign}"]
        cells += ["yes" if m.differentiable else "no", ", ".join(m.verified)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


KINDS = {
    "randomization": "Randomisation and class",
    "faithfulness": "Faithfulness",
    "robustness": "Robustness",
    "complexity": "Complexity",
    "axiom": "Axioms",
    "localization": "Localisation",
}


def checks() -> str:
    """What each check tells, by kind."""
    bib = references()
    lines = ["| check | tells | paper | asks for | better | compared with |", "| --- | --- | --- | --- | --- | --- |"]
    for kind, title in KINDS.items():
        members = [c for c in CHECKS.values() if c.kind == kind]
        lines.append(f"| **{title}** | | | | | |")
        for c in sorted(members, key=lambda c: (bib[c.cite]["year"], c.name)):
            better = {True: "higher", False: "lower", None: ""}[c.higher_is_better]
            cells = [f"[`{c.name}`]({c.name}.py) {c.title}", tells(c), paper(bib[c.cite])]
            lines.append(f"| {' | '.join([*cells, ', '.join(c.inputs), better, ', '.join(c.verified)])} |")
    return "\n".join(lines)


def figures() -> str:
    """Every figure with its script, what it shows and its methods; then the tables."""
    lines = ["| picture | shows |", "| --- | --- |"]
    for script in sorted((ROOT / "reproduce").glob("fig_*.py")):
        name = script.stem
        found = json.loads((ROOT / f"figures/{name}.json").read_text())
        used = ", ".join(f"[`{m}`](../methods/{m}.py)" for m in sorted(found["methods"]))
        checked = ", ".join(f"[`{c}`](../sanity_checks/{c}.py)" for c in sorted(found["checks"]))
        shows = [f"[`{name}.py`](../reproduce/{name}.py): {_first_line(script)}"]
        shows += [f"Methods: {used}"] if used and len(found["methods"]) <= 12 else []
        shows += [f"Checks: {checked}"] if checked else []
        picture = f'<a href="{name}.png"><img src="{name}.png" width="240" alt="{name}"></a>'
        lines.append(f"| {picture} | {'<br>'.join(shows)} |")
    lines += ["", "| table | shows |", "| --- | --- |"]
    for script in sorted((ROOT / "reproduce").glob("table_*.py")):
        outputs = sorted(
            file
            for sidecar in (ROOT / "figures").glob("*.json")
            if f"reproduce/{script.name}" in json.loads(sidecar.read_text())["command"]
            for file in json.loads(sidecar.read_text())["outputs"]
        )
        links = ", ".join(f"[{file}]({file})" for file in outputs)
        lines.append(f"| {links} | [`{script.name}`](../reproduce/{script.name}): {_first_line(script)} |")
    return "\n".join(lines)


def _first_line(script: Path) -> str:
    return (ast.get_docstring(ast.parse(script.read_text())) or "").partition("\n")[0].replace("|", "\\|")


def _numbers(name: str) -> dict[str, Any]:
    return json.loads((ROOT / f"figures/{name}.json").read_text())["numbers"]


OWN = {"literal", "numpy"}  # references that write the equations again; all others are code by others


def counts() -> str:
    """The number of methods and checks, and what they are compared with, as sentences."""
    kinds = {
        "maps that the authors' own code made": lambda v: "authors" in v,
        "another implementation": lambda v: set(v) - OWN - {"authors"},
    }
    each = [f"{sum(bool(has(m.verified)) for m in METHODS.values())} with {what}" for what, has in kinds.items()]
    alone = [f"`{m.name}`" for m in METHODS.values() if set(m.verified) <= OWN]
    return (
        f"{len(METHODS)} methods and {len(CHECKS)} sanity checks. Every method is compared with its equations written "
        f"out again with loops, {' and '.join(each)}; {len(alone)} with the loops alone: {', '.join(alone)}."
    )


def models() -> str:
    """On which models methods were tried, as sentences."""
    n = _numbers("table_models")["totals"]
    tried = f"{n['runs']:,} run, {n['refuses']:,} are refused with a sentence that says why"
    tried += f", {n['not run']} take too long to try" * bool(n["not run"])
    return (
        f"Tried: {n['methods']} methods on the smallest classifier of each of {n['families']} families of timm, "
        f"torchvision and Hugging Face. Of {n['pairs']:,} pairs {tried}, {n['fails'] or 'none'} "
        f"fail{'s' * (n['fails'] == 1)} ([table](figures/table_models.md))."
    )


def verdicts() -> str:
    """What the sanity checks say about eight methods and two controls: means, without their intervals."""
    columns = ("R, all gone", "R, as sure", "R, other class", "asked cell", "mass / area")
    heads = ("all randomised", "… as sure", "other class", "asked image", "mass / area")
    lines = [f"| | verdict | {' | '.join(heads)} | not met |", f"| --- | --- |{' ---: |' * len(heads)} --- |"]
    for name, row in _numbers("table_sanity").items():
        if row["control"] and name not in ("smooth_noise", "sobel_edges"):
            continue
        label = row["label"] if row["control"] else f"[{row['label']}](methods/{name}.py)"
        values = [_in_short(row["cells"][c]) for c in columns]
        failed = ", ".join(n for n, word in row["conditions"].items() if word in ("insensitive", "no evidence"))
        lines.append(f"| {label} | {WORDS[row['verdict']]} {row['verdict']} | {' | '.join(values)} | {failed} |")
    return "\n".join([*lines, "", FOUR_SENTENCES])


def _in_short(cell: Mapping[str, Any]) -> str:
    if cell["mean"] is None or cell["meaningless"]:
        return ""
    gain = cell["best control"] is not None
    return f"{cell['value']:.2f} ({cell['best control']:.2f})" if gain else f"{cell['mean']:.2f}"


def power() -> str:
    """How many images a verdict needs, by Student's non-central t."""

    def images(effect: float) -> int:
        found = range(FEWEST, 1000)
        tails = (stats.t.ppf(1 - 0.025 / len(GAINS), n - 1) for n in found)
        return next(n for n, t in zip(found, tails, strict=False) if stats.nct.sf(t, n - 1, effect * n**0.5) > 0.8)

    row = _numbers("table_sanity")["grad_cam"]
    return (
        f"How many images it takes: each condition needs {FEWEST} with a number; a gain as large as its spread over "
        f"images is found in four of five reports from {images(1.0)} images on, one of twice its spread from "
        f"{images(2.0)}. On the {row['cells']['same function']['n']} default photographs Grad-CAM has the verdict "
        f'"{row["verdict"]}".'
    )


SPEED = ("grad_cam", "ablation_cam", "full_grad", "refine_cam", "integrated_gradients", "occlusion", "score_cam")


def speed() -> str:
    """The same work in other libraries: their time over ours."""
    rows = [p for p in _numbers("timing_cpu")["peers"] if p["method"] in SPEED]
    rows.sort(key=lambda p: (SPEED.index(p["method"]), p["package"], str(p["keywords"])))
    lines = ["| method | library | their time / ours |", "| --- | --- | ---: |"]
    for p in rows:
        layer = f" at `{p['keywords']['layer']}`" if p["method"].endswith("cam") else ""
        lines.append(f"| `{p['method']}`{layer} | {p['package']} {p['version']} | {p['ratio']:.1f} |")
    return "\n".join(lines)


TABLES: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"counts": counts, "models": models, "verdicts": verdicts, "speed": speed},
    "methods/README.md": {"methods": methods, "facts": facts},
    "sanity_checks/README.md": {"checks": checks, "power": power},
    "figures/README.md": {"figures": figures},
}


def main() -> int:
    """Write or check; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a README is out of date")
    check, stale = parser.parse_args().check, False
    for name, tables in TABLES.items():
        file = ROOT / name
        old = new = file.read_text()
        for word, make in tables.items():
            start, end = f"<!-- {word}: generated by reproduce/readme_table.py -->", f"<!-- end of {word} -->"
            if start not in old or end not in old:
                print(f"{name}: needs the lines {start} and {end}", file=sys.stderr)
                return 1
            new = new[: new.index(start)] + f"{start}\n{make()}\n" + new[new.index(end) :]
        if check and new != old:
            print(f"{name}: a table is out of date; run python reproduce/readme_table.py", file=sys.stderr)
            stale = True
        elif new != old:
            temporary = file.with_suffix(".md.tmp")
            temporary.write_text(new)
            os.replace(temporary, file)
    return int(stale)


if __name__ == "__main__":
    sys.exit(main())
