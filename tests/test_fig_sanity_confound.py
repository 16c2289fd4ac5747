"""Task confounding: what the figure claims, on its numbers; and the closed form, against simulation."""

import numpy as np
import pytest
import torch

from figure_numbers import numbers
from sanity_checks._confound import closed_form, products

CONTROLS = ["white_noise", "smooth_noise", "sobel_edges", "input_magnitude", "centred_gaussian"]


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
    p = numbers("fig_sanity_confound")["products"]
    assert p["grey"]["low"] > 0.85
    assert p["binary"]["low"] > 0.8
    assert abs(p["signed"]["mean"]) < 0.05
    z, rho = np.array(p["points"]["zeros"]), np.array(p["points"]["binary"])
    expected = closed_form(z)
    assert np.abs(rho.mean() - expected.mean()) < 0.02  # 64 pixels: the form is for many


def test_the_product_explains_what_label_randomisation_finds_for_gradient_x_input():
    p, rows = numbers("fig_sanity_confound")["products"], numbers("fig_sanity_labels")["rows"]["input_x_gradient"]
    for product, measure in (("grey", "spearman"), ("ink", "nonzero"), ("signed", "signed")):
        assert p[product]["mean"] == pytest.approx(rows[measure]["s"]["mean"], abs=0.06)


@pytest.mark.parametrize("kind", ["cnn", "vit"])
def test_every_method_tells_the_tasks_apart_and_no_control_does(kind):
    rows = numbers("fig_sanity_confound")[kind]
    assert all(row["contrast"]["low"] > 0 for name, row in rows.items() if name not in CONTROLS)
    for name in CONTROLS:
        contrast = rows[name]["contrast"]
        assert contrast["low"] <= 0 <= contrast["high"]
        assert contrast["high"] < 0.03


@pytest.mark.parametrize("kind", ["cnn", "vit"])
def test_noise_passes_randomisation_and_the_product_does_not_though_it_shows_the_task(kind):
    rows = numbers("fig_sanity_confound")[kind]
    assert abs(rows["white_noise"]["randomised"]["s"]["mean"]) < 0.02
    for name in ("input_x_gradient", "integrated_gradients"):
        s, null = rows[name]["randomised"]["s"], rows[name]["randomised"]["null"]
        assert s["low"] > null["high"] + 0.1
        assert rows[name]["verdict"] != "responds"
        assert rows[name]["contrast"]["low"] > 0.5
        assert rows[name]["mass"]["texture"]["high"] < 0.25  # the area is 0.12
