"""The table of faithfulness: what a reader sees in it, and how a cell and a line are made."""

from pathlib import Path

import numpy as np
import pytest
import torch

import _table
import table_faithfulness as script
from figure_numbers import LATER, numbers
from methods import METHODS
from sanity_checks import Result
from sanity_checks._controls import CONTROLS
from sanity_checks._rows import Row, controls
from sanity_checks._runner import Part

ROOT = Path(__file__).resolve().parent.parent
HIGHER = {c.header: c.higher for c in script.COLUMNS}


@pytest.fixture(scope="module")
def tables():
    return numbers("table_faithfulness")["tables"]


def test_every_method_has_a_number_or_a_reason(tables):
    titles = {m.title for m in METHODS.values()}
    for title, table in tables.items():
        long = script.LONG if "photographs" in title else ()
        assert not set(long) & set(table["cells"])
        for row in [*(r for r in (*METHODS, *CONTROLS) if r not in {*long, *LATER})]:
            cells = table["cells"][row]
            assert set(cells) == set(table["columns"])
            if row in CONTROLS or METHODS[row].title not in table["refused"]:
                assert all(
                    c["n"] + c["missing"] == table["n"] and c["low"] <= c["mean"] <= c["high"] for c in cells.values()
                )
        assert set(table["refused"]) <= titles
    photographs, cnn, vit = tables.values()
    classic = {"Attention Rollout", "Generic Attention Explainability"}
    assert classic <= set(photographs["refused"]) & set(cnn["refused"])
    assert "Attention Rollout" not in vit["refused"]


def test_no_method_leads_in_every_column(tables):
    for table in tables.values():
        best = set()
        for column in table["columns"]:
            means = {r: c[column]["mean"] for r, c in table["cells"].items() if "mean" in c[column]}
            best.add((max if HIGHER[column] else min)(means, key=means.get))
        assert len(best) > 1


def test_on_photographs_smooth_noise_beats_white_noise_in_insertion(tables):
    photographs, *_ = tables.values()
    smooth, white = (photographs["cells"][row]["insertion"]["mean"] for row in ("smooth_noise", "white_noise"))
    assert smooth > white + 0.05


def test_methods_beat_noise_of_their_own_smoothness_and_noise_does_not(tables):
    def sure(table, row):
        return sum(table["cells"][row][c]["gain"]["low"] > 0 for c in table["columns"])

    _, cnn, vit = tables.values()
    everywhere = ("integrated_gradients", "score_cam", "occlusion")
    for table, rows in ((cnn, (*everywhere, "grad_cam", "hires_cam")), (vit, (*everywhere, "generic_attention"))):
        for row in rows:
            assert sure(table, row) >= 0.75 * len(table["columns"]), row
        for row in ("white_noise", "smooth_noise"):  # each interval misses with 5 %
            assert sure(table, row) <= 1, row
    assert sure(cnn, "deconvnet") == 0


def test_a_cell_is_paired_with_noise_and_lower_is_better_where_it_is():
    values, noise = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([2.0, 4.0, 5.0])
    part = Part(Result(values=values, columns={"other": noise}), Result(values=noise, columns={"other": values}))
    cell = _table.numbers(_table.Column("a", "insertion_deletion"), part)
    assert cell["mean"] == pytest.approx(7 / 3)
    assert cell["noise"] == pytest.approx(11 / 3)
    assert cell["gain"]["mean"] == pytest.approx(-4 / 3)
    assert _table.numbers(_table.Column("a", "insertion_deletion", higher=False), part)["gain"]["mean"] > 0
    assert _table.numbers(_table.Column("a", "insertion_deletion", "other"), part)["mean"] == pytest.approx(11 / 3)
    assert _table.numbers(_table.Column("a", "insertion_deletion"), Part(None, refused="why")) == {"refused": "why"}


def test_lines_of_a_table():
    columns = [_table.Column("up", "road"), _table.Column("down", "infidelity", higher=False)]
    every = [Row(key="grad_cam", label="Grad-CAM", fn=len), Row(key="mine", label="mine", fn=len), *controls()]
    cell = {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 7, "missing": 0, "gain": {"low": 0.1}}
    cells = {row.key: {"up": cell, "down": cell | {"n": 3}} for row in every}
    cells["mine"] = {"up": {"refused": "no"}, "down": {"refused": "no"}}
    lines = _table.markdown(columns, every, cells)
    assert lines[0] == "| method | up ↑ | down ↓ |"
    shown = "**0.500** <sub>0.40 to 0.60</sub> | 0.500 <sub>0.40 to 0.60</sub>"  # too few images to be sure
    assert f"| [`grad_cam`](../methods/grad_cam.py) | {shown} |" in lines
    assert not any("mine" in line for line in lines)
    assert any(line.startswith(r"| \|x\| | ") for line in lines)
    assert {line.replace(r"\|", "").count("|") for line in lines} == {4}
    assert _table.refusals(every, cells) == {"mine": "no"}


def test_names_are_checked():
    with pytest.raises(ValueError, match="--checks: .*'raod'; the closest are road"):
        _table.check_names("raod", ["road"])
    assert _table.check_names(None, ["road"]) == ["road"]
    assert np.isnan(_table.numbers(_table.Column("a", "road"), Part(Result(values=torch.tensor([np.nan]))))["mean"])


def test_the_advice_in_the_readme_of_the_methods_rests_on_the_table(tables):
    photographs, *_ = tables.values()
    text = (ROOT / "methods/README.md").read_text()
    for name, claim in (("grad_cam", "in four of five scores"), ("integrated_gradients", "in five of five scores")):
        better = sum(c["gain"]["low"] > 0 for c in photographs["cells"][name].values())
        words = {4: "four", 5: "five"}
        assert claim == f"in {words[better]} of {words[len(photographs['columns'])]} scores"
        (line,) = (line for line in text.splitlines() if claim in line)
        assert f"`{name}`" in line
