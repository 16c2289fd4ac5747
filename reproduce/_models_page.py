"""The table of models as a page: its totals, a row for each model, and the reasons why methods refuse."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from methods import METHODS

STATUSES = ("runs", "refuses", "not run", "fails")


def totals(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many models, families and pairs of model and method; and the share of families whose CAMs are alive."""
    found = Counter(m["status"] for r in rows for m in r["methods"].values())
    families = {(r["source"], r["family"]) for r in rows}
    dead = {(r["source"], r["family"]) for r in rows if dead_cams(r)}
    return {
        "models": len(rows),
        "families": len(families),
        "methods": max((len(r["methods"]) for r in rows), default=0),
        "pairs": sum(found.values()),
        **{status: found[status] for status in STATUSES},
        "families with all CAMs alive": len(families - dead),
    }


def dead_cams(row: Mapping[str, Any]) -> list[str]:
    """CAMs that run and are constant, or all of them if none runs."""
    cams = {n: m for n, m in row["methods"].items() if METHODS[n].family == "cam"}
    running = {n: m for n, m in cams.items() if m["status"] == "runs"}
    return [n for n, m in running.items() if not m["alive"]] if running else list(cams)


def in_words(found: Mapping[str, Any]) -> str:
    """The totals as a sentence."""
    return (
        f"{found['methods']} methods on {found['models']} models of {found['families']} families: of "
        f"{found['pairs']:,} pairs {found['runs']:,} run, {found['refuses']} are refused with the reason, "
        f"{found['not run']} were not run because they take long, {found['fails']} fail. All CAMs that run are alive "
        f"on {found['families with all CAMs alive']} of {found['families']} families."
    )


def page(rows: Sequence[Mapping[str, Any]]) -> str:
    """The Markdown page: a row for each model, then each reason for a refusal with the methods and models it meets."""
    lines = ["# Methods on families of classifiers", "", in_words(totals(rows)), ""]
    lines += ["| model | family | kind | default layer | grid | runs | refuses | not run | fails | remark |"]
    lines += ["| --- | --- | --- | --- | --- | ---: | ---: | ---: | ---: | --- |"]
    for r in rows:
        counts = [str(len(outcomes(r, status))) for status in STATUSES]
        dead = dead_cams(r)
        remark = f"constant: {', '.join(dead)}" if dead else ""
        grid = " x ".join(map(str, r["grid"])) if r["grid"] else ""
        layer = f"`{r['layer']}`" if r["layer"] else "none"
        cells = [f"{r['source']} {r['name']}", r["family"], r["kind"], layer, grid]
        lines.append(f"| {' | '.join([*cells, *counts, remark])} |")
    lines += ["", "## Why methods refuse", "", "| models | methods | for example |", "| ---: | --- | --- |"]
    reasons: dict[frozenset[str], list[tuple[str, str]]] = {}
    for r in rows:
        said: dict[str, list[str]] = {}
        for name, m in outcomes(r, "refuses").items():
            said.setdefault(m["why"].replace(name, "METHOD"), []).append(name)
        for why, names in said.items():
            reasons.setdefault(frozenset(names), []).append((r["name"], why))
    for names, where in sorted(reasons.items(), key=lambda item: -len(item[1])):
        model, why = where[0]
        lines.append(f"| {len(where)} | {', '.join(sorted(names))} | {model}: {why.replace('|', '/')} |")
    return "\n".join(lines)


def compact(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Rows for a sidecar: a method is 'alive', 'constant', or the number of the reason why it did not run."""
    reasons = list(
        dict.fromkeys(f"{m['status']}: {m['why']}" for r in rows for m in r["methods"].values() if "why" in m)
    )
    at = {reason: i for i, reason in enumerate(reasons)}

    def word(m: Mapping[str, Any]) -> str | int:
        return at[f"{m['status']}: {m['why']}"] if "why" in m else "alive" if m["alive"] else "constant"

    short = [dict(r) | {"methods": {name: word(m) for name, m in r["methods"].items()}} for r in rows]
    return {"reasons": reasons, "rows": short}


def expanded(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows that `compact` made short."""

    def outcome(word: str | int) -> dict[str, Any]:
        if isinstance(word, str):
            return {"status": "runs", "alive": word == "alive"}
        status, _, why = found["reasons"][word].partition(": ")
        return {"status": status, "why": why}

    return [dict(r) | {"methods": {n: outcome(w) for n, w in r["methods"].items()}} for r in found["rows"]]


def outcomes(row: Mapping[str, Any], status: str) -> dict[str, Any]:
    """The methods of a model that ended so."""
    return {name: m for name, m in row["methods"].items() if m["status"] == status}
