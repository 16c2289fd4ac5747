"""The figure of LIME and Shapley values: its numbers, and its measures where the answer is known."""

import pytest
import torch

import fig_lime_shap as figure
from figure_numbers import numbers


def test_the_reader_sees_each_class_where_it_is():
    """The cat is at the left, the espresso at the right."""
    shares = numbers("fig_lime_shap")["share of the positive part in the right half"]
    assert set(shares) == set(figure.COLUMNS)
    for cat, espresso in shares.values():
        assert cat < 0.5 < espresso


def test_the_reader_sees_that_lime_and_shapley_values_agree():
    found = numbers("fig_lime_shap")
    assert min(found["rank correlation"].values()) > 0.8
    assert min(found["rank correlation of two seeds"].values()) > 0.8


def test_values_of_regions_their_correlation_and_their_side():
    labels = torch.tensor([[[0, 0, 1, 2]] * 2])
    a = torch.tensor([[[[5.0, 5, 1, 3]] * 2]])
    assert figure.of_regions(a, labels).tolist() == [[5, 1, 3]]
    assert figure.correlation(figure.of_regions(a, labels), figure.of_regions(-a, labels)) == pytest.approx(-1)
    assert figure.right(a) == pytest.approx([8 / 28])
