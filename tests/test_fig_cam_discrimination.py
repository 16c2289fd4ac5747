"""The figure of two classes in one picture: what its numbers must show, and its measure on maps that are known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import _pairs as figure
from figure_numbers import numbers
from methods._images import Photo

RUN = SimpleNamespace(checks={})
RELATIVES = ("Grad-CAM", "Guided Grad-CAM", "HiResCAM")


def test_the_reader_sees_grad_cam_in_the_half_of_its_class_and_guided_backprop_in_both():
    found = numbers("fig_cam_discrimination")["measured"]
    guided = found["Guided Backpropagation"]
    assert guided["share"]["n"] == 15
    assert guided["share"]["high"] < 0.62
    assert guided["spearman"]["low"] > 0.9
    for title in RELATIVES:
        assert found[title]["share"]["low"] > 0.8
        assert found[title]["spearman"]["high"] < 0.1


def test_controls_that_do_not_see_the_class_have_half_of_their_mass_in_its_half_pair_by_pair():
    found = numbers("fig_cam_discrimination")["measured"]
    for title in ("Sobel edges", "|x|", "centred Gaussian"):
        assert found[title]["share"]["values"] == pytest.approx([0.5] * 15, abs=1e-4)
        assert found[title]["spearman"]["low"] == 1
    for title in ("white noise", "smooth noise"):
        assert found[title]["share"]["low"] < 0.5 < found[title]["share"]["high"]


def test_maps_that_are_known():
    pairs = figure.Pairs([], torch.zeros(3, 3, 28, 28), torch.tensor([[0, 1]] * 3))

    def perfect(model, x, target):
        columns = torch.arange(28) >= 14
        return (columns == target[:, None].bool())[:, None, None].expand(-1, 1, 28, 28).float()

    def seam(model, x, target):  # fills its half, and the middle column of cells evenly
        columns = torch.tensor([[1.0, 1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1, 1]])[target]
        return columns[:, None, None].expand(-1, 1, 7, 7)

    def blind(model, x, target):
        return torch.rand(7, 7, generator=torch.Generator().manual_seed(0)).expand(len(x), 1, 7, 7)

    share = {of: figure.measure(RUN, nn.Identity(), pairs, of)["share"]["values"] for of in (perfect, seam, blind)}
    np.testing.assert_allclose(share[perfect], 1)
    np.testing.assert_allclose(share[seam], 0.875)
    np.testing.assert_allclose(share[blind], 0.5)


def test_each_photograph_keeps_its_middle():
    left, right = np.full((4, 8, 3), 1, np.uint8), np.full((4, 8, 3), 2, np.uint8)
    left[:, 2], left[:, 5] = 7, 9
    a, b = (Photo(n, rgb, {}, "", "") for n, rgb in (("a", left), ("b", right)))
    pair = figure.joined(a, b)
    assert pair.name == "a_b"
    assert pair.parts == ("a", "b")
    assert pair.rgb[0, :, 0].tolist() == [7, 1, 1, 9, 2, 2, 2, 2]
