"""The table of what the sanity checks say."""

import pytest

import table_sanity as script
from figure_numbers import numbers
from sanity_checks._controls import CONTROLS, IMAGE_ONLY


@pytest.fixture(scope="module")
def rows():
    return numbers("table_sanity")


def test_eight_methods_and_every_control_have_a_row(rows):
    assert list(rows) == [*script.SHOWN, *CONTROLS]
    for row in rows.values():
        assert set(row["cells"]) == set(script.COLUMNS)


def test_the_reader_sees_that_maps_that_follow_the_network_are_told_from_those_that_do_not(rows):
    assert rows["grad_cam"]["verdict"] == "responds"
    for name in IMAGE_ONLY:
        assert {rows[name]["conditions"][c] for c in ("weights", "confidence", "class")} == {"insensitive"}
        assert rows[name]["conditions"]["evidence"] == rows[name]["verdict"] == "no evidence"
    assert rows["guided_backprop"]["cells"]["R, head gone"]["mean"] > 0.9
    assert rows["guided_backprop"]["conditions"]["class"] == "insensitive"
    assert rows["eigen_cam"]["cells"]["R, other class"]["mean"] > 0.99  # it uses no class
    assert all(rows[name]["verdict"] != "responds" for name in CONTROLS)


def test_no_number_stands_where_noise_would_give_the_same():
    cell = {"mean": 0.5, "low": 0.1, "high": 0.9, "word": "partial", "meaningless": False, "best control": None}
    row = {"label": "|x|", "control": True, "verdict": "partial", "cells": dict.fromkeys(script.COLUMNS, cell)}
    table = script.table({"input_magnitude": row})
    assert table.count("0.50 <sub>0.10 to 0.90</sub>") == len(script.COLUMNS)
    assert "| \\|x\\| | ◐ partial |" in table
    hidden = row | {"cells": dict.fromkeys(script.COLUMNS, cell | {"meaningless": True})}
    assert "0.50" not in script.table({"input_magnitude": hidden})
