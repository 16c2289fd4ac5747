"""Label randomisation: what the figure claims, on its numbers; and the summary of one row, on numbers put in."""

import pytest
import torch

import fig_sanity_labels
from figure_numbers import numbers
from sanity_checks import Result

LOOK_AT_THE_NETWORK = ["gradient", "smooth_grad", "input_x_gradient", "integrated_gradients", "grad_cam"]


def test_the_networks_learnt_what_the_protocol_asks_for():
    accuracy = numbers("fig_sanity_labels")["accuracy"]
    assert accuracy["digits_permuted"]["train"] >= 0.95  # by heart
    assert accuracy["digits_permuted"]["test"] < 0.2  # and nothing else; chance is 0.1
    assert min(accuracy[net]["test"] for net in ("digits_true", "digits_again")) > 0.95


@pytest.mark.parametrize("measure", ["spearman", "nonzero", "signed"])
@pytest.mark.parametrize("name", LOOK_AT_THE_NETWORK)
def test_maps_change_more_with_the_labels_than_between_equal_networks(name, measure):
    row = numbers("fig_sanity_labels")["rows"][name][measure]
    assert row["below"]["low"] > 0
    assert row["s"]["n"] + row["s"]["missing"] == 360


def test_the_absolute_product_looks_insensitive_until_zeros_or_signs_are_looked_at():
    rows = numbers("fig_sanity_labels")["rows"]
    for name in ("input_x_gradient", "integrated_gradients"):
        assert rows[name]["spearman"]["s"]["low"] > 0.85
        assert rows[name]["spearman"]["verdict"] == "insensitive"
        assert rows[name]["nonzero"]["s"]["high"] < 0.45
        assert rows[name]["signed"]["s"]["high"] < 0.05
        assert rows[name]["signed"]["verdict"] == "responds"
    assert all(rows["gradient"][measure]["verdict"] == "responds" for measure in ("spearman", "nonzero", "signed"))


def test_controls_stand_at_one_and_at_nothing():
    rows = numbers("fig_sanity_labels")["rows"]
    for name in ("sobel_edges", "input_magnitude", "centred_gaussian"):
        assert rows[name]["spearman"]["s"]["mean"] == rows[name]["spearman"]["ceiling"]["mean"] == 1
    for kind in ("s", "ceiling", "null"):
        assert abs(rows["white_noise"]["spearman"][kind]["mean"]) < 0.05
    assert rows["white_noise"]["spearman"]["verdict"] == "no evidence"


def test_summary_pairs_each_measure_with_its_own_ceiling_and_null():
    half = torch.full((6,), 0.5, dtype=torch.float64)
    steps = torch.linspace(0, 0.05, 6, dtype=torch.float64)
    ends = ("", "_nonzero", "_signed")
    columns = {"nonzero": half + steps, "signed": steps}
    columns |= {f"null{end}": 0 * half for end in ends} | {f"ceiling{end}": 2 * half for end in ends}
    found = fig_sanity_labels.summary(Result(values=2 * half, columns=columns))
    assert [found[m]["s"]["mean"] for m in ("spearman", "nonzero", "signed")] == pytest.approx([1, 0.525, 0.025])
    assert [found[m]["below"]["mean"] for m in ("spearman", "nonzero", "signed")] == pytest.approx([0, 0.475, 0.975])
    assert [found[m]["verdict"] for m in ("spearman", "nonzero", "signed")] == [
        "insensitive",
        "insensitive",
        "responds",
    ]
