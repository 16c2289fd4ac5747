"""fig_cam draws every class activation map that the registry knows."""

import sys
from dataclasses import replace

import numpy as np
import pytest

import fig_cam as figure
from methods import METHODS
from methods._cost import Passes
from methods._display import Panel

RGB = np.zeros((2, 2, 3), np.uint8)
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


@pytest.mark.parametrize("n", [1, 8, 9, 19])
def test_lines_hold_all_members_and_the_titles_of_their_groups(n):
    few = [METHODS[name] for name in CAMS[:n]]
    found = {"first": few[:1], **({"others": few[1:]} if n > 1 else {})}
    columns = [[Panel(RGB), Panel(RGB)] for _ in range(n + 1)]  # of the photograph, then of each method; two rows
    blocks = figure.lines(found, columns, ["cat", "espresso"])
    assert [name for b in blocks for name in b.header] == [
        "Photograph",
        *(f"{m.title}\n{m.paper['year']}" for m in few),
    ]
    for row in (0, 1):
        drawn = [panel for b in blocks for panel in b.rows[row]]
        assert all(a is b[row] for a, b in zip(drawn, columns, strict=True))
    assert max(len(b.header) for b in blocks) <= figure.WIDTH
    assert [b.title for b in blocks[:2]] == [{1: "first"}, {0: "others"}][: min(n, 2)]  # too close for one line
    assert not any(b.title for b in blocks[2:])


def test_each_photograph_is_drawn_once():
    a, b = Panel(RGB), Panel(RGB, below="cat")
    assert figure.first_of_each([a, a, b], ["both", "both", "cat"])[1] is None
    assert figure.first_of_each([a, a, b], ["both", "both", "cat"])[2] is b


def test_a_method_that_is_added_to_the_registry_is_drawn(monkeypatch, tmp_path):
    new = replace(METHODS["layer_cam"], name="new_cam", title="New-CAM")
    monkeypatch.setitem(METHODS, "new_cam", new)
    monkeypatch.setitem(METHODS, "slow_cam", replace(new, name="slow_cam", forward=Passes("K"), backward=Passes(0)))
    asked, drawn = [], []
    monkeypatch.setattr(figure._run, "explain", lambda run, loaded, name, rows, **_: asked.append(name) or [None])
    monkeypatch.setattr(figure._run, "save", lambda *_: None)
    monkeypatch.setattr(figure._display, "grid", lambda blocks, *_, **__: drawn.extend(blocks))
    monkeypatch.setattr(sys, "argv", ["fig_cam.py", "--quick", "--out", str(tmp_path)])
    figure.main()
    assert "new_cam" in asked
    assert "slow_cam" not in asked  # --quick stays cheap
    assert "slow_cam" in named(figure.groups())
    assert sum(f"New-CAM\n{new.paper['year']}" in block.header for block in drawn) == 1
