"""The figure of XRAI's regions: its numbers, and which pixels it keeps."""

import torch

import fig_xrai as figure
from figure_numbers import numbers


def test_the_reader_sees_that_regions_keep_the_class_better_than_single_pixels():
    found = numbers("fig_xrai")
    regions, pixels = (found["kept"][name] for name in ("XRAI", "Single pixels"))
    assert list(regions) == [str(a) for a in figure.AREAS]
    assert regions["0.2"]["n"] == len(found["photographs"]) == 7
    for area in ("0.1", "0.2", "0.3"):
        assert regions[area]["mean"] > pixels[area]["mean"]
    assert [v["mean"] for v in regions.values()] == sorted(v["mean"] for v in regions.values())


def test_both_keep_as_many_pixels():
    found = numbers("fig_xrai")
    for area, shares in found["area"].items():
        for share in shares:
            assert float(area) <= share < 1


def test_whole_regions_until_the_share_is_reached():
    a = torch.tensor([[[3.0, 3.0, 1.0, 1.0], [2.0, 2.0, 1.0, 1.0]]])
    assert figure.inside(a, 0.25).sum() == 2
    assert figure.inside(a, 0.3).sum() == 4  # two pixels are too few: the next region comes whole
    assert figure.inside(a, 1.0).all()


def test_single_pixels_are_the_highest():
    a = torch.tensor([[[0.0, 5.0], [4.0, -9.0]]])
    assert figure.best(a, 2).tolist() == [[[False, True], [True, False]]]
