"""The figure of five depths: what its numbers must show, and its measures on maps that are known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import fig_layercam as figure
from figure_numbers import numbers
from sanity_checks import _ground_truth, _nets


@pytest.fixture(scope="module")
def found():
    return numbers("fig_layercam")


def test_early_layers_of_grad_cam_are_at_chance_on_digits(found):
    first, second, *_ = found["measured"]["digits"].values()
    area = found["chance"]["digits"]
    for row in (first, second):
        assert row["grad_cam"]["n"] == 300
        assert row["grad_cam"]["high"] < area + 0.1
        assert row["layer_cam"]["low"] > 3 * area


def test_layer_cam_stays_on_the_digit_at_every_depth(found):
    for layer, row in found["measured"]["digits"].items():
        assert row["layer_cam"]["low"] > 2 * found["chance"]["digits"], layer


def test_the_reader_sees_layer_cam_in_the_half_of_its_class_before_the_last_stage(found):
    *earlier, _, fused = found["measured"]["pairs"].values()
    assert len(earlier) == 4
    for row in earlier:
        assert row["layer_cam"]["n"] == 15
        assert row["layer_cam"]["low"] > max(0.5, row["grad_cam"]["high"])
    for row in earlier[:3]:
        assert row["grad_cam"]["low"] < 0.5 + 0.05
    assert fused["layer_cam"]["low"] > 0.5


def test_at_the_last_layer_grad_cam_is_the_better_one(found):
    *_, last, _ = found["measured"]["pairs"].values()
    assert last["grad_cam"]["low"] > last["layer_cam"]["high"]


def test_maps_that_are_known():
    data = _ground_truth.digits_on_textures(5, 0)
    run = SimpleNamespace(checks={}, args=SimpleNamespace(device="cpu"))
    share = figure.partial(figure.on_digits, run, nn.Identity(), data, data.mask)
    flat = share(lambda model, x, target: torch.ones(len(x), 1, 32, 32))
    np.testing.assert_allclose(flat, data.mask.double().mean(dim=(1, 2)))
    np.testing.assert_allclose(share(lambda model, x, target: data.mask[:, None].float()), 1)
    np.testing.assert_allclose(share(lambda model, x, target: 1 - data.mask[:, None].float()), 0)


def test_the_fused_map_is_of_all_layers():
    """And each method is asked at each layer."""
    asked, model = [], _nets.net("digit_cnn")
    bar = SimpleNamespace(set_postfix_str=lambda _text: None, update=lambda: None)
    run = SimpleNamespace(checks={}, methods={}, bar=bar, args=SimpleNamespace(device="cpu", seed=0, quick=False))

    def share(of):
        asked.append((of.func.__name__, of.keywords["layer"], of.keywords.get("layers")))
        return torch.arange(3.0)

    layers = ["features.relu1", "features.relu3", "features.relu4"]
    found = figure.measure(run, model, layers, share)
    assert list(found) == [*layers, "fused"]
    assert [name for name, *_ in asked] == [*figure.NAMES] * 3 + ["fuse"]
    assert asked[-1] == ("fuse", "features.relu4", ("features.relu1", "features.relu3"))
    assert found["fused"]["layer_cam"]["mean"] == 1
