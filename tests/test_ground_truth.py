"""Images and networks whose answer is known: exact masks, weights that are what was recorded, toys that hold."""

import dataclasses
import itertools
import json
import shutil

import pytest
import torch
from scipy.ndimage import binary_dilation
from scipy.stats import chi2_contingency

from helpers import small
from methods import METHODS, attribute
from methods._layers import probe
from sanity_checks import CHECKS, _ground_truth, _nets, _toys
from sanity_checks._controls import CONTROLS
from sanity_checks._small import accuracy, digits, small_cnn, train
from sanity_checks._statistics import interval

SHAPES = {
    "digit": (3, 32, 32),
    "texture": (3, 32, 32),
    "two": (3, 32, 64),
    "decoy": (1, 12, 12),
    "digits": (1, 8, 8),
}
FAMILIES = ("gradient", "path", "backprop-rule")  # of these all but two give a number per channel
PIXELS = [n for n, m in METHODS.items() if m.family in FAMILIES and n not in ("full_grad", "xrai")]


def shape(name):
    return SHAPES[name.partition("_")[0]]


def mass(a, mask):
    """Share of |channel sum| inside a mask, per image."""
    a = a.sum(dim=1).abs()
    return (a * mask).sum(dim=(1, 2)) / a.sum(dim=(1, 2))


# images


@pytest.mark.parametrize("split", ["train", "test"])
def test_outside_its_mask_an_image_is_the_bare_texture(split):
    d = _ground_truth.digits_on_textures(200, 3, split)
    outside = ~d.mask[:, None].expand_as(d.x)
    assert torch.equal(d.x[outside], d.bare[outside])
    assert (d.x != d.bare).any(dim=1)[d.mask].float().mean() > 0.99
    assert 0.10 < d.mask.float().mean() < 0.14
    grey = d.bare - d.bare[:, :1]
    assert not grey.any()
    rgb = _ground_truth.MEAN + _ground_truth.STD * d.x
    assert rgb.min() > -1e-6
    assert rgb.max() < 1 + 1e-6


def test_texture_and_digit_are_independent():
    d = _ground_truth.digits_on_textures(4000, 0)
    counts = torch.zeros(10, 4)
    counts.index_put_((d.digit, d.texture), torch.ones(4000), accumulate=True)
    assert counts.min() > 50
    assert chi2_contingency(counts.numpy()).pvalue > 0.01


def test_digits_stand_on_the_grid_and_everywhere_on_it():
    rng = torch.Generator().manual_seed(0)
    masks = _ground_truth._scene(torch.ones(600, 2, 8, 8), rng, "train")[2]  # n 2 32 64
    assert (masks.sum(dim=(2, 3)) == 16 * 16).all()
    top, left = masks.any(dim=3).float().argmax(dim=2), masks.any(dim=2).float().argmax(dim=2)  # n 2
    assert set(top.flatten().tolist()) == set(left[:, 0].tolist()) == {0, 4, 8, 12, 16}
    assert set(left[:, 1].tolist()) == {32, 36, 40, 44, 48}


def test_draws_repeat_and_splits_are_apart():
    a, b, c = (_ground_truth.digits_on_textures(8, seed) for seed in (0, 0, 1))
    assert all(torch.equal(u, v) for u, v in zip(a, b, strict=True))
    assert not torch.equal(a.x, c.x)
    train, test = (_ground_truth._textures(split) for split in ("train", "test"))
    assert train.shape[2] + test.shape[2] == 192  # columns of one picture, cut in two
    of_split = {s: {p.numpy().tobytes() for p in _ground_truth.digits_of(s)[0]} for s in ("train", "test")}
    assert [len(v) for v in of_split.values()] == [1437, 360]
    for split in ("train", "test"):
        inner = _ground_truth.decoy_digits(100, 0, split).x[:, :, 2:10, 2:10].contiguous()
        assert {p.numpy().tobytes() for p in inner} <= of_split[split]
    with pytest.raises(ValueError, match=r"^split: "):
        _ground_truth.digits_on_textures(1, 0, "val")


def test_two_digits_differ_and_each_has_its_half():
    d = _ground_truth.two_digits(500, 0)
    assert (d.digits[:, 0] != d.digits[:, 1]).all()
    assert d.digits.unique().numel() == 10
    assert not d.masks[:, 0, :, 32:].any()
    assert not d.masks[:, 1, :, :32].any()
    assert d.masks.any(dim=(2, 3)).all()
    outside = ~d.masks.any(dim=1)[:, None].expand_as(d.x)
    assert torch.equal(d.x[outside], d.bare[outside])


@pytest.mark.parametrize(("split", "shades", "tells"), [("train", None, 1), ("test", None, 0), ("test", "label", 1)])
def test_the_decoy_is_a_swatch_in_a_corner(split, shades, tells):
    d = _ground_truth.decoy_digits(400, 0, split, shades)
    assert (d.mask.sum(dim=(1, 2)) == 4).all()
    corners = d.mask[:, [0, 1, 0, 1, 10, 11, 10, 11], [0, 1, 10, 11, 0, 1, 10, 11]].view(400, 4, 2).all(dim=2)
    assert (corners.sum(dim=1) == 1).all()
    assert corners.float().mean(dim=0).min() > 0.15
    shade = d.x[:, 0][d.mask].view(400, 4)
    assert (shade == shade[:, :1]).all()
    shown = ((1 - shade[:, 0]) * 255 / 25).round()
    assert ((shown == d.digit).float().mean() > 0.9) == bool(tells)
    assert shown.unique().numel() == 10
    frame = torch.ones(12, 12, dtype=torch.bool)
    frame[2:10, 2:10] = False
    assert not d.x[:, 0][frame & ~d.mask].any()
    with pytest.raises(ValueError, match=r"^shades: "):
        _ground_truth.decoy_digits(1, 0, shades="none")


@pytest.mark.parametrize("pixels", [0, 1, 2])
def test_dilated_masks(pixels):
    d = _ground_truth.two_digits(3, 0)
    theirs = d.masks.numpy().reshape(6, 32, 64)
    side = 2 * pixels + 1
    theirs = [binary_dilation(m, torch.ones(side, side).numpy()) for m in theirs]
    assert (_ground_truth.dilated(d.masks, pixels).numpy().reshape(6, 32, 64) == theirs).all()


# networks


@pytest.mark.parametrize("name", _nets.NETS)
def test_a_network_is_as_good_as_recorded_on_other_images(name):
    model, facts = _nets.net(name), _nets.recorded(name)
    n = 400
    if name.startswith("digits"):
        data = digits()
        found = accuracy(model, data.x_test, data.y_test)
        assert found == pytest.approx(facts["accuracy"]["test"], abs=_nets.TOLERANCE)
    elif name.startswith("two"):
        d = _ground_truth.two_digits(n, 77)
        found = _nets.among_top_two(model, d.x, d.digits)
    elif name.startswith("decoy"):
        d = _ground_truth.decoy_digits(n, 77)
        found = accuracy(model, d.x, d.digit)
    else:
        d = _ground_truth.digits_on_textures(n, 77)
        found = accuracy(model, d.x, getattr(d, name.partition("_")[0]))
    p = facts["accuracy"]["test"]
    assert abs(found - p) <= 4 * (p * (1 - p) / n) ** 0.5 + _nets.TOLERANCE
    assert not model.training
    assert facts["parameters"] == sum(v.numel() for v in model.parameters())
    assert facts["command"] == f"python -m sanity_checks._nets --retrain {name}"
    assert (_nets.WEIGHTS / f"{name}.pt").stat().st_size < 400_000
    recipe = _nets.NETS[name]
    assert (facts["title"], facts["seed"], facts["lr"]) == (recipe.title, recipe.seed, recipe.lr)
    steps = recipe.epochs * 23
    assert 0 < facts["steps"] <= steps if recipe.until <= 1 else facts["steps"] == steps


def test_the_accuracies_are_those_the_protocols_need():
    a = {name: _nets.recorded(name)["accuracy"] for name in _nets.NETS}
    assert a["digit_cnn"]["test"] > 0.93
    assert min(a[n]["test"] for n in ("digit_vit", "texture_cnn", "texture_vit", "two_digits_cnn")) > 0.90
    assert a["two_digits_vit"]["test"] > 0.85
    assert a["digits_permuted"]["train"] >= 0.95
    assert a["digits_permuted"]["test"] < 0.2
    assert min(a[n]["test"] for n in ("digits_true", "digits_again")) > 0.97


def test_weights_and_records_are_all_there_and_no_others():
    files = {f.name for f in _nets.WEIGHTS.iterdir()}
    assert files == {f"{name}.{end}" for name in _nets.NETS for end in ("pt", "json")}


def test_damaged_missing_and_unknown_weights_are_errors(tmp_path):
    for end in ("pt", "json"):
        shutil.copy(_nets.WEIGHTS / f"digits_true.{end}", tmp_path)
    before = torch.get_rng_state()
    _nets.net("digits_true", tmp_path)
    assert torch.equal(before, torch.get_rng_state())
    file = tmp_path / "digits_true.pt"
    raw = file.read_bytes()
    for damaged in (raw[:-100], raw[:5000] + bytes([raw[5000] ^ 1]) + raw[5001:], b""):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"^net: digits_true.pt is damaged.*--retrain digits_true"):
            _nets.net("digits_true", tmp_path)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"^net: .*digits_true.pt.*--retrain digits_true"):
        _nets.net("digits_true", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"digits_again.json.*--retrain digits_again"):
        _nets.net("digits_again", tmp_path)
    file.write_bytes(raw)
    record = tmp_path / "digits_true.json"
    record.write_text(record.read_text().replace('"sha256": "', '"sha256": "0'))
    with pytest.raises(ValueError, match="state dict of digits_true"):
        _nets.net("digits_true", tmp_path)
    record.write_text(record.read_text()[:-9])
    with pytest.raises(ValueError, match=r"^net: the record digits_true.json is damaged.*--retrain digits_true"):
        _nets.net("digits_true", tmp_path)
    with pytest.raises(ValueError, match="did you mean 'digits_true'"):
        _nets.net("digit_true")


def test_the_table_says_what_differs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(_nets, "NETS", {"digits_true": _nets.NETS["digits_true"]})
    for end in ("pt", "json"):
        shutil.copy(_nets.WEIGHTS / f"digits_true.{end}", tmp_path)
    assert _nets.main(["--weights", str(tmp_path)]) == 0
    assert "DIFFERS" not in capsys.readouterr().out
    record = tmp_path / "digits_true.json"
    facts = json.loads(record.read_text())
    facts["accuracy"]["test"] -= 0.01
    record.write_text(json.dumps(facts))
    assert _nets.main(["--weights", str(tmp_path)]) == 1
    assert capsys.readouterr().out.count("DIFFERS") == 1
    (tmp_path / "digits_true.pt").unlink()
    assert _nets.main(["--weights", str(tmp_path)]) == 1
    assert "--retrain digits_true" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        _nets.main(["--retrain", "digits_false"])


def few():
    x, y = _ground_truth.digits_of("train")
    return x[:96], y[:96]


@pytest.mark.parametrize("name", ["digits_true", "texture_cnn", "two_digits_vit"])
def test_retraining_gives_the_same_bytes(name, tmp_path, monkeypatch):
    recipe = dataclasses.replace(_nets.NETS[name], data=few, measure=lambda model: {"train": 0.5})
    monkeypatch.setitem(_nets.NETS, name, recipe)
    before = torch.get_rng_state(), torch.get_num_threads()
    for folder in ("a", "b"):
        _nets.retrain(name, tmp_path / folder, epochs=1)
    for end in ("pt", "json"):
        a, b = ((tmp_path / folder / f"{name}.{end}").read_bytes() for folder in ("a", "b"))
        assert a == b
    assert sorted(f.name for f in (tmp_path / "a").iterdir()) == [f"{name}.json", f"{name}.pt"]
    assert _nets.recorded(name, tmp_path / "a")["steps"] == 2
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == torch.get_num_threads()
    again = dataclasses.replace(recipe, seed=recipe.seed + 1)
    monkeypatch.setitem(_nets.NETS, name, again)
    other = _nets.retrain(name, tmp_path / "c", epochs=1)
    assert other["sha256"] != _nets.recorded(name, tmp_path / "a")["sha256"]
    _nets.net(name, tmp_path / "a")


def test_training_is_adam_and_with_a_warmup_one_cycle():
    x, y = few()
    ours, theirs = (small_cnn(digits(), 0) for _ in range(2))
    ticks, batches = [], []

    def augment(x, y, rng):
        batches.append(len(x))
        return x, y

    train(ours, x, y, epochs=2, augment=augment, tick=lambda: ticks.append(1))
    rng, adam = torch.Generator().manual_seed(0), torch.optim.Adam(theirs.parameters(), lr=2e-3)
    for _ in range(2):
        for i in torch.randperm(96, generator=rng).split(64):
            adam.zero_grad()
            torch.nn.functional.cross_entropy(theirs(x[i]), y[i]).backward()
            adam.step()
    assert all(torch.equal(p, q) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert len(ticks) == 4
    assert batches == [64, 32, 64, 32]
    rates = []
    watch = torch.optim.AdamW.step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", lambda self: (rates.append(self.param_groups[0]["lr"]), watch(self)))
        train(theirs, x, y, epochs=5, lr=0.1, warmup=0.2)
    assert len(rates) == 10
    assert max(rates) == rates[1] == pytest.approx(0.1)
    assert rates[1:] == sorted(rates[1:], reverse=True)
    assert rates[-1] < 1e-5


@pytest.mark.parametrize("name", _nets.NETS)
def test_networks_are_recognised(name):
    found = probe(_nets.net(name), shape(name))
    kind = "vit" if name.endswith("vit") else "cnn"
    assert found.architecture == kind
    layer = {"digit_cnn": "features", "texture_cnn": "features", "two_digits_cnn": "features"}
    assert found.layer == layer.get(name, "blocks.2.norm1" if kind == "vit" else "pool")


@pytest.mark.parametrize("name", ["digit_cnn", "digit_vit"])
def test_every_method_runs_on_them(name):
    model = _nets.net(name)
    x = torch.randn(2, *shape(name), generator=torch.Generator().manual_seed(0))
    kind = probe(model, shape(name)).architecture
    for method, m in METHODS.items():
        if kind in m.architectures and (not m.needs or kind == "cnn"):
            a = attribute(method, model, x, 3, **small(m))
            assert a.shape[-2:] == x.shape[-2:], method
            assert a.isfinite().all(), method


# digits on textures


@pytest.fixture(scope="module")
def dot():
    return _ground_truth.digits_on_textures(40, 5)


@pytest.mark.parametrize("kind", ["cnn", "vit"])
def test_maps_of_the_digit_network_lie_on_the_digit_and_of_the_texture_network_do_not(dot, kind):
    area = dot.mask.float().mean()
    of = {}
    for task in ("digit", "texture"):
        a = attribute("integrated_gradients", _nets.net(f"{task}_{kind}"), dot.x, getattr(dot, task), steps=8)
        of[task] = mass(a, dot.mask)
    assert of["digit"].mean() > 4 * area
    contrast = of["digit"] - of["texture"]
    assert contrast.mean() > 0.3
    assert (contrast > 0).float().mean() > 0.9
    a = attribute("gradient", _nets.net(f"digit_{kind}"), dot.x, dot.digit)
    inside = [mass(a, _ground_truth.dilated(dot.mask, r)).mean() for r in (0, 1, 2)]
    assert 2 * area < inside[0] < inside[1] < inside[2] <= 1


# two digits


def own_share(a, d, k):
    """Share of the digit k in what is positive on both."""
    a = a.sum(dim=1).relu()
    return (a * d.masks[:, k]).sum(dim=(1, 2)) / (a * d.masks.any(dim=1)).sum(dim=(1, 2))


@pytest.mark.parametrize(
    ("kind", "method", "least"),
    [
        ("cnn", "integrated_gradients", 0.65),
        ("cnn", "grad_cam", 0.9),
        ("vit", "integrated_gradients", 0.57),
        ("vit", "generic_attention", 0.7),
    ],
)
def test_either_digit_can_be_explained(kind, method, least):
    d = _ground_truth.two_digits(32, 5)
    model = _nets.net(f"two_digits_{kind}")
    for k in (0, 1):
        keywords = {"steps": 8} if method == "integrated_gradients" else {}
        assert own_share(attribute(method, model, d.x, d.digits[:, k], **keywords), d, k).mean() > least


def test_rollout_does_not_know_the_class_and_shares_evenly():
    d = _ground_truth.two_digits(64, 5)
    maps = [attribute("attention_rollout", _nets.net("two_digits_vit"), d.x, d.digits[:, k]) for k in (0, 1)]
    assert torch.equal(*maps)
    share = torch.stack([own_share(a, d, k) for k, a in enumerate(maps)])
    torch.testing.assert_close(share.sum(dim=0), torch.ones(64))
    assert share[0].mean() == pytest.approx(0.5, abs=0.05)


# decoys


def test_only_the_biased_network_needs_the_decoy_and_its_gradient_shows_it():
    told, random = (
        _ground_truth.decoy_digits(400, 5, "test", "label"),
        _ground_truth.decoy_digits(400, 5, "test", "random"),
    )
    loss, on_swatch = {}, {}
    for name in ("biased", "clean"):
        model = _nets.net(f"decoy_{name}")
        loss[name] = accuracy(model, told.x, told.digit) - accuracy(model, random.x, random.digit)
        on_swatch[name] = mass(attribute("gradient", model, told.x[:100], told.digit[:100]), told.mask[:100]).mean()
    area = told.mask.float().mean()
    assert loss["biased"] > 0.1
    assert abs(loss["clean"]) < 0.02
    assert on_swatch["biased"] > 2 * area
    assert on_swatch["biased"] > 2 * on_swatch["clean"]


# toys


def toy(name):
    t = _toys.TOYS[name]()
    change, exact = t.answer.change.double(), None if t.answer.exact is None else t.answer.exact.double()
    return _toys.Toy(t.model.double(), t.x.double(), t.target, t.answer._replace(change=change, exact=exact))


def of(method, t, images=slice(None), **keywords):
    """A method's map of some images of a toy."""
    return METHODS[method].fn(t.model, t.x[images], t.target[images], **keywords)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@torch.no_grad()
def f(t, x):
    return t.model(x)[:, 1]


@pytest.mark.parametrize("name", _toys.TOYS)
def test_an_answer_obeys_the_axioms(name):
    t = toy(name)
    change, null, alike, exact = t.answer
    close(change, f(t, t.x) - f(t, 0 * t.x))
    assert not t.model.training
    if exact is not None:  # completeness, nothing for nothing, symmetry
        close(exact.sum(dim=(1, 2, 3)), change)
        assert not exact[null].any()
        for i in range(len(t.x)):
            for g in set(alike[i].flatten().tolist()) - {0}:
                assert exact[i][alike[i] == g].unique().numel() == 1
    if name in ("duplicate_feature", "null_feature", "looked_away"):
        noise = torch.randn(t.x.shape, generator=torch.Generator().manual_seed(1), dtype=t.x.dtype)
        assert torch.equal(f(t, t.x + noise * null), f(t, t.x))


@pytest.mark.parametrize("name", ["linear", "logic_and", "logic_or", "logic_not", "saturating", "looked_away"])
def test_an_exact_answer_is_the_shapley_value_of_its_blocks(name):
    """Four blocks as players, all orders, absent blocks zero."""
    t = toy(name)
    h, w = t.x.shape[2] // 2, t.x.shape[3] // 2
    player = torch.arange(4).view(2, 2).repeat_interleave(h, 0).repeat_interleave(w, 1)  # H W
    value = {}
    for present in itertools.product((False, True), repeat=4):
        value[present] = f(t, t.x * torch.tensor(present)[player])
    orders = list(itertools.permutations(range(4)))
    shapley = torch.zeros(len(t.x), 4, dtype=t.x.dtype)
    for order in orders:
        present = [False] * 4
        for p in order:
            before = value[tuple(present)]
            present[p] = True
            shapley[:, p] += (value[tuple(present)] - before) / len(orders)
    found = torch.stack([t.answer.exact.sum(dim=1)[:, player == p].sum(dim=1) for p in range(4)], dim=1)
    close(found, shapley)


@pytest.mark.parametrize("name", _toys.TOYS)
def test_integrated_gradients_is_right_on_every_toy(name):
    t = toy(name)
    a = of("integrated_gradients", t, steps=200, rule="middle")
    assert not a[t.answer.null].any()
    for one, groups in zip(a, t.answer.alike, strict=True):
        for g in set(groups.flatten().tolist()) - {0}:
            close(one[groups == g], one[groups == g][:1].expand(int((groups == g).sum())))
    torch.testing.assert_close(a.sum(dim=(1, 2, 3)), t.answer.change, rtol=0.02, atol=1e-6)
    if t.answer.exact is not None:
        close(a, t.answer.exact)


def test_toys_cover_what_they_are_for():
    cover = {name: _toys.TOYS[name]().answer for name in _toys.TOYS}
    assert [n for n, a in cover.items() if a.exact is None] == ["symmetric_twins", "duplicate_feature", "null_feature"]
    assert cover["logic_and"].change.tolist() == [1, 0, 0, 0]
    assert cover["logic_or"].change.tolist() == [1, 1, 1, 0]
    assert cover["logic_not"].change.tolist() == [-1, -1, 0, 0]
    assert cover["logic_or"].exact[1, 0, :4, :4].sum() == cover["logic_or"].exact[1].sum() == 1


def test_on_a_linear_score_simple_methods_are_exact():
    t = toy("linear")
    close(of("input_x_gradient", t), t.answer.exact)
    close(of("gradient", t) * t.x, t.answer.exact)
    close(of("integrated_gradients", t, steps=1), t.answer.exact)


@pytest.mark.parametrize(("name", "images"), [("saturating", [0]), ("logic_or", [0]), ("logic_not", [0, 1])])
def test_saturated_scores_have_no_gradient(name, images):
    t = toy(name)
    for method in ("gradient", "input_x_gradient", "guided_backprop"):
        assert not of(method, t, images).any(), method
    assert t.answer.exact[images].flatten(1).any(dim=1).all()


def test_input_x_gradient_counts_both_halves_of_an_and_in_full():
    t = toy("logic_and")
    close(of("input_x_gradient", t, [0]), 2 * t.answer.exact[:1])


@pytest.mark.parametrize("method", PIXELS)
def test_unread_channels_get_nothing_and_twins_the_same(method):
    keywords = small(METHODS[method], max_sigma=2.0)
    for name in ("duplicate_feature", "null_feature"):
        t = toy(name)
        a = of(method, t, **keywords)
        assert a.shape == t.x.shape
        assert not a[t.answer.null].any()
        assert a[~t.answer.null].any()
    if not METHODS[method].stochastic and method != "guided_ig":  # noise, or an order of elements, tells twins apart
        t = toy("symmetric_twins")
        a = of(method, t, **keywords)
        close(a[:, 0], a[:, 1])
        assert a[:, 0].any()
        assert torch.equal(t.answer.alike[:, 0], t.answer.alike[:, 1])


def test_hires_cam_is_right_where_grad_cam_looks_away():
    t = toy("looked_away")
    close(of("hires_cam", t, layer="relu"), t.answer.exact)
    close(of("layer_cam", t, layer="relu"), t.answer.exact)
    a = of("grad_cam", t, layer="relu")
    assert a[t.answer.null].min() > a[~t.answer.null].max()


# every metric: the mask itself comes first, noise last or at chance

SIZED = {  # keywords for images of 32 x 32
    "faithfulness_correlation": {"size": 60},
    "insertion_deletion": {"step": 32},
    "irof": {"segments": 40},
    "mas": {"step": 32},
    "monotonicity_correlation": {"size": 16, "samples": 4},
    "pixel_flipping": {"region": 4, "steps": 20, "repeats": 1},
    "pointing_game": {"margin": 0.0},
    "sic_aic": {"min_pred": 0.3},
    "wsol": {"size": 64, "interval": 0.05},
}
# keep_remove goes through shares of the positive pixels: a map that is positive everywhere ends at the whole image, the
# mask at the digit alone, so the two cannot be ranked by it.
JUDGES = [c.name for c in CHECKS.values() if "maps" in c.inputs and "of" not in c.inputs and c.name != "keep_remove"]
JUDGES = [name for name in JUDGES if CHECKS[name].kind in ("faithfulness", "localization")]


@pytest.mark.parametrize("name", JUDGES)
def test_every_metric_ranks_the_mask_first(name):
    c, model, d = CHECKS[name], _nets.net("digit_cnn"), _ground_truth.digits_on_textures(32, 5)
    maps = {"mask": d.mask[:, None].float()}
    maps |= {key: make(0)(model, d.x, d.digit) for key, (_, make) in CONTROLS.items()}
    scores = {}
    for key, a in maps.items():
        given = {"model": model, "x": d.x, "target": d.digit, "maps": a, "mask": d.mask}
        r = c.fn(*(given[k] for k in c.inputs), **(dict(c.quick) | SIZED.get(name, {})))
        scores[key] = r.values * (1 if c.higher_is_better else -1)
    mask = scores.pop("mask")
    assert all(mask.nanmean() > other.nanmean() for other in scores.values())
    for noise in ("white_noise", "smooth_noise"):
        assert interval((mask - scores[noise]).double().numpy()).low > 0
