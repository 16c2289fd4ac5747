"""Localisation: closed forms, definitions written out pixel by pixel, Quantus, scikit-learn's own kind, and OpenCV."""

import itertools
from functools import partial

import cv2
import numpy as np
import pytest
import torch
from quantus.metrics.localisation import AUC, RelevanceMassAccuracy, RelevanceRankAccuracy, TopKIntersection
from scipy.ndimage import gaussian_filter
from torch import nn

from methods.input_x_gradient import input_x_gradient
from nets import net
from sanity_checks._boxes import box_iou, components, contours
from sanity_checks._controls import centred_gaussian
from sanity_checks._mosaics import drawn, groups, mosaic, orders
from sanity_checks.average_precision import ap, average_precision
from sanity_checks.energy_pointing_game import energy_pointing_game
from sanity_checks.grid_pointing_game import grid_pointing_game
from sanity_checks.iou import LEVELS, best_threshold, iou
from sanity_checks.localize import RULES, boxes, masks, pixels
from sanity_checks.pointing_game import accuracy, pointing_game
from sanity_checks.relevance_mass import POOLINGS, pool, relevance_mass
from sanity_checks.relevance_rank import relevance_rank
from sanity_checks.roc_auc import roc_auc
from sanity_checks.wsol import fit, max_box_acc, px_ap, wsol

close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-12)
nan = float("nan")
f64 = partial(torch.tensor, dtype=torch.float64)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def blobs(B, H, W, sigma=3.0, seed=0):
    noise = draw(B, H, W, seed=seed).numpy()
    return torch.from_numpy(np.stack([gaussian_filter(n, sigma) for n in noise]))


def objects(B, H, W, seed=1):
    """Irregular masks, an eighth to a half of the image."""
    a = blobs(B, H, W, seed=seed)
    return torch.stack([m > m.quantile(0.5 + 0.37 * i / B) for i, m in enumerate(a)])


def rectangles(B, H, W):
    """From a twentieth to two thirds of each side, somewhere."""
    masks, rng = torch.zeros(B, H, W, dtype=torch.bool), np.random.default_rng(0)
    for m in masks:
        h, w = (int(n * rng.uniform(0.05, 0.67)) + 1 for n in (H, W))
        y, x = rng.integers(H - h), rng.integers(W - w)
        m[y : y + h, x : x + w] = True
    return masks


MAPS = draw(5, 1, 24, 31)
MASK = objects(5, 24, 31)
A4 = f64([[9, 1, 0, 0], [2, 8, -5, 0], [0, 3, 7, 0], [0, 0, 0, 6]])
M4 = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]).bool()
BY_MASK = {
    "pointing_game": partial(pointing_game, margin=3.0),
    "energy_pointing_game": energy_pointing_game,
    "relevance_rank": partial(relevance_rank, k=50),
    "relevance_mass": relevance_mass,
    "roc_auc": roc_auc,
    "average_precision": average_precision,
    "iou": iou,
    "wsol": partial(wsol, interval=0.05, size=48),
}


# Every check at once


@pytest.mark.parametrize("name", sorted(set(BY_MASK) - {"wsol"}))
def test_the_mask_itself_is_a_perfect_map(name):
    close(
        BY_MASK[name](3.0 * MASK[:, None].double(), MASK).values, torch.ones(5, dtype=torch.float64), check_dtype=False
    )


@pytest.mark.parametrize("name", BY_MASK)
def test_an_image_without_an_object_gives_no_number_and_changes_no_other(name):
    mask = MASK.clone()
    mask[2] = False
    some, all_ = BY_MASK[name](MAPS, mask), BY_MASK[name](MAPS, MASK)
    rest = [0, 1, 3, 4]
    assert some.values[2].isnan()
    assert torch.equal(some.values[rest], all_.values[rest])
    for column, value in some.columns.items():
        assert value[2].isnan(), column
        assert torch.equal(value[rest], all_.columns[column][rest])


@pytest.mark.parametrize("name", BY_MASK)
def test_each_image_by_itself(name):
    both = BY_MASK[name](MAPS, MASK)
    for i in range(5):
        one = BY_MASK[name](MAPS[i : i + 1], MASK[i : i + 1])
        close(one.values[0], both.values[i])
        for curve, value in both.curves.items():
            close(one.curves[curve][0], value[i])


@pytest.mark.parametrize(
    ("name", "scale"),
    [("energy_pointing_game", "area"), ("relevance_rank", "area"), ("average_precision", "area"), ("roc_auc", 0.5)],
)
def test_noise_and_constant_maps_score_chance(name, scale):
    """The mean over 150 images of noise lies within 4 standard errors, the constant map at it exactly."""
    mask = objects(3, 12, 13).repeat(50, 1, 1)
    area = mask.double().mean(dim=(1, 2)) if scale == "area" else torch.full((150,), 0.5, dtype=torch.float64)
    gap = BY_MASK[name](draw(150, 1, 12, 13), mask).values - area
    bias = 0.02 if name == "average_precision" else 0.0  # of few pixels: its expectation is a little above the area
    assert abs(gap.mean()) < 4 * gap.std() / 150**0.5 + bias
    close(BY_MASK[name](torch.full((150, 1, 12, 13), 0.1, dtype=torch.float64), mask).values, area)


def test_a_gaussian_in_the_middle_is_better_than_chance_on_objects_in_the_middle():
    mask = torch.zeros(1, 32, 40, dtype=torch.bool)
    mask[:, 8:24, 10:30] = True
    gaussian = centred_gaussian(0)(nn.Identity(), torch.zeros(1, 3, 32, 40), torch.tensor([0]))
    found = {name: float(check(gaussian, mask).values) for name, check in BY_MASK.items()}
    assert found["pointing_game"] == 1.0
    assert found["roc_auc"] > 0.95
    assert min(found["energy_pointing_game"], found["relevance_rank"], found["average_precision"]) > 2 * 0.25


def test_maps_are_resized_to_the_mask():
    big = nn.functional.interpolate(MAPS, (48, 62), mode="bilinear")
    mask = objects(5, 48, 62)
    for name, check in BY_MASK.items():
        close(check(MAPS, mask).values, check(big, mask).values, msg=name)
    with pytest.raises(ValueError, match="maps"):
        roc_auc(MAPS / 0, MASK)


# Quantus


def quantus(metric, maps, mask):
    found = metric(disable_warnings=True).evaluate_batch(a_batch=maps.numpy(), s_batch=mask[:, None].numpy())
    return torch.tensor(np.array(found, dtype=np.float64))


def test_quantus():
    close(relevance_rank(MAPS, MASK).values, quantus(RelevanceRankAccuracy, MAPS, MASK))
    for k in (1, 7, 100, 744, 1000):
        close(relevance_rank(MAPS, MASK, k=k).columns["top_k"], quantus(partial(TopKIntersection, k=k), MAPS, MASK))
    close(roc_auc(MAPS, MASK).values, quantus(AUC, MAPS, MASK))
    mass = quantus(RelevanceMassAccuracy, MAPS.clamp(min=0), MASK)
    close(energy_pointing_game(MAPS, MASK).values, mass)
    close(relevance_mass(MAPS, MASK, pooling="sum,pos").values, mass)
    close(relevance_mass(MAPS, MASK).values, quantus(RelevanceMassAccuracy, MAPS.abs(), MASK))


# Pointing game


def hit(a, m, margin):
    """The rule in words, for one map with one highest pixel."""
    at = divmod(int(a.argmax()), a.shape[1])
    return any((p[0] - at[0]) ** 2 + (p[1] - at[1]) ** 2 < max(margin, 0.5) ** 2 for p in m.nonzero().tolist())


@pytest.mark.parametrize("margin", [0.0, 1.0, 2.5, 5.0, 15.0])
def test_pointing_game_by_the_rule(margin):
    maps, mask = draw(40, 1, 20, 17), torch.zeros(40, 20, 17, dtype=torch.bool)
    mask[:, 3:6, 10:12] = True
    want = [hit(a, m, margin) for a, m in zip(maps[:, 0], mask, strict=True)]
    assert sum(want) > 0 or margin == 0
    assert pointing_game(maps, mask, margin=margin).values.tolist() == want


def test_the_margin_is_strict():
    """3, 4, 5: a pixel at distance 5."""
    mask, maps = torch.zeros(1, 9, 9, dtype=torch.bool), torch.zeros(1, 1, 9, 9)
    mask[0, 1, 2] = maps[0, 0, 4, 6] = 1
    found = [float(pointing_game(maps, mask, margin=m).values) for m in (4.9, 5.0, 5.001)]
    assert found == [0, 0, 1]
    with pytest.raises(ValueError, match="margin"):
        pointing_game(maps, mask, margin=-1.0)


def test_ties_for_the_highest_pixel_count_as_the_share_that_hits():
    maps = torch.tensor([[1.0, 1, 0], [0, 1, 1]])[None, None]
    mask = torch.tensor([[[True, False, True], [False, False, True]]])
    found = pointing_game(maps, mask, margin=0.0)
    assert float(found.values) == 2 / 4
    assert float(found.columns["chance"]) == 0.5
    flat = pointing_game(torch.zeros(5, 1, 24, 31), MASK, margin=4.0)
    close(flat.values, flat.columns["chance"], rtol=1e-6)


def test_accuracy_is_the_mean_over_classes():
    hits = torch.tensor([1.0, 1, 1, 0, nan, nan])
    assert accuracy(hits, torch.tensor([0, 0, 0, 3, 3, 5])) == 0.5
    assert np.isnan(accuracy(hits[4:], torch.tensor([3, 5])))


# Mass and rank


def test_by_hand():
    energy = energy_pointing_game(A4[None, None], M4[None])
    close(energy.values, f64([19 / 36]))
    close(energy.columns["mu_w"], f64([(19 / 36) / (4 / 16)]))
    rank = relevance_rank(A4[None, None], M4[None], k=2)
    close(rank.values, f64([2 / 4]))  # 9 8 7 6: two of them
    close(rank.columns["top_k"], f64([1 / 2]))
    close(relevance_mass(A4[None, None], M4[None]).values, f64([19 / 41]))
    squares = (81 + 1 + 4 + 49) / (81 + 1 + 4 + 64 + 25 + 9 + 49 + 36)
    close(
        relevance_mass(A4[None, None], M4[None], pooling="l2-norm,sq").values,
        f64([squares]),
    )


def test_nothing_positive_has_no_mass():
    for maps in (torch.zeros(5, 3, 24, 31), -MAPS.abs()):
        assert (energy_pointing_game(maps, MASK).values == 0).all()
    assert (relevance_mass(torch.zeros(5, 3, 24, 31), MASK).values == 0).all()


LITERAL = {
    "max-norm": lambda r: max(abs(v) for v in r),
    "l2-norm,sq": lambda r: sum(v * v for v in r),
    "l2-norm": lambda r: sum(v * v for v in r) ** 0.5,
    "l1-norm": lambda r: sum(abs(v) for v in r),
    "sum,abs": lambda r: abs(sum(r)),
    "sum,pos": lambda r: max(sum(r), 0),
    "pos,sum": lambda r: sum(max(v, 0) for v in r),
    "pos,max-norm": lambda r: max(0, *r),
    "pos,l2-norm": lambda r: sum(max(v, 0) ** 2 for v in r) ** 0.5,
    "pos,l2-norm,sq": lambda r: sum(max(v, 0) ** 2 for v in r),
}


@pytest.mark.parametrize("pooling", POOLINGS)
def test_poolings(pooling):
    maps, mask = draw(1, 3, 5, 6), objects(1, 5, 6)
    R = np.array([[LITERAL[pooling](maps[0, :, y, x].tolist()) for x in range(6)] for y in range(5)])
    close(relevance_mass(maps, mask, pooling=pooling).values, f64([R[mask[0].numpy()].sum() / R.sum()]))
    pooled = torch.from_numpy(R)[None, None]
    close(relevance_rank(maps, mask, pooling=pooling).values, relevance_rank(pooled, mask).values)
    huge = relevance_mass(1e200 * maps, mask, pooling=pooling).values
    close(huge, relevance_mass(maps, mask, pooling=pooling).values)


def test_mass_and_energy_are_one_function_under_sum_pos():
    maps = draw(5, 3, 6, 8)  # resized
    a, b = relevance_mass(maps, MASK, pooling="sum,pos"), energy_pointing_game(maps, MASK)
    close(a.values, b.values)
    assert a.columns.keys() == b.columns.keys()
    with pytest.raises(ValueError, match="pooling"):
        relevance_mass(maps, MASK, pooling="mean")
    assert (pool(maps, MASK, "l1-norm") >= 0).all()


def test_ties_at_the_kth_place_count_by_expectation():
    """All ways to choose the rest among the tied, averaged."""
    a = torch.tensor([[2.0, 1, 1], [1, 0, 1]])
    m = torch.tensor([[True, True, False], [True, False, False]])
    tied = [p for p in range(6) if a.flatten()[p] == 1]
    ways = [(1 + sum(bool(m.flatten()[p]) for p in pair)) / 3 for pair in itertools.combinations(tied, 2)]
    close(relevance_rank(a[None, None].double(), m[None]).values, f64([np.mean(ways)]))


# Pixels as a classifier


def test_roc_auc_by_all_pairs_and_by_hand():
    coarse = (MAPS * 2).round()  # ties
    for a, m, found in zip(coarse[:, 0], MASK, roc_auc(coarse, MASK).values, strict=True):
        u, v = a[m][:, None], a[~m][None]
        close(found, ((u > v).double() + (u == v).double() / 2).mean())
    whole = torch.ones_like(MASK)
    assert roc_auc(MAPS, whole).values.isnan().all()


def step_ap(score, label):
    """Precision at each different value, weighed with the recall that it adds."""
    total, before = 0.0, 0.0
    for t in sorted(set(score), reverse=True):
        chosen = [y for s, y in zip(score, label, strict=True) if s >= t]
        recall = sum(chosen) / sum(label)
        total, before = total + (recall - before) * sum(chosen) / len(chosen), recall
    return total


def test_average_precision_by_steps():
    coarse = (MAPS[:, :, :8, :9] * 3).round()
    found = average_precision(coarse, MASK[:, :8, :9])
    for i in range(5):
        a, m = coarse[i, 0], MASK[i, :8, :9]
        if m.any():
            close(found.values[i], f64(step_ap(a.flatten().tolist(), m.flatten().tolist())))
            p = (a - a.min()) / (a.max() - a.min())
            score, label = torch.stack([1 - p, p]).flatten().tolist(), torch.stack([~m, m]).flatten().tolist()
            close(found.columns["two_classes"][i], f64(step_ap(score, label)), atol=1e-9)
    assert ap(A4[None], torch.zeros_like(M4)[None]).isnan().all()


# Masks, boxes, IoU


def test_rules():
    a = A4[None]
    above = {
        "cam": {9, 2, 8, 3, 7, 6},  # above 1.8
        "range": {9, 1, 0, 2, 8, 3, 7, 6},  # above -5 + 0.2 * 14
        "mean": {9, 2, 8, 3, 7, 6},  # above 31 / 16
        "otsu": {9, 8, 7, 6},
        "quantile": {9},  # 0.05 * 16 rounds to one pixel
    }
    assert above.keys() == RULES.keys()
    for rule, values in above.items():
        assert set(a[masks(a, rule=rule)].tolist()) == values, rule
    assert set(a[masks(a, rule="cam", level=0.8)].tolist()) == {9, 8}
    assert set(a[masks(a, rule="quantile", level=0.25)].tolist()) == {9, 8, 7, 6}
    for rule in RULES:
        flat = torch.full((1, 7, 7), 0.1)
        assert masks(flat, rule=rule).any() == (rule == "cam")
        assert not masks(-flat, rule="cam").any()
    with pytest.raises(ValueError, match="rule"):
        masks(a, rule="best")
    for rule, level in (("mean", 0.5), ("otsu", 0.1), ("cam", 1.5)):
        with pytest.raises(ValueError, match="level"):
            masks(a, rule=rule, level=level)
    with pytest.raises(ValueError, match="finite"):
        masks(a / 0)


def test_otsu_maximises_the_variance_between_classes():
    a = blobs(1, 30, 30)[0]
    t = float(a[~masks(a[None], rule="otsu")[0]].max())

    def between(t):
        low, high = a[a <= t], a[a > t]
        return len(low) * len(high) * float(low.mean() - high.mean()) ** 2

    grid = np.linspace(float(a.min()), float(a.max()), 60)[1:-1]
    assert between(t) > 0.999 * max(between(s) for s in grid)


def test_boxes():
    m = torch.zeros(2, 6, 8, dtype=torch.bool)
    m[0, 1, 1] = m[0, 2, 2] = m[0, 3, 1] = True  # 8-connected
    m[0, 5, 4:8] = True
    assert [b.tolist() for b in boxes(m)] == [[[4, 5, 7, 5]], []]
    assert boxes(m, keep="all")[0].tolist() == [[4, 5, 7, 5], [1, 1, 2, 3]]
    a = m.double() + 0.1
    assert boxes(a, 0.5)[0].tolist() == [[4, 5, 7, 5]]
    assert boxes(a, rule="mean", keep="all")[0].tolist() == [[4, 5, 7, 5], [1, 1, 2, 3]]
    with pytest.raises(ValueError, match="keep"):
        boxes(m, keep="one")
    maps = nn.functional.one_hot(torch.tensor([[5], [10]]), 16).view(2, 1, 4, 4).double()
    found = boxes(pixels(maps, torch.zeros(2, 3, 32, 32)), 0.5)
    assert [b.tolist() for b in found] == [[[8, 8, 15, 15]], [[16, 16, 23, 23]]]


def test_iou():
    found = iou(A4[None, None], M4[None], rule="otsu")  # 9 8 7 6 against 9 1 2 7
    close(found.values, f64([2 / 6]))
    close(found.columns["pixel_accuracy"], f64([12 / 16]))
    close(found.columns["background_iou"], f64([10 / 14]))
    close(found.columns["mean_iou"], (found.values + 10 / 14) / 2)
    maps = blobs(5, 24, 31)[:, None]
    found = iou(maps, MASK, rule="range", level=0.37)
    close(found.values, found.curves["iou"][:, LEVELS.index(0.37)])
    whole = iou(torch.ones(5, 1, 24, 31), MASK, rule="cam")
    close(whole.values, MASK.double().mean(dim=(1, 2)))


def test_best_threshold():
    """Maps that are above 0.6 of their range on the object, and from 0 to 0.6 around it."""
    maps = torch.where(MASK, 0.7, 0.6 * torch.rand(MASK.shape, generator=torch.Generator().manual_seed(0)))[:, None]
    maps[:, 0, 0, 0], maps[:, 0, 0, 1] = 0.0, 1.0
    t = best_threshold(maps, MASK)
    assert 0.59 <= t < 0.7
    assert iou(maps, MASK, rule="range", level=t).values.min() > 0.98
    with pytest.raises(ValueError, match="mask"):
        best_threshold(maps, torch.zeros_like(MASK))


# Weakly supervised localisation: the authors' protocol, with OpenCV


def cv_boxes(score, tau, multi):
    image = (score * 255).astype(np.uint8)
    _, binary = cv2.threshold(image, int(tau * image.max()), 255, cv2.THRESH_BINARY)
    found, _ = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    if not len(found):
        return [(0, 0, 0, 0)]
    H, W = score.shape
    rectangles = [cv2.boundingRect(c) for c in (found if multi else [max(found, key=cv2.contourArea)])]
    return [(x, y, min(x + w, W - 1), min(y + h, H - 1)) for x, y, w, h in rectangles]


def plus_one_iou(a, b):
    w, h = (min(a[k + 2], b[k + 2]) - max(a[k], b[k]) + 1 for k in (0, 1))
    both = max(w, 0) * max(h, 0)
    area = [(r[2] - r[0] + 1) * (r[3] - r[1] + 1) for r in (a, b)]
    return both / (sum(area) - both)


SCORES = [
    *(s.numpy() for sigma in (0, 0.7, 1.5, 5) for s in blobs(2, 40, 53, sigma, seed=int(10 * sigma))),
    np.kron(np.eye(2), np.ones((20, 26)))[:, :50],
    np.zeros((30, 30)),
]


@pytest.mark.parametrize("case", range(len(SCORES)))
def test_contours_are_opencvs(case):
    """Every box of RETR_TREE, holes included, and the one of the largest contour, ties too."""
    for q in (0.05, 0.2, 0.4, 0.5, 0.6, 0.8, 0.95):
        M = SCORES[case] > np.quantile(SCORES[case], q)
        found, _ = cv2.findContours(M.astype(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
        want = {(x, y, x + w - 1, y + h - 1) for x, y, w, h in map(cv2.boundingRect, found)}
        rectangles, largest = contours(M)
        assert {tuple(r) for r in rectangles.tolist()} == want
        if len(found):
            x, y, w, h = cv2.boundingRect(max(found, key=cv2.contourArea))
            assert rectangles[largest].tolist() == [x, y, x + w - 1, y + h - 1]
        outer, _ = cv2.findContours(M.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        labels, each = components(M)
        assert labels.max() == len(each) <= len(outer)


def minmaxed(a):
    return (a - a.min()) / ((a.max() - a.min()) or 1)


@pytest.mark.parametrize("multi", [False, True])
def test_fit_is_the_authors_protocol(multi):
    B = np.array([[5.0, 4, 20, 30], [30, 3, 47, 35], [0, 0, 1, 0]])
    tau = np.arange(0, 1, 0.02)
    for score in map(minmaxed, SCORES):
        want = [max(plus_one_iou(a, b) for a in cv_boxes(score, t, multi) for b in B) for t in tau]
        np.testing.assert_allclose(fit(score, tau, B)[int(multi)], want, rtol=0, atol=1e-12)


def literal_wsol(maps, mask, size, interval):
    """MaxBoxAcc, MaxBoxAccV2, PxAP for maps that have that size already; masks of any."""
    tau = np.arange(0, 1, interval)
    hits = {(multi, d): np.zeros(len(tau)) for multi in (False, True) for d in (0.3, 0.5, 0.7)}
    edges = np.append(tau, [1.0, 2.0, 3.0])
    true, false = np.zeros(len(tau) + 2), np.zeros(len(tau) + 2)
    for a, m in zip(maps, mask, strict=True):
        score, (h, w) = minmaxed(a), m.shape
        y, x = np.nonzero(m)
        B = [int(v * size / n) for v, n in ((x.min(), w), (y.min(), h), (x.max(), w), (y.max(), h))]
        for (multi, d), count in hits.items():
            count += [max(plus_one_iou(b, B) for b in cv_boxes(score, t, multi)) >= d for t in tau]
        m = cv2.resize(m.astype(np.uint8), (size, size), interpolation=cv2.INTER_NEAREST) > 0
        true += np.histogram(score[m], edges)[0]
        false += np.histogram(score[~m], edges)[0]
    tp, fp = true[::-1].cumsum(), false[::-1].cumsum()
    with np.errstate(invalid="ignore"):
        precision, recall = tp / (tp + fp), tp / tp[-1]
    ap = np.nansum(precision[1:] * np.diff(recall))
    acc = {k: v.max() / len(maps) for k, v in hits.items()}
    return acc[False, 0.5], np.mean([acc[True, d] for d in (0.3, 0.5, 0.7)]), ap


@pytest.mark.parametrize("shape", [(56, 56), (37, 80)])
def test_wsol_gives_the_papers_numbers_in_one_run_and_in_shards(shape):
    mask = rectangles(8, *shape)
    near = nn.functional.interpolate(mask[:, None].double(), (56, 56), mode="bilinear") + 6 * blobs(8, 56, 56)[:, None]
    want = literal_wsol(near[:, 0].numpy(), mask.numpy(), 56, 0.02)
    run = partial(wsol, size=56, interval=0.02)
    found = run(near, mask)
    assert len(found.at) == found.curves["iou_any"].shape[1] == 51
    shards = [run(near[part], mask[part]).curves for part in (slice(0, 3), slice(3, 8))]
    for got in ((*max_box_acc(*shards).values(), px_ap(*shards)), tuple(found.facts.values())):
        np.testing.assert_allclose(got, want, rtol=1e-12)
    assert 0 < want[0] < 1
    assert 0 < want[1] < 1


def test_the_number_of_wsol_is_hits_at_one_threshold():
    mask = rectangles(8, 56, 56)
    maps = mask[:, None].double() + 4 * blobs(8, 56, 56)[:, None]
    found = wsol(maps, mask, size=56, interval=0.1, threshold=0.4)
    best = found.curves["iou_any"][:, 4]
    close(found.columns["iou"], best)
    close(found.values, sum((best >= d).double() for d in (0.3, 0.5, 0.7)) / 3)
    close(found.columns["largest"], (found.curves["iou_largest"][:, 4] >= 0.5).double())
    assert len(set(found.values.tolist())) > 1


def test_wsol_with_boxes_of_several_objects():
    """The map shows the second one; masks would join them."""
    maps, mask = torch.zeros(1, 1, 64, 64), torch.zeros(1, 64, 64, dtype=torch.bool)
    maps[0, 0, 40:60, 30:60] = 1
    mask[0, 2:10, 2:10] = mask[0, 40:60, 30:60] = True
    two = [torch.tensor([[2, 2, 9, 9], [30, 40, 59, 59]])]
    assert float(wsol(maps, mask, size=64, boxes=two).values) == 1
    assert float(wsol(maps, mask, size=64).values) < 0.5
    found = wsol(maps, mask, size=64, boxes=two).columns["iou"]
    close(found, f64([(20 * 30) / (21 * 31)]))  # the authors' box is a pixel too large
    with pytest.raises(ValueError, match="boxes"):
        wsol(maps, mask, boxes=two * 2)
    for wrong in ({"threshold": 1.0}, {"interval": 0.0}, {"size": 1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            wsol(maps, mask, **wrong)


def test_box_iou():
    a, b = np.array([[1, 2, 5, 6], [0, 0, 0, 0]]), np.array([[3, 1, 4, 5], [5, 5, 9, 9], [0, 0, 0, 0]])
    np.testing.assert_allclose(box_iou(a, b), [[8 / 27, 2 / 48, 0], [0, 0, 1]])


# Grid pointing game


class Colours(nn.Module):
    """Class k is the mean of channel k: a pixel speaks for its own colour only."""

    def forward(self, x):
        return 20 * x.mean(dim=(2, 3))


def colours(classes=4, h=5, w=7):
    return torch.eye(classes, dtype=torch.float64)[:, :, None, None].expand(-1, -1, h, w).contiguous()


def test_a_network_of_local_colours_is_perfect_and_its_negative_scores_nothing():
    x, target = colours(), torch.arange(4)
    for arrangements in (1, 4, 24):
        found = grid_pointing_game(Colours(), x, target, input_x_gradient, arrangements=arrangements)
        close(found.values, torch.ones(4, dtype=torch.float64))
    negative = grid_pointing_game(Colours(), x, target, lambda *a: -input_x_gradient(*a))
    assert (negative.values == 0).all()
    flat = grid_pointing_game(Colours(), x, target, lambda model, x, target: torch.ones(len(x), 1, 4, 4).double())
    close(flat.values, torch.full((4,), 0.25, dtype=torch.float64))
    assert flat.facts == {"chance": 0.25}
    nine = grid_pointing_game(Colours(), colours(9), torch.arange(9), input_x_gradient, n=3, arrangements=2)
    close(nine.values, torch.ones(9, dtype=torch.float64))


def test_images_without_confidence_are_left_out():
    x = torch.cat([colours(5), torch.zeros(1, 5, 5, 7, dtype=torch.float64)])
    target = torch.tensor([0, 1, 2, 3, 4, 4])
    found = grid_pointing_game(Colours(), x, target, input_x_gradient)
    assert found.values.isnan().tolist() == [False] * 5 + [True]
    close(found.values[:5], torch.ones(5, dtype=torch.float64))
    close(found.columns["confidence"][5], f64(0.2))
    with pytest.raises(ValueError, match=r"4 images of different classes.*confidence"):
        grid_pointing_game(Colours(), x[:3], target[:3], input_x_gradient)
    with pytest.raises(ValueError, match="of 3 classes"):
        grid_pointing_game(Colours(), x[[0, 1, 2, 0]], target[[0, 1, 2, 0]], input_x_gradient)


def literal_grid(model, x, target, of, n, found, arrangements):
    """Per image, by loops: build the mosaic, explain, add up."""
    h, w = x.shape[2:]
    scores = {i: [] for i in range(len(x))}
    for members, new in found:
        for order in list(orders(n * n))[:arrangements]:
            X = torch.zeros(1, x.shape[1], n * h, n * w, dtype=x.dtype)
            for cell, k in enumerate(order):
                r, c = divmod(cell, n)
                X[0, :, r * h : (r + 1) * h, c * w : (c + 1) * w] = x[members[k]]
            for i in new:
                r, c = divmod([members[k] for k in order].index(i), n)
                a = of(model, X, target[i : i + 1]).detach().sum(dim=1)[0].clamp(min=0)
                own = a[r * h : (r + 1) * h, c * w : (c + 1) * w].sum()
                scores[i].append(float(own / a.sum()))
    return f64([np.mean(v) for v in scores.values()])


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_grid_by_loops(chunk):
    model, x, target = net("relu"), draw(6, 3, 32, 32), torch.tensor([1, 4, 4, 7, 2, 0])
    found = grid_pointing_game(model, x, target, input_x_gradient, arrangements=5, confidence=0.0, chunk=chunk)
    together = groups(list(range(6)), target.tolist(), 4)
    assert together == [([0, 1, 3, 4], [0, 1, 3, 4]), ([2, 5, 0, 3], [2, 5])]
    close(found.values, literal_grid(model, x, target, input_x_gradient, 2, together, 5))
    assert len(set(found.values.tolist())) == 6


def test_every_image_is_explained_once_for_each_arrangement():
    seen = []

    def of(model, x, target):
        seen.extend(target.tolist())
        return input_x_gradient(model, x, target)

    x, target = colours(7), torch.arange(7)
    grid_pointing_game(Colours(), x, target, of, arrangements=3)
    assert sorted(seen) == sorted(3 * list(range(7)))


def test_orders_and_mosaic():
    every = list(orders(4))
    assert len(set(every)) == len(every) == 24
    assert all({order[cell] for order in every[:4]} == set(range(4)) for cell in range(4))
    assert every[0] == (0, 1, 2, 3)
    x = draw(1, 4, 2, 3, 5)
    rows = [torch.cat([x[0, 2 * r], x[0, 2 * r + 1]], dim=2) for r in range(2)]
    assert torch.equal(mosaic(x, 2)[0], torch.cat(rows, dim=1))


def test_drawn_companions_are_of_other_classes_and_cells_are_fair():
    classes, seen = [0, 0, 1, 1, 2, 3, 4, 4], torch.zeros(4)
    for seed in range(200):
        rng = torch.Generator().manual_seed(seed)
        placed, cell = drawn(seed % 8, list(range(8)), classes, 4, rng)
        assert placed[cell] == seed % 8
        assert len({classes[k] for k in placed}) == 4
        seen[cell] += 1
    assert seen.min() > 30
    placed, cell = drawn(0, list(range(4)), [0, 1, 1, 1], 4, torch.Generator())  # two classes
    assert sorted(placed) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="^x: a mosaic needs 3 images of other classes than 1, got 1"):
        drawn(1, list(range(4)), [0, 1, 1, 1], 4, torch.Generator())


def test_drawn_mosaics_and_shrunk_images():
    x, target = colours(6, 8, 8), torch.arange(6)
    given = {"companions": "drawn", "confidence": 0.0}
    for shrink in (False, True, None):
        found = grid_pointing_game(Colours(), x, target, input_x_gradient, arrangements=2, shrink=shrink, **given)
        close(found.values, torch.ones(6, dtype=torch.float64))
    sizes = []

    def of(model, x, target):
        sizes.append(tuple(x.shape[2:]))
        return torch.ones_like(x)

    x, target = draw(6, 3, 32, 32), torch.tensor([1, 4, 4, 7, 2, 0])
    found = grid_pointing_game(net("vit"), x, target, of, shrink=None, **given)  # 64 x 64 is too large for it
    assert set(sizes) == {(32, 32)}
    close(found.values, torch.full((6,), 0.25, dtype=torch.float64))
    kinds = [grid_pointing_game(net("relu"), x, target, input_x_gradient, seed=s, **given).values for s in (0, 0, 1)]
    assert torch.equal(kinds[0], kinds[1])
    assert not torch.equal(kinds[0], kinds[2])
    with pytest.raises(ValueError, match="^shrink: "):
        grid_pointing_game(Colours(), colours(6, 5, 8), torch.arange(6), of, shrink=True, **given)
    with pytest.raises(ValueError, match="^companions: "):
        grid_pointing_game(Colours(), colours(), torch.arange(4), of, companions="all")


def test_a_model_of_fixed_size_is_named_and_other_errors_pass():
    x, target = draw(4, 3, 32, 32), torch.arange(4)
    run = partial(grid_pointing_game, x=x, target=target, confidence=0.0)
    with pytest.raises(ValueError, match="model: must take the 64 x 64 mosaic"):
        run(net("vit"), of=input_x_gradient)

    def broken(model, x, target):
        raise RuntimeError("of itself")

    with pytest.raises(RuntimeError, match="of itself"):
        run(net("relu"), of=broken)
    for wrong in ({"n": 1}, {"arrangements": 25}, {"arrangements": 0}, {"confidence": 2.0}, {"chunk": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            grid_pointing_game(net("relu"), x, target, input_x_gradient, **wrong)
