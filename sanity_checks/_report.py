"""Write report.json, the PNGs and one self-contained report.html from the parts of a run."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jinja2
import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from sanity_checks import CHECKS, Check
from sanity_checks._rows import Row
from sanity_checks._runner import Part
from sanity_checks._statistics import interval, paired
from sanity_checks._verdict import (
    COLUMNS,
    CONDITIONS,
    FOUR_SENTENCES,
    MEANING,
    WORDS,
    conditions,
    mean_of,
    overall,
    table,
)


def summarise(rows: Sequence[Row], found: Mapping[tuple[str, str], Part]) -> dict[str, Any]:
    """The numbers of a report.

    Args:
        rows: methods and controls.
        found: (row, check) -> merged part; a missing pair was not run.

    Returns:
        JSON: for each row its label, its verdict, the main table, and every check's intervals and values per image.
    """
    checks = list(dict.fromkeys(check for _, check in found))
    return {
        "columns": [asdict(c) for c in COLUMNS if c.check in checks],
        "rows": {row.key: _row(row, found) for row in rows},
        "consistency": _consistency(rows, found),
        "protocols": {name: _protocol(CHECKS[name]) for name in checks},
    }


def _row(row: Row, found: Mapping[tuple[str, str], Part]) -> dict[str, Any]:
    cells = table(row.key, found)
    words = conditions(cells)
    return {
        "label": row.label,
        "control": row.control,
        "keywords": dict(row.keywords),
        "source_sha256": row.source_sha256,
        "refused": row.refused,
        "verdict": overall(words),
        "conditions": words,
        "table": cells,
        "checks": {name: _numbers(CHECKS[name], part) for (key, name), part in found.items() if key == row.key},
    }


def _numbers(check: Check, part: Part) -> dict[str, Any]:
    r = part.result
    if r is None:
        return {"refused": part.refused}
    facts = {
        "interval": asdict(interval(r.column(""))),
        "columns": {name: asdict(interval(r.column(name))) for name in r.columns},
        "curves": {name: _band(curve.numpy()) for name, curve in r.curves.items() if len(curve[0]) == len(r.at)},
        "at": r.at,
        "facts": r.facts,
        "values": r.values,
        "values_of_columns": dict(r.columns),
    }
    if part.matched:
        noise = part.matched.column("")
        facts["noise as smooth"] = asdict(interval(noise))
        facts["above noise as smooth"] = asdict(interval(r.column("") - noise)) | paired(r.column(""), noise)
    return facts


def _band(curve: Float[np.ndarray, "B n"]) -> dict[str, Any]:
    """Mean of curves with its pointwise 95 % bootstrap interval (1,000 resamples, the same ones for all points)."""
    there = curve[~np.isnan(curve).any(axis=1)]
    if not len(there):
        return {"mean": [None] * curve.shape[1], "low": [None] * curve.shape[1], "high": [None] * curve.shape[1]}
    rng = np.random.default_rng(0)
    means = np.stack([there[rng.integers(len(there), size=len(there))].mean(axis=0) for _ in range(1000)])
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    return {"mean": there.mean(axis=0).tolist(), "low": low.tolist(), "high": high.tolist()}


def _consistency(rows: Sequence[Row], found: Mapping[tuple[str, str], Part]) -> dict[str, Any]:
    """Kendall's tau between the faithfulness checks: do they rank the rows in the same order?"""
    names = [c for c in dict.fromkeys(check for _, check in found) if CHECKS[c].kind == "faithfulness"]
    scores = {}
    for name in names:
        parts = [found.get((row.key, name)) for row in rows]
        if all(p and p.result is not None for p in parts) and CHECKS[name].higher_is_better is not None:
            sign = 1 if CHECKS[name].higher_is_better else -1
            scores[name] = [sign * mean_of(p.result.column("")) for p in parts if p and p.result]
    scores = scores if len(rows) > 1 else {}
    tau = {a: {b: float(np.asarray(stats.kendalltau(scores[a], scores[b]))[0]) for b in scores} for a in scores}
    return {"kendall_tau": tau, "rows": len(rows)}


def _protocol(check: Check) -> dict[str, Any]:
    return {
        "title": check.title,
        "kind": check.kind,
        "sentence": check.protocol,
        "cite": check.cite,
        "higher_is_better": check.higher_is_better,
        "verified": check.verified,
    }


MINUS = "\N{MINUS SIGN}"

# Pictures


METHOD = "the method, with its 95 % band"


def curves_figure(report: Mapping[str, Any]) -> Figure | None:
    """A row of panels for each method: the two cascades, insertion, deletion; controls as thin grey lines."""
    rows = report["rows"]
    panels = [
        ("model_randomization", "top-down", "randomised, head to stem", "step"),
        ("model_randomization", "bottom-up", "randomised, stem to head", "step"),
        ("insertion_deletion", "insertion", "insertion", "share of pixels shown"),
        ("insertion_deletion", "deletion", "deletion", "share of pixels removed"),
    ]
    subjects = [r for r in rows.values() if not r["control"] and not r["refused"]]
    panels = [p for p in panels if any(p[1] in r["checks"].get(p[0], {}).get("curves", {}) for r in subjects)]
    if not panels:
        return None
    grey = {"white_noise": ":", "smooth_noise": "-.", "sobel_edges": "--"}
    with mpl.rc_context({"font.size": 6.5, "font.family": "DejaVu Sans", "axes.linewidth": 0.5}):
        figure = Figure(figsize=(1.9 * len(panels) + 0.4, 1.55 * len(subjects) + 0.5), dpi=225, layout="constrained")
        axes = figure.subplots(len(subjects), len(panels), squeeze=False, sharey="col")
        for i, row in enumerate(subjects):
            for j, (check, curve, title, below) in enumerate(panels):
                ax: Axes = axes[i][j]
                for key, style in grey.items():
                    if key in rows:
                        _line(
                            ax,
                            rows[key]["checks"].get(check, {}),
                            curve,
                            rows[key]["label"],
                            color="0.45",
                            lw=0.8,
                            ls=style,
                        )
                _line(ax, row["checks"].get(check, {}), curve, METHOD, band=True, color="#00519e", lw=1.6, ls="-")
                if check == "model_randomization":
                    logits = row["checks"].get(check, {})
                    _line(ax, logits, f"{curve} logits", "the model's logits", color="black", lw=0.8, ls=(0, (1, 3)))
                    ax.set_ylim(-0.35, 1.05)
                else:
                    ax.set_ylim(0, 1)
                ax.spines[["top", "right"]].set_visible(False)
                ax.tick_params(length=2, width=0.5)
                if i == 0:
                    ax.set_title(title, fontsize=8)
                if i == len(subjects) - 1:
                    ax.set_xlabel(below)
            axes[i][0].set_ylabel(row["label"].replace(" ", "\n", 1), fontsize=8, weight="bold")
        lines: dict[str, Any] = {}
        for ax in axes.flat:
            for line, name in zip(*ax.get_legend_handles_labels(), strict=True):
                lines.setdefault(name, line)
        figure.legend(
            list(lines.values()), list(lines), loc="outside lower center", ncols=5, frameon=False, handlelength=3
        )
    return figure


def _line(ax: Axes, found: Mapping[str, Any], curve: str, label: str, *, band: bool = False, **style: Any) -> None:
    if curve not in found.get("curves", {}):
        return
    number = lambda v: [np.nan if w is None else w for w in v]  # noqa: E731
    line, at = found["curves"][curve], found["at"]
    ax.plot(at, number(line["mean"]), label=label, **style)
    if band:
        ax.fill_between(at, number(line["low"]), number(line["high"]), color=style["color"], alpha=0.2, lw=0)


def write_html(file: Path, report: Mapping[str, Any], figures: Mapping[str, Path], bib: Mapping[str, str]) -> None:
    """Write the page as one file that loads no other file; it is written under a temporary name and renamed."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"n2": _n2, "n3": _n3}
    template = environment.from_string((Path(__file__).parent / "_report.html").read_text())
    pictures = {name: base64.b64encode(path.read_bytes()).decode() for name, path in figures.items()}
    kinds = {}
    for name, protocol in report["protocols"].items():
        kinds.setdefault(protocol["kind"], []).append(name)
    said = {"words": WORDS, "meaning": MEANING, "conditions": CONDITIONS, "four": FOUR_SENTENCES}
    page = template.render(report=report, pictures=pictures, bib=bib, kinds=kinds, **said)
    temporary = file.with_name(f".{file.name}.tmp")
    temporary.write_text(page)
    temporary.replace(file)


def _n2(value: float | None) -> str:
    return _number(value, 2)


def _n3(value: float | None) -> str:
    return _number(value, 3)


def _number(value: float | None, digits: int) -> str:
    """Fixed decimals, a real minus sign, no minus zero; '' if there is no number."""
    if value is None or value != value:
        return ""
    shown = f"{value:.{digits}f}" if abs(value) < 1000 else f"{value:.3g}"
    return shown.removeprefix("-") if float(shown) == 0 else shown.replace("-", MINUS)
