"""fig_wsol_thresholds: the threshold decides how large a box is; the boxes that are drawn have the right edges."""

import numpy as np
import torch

import fig_wsol_thresholds as fig
from _box_pictures import outlined
from figure_numbers import numbers

PIXEL_MAPS = ("guided_backprop", "guided_grad_cam", "integrated_gradients")


def test_the_title_names_a_different_best_threshold_for_each_method():
    ious = numbers("fig_wsol_thresholds")["iou"]
    best = fig.best(ious)
    assert best["smooth_grad_squared"] < best["grad_cam"] < best["full_grad"]
    assert "0.7 for Grad-CAM, 0.8 for FullGrad, 0.1 for SmoothGrad-Squared" in fig.headline(ious)
    for name in fig.SWEPT:  # and another threshold gives a box that fits much worse
        assert max(ious[name]) > 0.4
        assert min(ious[name]) < max(ious[name]) * 0.6
        assert max(ious[name]) > max(ious[fig.CENTRE])


def test_on_photographs_the_largest_box_shrinks_with_the_threshold():
    areas = numbers("fig_wsol_thresholds")["areas"]
    for of_photographs in areas.values():
        for shares in of_photographs:
            assert shares == sorted(shares, reverse=True)
    low = {name: [shares[0] for shares in of] for name, of in areas.items()}
    assert max(low["smooth_grad_squared"]) < 0.01
    assert all(share == 1 for name in PIXEL_MAPS for share in low[name])


def test_an_outline_has_its_corners_and_leaves_the_rest():
    rgb = np.zeros((24, 24, 3), np.uint8)
    out = outlined(rgb, np.array([[1, 2, 3, 4]]), (255, 0, 0), 4, 1)
    y, x = np.nonzero(out[..., 0])
    assert (x.min(), y.min(), x.max(), y.max()) == (4, 8, 15, 19)  # the whole of its first and last pixel
    assert len(x) == 4 * 12 - 4
    assert not rgb.any()
    assert torch.from_numpy(out).sum() == 255 * len(x)


def test_a_dashed_outline_is_a_part_of_the_whole_one():
    rgb, box = np.zeros((60, 60, 3), np.uint8), np.array([[1, 2, 9, 11]])
    whole, dashed = (outlined(rgb, box, (255, 0, 0), 4, dashed=d)[..., 0] > 0 for d in (False, True))
    assert (whole & dashed).sum() == dashed.sum()
    assert 0.3 < dashed.sum() / whole.sum() < 0.7
