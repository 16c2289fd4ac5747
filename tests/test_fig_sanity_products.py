"""Products of an image with unrelated vectors: what the figure claims, on its numbers; the closed form, simulated."""

import numpy as np
import pytest
import torch

from figure_numbers import numbers
from sanity_checks._confound import closed_form, products


@pytest.mark.parametrize("zeros", [0.2, 0.5, 0.8])
def test_the_closed_form_is_the_correlation_of_two_large_products(zeros):
    x = torch.ones(1, 1, 300, 300)
    x.view(-1)[: int(zeros * x.numel())] = 0
    found = products(x, 0)
    assert float(found["zeros"]) == pytest.approx(zeros)
    rho = closed_form(np.array([zeros]))[0]
    # the standard error of a rank correlation of 90,000 pixels is below 0.0034
    assert float(found["grey"]) == pytest.approx(rho, abs=0.01) == float(found["binary"])
    assert float(found["ink"]) == pytest.approx(0, abs=0.03)  # 18,000 pixels at least
    assert float(found["signed"]) == pytest.approx(0, abs=0.03)


def test_two_unrelated_vectors_times_a_digit_look_alike():
    p = numbers("fig_sanity_products")["products"]
    assert p["grey"]["low"] > 0.85
    assert p["binary"]["low"] > 0.8
    assert abs(p["signed"]["mean"]) < 0.05
    z, rho = np.array(p["points"]["zeros"]), np.array(p["points"]["binary"])
    expected = closed_form(z)
    assert np.abs(rho.mean() - expected.mean()) < 0.02  # 64 pixels: the form is for many


def test_gradient_x_input_of_true_and_permuted_labels_is_as_similar_as_products_of_unrelated_vectors():
    """The title."""
    n = numbers("fig_sanity_products")
    p, networks = n["products"], n["networks"]
    assert p["grey"]["low"] < networks["grey"]["permuted"]["mean"] < p["grey"]["high"]
    for measure in ("grey", "ink", "signed"):
        assert networks[measure]["permuted"]["mean"] == pytest.approx(p[measure]["mean"], abs=0.06)
    below = {m: v["same"]["mean"] - v["permuted"]["mean"] for m, v in networks.items()}
    assert below["grey"] < 0.05  # |a| hardly shows the labels
    assert below["ink"] > 0.25
    assert below["signed"] > 0.7


def test_the_networks_are_those_of_the_figure_about_labels():
    found, rows = numbers("fig_sanity_products")["networks"], numbers("fig_sanity_labels")["rows"]["input_x_gradient"]
    for measure, theirs in (("grey", "spearman"), ("ink", "nonzero"), ("signed", "signed")):
        assert found[measure]["permuted"]["mean"] == pytest.approx(rows[theirs]["s"]["mean"], abs=1e-3)
        assert found[measure]["same"]["mean"] == pytest.approx(rows[theirs]["ceiling"]["mean"], abs=1e-3)
