"""fig_cam draws every class activation map that the registry knows."""

import sys
from dataclasses import replace

import pytest

import fig_cam as figure
from methods import METHODS
from methods._cost import Passes

CAMS = [name for name, m in METHODS.items() if m.family == "cam"]


def named(found):
    return [m.name for members in found.values() for m in members]


def test_every_class_activation_map_is_in_one_group_in_the_order_of_the_registry():
    found = figure.groups()
    assert sorted(named(found)) == sorted([*CAMS, "fuse"])
    order = list(METHODS)
    for members in found.values():
        places = [order.index(m.name) for m in members]
        assert places == sorted(places)


def test_groups_are_by_the_passes_that_are_declared():
    none, one, forward, both = ({m.name for m in members} for members in figure.groups().values())
    assert {"cam", "eigen_cam"} <= none
    assert {"grad_cam", "layer_cam"} <= one
    assert {"score_cam", "ablation_cam"} <= forward
    assert {"smooth_grad_cam_plus_plus", "opti_cam"} <= both


@pytest.mark.parametrize("n", [1, 9, 10, 19])
def test_lines_hold_all_members_and_are_not_too_wide(n):
    found = [list(line) for line in figure.lines(range(n))]
    assert [m for line in found for m in line] == list(range(n))
    assert max(map(len, found)) <= figure.WIDEST


def test_a_method_that_is_added_to_the_registry_is_drawn(monkeypatch, tmp_path):
    new = replace(METHODS["layer_cam"], name="new_cam", title="New-CAM")
    monkeypatch.setitem(METHODS, "new_cam", new)
    monkeypatch.setitem(METHODS, "slow_cam", replace(new, name="slow_cam", forward=Passes("K"), backward=Passes(0)))
    asked, drawn = [], []
    monkeypatch.setattr(figure._run, "explain", lambda run, loaded, name, rows, **_: asked.append(name) or [None])
    monkeypatch.setattr(figure._run, "save", lambda *_: None)
    monkeypatch.setattr(figure._display, "grid", lambda blocks, *_: drawn.extend(blocks))
    monkeypatch.setattr(sys, "argv", ["fig_cam.py", "--quick", "--out", str(tmp_path)])
    figure.main()
    assert "new_cam" in asked
    assert "slow_cam" not in asked  # --quick stays cheap
    assert "slow_cam" in named(figure.groups())
    assert sum(f"New-CAM\n{new.paper['year']}" in block.header for block in drawn) == 1
