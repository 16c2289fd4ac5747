"""Write the tables of methods, checks and figures in README.md, from the registries, the bibliography and the sidecars.

python reproduce/readme_table.py            # writes
python reproduce/readme_table.py --check    # exits 1 if a table is out of date
"""

import argparse
import ast
import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from methods import METHODS, Method
from methods._references import paper, references
from methods._registry import FAMILIES
from sanity_checks import CHECKS, Check

README = ROOT / "README.md"


def row(m: Method, entry: dict[str, str]) -> str:
    """One method as a table row."""
    rule = ", a rule for each operation after the layer"
    needs = {"": "", "relu": ", ReLU", "linear head": ", pooled linear head", "rule": rule}[m.needs]
    sign = "±" if m.signed else "≥ 0"
    return " | ".join(
        (
            f"| [`{m.name}`](methods/{m.name}.py)",
            f"{m.title}, {paper(entry)}",
            m.source,
            m.forward.words,
            m.backward.words,
            f"`{m.output}` {sign}",
            "yes" if m.differentiable else "no",
            f"{', '.join(m.architectures)}{needs}",
            ", ".join(m.verified),
            "; ".join(m.fails) or "",
            "",
        )
    ).rstrip(" ")


def table() -> str:
    """The table as Markdown, by family."""
    bib = references()
    lines = [
        "| method | paper | equations from | forward | backward | map | differentiable | for | compared with | fails |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for family, title in FAMILIES.items():
        members = [m for m in METHODS.values() if m.family == family]
        lines.append(f"| **{title}** | | | | | | | | | |")
        lines += [row(m, bib[m.cite]) for m in members]
    return "\n".join(lines)


KINDS = {
    "randomization": "Randomisation and class",
    "faithfulness": "Faithfulness",
    "robustness": "Robustness",
    "complexity": "Complexity",
    "axiom": "Axioms",
    "localization": "Localisation",
}


def check_row(c: Check, entry: dict[str, str]) -> str:
    """One check as a table row."""
    better = {True: "higher", False: "lower", None: ""}[c.higher_is_better]
    asks, compared = ", ".join(c.inputs), ", ".join(c.verified)
    return f"| [`{c.name}`](sanity_checks/{c.name}.py) | {c.title}, {paper(entry)} | {asks} | {better} | {compared} |"


def check_table() -> str:
    """The table of checks as Markdown, by kind."""
    bib = references()
    lines = ["| check | paper | asks for | better | compared with |", "| --- | --- | --- | --- | --- |"]
    for kind, title in KINDS.items():
        members = [c for c in CHECKS.values() if c.kind == kind]
        lines.append(f"| **{title}** | | | | |")
        lines += [check_row(c, bib[c.cite]) for c in sorted(members, key=lambda c: (bib[c.cite]["year"], c.name))]
    return "\n".join(lines)


def gallery() -> str:
    """Every figure with its script, its contents and its methods, as Markdown; then the tables."""
    lines = ["| picture | shows |", "| --- | --- |"]
    for script in sorted((ROOT / "reproduce").glob("fig_*.py")):
        name = script.stem
        facts = json.loads((ROOT / f"figures/{name}.json").read_text())
        used = ", ".join(f"[`{m}`](methods/{m}.py)" for m in sorted(facts["methods"]))
        checks = ", ".join(f"[`{c}`](sanity_checks/{c}.py)" for c in sorted(facts["checks"]))
        shows = [f"[`{name}.py`](reproduce/{name}.py): {_first_line(script)}"]
        shows += [f"Methods: {used}"] if used else []
        shows += [f"Checks: {checks}"] if checks else []
        picture = f'<a href="figures/{name}.png"><img src="figures/{name}.png" width="240" alt="{name}"></a>'
        lines.append(f"| {picture} | {'<br>'.join(shows)} |")
    lines += ["", "| table | shows |", "| --- | --- |"]
    for script in sorted((ROOT / "reproduce").glob("table_*.py")):
        outputs = sorted(
            file
            for sidecar in (ROOT / "figures").glob("*.json")
            if f"reproduce/{script.name}" in json.loads(sidecar.read_text())["command"]
            for file in json.loads(sidecar.read_text())["outputs"]
        )
        links = ", ".join(f"[{file}](figures/{file})" for file in outputs)
        lines.append(f"| {links} | [`{script.name}`](reproduce/{script.name}): {_first_line(script)} |")
    return "\n".join(lines)


def _first_line(script: Path) -> str:
    return (ast.get_docstring(ast.parse(script.read_text())) or "").partition("\n")[0].replace("|", "\\|")


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


TABLES = {"counts": counts, "methods": table, "checks": check_table, "figures": gallery}


def main() -> int:
    """Write or check; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if README.md is out of date")
    check = parser.parse_args().check
    old = README.read_text()
    new = old
    for name, make in TABLES.items():
        start, end = f"<!-- {name}: generated by reproduce/readme_table.py -->", f"<!-- end of {name} -->"
        if start not in old or end not in old:
            print(f"README.md: needs the lines {start} and {end}", file=sys.stderr)
            return 1
        new = new[: new.index(start)] + f"{start}\n{make()}\n" + new[new.index(end) :]
    if check and new != old:
        print("README.md: a table is out of date; run python reproduce/readme_table.py", file=sys.stderr)
    elif new != old:
        temporary = README.with_suffix(".md.tmp")
        temporary.write_text(new)
        os.replace(temporary, README)
    return int(check and new != old)


if __name__ == "__main__":
    sys.exit(main())
