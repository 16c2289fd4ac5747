"""The main table of a report, and the verdict of each row: its weakest necessary condition, in one sentence.

weights         the map changes when all weights are randomised
confidence      also if that network is as sure as the trained one, of the same classes
class           the map changes when another class is explained
same function   the map stays the same when the network computes the same with other weights
place           in a mosaic of images the map of a class lies on its image, more than every map without a network
evidence        the map is better than noise as smooth, than every map without a network, and than the method's own maps
                of a randomised network, in insertion, deletion, ROAD, or mass on the object

All of it certainly: by one-sided t bounds, for the evidence 2.5 % in all columns together, and on 5 images at least.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from sanity_checks._controls import CONTROLS, IMAGE_ONLY
from sanity_checks._runner import EVIDENCE, Part
from sanity_checks._statistics import FEWEST, Verdict, bounds, gain, interval, paired, retained, verdict

WORDS: dict[str, str] = {
    "responds": "●", "partial": "◐", "insensitive": "○", "no evidence": "?", "better": "▲", "worse": "▼",
}  # fmt: skip
ORDER: tuple[Verdict, ...] = ("no evidence", "insensitive", "partial", "responds")  # for --require
MEANING = {
    "responds": "every condition is met",
    "partial": "a condition is not certainly met, or was not measured, and none is certainly broken",
    "insensitive": "certainly more than half of the map is left (R > 0.5) after a change that must change it",
    "no evidence": "the checks cannot distinguish the map from noise, or from a map that uses no network",
}


@dataclass(frozen=True)
class Column:
    """A column of the main table: retained similarity R of a randomisation, a gain over controls, or a number."""

    header: str
    hint: str
    check: str
    value: str = ""  # a column of the check's result; "": its values
    null: str = ""  # for R: the columns of null and ceiling
    ceiling: str = "ceiling"
    better: int = 0  # for gains: +1 if higher is better, -1 if lower is
    chance: float | None = None  # the value of a map that does not use the network
    same: bool = False  # a correlation that must be 1


COLUMNS = (
    Column("R, head gone", "top stage randomised", "model_randomization", "head_size", "null_spearman_size"),
    Column("R, all gone", "all weights randomised", "model_randomization", "full_spearman_size", "null_spearman_size"),
    Column("R, as sure", "the same, with the logits of the trained", "model_randomization", "refitted_size",
           "null_spearman_size"),
    Column("… signed", "all gone, signed maps", "model_randomization", "full_signed_size", "null_signed_size"),
    Column("R, stem gone", "first stage randomised (bottom-up)", "model_randomization", "bottom_up_size",
           "null_spearman_size"),
    Column("R, other class", "another class explained", "random_logit", "size", "null_size"),
    Column("R, labels", "trained on permuted labels", "label_randomization", "size", "null_size"),
    Column("eMPRT", "rise of histogram entropy, all weights randomised", "efficient_model_randomization", chance=0.0),
    Column("same function", "correlation of the maps, other weights", "implementation_invariance", same=True),
    Column("asked cell", "share of the map, and of the best control", "grid_pointing_game", better=1),
    Column("insertion", "AUC, higher is better", "insertion_deletion", "insertion", better=1),
    Column("deletion", "AUC, lower is better", "insertion_deletion", "deletion", better=-1),
    Column("ROAD", "LeRF - MoRF", "road", better=1),
    Column("mass / area", "of a digit on a texture", "energy_pointing_game", "mu_w", better=1),
    Column("controls", "largest size of the correlation with a map without a network", "control_similarity"),
)  # fmt: skip
TABLE_CHECKS = tuple(dict.fromkeys(c.check for c in COLUMNS))
GAINS = tuple(c.header for c in COLUMNS if c.check in EVIDENCE)
MEASURED = {  # condition: headers of columns
    "weights": ("R, all gone",),
    "confidence": ("R, as sure",),
    "class": ("R, other class",),
    "same function": ("same function",),
    "place": ("asked cell",),
    "evidence": GAINS,
}
CONDITIONS = {
    "weights": "changes when all weights are randomised",
    "confidence": "also if that network is as sure",
    "class": "changes with the class",
    "same function": "stays if only the weights change, not what they compute",
    "place": "lies on the asked image of a mosaic",
    "evidence": "is better than all controls",
}
FOUR_SENTENCES = (
    'A verdict is the weakest of six conditions, and at most "partial" if one of them was not measured. Three ask that '
    "less than a quarter of the map is left when the weights are replaced (also by such that make the network as sure "
    "as before) or the class, one that the map stays when the network computes the same with other weights, one that "
    "more of it lies on the asked image of a mosaic than of four maps that use no network, and one that it is better "
    "than these, than noise as smooth, and than its own maps of a randomised network. Each must hold with 97.5 % "
    'confidence on these images, so few images give "partial" or "no evidence", and each needs 5 of them. "Responds" '
    "does not say that a map is right: it says that these six did not find it wrong."
)


def table(key: str, found: Mapping[tuple[str, str], Part]) -> dict[str, dict[str, Any]]:
    """The cells of one row, by header; a column that was not run is left out."""
    run = [c for c in COLUMNS if (key, c.check) in found]
    tests = sum(c.header in GAINS and found[key, c.check].result is not None for c in run)
    return {c.header: _cell(c, key, found, tests) for c in run}


def conditions(cells: Mapping[str, Mapping[str, Any]]) -> dict[str, Verdict | None]:
    """The word of each condition; None if it was not measured. One that the network does not allow is left out."""
    words: dict[str, Verdict | None] = {}
    for name, headers in MEASURED.items():
        there = [cells[h] for h in headers if "n" in cells.get(h, {})]
        if not there:
            words[name] = None
        elif there[0].get("not defined"):  # no last linear layer could be fitted
            continue
        elif name in ("place", "evidence"):
            met = any(c["word"] == "better" for c in there)
            words[name] = "responds" if met else "partial" if name == "place" else "no evidence"
        else:
            words[name] = there[0]["word"]
    return words


def overall(words: Mapping[str, Verdict | None]) -> Verdict | None:
    """The weakest condition; at most 'partial' if one was not measured; None if the weights were not randomised."""
    if words.get("weights") is None:
        return None
    each: list[Verdict] = [word or "partial" for word in words.values()]
    return min(each, key=ORDER.index)


def sentence(label: str, row: Mapping[str, Any], images: int, model: str) -> str:
    """The verdict in one sentence that can be quoted: what was measured, on what, and what decided."""
    cells, words = row["table"], row["conditions"]
    said = []

    def add(header: str, text: str) -> None:
        cell = cells.get(header, {})
        if cell.get("n"):
            best = cell.get("best control")
            said.append(text.format(cell["value"] if best is not None else cell["mean"], best))

    add("R, all gone", "R = {:.2f} with all weights randomised")
    add("R, as sure", "{:.2f} if that network is as sure")
    add("R, other class", "{:.2f} for other classes")
    add("same function", "correlation {:.2f} for the same function with other weights")
    add("asked cell", "{:.2f} of the map on the asked image of a mosaic (best control {:.2f})")
    for header in GAINS:
        if cells.get(header, {}).get("word") == "better":
            add(header, header + " {:.2f} (best control {:.2f})")
    if words.get("evidence") == "no evidence":
        said.append(f"not better than every control in {', '.join(h for h in GAINS if cells.get(h, {}).get('n'))}")
    ends = {
        "Not met": [name for name, word in words.items() if word in ("no evidence", "insensitive")],
        "Not certain": [name for name, word in words.items() if word == "partial"],
        "Not measured": [name for name in CONDITIONS if words.get(name) is None],
    }
    first = f"{label}: {row['verdict']}, on {images} images with {model}: {', '.join(said)}."
    return " ".join([first, *(f"{what}: {', '.join(names)}." for what, names in ends.items() if names)])


def _cell(column: Column, key: str, found: Mapping[tuple[str, str], Part], tests: int) -> dict[str, Any]:
    """One cell: mean, bounds, n; and a word if there is a rule for it."""
    part = found[key, column.check]
    r = part.result
    if r is None:
        return {"refused": part.refused}
    values = r.column(column.value)
    if column.null:
        data = values, r.column(column.null), r.column(column.ceiling)
        word, R = verdict(*data), retained(*data)
        word = "partial" if word == "responds" and R.n < FEWEST else word
        means = {"similarity": mean_of(data[0]), "null": mean_of(data[1]), "ceiling": mean_of(data[2])}
        meaningless = word == "no evidence" or R.low != R.low
        means |= {"not defined": True} if column.value == "refitted_size" and not r.facts.get("refitted") else {}
        return asdict(R) | {"word": word, "meaningless": meaningless} | paired(data[0], data[1]) | means
    if column.better:
        return _gain(column, values, part, key, found, tests if column.header in GAINS else 1)
    if column.same:
        low, high = bounds(values)
        mean = interval(values)
        sure = low > 0.9 and mean.n >= FEWEST
        word = "responds" if sure else "no evidence" if high < 0.5 else "partial"
        return asdict(mean) | {"low": low, "high": high, "word": word}
    mean = interval(values)
    outside = column.chance is None or mean.low > column.chance or mean.high < column.chance
    return asdict(mean) | {"word": "" if outside else "no evidence"}


def _gain(
    column: Column,
    values: Float[np.ndarray, " B"],
    part: Part,
    key: str,
    found: Mapping[tuple[str, str], Part],
    tests: int,
) -> dict[str, Any]:
    """The gain over the best control: 'better' than all of them, 'worse' than noise as smooth or 'no evidence'."""
    nulls = {"noise as smooth": part.matched, "its maps of a randomised network": part.randomized}
    nulls |= {CONTROLS[c][0]: _of(found.get((c, column.check))) for c in IMAGE_ONLY if c != key}
    controls = {name: r.column(column.value) for name, r in nulls.items() if r is not None}
    if not controls:
        return asdict(interval(values)) | {"word": ""}
    best = gain(column.better * values, {name: column.better * v for name, v in controls.items()}, tests)
    first = next(iter(controls.values()))  # the noise, where there is any
    worse = len(values) > 1 and bounds(column.better * (values - first))[1] < 0
    return (
        asdict(best)
        | {
            "word": "better" if best.low > 0 else "worse" if worse else "no evidence",
            "value": mean_of(values),
            "best control": mean_of(controls[best.against]),
            "gains": {name: mean_of(column.better * (values - v)) for name, v in controls.items()},
        }
        | paired(values, first)
    )


def _of(part: Part | None) -> Any:
    return part.result if part else None


def mean_of(values: Float[np.ndarray, " B"]) -> float:
    """The mean of the numbers that are there."""
    return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")


def verdict_of_row(row: Mapping[str, Any]) -> str:
    """The verdict of a row of the report, or why there is none, for the terminal."""
    refusals = [found.get("refused") for found in row["checks"].values()]
    why = row["refused"] or row["checks"].get("model_randomization", {}).get("refused")
    why = why or (refusals[0] if all(refusals) and refusals else "")
    return row["sentence"] or f"{row['label']}: " + (
        f"refused: {why}" if why else "no verdict (model_randomization was not run)"
    )
