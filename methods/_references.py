"""references.bib: the papers that methods, checks and figures cite."""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

FILE = Path(__file__).parent / "references.bib"


@cache
def references() -> dict[str, dict[str, str]]:
    """Fields of each entry of references.bib, by key: one entry a line, braces balanced."""
    entries = {}
    for kind, key, rest in re.findall(r"^@(\w+)\{(\w+), (.*)\}$", FILE.read_text(), re.M):
        pairs = re.findall(r"(\w+)=\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}", rest)
        entries[key] = {"kind": kind} | dict(pairs)
    return entries


def paper(entry: Mapping[str, str]) -> str:
    """'Selvaraju 2017' as a link to the paper."""
    who = f"{entry['author'].split(',')[0]} {entry['year']}"
    for latex, letter in {"{\\'e}": "é", '{\\"o}': "ö"}.items():
        who = who.replace(latex, letter)
    if "eprint" in entry:
        return f"[{who}](https://arxiv.org/abs/{entry['eprint']})"
    return f"[{who}]({entry.get('url') or 'https://doi.org/' + entry['doi']})"


def citation(entry: Mapping[str, str]) -> str:
    """'Petsiuk 2018 (arXiv:1806.07421)' in plain text."""
    name, _, link = paper(entry).removeprefix("[").partition("](")
    link = link.removesuffix(")").replace("https://arxiv.org/abs/", "arXiv:").removeprefix("https://")
    return f"{name} ({link})"
