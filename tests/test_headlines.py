"""The titles of figures are made of their numbers: what stands above each committed figure, and a neutral one."""

from importlib import import_module

import pytest

from figure_numbers import numbers

HEADLINES = {  # script: where its title looks in the numbers, the title
    "fig_cam_discrimination": (("measured",), "Grad-CAM shows the explained class; Guided Backpropagation shows both"),
    "fig_idsds": (("measured",), "6 of 12 methods order the cells by their effect better than chance"),
    "fig_insertion_nulls": (
        ("smooth above white",),
        "Smooth noise beats white noise in insertion and loses to it in deletion",
    ),
    "fig_layercam": (("measured", "pairs"), "Before the last stage LayerCAM stays on the object; Grad-CAM does not"),
    "fig_sanity_cascade_small": (
        ("top-down", "rows"),
        "With random weights 2 of 7 methods keep the ranks of |a|: Gradient x Input, Integrated Gradients",
    ),
    "fig_sanity_labels": (("rows",), "Of 7 methods 4 respond to the labels in the ranks of |a|, 5 with the sign"),
    "fig_shift_invariance": (
        ("rows",),
        "One function, two inputs: maps with the input or a fixed baseline as a factor differ",
    ),
}


@pytest.mark.parametrize("script", HEADLINES)
def test_the_title_says_what_the_numbers_show(script):
    path, title = HEADLINES[script]
    found = numbers(script)
    for key in path:
        found = found[key]
    assert import_module(script).headline(found) == title


def test_a_title_claims_nothing_that_is_not_certain():
    wide = {"low": -0.1, "high": 0.9}
    assert "compared with noise" in import_module("fig_insertion_nulls").headline(
        {"insertion": wide, "deletion": {"low": 0.1, "high": 0.2}}
    )
    row = {"layer_cam": {"low": 0.6}, "grad_cam": {"high": 0.7}}
    assert import_module("fig_layercam").headline(dict.fromkeys("abc", row)) == "Grad-CAM and LayerCAM at five depths"
    share = {"Grad-CAM": {"share": wide}, "Guided Backpropagation": {"share": wide}}
    assert import_module("fig_cam_discrimination").headline(share).startswith("How much")
