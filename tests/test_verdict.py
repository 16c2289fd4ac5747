"""Verdicts: what counts as certain, the conditions, and functions that explain nothing."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

import worthless
from helpers import images
from methods._calls import logits
from nets import net
from sanity_checks import __main__, _ground_truth
from sanity_checks._controls import CONTROLS, IMAGE_ONLY
from sanity_checks._randomize import randomized, refitted, whole
from sanity_checks._runner import EVIDENCE
from sanity_checks._statistics import FEWEST, bounds, gain, retained, verdict
from sanity_checks._verdict import (
    COLUMNS,
    CONDITIONS,
    GAINS,
    MEASURED,
    ORDER,
    TABLE_CHECKS,
    conditions,
    overall,
    sentence,
)
from sanity_checks.control_similarity import control_similarity

ONE, LOW = np.ones(9), np.linspace(0.0, 0.2, 9)


# what is certain


def test_a_map_upside_down_has_not_changed():
    assert verdict(-ONE, LOW, ONE) == "insensitive"
    assert verdict(ONE * [1, -1, 1, -1, 1, -1, 1, -1, 1], LOW, ONE) == "insensitive"


def test_a_mean_on_the_right_side_is_not_enough():
    swing = np.tile([0.3, -0.3, 0.0], 3)
    assert verdict(0.35 + swing, np.full(9, 0.3), ONE) == "partial"  # R = 0.07 on average
    assert verdict(0.35 + 0 * swing, np.full(9, 0.3), ONE) == "responds"
    assert verdict(0.75 + swing, np.full(9, 0.3), ONE) == "partial"  # 0.64
    assert verdict(0.75 + 0 * swing, np.full(9, 0.3), ONE) == "insensitive"


def test_the_interval_of_a_ratio_is_fiellers():
    rng = np.random.default_rng(0)
    s = rng.normal(0.3, 0.1, 12)
    null, ceiling = np.full(12, 0.1), np.ones(12)
    found = retained(s, null, ceiling)
    low, high = bounds((s - 0.1) / 0.9)  # the denominator is known: Student's interval of the numerator
    assert np.allclose([found.mean, found.low, found.high], [(s.mean() - 0.1) / 0.9, low, high])
    inside = 0
    for _ in range(2000):
        s, null, ceiling = rng.normal(0.3, 0.15, 8), np.full(8, 0.1), rng.normal(0.8, 0.1, 8)
        found = retained(s, null, ceiling)
        inside += found.low <= (0.3 - 0.1) / (0.8 - 0.1) <= found.high
    assert 0.935 < inside / 2000 < 0.965
    unknown = retained(LOW, LOW, LOW + np.tile([0.5, -0.5, 0.0], 3))  # a denominator around 0
    assert np.isnan([unknown.low, unknown.high]).all()


def test_a_pair_of_images_is_in_the_numbers_of_both():
    """rho_ij = h_i + h_j: the mean over pairs varies twice as much as the numbers of the images seem to say."""
    rng, n = np.random.default_rng(0), 8
    errors, means = [], []
    for _ in range(4000):
        h = rng.normal(0, 0.05, n)
        null = np.array([np.mean([0.4 + h[i] + h[j] for j in range(n) if j != i]) for i in range(n)])
        found = retained(np.full(n, 0.4), null, np.ones(n))
        means.append(found.mean)
        errors.append((found.high - found.low) / 2 / stats.t.ppf(0.975, n - 1))
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.2)


def test_a_gain_is_over_the_best_control_and_needs_images():
    values, worse, better = np.linspace(1, 2, 9), np.linspace(0, 1, 9), np.linspace(0.9, 1.9, 9)
    found = gain(values, {"worse": worse, "better": better})
    assert (round(found.mean, 9), found.against, found.n) == (0.1, "better", 9)
    assert found.low == pytest.approx(0.1)  # it does not vary
    assert np.isnan(gain(values[: FEWEST - 1], {"worse": worse[: FEWEST - 1]}).low)
    wide = gain(values, {"sure": worse, "unsure": values - np.tile([2.0, -1.0, 0.4], 3)})
    assert wide.against == "unsure"
    assert wide.low < 0 < wide.mean
    d = np.random.default_rng(0).normal(1, 1, 20)
    assert gain(d, {"c": 0 * d}, tests=4).low == pytest.approx(bounds(d, 0.025 / 4)[0])
    assert gain(d, {"c": 0 * d}, tests=4).low < gain(d, {"c": 0 * d}).low
    hole = gain(np.append(d, np.nan), {"c": np.zeros(21)})
    assert (hole.n, hole.missing) == (20, 1)


@pytest.mark.parametrize("n", [FEWEST, 8, 50])
@pytest.mark.parametrize("tail", ["normal", "heavy"])
def test_noise_passes_as_seldom_as_is_said(n, tail):
    """In 2.5 % of reports at most one of four columns counts as evidence for a map that is as good as a control."""
    rng, columns, reports = np.random.default_rng(n), 4, 1500
    draw = rng.standard_normal if tail == "normal" else partial(rng.standard_t, 3)
    passed = 0
    for _ in range(reports):
        controls = [{"noise": draw(n)} for _ in range(columns)]  # a second control could only make it harder
        passed += any(gain(draw(n), controls[k], columns).low > 0 for k in range(columns))
    assert passed / reports < 0.025 + 3 * (0.025 * 0.975 / reports) ** 0.5  # three standard errors


def test_how_many_images_a_gain_needs():
    """A gain as large as its spread over images is certain in four of five reports from 15 images on; twice that, 7."""

    def power(n, effect=1.0, columns=4):
        t = stats.t.ppf(1 - 0.025 / columns, n - 1)
        return stats.nct.sf(t, n - 1, effect * n**0.5)

    assert power(14) < 0.8 < power(15)
    assert power(6, effect=2.0) < 0.8 < power(7, effect=2.0)
    rng = np.random.default_rng(0)
    found = [gain(rng.normal(1, 1, 15), {"c": np.zeros(15)}, 4).low > 0 for _ in range(1500)]
    assert np.mean(found) == pytest.approx(power(15), abs=0.04)


def test_similarity_to_controls_by_hand():
    x = images(3, dtype=torch.float32)
    for name in IMAGE_ONLY:
        control = CONTROLS[name][1](0)(torch.nn.Identity(), x, torch.zeros(3, dtype=torch.int64))
        for maps in (control, -2 * control):  # the size counts
            found = control_similarity(x, maps)
            torch.testing.assert_close(found.values, torch.ones(3).double())
            torch.testing.assert_close(found.columns[name], torch.ones(3).double())
    noise = control_similarity(x, torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert noise.values.max() < 0.15
    assert torch.equal(noise.values, torch.stack([v.abs() for v in noise.columns.values()]).amax(dim=0))
    assert (control_similarity(x, torch.ones(3, 1, 32, 32)).values == 0).all()


# networks that are as sure


@pytest.mark.parametrize("name", ["relu", "vit"])
def test_a_refitted_network_has_the_logits_of_the_trained_one(name):
    model, x = net(name), images(4)
    lost = randomized(model, whole(model).parameters)
    sure = refitted(lost, model, x, logits(model, x))
    torch.testing.assert_close(logits(sure, x), logits(model, x), atol=1e-6, rtol=1e-6)
    assert not torch.allclose(logits(lost, x), logits(model, x), atol=0.1)
    assert not torch.allclose(logits(sure, images(5)[4:]), logits(model, images(5)[4:]), atol=1e-3)
    head = {id(p) for p in sure.get_classifier().parameters()}
    kept = {n: p for n, p in sure.named_parameters() if id(p) not in head}
    assert all(torch.equal(p, dict(lost.named_parameters())[n]) for n, p in kept.items())


def test_a_network_without_one_linear_layer_at_its_end_is_not_refitted():
    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = torch.nn.Linear(12, 3), torch.nn.Linear(12, 3)

        def forward(self, x):
            return self.a(x.flatten(1)) + self.b(x.flatten(1))

    model, x = Two(), torch.randn(2, 3, 2, 2)
    assert refitted(model, model, x, model(x)) is None


# conditions


def cells_of(**words):
    return {h: {"n": 9, "word": words.get(name, "better" if name in ("place", "evidence") else "responds")}
            for name, headers in MEASURED.items() for h in headers}  # fmt: skip


def test_the_verdict_is_the_weakest_condition():
    assert overall(conditions(cells_of())) == "responds"
    for name in ("weights", "confidence", "class", "same function"):
        for word in ORDER:
            assert overall(conditions(cells_of(**{name: word}))) == word
    assert overall(conditions(cells_of(place="no evidence"))) == "partial"  # necessary for "responds"
    assert overall(conditions(cells_of(evidence="worse"))) == "no evidence"
    one = cells_of(evidence="no evidence") | {GAINS[2]: {"n": 9, "word": "better"}}
    assert overall(conditions(one)) == "responds"


def test_what_was_not_measured_is_not_met():
    for name, headers in MEASURED.items():
        for missing in ({}, {h: {"refused": "x: because"} for h in headers}):
            cells = {h: c for h, c in cells_of().items() if h not in headers} | missing
            words = conditions(cells)
            assert words[name] is None
            assert overall(words) == (None if name == "weights" else "partial")
    cells = cells_of() | {"R, as sure": {"n": 0, "word": "no evidence"}}  # maps that are constant there
    assert overall(conditions(cells)) == "no evidence"
    cells["R, as sure"]["not defined"] = True  # a network that cannot be refitted
    assert "confidence" not in conditions(cells)
    assert overall(conditions(cells)) == "responds"


def test_the_conditions_are_columns_of_checks_that_are_run():
    headers = {c.header: c for c in COLUMNS}
    assert list(MEASURED) == list(CONDITIONS)
    assert {h for hs in MEASURED.values() for h in hs} <= set(headers)
    assert set(EVIDENCE) == {headers[h].check for h in GAINS} <= set(TABLE_CHECKS)


# functions that explain nothing


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """A trained network with its images, as files of a user's."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "images").mkdir()
    found = _ground_truth.digits_on_textures(12, 5)
    for i, x in enumerate(found.x):
        rgb = (255 * (x * _ground_truth.STD + _ground_truth.MEAN).clamp(0, 1)).round().byte()
        Image.fromarray(rgb.permute(1, 2, 0).numpy()).save(folder / f"images/{i:02}.png")
    (folder / "model.py").write_text(
        "from sanity_checks import _nets\n\n\ndef make():\n"
        "    return _nets.net('digit_cnn'), {'mean': (0.4,) * 3, 'std': (0.2,) * 3, 'size': 32}\n"
    )
    return folder


def judged(bench, out, *methods):
    checks = dict.fromkeys(c.check for c in COLUMNS if any(c.header in hs for hs in MEASURED.values()))
    words = ["--model", f"{bench}/model.py:make", "--images", f"{bench}/images", "--shard", "12"]
    assert __main__.main([*methods, *words, "--checks", ",".join(checks), "--out", str(out)]) == 0
    return json.loads((out / "report.json").read_text())["rows"]


PLAIN = ("variance_where_sure", "variance_upside_down", "noise_of_weights_class_and_image", "minus_grad_cam")
REST = tuple(f.__name__ for f in worthless.ATTACKS if f.__name__ not in PLAIN)


@pytest.mark.usefixtures("coarse", "as_a_process")
@pytest.mark.parametrize("attacks", [PLAIN, pytest.param(REST, marks=pytest.mark.exhaustive)], ids=["plain", "rest"])
def test_no_function_that_explains_nothing_responds(attacks, bench, tmp_path):
    assert set(PLAIN) | set(REST) == {f.__name__ for f in worthless.ATTACKS}
    rows = judged(bench, tmp_path, "grad_cam", *(f"{Path(worthless.__file__)}:{name}" for name in attacks))
    for name in (*attacks, *IMAGE_ONLY):
        assert rows[name]["refused"] or rows[name]["verdict"] in ("no evidence", "insensitive"), rows[name]["sentence"]
    words = {name: rows[name]["conditions"] for name in attacks}
    if attacks == PLAIN:  # each is caught by what was made for it
        assert words["variance_where_sure"]["confidence"] == "insensitive"
        assert words["variance_where_sure"]["weights"] == "responds"
        assert words["variance_upside_down"]["weights"] == "insensitive"
        assert words["noise_of_weights_class_and_image"]["same function"] == "no evidence"
        assert words["minus_grad_cam"]["evidence"] == "no evidence"
        assert rows["minus_grad_cam"]["table"]["mass / area"]["word"] == "worse"
    assert rows["grad_cam"]["verdict"] not in ("no evidence", "insensitive")
    assert {rows["grad_cam"]["conditions"][name] for name in ("place", "evidence", "same function")} == {"responds"}


def test_the_sentence_names_what_was_measured_and_what_was_not_met():
    cells = cells_of(weights="insensitive", place="no evidence")
    for cell in cells.values():
        cell |= {"mean": 0.5, "value": 0.6, "best control": 0.4}
    words = conditions(cells) | {"class": None}
    row = {"table": cells, "conditions": words, "verdict": overall(words)}
    said = sentence("Mine", row, 9, "resnet50")
    assert said.startswith("Mine: insensitive, on 9 images with resnet50: R = ")
    assert "mass / area 0.60 (best control 0.40)" in said
    assert said.endswith("Not met: weights. Not certain: place. Not measured: class.")
