"""Nulls of randomisation tests: what the figure claims, on its numbers; and the choice of the best row."""

import pytest

import _ranks
import fig_sanity_nulls
from figure_numbers import numbers
from sanity_checks._controls import CONTROLS

BLIND = ["sobel_edges", "input_magnitude", "centred_gaussian"]  # and without noise
NOISE = ["white_noise", "smooth_noise"]
CASES = ["digits", "photographs"]


def test_noise_is_first_in_four_comparisons_and_second_in_two():
    """The title."""
    n = numbers("fig_sanity_nulls")
    assert n["places_of_noise"] == [1, 1, 2, 1, 1, 2]
    assert "first in 4 of these 6 comparisons and second in 2" in _ranks.headline(n)


@pytest.mark.parametrize("case", CASES)
def test_the_winner_of_efficient_mprt_is_not_certainly_above_smooth_noise(case):
    found = numbers("fig_sanity_nulls")[case]
    winner, noise = (found["rows"][name]["emprt"] for name in (found["best"]["emprt"], "smooth_noise"))
    assert winner["low"] < noise["mean"] < winner["mean"] < noise["high"]


@pytest.mark.parametrize("case", CASES)
def test_noise_is_best_in_both_tests_of_similarity(case):
    found = numbers("fig_sanity_nulls")[case]
    assert found["best"]["mprt"] in NOISE
    assert found["best"]["smprt"] in NOISE
    for test in ("mprt", "smprt"):
        assert abs(found["rows"]["white_noise"][test]["mean"]) < 0.03


@pytest.mark.parametrize("case", CASES)
def test_maps_that_do_not_look_at_the_network_have_no_rise_of_entropy(case):
    rows = numbers("fig_sanity_nulls")[case]["rows"]
    for name in BLIND:
        assert [rows[name]["emprt"][k] for k in ("mean", "low", "high")] == [0, 0, 0]
        assert rows[name]["mprt"]["mean"] == pytest.approx(1)
    assert abs(rows["white_noise"]["emprt"]["mean"]) < 0.01


@pytest.mark.parametrize("case", CASES)
def test_no_method_is_clearly_above_an_edge_detector_in_efficient_mprt(case):
    rows = numbers("fig_sanity_nulls")[case]["rows"]
    methods = {name: row["emprt"] for name, row in rows.items() if name not in CONTROLS}
    assert len(methods) >= 5
    assert all(v["low"] < 0.02 for v in methods.values())
    if case == "photographs":
        assert all(methods[name]["high"] < -0.5 for name in ("gradient", "input_x_gradient", "guided_backprop"))


def test_the_order_is_from_the_lowest_where_low_is_good_and_from_the_highest_where_high_is():
    rows = {
        name: {test: {"mean": mean, "n": n, "missing": 4 - n} for test in _ranks.TESTS}
        for name, mean, n in (("a", -1.0, 4), ("b", 2.0, 3), ("few", -9.0, 1), ("none", float("nan"), 0))
    }
    assert _ranks.order(rows) == {"mprt": ["a", "b"], "smprt": ["a", "b"], "emprt": ["b", "a"]}
    noisy = {"rows": {"gradient": rows["a"], "white_noise": rows["b"], "smooth_noise": rows["none"]}}
    assert _ranks.places({"digits": noisy, "photographs": noisy}) == [2, 2, 1, 2, 2, 1]
    empty = {"images": 4, "rows": {}}
    numbered = {"digits": {"images": 4, "rows": {"gradient": rows["a"], "grad_cam": rows["few"]}}, "photographs": empty}
    assert "Grad-CAM 3 of 4 (MPRT, digits)" in fig_sanity_nulls.left_out(numbered)
    assert "Gradient" not in fig_sanity_nulls.left_out(numbered)
