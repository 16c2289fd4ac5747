"""The figure of the guided path: its numbers, and the recorded path on a linear model."""

from types import SimpleNamespace

import torch
from torch import nn

import fig_guided_ig_path as figure
from figure_numbers import numbers


def test_the_reader_sees_that_less_cancels_on_a_guided_path():
    found = numbers("fig_guided_ig_path")
    assert found["steps"] == figure.STEPS
    for by in found["cancelled"]:
        assert by["guided, free"] < by["guided"] < by["straight"]


def test_all_paths_have_the_same_ends():
    found = numbers("fig_guided_ig_path")
    for by in found["logits"]:
        ends = {(round(v[0], 2), round(v[-1], 2)) for v in by.values()}
        assert len(ends) == 1
        assert {len(v) for v in by.values()} == {figure.STEPS + 1}


def test_on_a_linear_model_every_path_goes_from_the_baseline_to_the_image_and_the_map_is_complete():
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    run = SimpleNamespace(methods={}, args=SimpleNamespace(device="cpu", seed=0, quick=False))
    x, black = torch.randn(1, 3, 4, 4), torch.full((3, 1, 1), -2.0)
    for name, keywords in figure.PATHS.values():
        a, images, logits = figure.follow(run, model, x, 1, name, {**keywords, "steps": 6, "baseline": black})
        assert images.shape == (7, 3, 4, 4)
        torch.testing.assert_close(images[0], black.expand(3, 4, 4))
        assert torch.equal(images[-1], x[0])
        torch.testing.assert_close(a.sum(), (logits[-1] - logits[0]), atol=1e-4, rtol=1e-4)


def test_the_title_claims_nothing_if_the_free_path_cancels_more():
    by = {"straight": 10.0, "guided": 20.0, "guided, free": 30.0}
    assert "compared" in figure.headline([by])
