"""The figure of the gap of completeness: its numbers, and its measures where the answer is known."""

import pytest
import torch
from torch import nn

import fig_ig_completeness as figure
from figure_numbers import numbers


@pytest.fixture(scope="module")
def found():
    return numbers("fig_ig_completeness")


def test_the_reader_sees_that_the_gap_falls_with_the_steps(found):
    assert set(found["gaps"]) == set(figure.RULES)
    for by in found["gaps"].values():
        assert [int(m) for m in by] == list(figure.STEPS)
        assert by["200"]["mean"] < by["5"]["mean"] / 3


def test_the_reader_sees_that_most_of_the_score_arises_on_a_short_part_of_the_path(found):
    for score in found["score"]:
        assert score[0] == 0
        assert score[-1] == 1
        assert max(score[i + 25] - score[i] for i in range(len(score) - 25)) > 0.5


def test_on_a_linear_model_the_score_rises_evenly():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    x, target = torch.randn(2, 3, 2, 2), torch.tensor([0, 2])
    score, slope = figure.along(model, x, target, 5)
    torch.testing.assert_close(score, torch.linspace(0, 1, 5)[:, None].expand(5, 2), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(slope, torch.ones(5, 2), atol=1e-3, rtol=1e-3)


def test_enough_is_the_fewest_steps_from_which_on_the_gap_is_small():
    def gaps(*means):
        return {str(m): {"mean": v} for m, v in zip((5, 10, 20), means, strict=True)}

    assert figure.enough(gaps(0.5, 0.04, 0.03)) == 10
    assert figure.enough(gaps(0.04, 0.06, 0.03)) == 20  # below 5 % once, by chance
    assert figure.enough(gaps(0.5, 0.4, 0.3)) is None
    rules = dict.fromkeys(figure.RULES, gaps(0.5, 0.4, 0.3)) | {"middle": gaps(0.5, 0.04, 0.03)}
    assert figure.headline(rules).endswith("takes 10 steps with middle, more than 20 steps with the paper's rule")
