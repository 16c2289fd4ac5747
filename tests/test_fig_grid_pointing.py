"""fig_grid_pointing: maps of the last layer find the photograph in a mosaic; noise stays at chance."""

import numpy as np
import pytest

import fig_grid_pointing as fig
from figure_numbers import numbers


def test_the_reader_sees_grad_cam_on_the_right_photograph():
    found = numbers("fig_grid_pointing")["share"]
    assert found["grad_cam"]["quartiles"][0] > 0.6
    assert fig.headline(found).startswith("Grad-CAM puts most")
    for name in set(fig.ORDER) - {"grad_cam"}:
        assert found[name]["median"] < 0.5 < found["grad_cam"]["low"]
        assert found[name]["mean"] > 0.28


@pytest.mark.parametrize("name", fig.NULLS)
def test_maps_without_knowledge_are_at_chance(name):
    """Over all cells the shares of one map sum to 1, so a photograph that is in every cell equally often has 1/4."""
    found = numbers("fig_grid_pointing")["share"][name]
    assert abs(found["mean"] - 0.25) < (0.1 if name == "smooth_noise" else 0.01)  # 14 x 14 numbers, 32 draws


def test_arrangements_bring_each_photograph_into_each_cell_equally_often():
    orders = fig.arrangements(4)
    assert len(set(orders)) == 24
    for k in range(0, 24, 4):
        assert all(sorted(cell) == [0, 1, 2, 3] for cell in zip(*orders[k : k + 4], strict=True))


def test_placed_shares_are_the_box():
    found = numbers("fig_grid_pointing")
    for s in found["share"].values():
        placed = np.array(s["placed"])
        assert placed.shape == (found["arrangements"], 4)
        assert np.isclose(placed.mean(), s["mean"], atol=1e-3)
