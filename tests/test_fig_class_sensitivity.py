"""The random logit figure: what its numbers must show, and the randomised head on a network where it is known."""

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from figure_numbers import numbers
from sanity_checks._cascade import randomized_head
from sanity_checks._randomize import randomized

BLIND = ("Eigen-CAM", "Sobel edges", "|x|", "centred Gaussian")  # they take no class
GUIDED = ("Guided Backpropagation", "DeconvNet")


@pytest.fixture(scope="module")
def found():
    return numbers("fig_class_sensitivity")["measured"]


def test_maps_that_take_no_class_are_the_same_for_all(found):
    for title in BLIND:
        for measure in ("spearman", "ssim", "runner_up", "head"):
            assert found[title][measure]["values"] == pytest.approx([1.0] * 7, abs=1e-3)


def test_noise_is_never_the_same(found):
    assert abs(found["white noise"]["spearman"]["mean"]) < 0.01
    assert abs(found["white noise"]["ceiling"]["mean"]) < 0.01


def test_the_reader_sees_modified_backpropagation_keep_its_map(found):
    for title in GUIDED:
        for other in ("Gradient", "Grad-CAM", "HiResCAM"):
            assert found[title]["spearman"]["low"] > found[other]["spearman"]["high"]


def test_a_randomised_head_is_a_random_class(found):
    for title, v in found.items():  # six heads for all photographs: Grad-CAM's differ by 0.15 from one to the next
        assert v["head"]["mean"] == pytest.approx(v["spearman"]["mean"], abs=0.1), title


def test_the_head_is_randomised_and_nothing_else():
    model = nn.Sequential(nn.Conv2d(3, 12, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5)).eval()
    before, target = {k: v.clone() for k, v in model.state_dict().items()}, torch.tensor([1, 4])

    def head(model, x, target):
        return model[3].weight[target].view(-1, 1, 3, 4)

    def body(model, x, target):
        return model[0].weight.view(1, 1, 6, 6).expand(len(x), -1, -1, -1)

    x = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    assert randomized_head(model, x, target, body, range(2)).tolist() == [1, 1]
    got = randomized_head(model, x, target, head, range(2))
    others = [randomized(model, ["3.weight", "3.bias"], seed=seed) for seed in range(2)]
    w = [m[3].weight.detach().abs() for m in (model, *others)]
    expected = [sum(spearmanr(w[0][t], v[t]).statistic for v in w[1:]) / 2 for t in target]
    assert got.tolist() == pytest.approx(expected)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
