"""fig_road_consistency: MoRF and LeRF rank methods more alike with linear imputation than with a fixed value."""

import numpy as np
import torch
from scipy import stats
from torch import nn

import _road as road
import fig_road_consistency as fig
from figure_numbers import numbers


def test_the_reader_sees_linear_imputation_agree_more():
    found = numbers("fig_road_consistency")["consistency"]["paper"]["probability"]
    assert found["linear - fixed: MoRF, LeRF"]["low"] > 0
    assert found["linear: MoRF, LeRF"]["low"] > 0


def test_the_reader_sees_lines_that_cross_more_with_a_fixed_value():
    """The order of the paper's eight methods in the picture, from best to worst, by MoRF and by LeRF."""
    curves = numbers("fig_road_consistency")["curves"]
    agree = {}
    for fill in road.FILLS:
        by = {o: np.stack([curves[k][fill][o] for k in list(curves)[:8]]) for o in ("morf", "lerf")}
        places = [fig.place(by[o], o) for o in by]
        assert all(sorted(p) == list(range(1, 9)) for p in places)
        agree[fill] = np.corrcoef(*places)[0, 1]
    assert agree["linear"] > 0.6 > 0.2 > agree["fixed"]


def test_the_reader_sees_that_consistency_is_not_truth():
    found = numbers("fig_road_consistency")["consistency"]
    for members in found.values():
        for order in ("MoRF", "LeRF"):
            assert members["probability"][f"linear - fixed: {order}, truth"]["low"] < 0  # not surely nearer


def test_spearman_is_scipys_averaged_over_shares():
    rng = np.random.default_rng(0)
    a, b = rng.integers(4, size=(2, 9, 5))  # with ties
    expected = np.mean([stats.spearmanr(a[:, k], b[:, k])[0] for k in range(5)])
    assert np.isclose(road.spearman(a, b), expected)
    assert np.isclose(road.spearman(a, b[:, 0]), np.mean([stats.spearmanr(a[:, k], b[:, 0])[0] for k in range(5)]))


def test_perfect_orders_agree():
    """A method that is better in one order is better in the other: 1, whatever the images drawn."""
    quality = np.linspace(0.1, 0.4, 6)
    curves = [{f: (np.full((5, 2), 0.5 - q), np.full((5, 2), 0.5 + q)) for f in road.FILLS} for q in quality]
    found = road.consistency(curves, np.tile(quality[:, None], (1, 5)), np.zeros((3, 5), dtype=int))
    for f in road.FILLS:
        assert np.isclose(found[f"{f}: MoRF, LeRF, Kendall"], 1)
        assert all(np.isclose(found[f"{f}: {p}"]["low"], 1) for p in ("MoRF, LeRF", "MoRF, truth", "LeRF, truth"))


def test_fixed_value_removes_the_pixels_that_it_says():
    """A network that adds up the pixels, an image of ones, a map with a known order."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(100, 2))
    model[1].weight.data = torch.stack([torch.zeros(100), torch.linspace(0, 1, 100)])
    model[1].bias.data.zero_()
    x, y = torch.ones(1, 1, 10, 10), torch.ones(1, dtype=torch.long)
    maps = torch.linspace(0, 1, 100).view(1, 1, 10, 10)
    found = road.fixed_value(model, x, y, maps, 0)
    w = np.linspace(0, 1, 100)
    for k, p in enumerate(road.PERCENTAGES):
        n = int(100 * p)
        expected = {"morf": w[: 100 - n].sum(), "lerf": w[n:].sum()}
        for name, score in expected.items():
            assert np.isclose(found[name][0, k], 1 / (1 + np.exp(-score)), atol=1e-6)
            assert found[f"{name}_accuracy"][0, k] == 1
