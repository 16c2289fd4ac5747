"""Figure: eight methods on one picture of a cat and a cup."""

import numpy as np

import fig_overview as figure
from figure_numbers import numbers
from methods import METHODS


def share_of_the_cat(method, k):
    """Of the positive map, for the cat's class (0) or the cup's (1)."""
    a = np.array([c["map"] for c in numbers("fig_overview")["cells"] if c["method"] == method][k]).clip(0)
    half = a.shape[1] // 2
    return a[:, :half].sum() / a.sum()


def change(method):
    return share_of_the_cat(method, 0) - share_of_the_cat(method, 1)


def test_families_stand_in_their_order():
    names = list(METHODS)
    families = [METHODS[name].family for name in figure.SHOWN]
    assert len(set(families)) == 5
    places = [names.index(name) for name in figure.SHOWN]
    assert places == sorted(places)


def test_the_reader_sees_which_methods_follow_the_class():
    for name in ("grad_cam", "ablation_cam", "occlusion"):
        assert change(name) > 0.5, name
    assert change("guided_backprop") < 0.25
