"""The figure of noise and samples: two draws agree better with more samples, and the title says by how much."""

import fig_smoothgrad as figure
from figure_numbers import numbers


def test_the_reader_sees_two_draws_agree_better_with_more_samples():
    agreement = numbers("fig_smoothgrad")["agreement"]
    assert [float(k) for k in agreement] == list(figure.NOISE)
    for by in agreement.values():
        assert [int(n) for n in by] == list(figure.SAMPLES)
        assert list(by.values()) == sorted(by.values())
        assert by["50"] > by["1"] + 0.1


def test_the_title_names_the_fewest_and_the_most_samples():
    title = figure.headline({"0.2": {"1": 0.111, "5": 0.2, "50": 0.456}})
    assert title.endswith("two draws of 1 sample agree by r = 0.11, of 50 by 0.46")
