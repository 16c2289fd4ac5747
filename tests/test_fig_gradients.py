"""fig_gradients: DeconvNet draws the same chequerboard for two photographs; all methods of three families are there."""

import numpy as np
import torch

import fig_gradients as fig
from figure_numbers import numbers
from methods import METHODS
from methods._display import Panel

RGB = np.zeros((2, 2, 3), np.uint8)


def test_the_reader_sees_that_only_deconvnet_hardly_depends_on_the_photograph():
    alike = numbers("fig_gradients")["alike"]
    assert set(alike) == set(fig.groups())
    assert alike.pop("deconvnet") > 0.99
    assert max(alike.values()) < 0.5


def test_every_method_of_the_families_is_in_its_group():
    found = fig.groups()
    families = dict(iter(fig.GROUPS))
    assert {name: families[title] for name, title in found.items()} == {
        name: m.family for name, m in METHODS.items() if m.family in families.values()
    }


def test_titles_stand_above_the_first_map_of_a_group():
    found = fig.groups()
    panel = Panel(RGB)
    blocks = fig.lines(found, {name: [panel] for name in found}, [panel], [""])
    assert [name for b in blocks for name in b.header[1:]] == [METHODS[name].title for name in found]
    for b in blocks:
        for column, title in b.title.items():
            first = next(name for name in found if METHODS[name].title == b.header[column])
            assert found[first] == title
            assert column == 1 or b.header[column - 1] not in [METHODS[n].title for n in found if found[n] == title]


def test_alike_is_the_lowest_correlation_of_two_maps():
    a = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    b = torch.tensor([[1.0, 2.0], [4.0, 3.0]])
    found = fig.alike({"x": [Panel(RGB, a), Panel(RGB, 2 * a), Panel(RGB, b)], "one": [Panel(RGB, a)], "no": [None]})
    assert list(found) == ["x"]
    assert np.isclose(found["x"], np.corrcoef(a.flatten(), b.flatten())[0, 1])
