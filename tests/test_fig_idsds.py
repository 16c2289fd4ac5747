"""Cells deleted one by one: what the numbers must show, and the parts of the scatter on a linear network."""

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

import fig_idsds as figure
from figure_numbers import numbers


@pytest.fixture(scope="module")
def found():
    return numbers("fig_idsds")


def test_the_scatter_has_the_correlation_that_the_check_found(found):
    for name, sums in found["sums"].items():
        for a, drop, rho in zip(sums, found["drops"], found["measured"][name]["values"], strict=True):
            assert spearmanr(a, drop).statistic == pytest.approx(rho, abs=0.01)  # the sidecar has four digits: ties


def test_the_reader_sees_the_grad_cam_family_above_chance_and_the_gradient_not(found):
    m = found["measured"]
    for name in ("grad_cam", "xgrad_cam", "grad_cam_plus_plus", "hires_cam", "layer_cam"):
        assert m[name]["low"] > 0.1
    for name in ("gradient", "guided_backprop", "input_x_gradient", "white_noise", "smooth_noise"):
        assert m[name]["low"] < 0 < m[name]["high"]


def test_methods_stand_in_the_published_order(found):
    ours = [found["measured"][name]["mean"] for name in figure.PUBLISHED]
    assert spearmanr(ours, list(figure.PUBLISHED.values())).statistic > 0.8


def test_occlusion_of_the_cells_is_right_by_construction(found):
    assert found["measured"]["occlusion"]["values"] == pytest.approx([1.0] * 7, abs=0.01)


def test_on_a_linear_network_the_sums_of_input_x_gradient_are_the_drops():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 10, 4)).double()
    x = torch.randn(2, 3, 8, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = torch.tensor([3, 0])
    maps = figure.input_x_gradient(model, x, target).detach()
    torch.testing.assert_close(figure.cell_sums(maps, x), figure.drops(model, x, target))


def test_cells_cover_the_image_row_by_row():
    cell = figure.cells(8, 12)
    assert cell[0].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert cell[:, 0].tolist() == [0, 0, 4, 4, 8, 8, 12, 12]
    assert (torch.bincount(cell.flatten()) == 6).all()
