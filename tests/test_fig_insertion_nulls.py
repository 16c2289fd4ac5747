"""Insertion and deletion beside noise: what the numbers must show, and how they are put together."""

import pytest
import torch

import fig_insertion_nulls as figure
from figure_numbers import numbers
from sanity_checks import Result


@pytest.fixture(scope="module")
def found():
    return numbers("fig_insertion_nulls")


def test_the_reader_sees_smooth_noise_beat_white_noise_in_insertion_and_lose_in_deletion(found):
    assert found["smooth above white"]["insertion"]["low"] > 0.02
    assert found["smooth above white"]["deletion"]["low"] > 0.02
    areas = [[v[side]["mean"] for k, v in found["controls"].items() if "noise" in k] for side in figure.SIDES]
    for white, *_, px16, px32 in areas:
        assert white < px16 < px32


def test_smooth_noise_comes_as_near_to_grad_cam_as_grad_cam_is_above_the_gradient(found):
    methods, smooth = found["methods"], found["controls"]["noise, 32 px"]["insertion"]["mean"]
    grad_cam, gradient = (methods[name]["itself"]["insertion"]["mean"] for name in ("grad_cam", "gradient"))
    assert grad_cam - smooth < (grad_cam - gradient) / 2


def test_beside_noise_of_its_own_smoothness_integrated_gradients_stands_and_the_gradient_does_not(found):
    better = {
        name: [figure.surely_better(m["above matched"][side], side) for side in figure.SIDES]
        for name, m in found["methods"].items()
    }
    assert better["integrated_gradients"] == [True, True]
    assert better["gradient"] == [False, False]
    assert better["grad_cam"][1]  # in deletion


def test_areas_are_those_of_the_curves(found):
    for m in (*found["controls"].values(), *(v["itself"] for v in found["methods"].values())):
        for side in figure.SIDES:
            y = m[side]["curve"]
            assert len(y) == figure.STEPS + 1
            assert (sum(y) - (y[0] + y[-1]) / 2) / (len(y) - 1) == pytest.approx(m[side]["mean"], rel=2e-3)


def test_draws_are_averaged_image_by_image():
    def result(a, b):
        areas, curve = torch.tensor([a, b]), torch.tensor([[a, a], [b, b]])
        sides = {"columns": dict.fromkeys(figure.SIDES, areas), "curves": dict.fromkeys(figure.SIDES, curve)}
        return Result(values=areas, at=(0.0, 1.0), **sides)

    m = figure.measured([result(0.0, 1.0), result(1.0, 4.0)])
    assert m["insertion"]["values"].tolist() == [0.5, 2.5]
    assert m["insertion"]["mean"] == 1.5
    assert m["deletion"]["curve"].tolist() == [1.5, 1.5]
    higher = figure.measured([result(1.0, 3.0)])
    assert figure.above(higher, m)["insertion"]["mean"] == 0.5


def test_noise_has_cells_of_the_size_asked_for():
    x = torch.zeros(2, 3, 64, 96)
    assert figure.noise_of(x, 16, 0).shape == (2, 1, 4, 6)
    assert torch.equal(figure.noise_of(x, 8, 3), figure.noise_of(x, 8, 3))
    assert not torch.equal(figure.noise_of(x, 8, 3), figure.noise_of(x, 8, 4))
