"""Task confounding: what the figure claims, on its numbers."""

import pytest

import fig_sanity_confound as fig
from figure_numbers import numbers

CONTROLS = ["white_noise", "smooth_noise", "sobel_edges", "input_magnitude", "centred_gaussian"]


def test_the_title_counts_the_rows_that_follow_the_task():
    n = numbers("fig_sanity_confound")
    assert n["follow"] == fig.follow(n) == {"certain": 18, "rows": 18}
    assert "18 of 18 cases" in fig.headline(n)


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
