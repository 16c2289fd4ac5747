"""fig_wsol_boxes: each method is best at another threshold, and one threshold for all turns their order round."""

import numpy as np
import pytest

import fig_wsol_boxes as fig
from figure_numbers import numbers
from methods.grad_cam import grad_cam
from methods.gradient import gradient
from sanity_checks import _ground_truth, _nets
from sanity_checks import _thresholds as thresholds
from sanity_checks._boxes import around, box_iou
from sanity_checks._controls import white_noise
from sanity_checks._torch import pixels
from sanity_checks.wsol import max_box_acc, wsol

CAMS = ("grad_cam", "layer_cam")


def test_the_reader_sees_that_each_method_has_a_threshold_of_its_own():
    rows = numbers("fig_wsol_boxes")["rows"]
    best = {name: rows[name]["best_threshold"]["0.5"] for name in fig.ORDER}
    assert best["smooth_grad_squared"]["high"] < best["guided_backprop"]["low"]  # intervals do not overlap
    assert best["guided_backprop"]["high"] < best["grad_cam"]["low"]
    assert best["grad_cam"]["high"] < best["full_grad"]["low"]
    for name in fig.ORDER:  # at one threshold for all each loses boxes, most of them nearly all
        assert rows[name]["threshold_0.2"]["high"] < rows[name]["MaxBoxAccV2"]["mean"]
    assert sum(rows[name]["threshold_0.2"]["high"] < 0.05 for name in fig.ORDER) >= 4


def test_the_title():
    n = numbers("fig_wsol_boxes")
    headline = fig._headline(n)
    assert "from 0.10 (SmoothGrad-Squared) to 0.80 (FullGrad)" in headline
    assert f"{len(n['reversed_pairs'])} of {n['pairs']} pairs" in headline


def test_the_reader_sees_that_one_threshold_turns_the_order_round():
    n = numbers("fig_wsol_boxes")
    assert ["smooth_grad_squared", "occlusion"] in n["reversed_pairs"]
    assert len(n["reversed_pairs"]) < n["pairs"] / 2  # most pairs keep their order, or are too close to tell


def test_the_reader_sees_methods_above_the_centre_and_below_the_image_itself():
    n = numbers("fig_wsol_boxes")
    rows = n["rows"]
    v2 = {row: found["MaxBoxAccV2"] for row, found in rows.items()}
    for name in fig.ORDER:
        assert n["over_the_centre"][name]["low"] > 0
        assert v2[name]["low"] > v2[f"{name}, matched noise"]["mean"]
    assert all(v2[name]["low"] > v2["input_magnitude"]["mean"] for name in CAMS)
    assert all(v2[name]["mean"] < v2["input_magnitude"]["mean"] for name in fig.ORDER if name not in CAMS)
    assert v2["white_noise"]["low"] > v2["centred_gaussian"]["mean"]  # many boxes: the best of all counts
    assert rows["white_noise"]["MaxBoxAcc"] < 0.06  # the largest alone does not fit


def test_a_threshold_from_other_images_gives_nearly_the_same():
    rows = numbers("fig_wsol_boxes")["rows"]
    for name in fig.ORDER:
        assert 0 <= rows[name]["MaxBoxAccV2"]["mean"] - rows[name]["threshold_of_other_half"]["mean"] < 0.05


@pytest.fixture(scope="module")
def judged():
    """(maps as pixels, masks, the check's curves) of a CAM, of signed pixels and of noise."""
    found, net = _ground_truth.digits_on_textures(6, 3), _nets.net("digit_cnn")
    maps = [
        grad_cam(net, found.x, found.digit, layer="features"),
        gradient(net, found.x, found.digit),
        white_noise(0)(net, found.x, found.digit),
    ]
    return [
        (pixels(a.detach(), found.x), found.mask, wsol(a.detach(), found.mask, size=32, interval=0.1)) for a in maps
    ]


def test_the_boxes_that_are_drawn_are_those_that_are_judged(judged):
    for a, mask, found in judged:
        for i, m in enumerate(mask):
            for k, tau in enumerate(found.at[:-1]):
                boxes = thresholds.found_boxes(a[i], tau)
                best = box_iou(boxes, around(m.numpy())).max()
                assert best == pytest.approx(float(found.curves["iou_any"][i, k]))


def test_hits_give_the_number_of_the_check(judged):
    for *_, found in judged:
        hits = thresholds.hits_of(found.curves)
        assert hits.mean(axis=0).max(axis=0).mean() == pytest.approx(max_box_acc(found.curves)["MaxBoxAccV2"])


def test_resamples_choose_their_own_threshold():
    """Two thresholds that fit complementary halves of the images: the better one has a half at least."""
    hits = np.zeros((40, 2, 3))
    hits[:20, 0] = hits[20:, 1] = 1
    scores, places = thresholds.resampled(hits)
    assert len(scores) == thresholds.RESAMPLES
    assert scores.min() >= 0.5
    assert scores.mean() == pytest.approx(0.5 + np.sqrt(1 / (40 * 2 * np.pi)), abs=0.003)  # E max(k, 40-k) / 40
    assert places.mean() == pytest.approx(0.5, abs=0.07)  # ties go to the first: 12.5 % of draws


def test_the_held_out_threshold_does_not_see_its_own_images():
    hits = np.zeros((8, 2, 3))
    hits[::2, 0] = hits[1::2, 1] = 1  # the best threshold of either half hits nothing of the other
    np.testing.assert_array_equal(thresholds.held_out(hits), np.zeros(8))
    assert thresholds.resampled(hits)[0].min() >= 0.5


def test_a_reversal_needs_both_differences_to_be_sure():
    low, high = np.linspace(0.1, 0.2, 20), np.linspace(0.6, 0.7, 20)
    unsure = np.tile([0.0, 1.0], 10)
    scores = {"a": (high, low), "b": (low, high), "c": (unsure, unsure)}
    assert thresholds.reversals(scores) == [("a", "b")]
