"""Figure: maps of a small network for digits, beside the authors' numbers."""

import numpy as np
from scipy import stats

import fig_sanity_cascade_small as fig
from figure_numbers import numbers

STEPS = range(1, 5)  # fc2, fc1, conv2, conv1


def curve(name, measure="spearman"):
    return numbers("fig_sanity_cascade_small")["top-down"]["rows"][name]["curves"][measure]


def test_the_reader_sees_that_products_with_the_image_stay_while_the_gradient_falls():
    null = numbers("fig_sanity_cascade_small")["top-down"]["rows"]["gradient"]["null"]["spearman"]
    for k in STEPS:
        assert curve("integrated_gradients")[k]["low"] > 0.8
        assert curve("input_x_gradient")[k]["low"] > 0.8
        assert curve("guided_backprop")[k]["low"] > 0.5
        assert curve("gradient")[k]["high"] < 0.5
    assert curve("gradient")[4]["high"] < null["low"]


def test_the_order_of_the_methods_is_that_of_the_authors_numbers():
    for k in STEPS:
        ours = [curve(name)[k]["mean"] for name in fig.AUTHORS]
        theirs = [fig.AUTHORS[name][k - 1] for name in fig.AUTHORS]
        assert np.asarray(stats.spearmanr(ours, theirs))[0] > 0.75, k
        top = sorted(fig.AUTHORS, key=lambda name: -curve(name)[k]["mean"])[:3]
        assert set(top[:2]) == {"integrated_gradients", "input_x_gradient"}
        assert top[2] == "guided_backprop"


def test_what_stays_of_products_with_the_image_is_the_paper_without_ink():
    for name in ("integrated_gradients", "input_x_gradient"):
        for k in STEPS:
            assert curve(name, "nonzero")[k]["high"] < 0.6
            assert abs(curve(name, "signed")[k]["mean"]) < 0.1
    for k in STEPS:  # while guided backpropagation keeps its sign
        assert curve("guided_backprop", "signed")[k]["low"] > 0.5


def test_hundred_images_and_several_randomisations():
    n = numbers("fig_sanity_cascade_small")
    assert n["images"] >= 100
    assert n["seeds"] >= 5
    assert n["top-down"]["labels"] == ["trained", "fc2", "fc1", "conv2", "conv1"]
    assert abs(n["top-down"]["logits"][1]["mean"]) < 0.3
