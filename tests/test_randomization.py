"""Randomisation checks: what they measure, that controls come out as they must, and that published failures hold."""

import copy
import gzip
import warnings
from functools import partial

import numpy as np
import pytest
import timm
import torch
from scipy import stats
from skimage.feature import hog
from skimage.metrics import structural_similarity
from torch import nn

from helpers import CLASSES, images
from methods import METHODS
from methods._calls import copy_of
from methods.eigen_cam import eigen_cam
from methods.gradient import gradient
from methods.guided_backprop import guided_backprop
from methods.input_x_gradient import input_x_gradient
from methods.integrated_gradients import integrated_gradients
from methods.smooth_grad import smooth_grad
from nets import net
from sanity_checks import _ground_truth, _nets
from sanity_checks._controls import CONTROLS, matched, white_noise
from sanity_checks._randomize import INITS, alive, lost_stages, randomizations, randomized, refitted, stages, whole
from sanity_checks._rows import resolve
from sanity_checks._small import accuracy, digits, idx, small_cnn, train
from sanity_checks._statistics import interval, paired, retained, verdict
from sanity_checks.efficient_model_randomization import efficient_model_randomization, entropy
from sanity_checks.input_shift import input_shift
from sanity_checks.label_randomization import LabelNets, label_randomization, train_nets
from sanity_checks.model_randomization import model_randomization
from sanity_checks.random_logit import random_logit
from sanity_checks.repeatability import repeatability
from sanity_checks.similarity import hog_correlation, similarities, spearman, ssim
from sanity_checks.smooth_model_randomization import smooth_model_randomization

RNG = torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def _seeded():
    RNG.manual_seed(0)


def edges(model, x, target):
    return CONTROLS["sobel_edges"][1](0)(model, x, target)


def noise():
    return white_noise(0)


def tied(*shape):
    return torch.randint(0, 9, shape, generator=RNG).double() / 8


# similarity


def test_spearman_is_scipys_also_with_ties():
    a, b = tied(3, 500), tied(3, 500)
    b = (a + b).round()
    want = [stats.spearmanr(p, q)[0] for p, q in zip(a, b, strict=True)]
    assert np.allclose(spearman(a, b), want, atol=1e-12)
    where = torch.rand(3, 500, generator=RNG) > 0.4
    want = [stats.spearmanr(p[m], q[m])[0] for p, q, m in zip(a, b, where, strict=True)]
    assert np.allclose(spearman(a, b, where=where), want, atol=1e-12)


def test_partial_spearman_correlates_what_a_regression_leaves():
    a, b, c = tied(1, 400), tied(1, 400), tied(1, 2, 400)
    a, b = a + c.sum(dim=1), b - c[:, 0]
    ranks = [stats.rankdata(v) for v in (a[0], b[0], c[0, 0], c[0, 1])]
    design = np.stack([np.ones(400), *ranks[2:]], axis=1)
    left = [r - design @ np.linalg.lstsq(design, r, rcond=None)[0] for r in ranks[:2]]
    assert np.allclose(spearman(a, b, given=c), np.corrcoef(*left)[0, 1], atol=1e-12)
    assert spearman(c[:, 0], b, given=c).item() == 0  # nothing is left of a covariate itself


def test_a_constant_map_has_no_rank_correlation():
    assert spearman(torch.ones(1, 9), tied(1, 9)).isnan().all()
    x, flat = images(2), torch.ones(2, 1, 4, 4)
    assert all(v.isnan().all() for v in similarities(flat, tied(2, 1, 4, 4), x).values())


@pytest.mark.parametrize("window", [None, 5, 7])
def test_ssim_is_scikit_images(window):
    a, b = torch.rand(2, 40, 31, generator=RNG), torch.rand(2, 40, 31, generator=RNG)
    options = {"gaussian_weights": True} if window is None else {"win_size": window}
    want = [structural_similarity(p.numpy(), q.numpy(), data_range=1.0, **options) for p, q in zip(a, b, strict=True)]
    assert np.allclose(ssim(a, b, window=window), want, atol=1e-6)
    with pytest.raises(ValueError, match="^a: maps must be at least"):
        ssim(a[:, :4], b[:, :4], window=window)


def test_hog_is_scikit_images():
    a, b = torch.rand(2, 64, 64, generator=RNG), torch.rand(2, 64, 64, generator=RNG)
    features = [[hog(m.numpy(), pixels_per_cell=(16, 16)) for m in v] for v in (a, b)]
    want = [stats.spearmanr(p, q)[0] for p, q in zip(*features, strict=True)]
    assert np.allclose(hog_correlation(a, b), want, atol=1e-12)


def test_the_non_zero_measure_looks_where_the_image_is():
    x = images(1)
    x[:, :, :16] = 0
    a, b = tied(1, 1, 32, 32), tied(1, 1, 32, 32)
    want = stats.spearmanr(a[0, 0, 16:].flatten(), b[0, 0, 16:].flatten())[0]
    assert np.allclose(similarities(a, b, x, ("nonzero",))["nonzero"], want)


# statistics


def test_the_interval_covers_the_mean_and_counts_what_is_missing():
    values = np.random.default_rng(0).normal(3, 1, 50)
    found = interval(np.append(values, np.nan))
    half = 1.96 * values.std(ddof=1) / np.sqrt(50)
    assert found.n == 50
    assert found.missing == 1
    assert np.allclose([found.low, found.high], [values.mean() - half, values.mean() + half], atol=0.06)
    assert interval(np.array([np.nan])).n == 0
    assert np.isnan(interval(np.array([1.0])).low)


def test_retained_similarity_is_one_at_the_ceiling_and_zero_at_the_null():
    null, ceiling = np.array([0.1, 0.2, 0.3]), np.array([0.9, 0.8, 1.0])
    assert np.isclose(retained(ceiling, null, ceiling).mean, 1)
    assert np.isclose(retained(null, null, ceiling).mean, 0)
    assert np.isclose(retained((null + ceiling) / 2, null, ceiling).mean, 0.5)


one, low = np.ones(9), np.linspace(0.0, 0.2, 9)
CASES = {
    "responds": (low - 0.05, low, one),
    "insensitive": (one - low / 2, low, one),
    "partial": (low + 0.3, low, one),
    "no evidence": (low, low, low),  # two runs are no more alike than two images: noise
}


@pytest.mark.parametrize("word", CASES)
def test_verdicts(word):
    assert verdict(*CASES[word]) == word


def test_verdicts_at_the_edges_of_the_rule():
    assert verdict(one, one, one) == "insensitive"  # one picture for every image
    assert verdict(0 * one, one, one) == "no evidence"  # alike for every image, and gone: no line to measure by
    assert verdict(one[:1], low[:1], one[:1]) == "no evidence"  # one image
    assert verdict(np.full(9, np.nan), low, one) == "no evidence"  # degenerate maps are not evidence of a response


def test_paired_comparison():
    a = np.arange(8.0)
    assert paired(a + 10, a)["cliffs_delta"] == 1
    assert paired(a + 10, a)["wilcoxon_p"] < 0.01
    assert paired(a, a) == {"wilcoxon_p": 1.0, "cliffs_delta": 0.0}


# randomiser


@pytest.mark.parametrize(
    ("name", "count", "first", "last"),
    [
        ("resnet50", 18, "conv1", ["layer4.1", "layer4.2", "fc"]),
        ("inception_v3", 17, "Conv2d_1a_3x3", ["Mixed_7b", "Mixed_7c", "fc"]),  # the 17 of Adebayo et al.
        ("vit_tiny_patch16_224", 14, "patch_embed", ["blocks.10", "blocks.11", "head"]),
        ("tf_efficientnet_lite0", 19, "conv_stem", ["blocks.6.0", "conv_head", "classifier"]),
        ("swin_tiny_patch4_window7_224", 17, "patch_embed", ["layers.3.blocks.0", "layers.3.blocks.1", "head"]),
        ("convnext_atto", 17, "stem", ["stages.3.blocks.0", "stages.3.blocks.1", "head"]),
    ],
)
def test_stages_are_blocks_in_execution_order_and_hold_every_parameter(name, count, first, last):
    model = timm.create_model(name).eval()
    found = stages(model, torch.zeros(1, *model.pretrained_cfg["input_size"]))
    names = [p for stage in found for p in stage.parameters]
    assert sorted(names) == sorted(n for n, _ in model.named_parameters())
    assert len(found) == count
    assert found[0].name == first
    assert [s.name for s in found[-3:]] == last
    if name.startswith("vit"):
        assert {"cls_token", "pos_embed", "patch_embed.proj.weight"} <= set(found[0].parameters)


def test_randomizations_are_every_step_with_each_seed():
    model, x = small_cnn(digits(), 0).eval(), digits().x_test[:1]
    L = stages(model, x)
    steps = list(lost_stages("top-down", len(L), 2))
    found = list(randomizations(model, L, steps, init="normal_matched", seeds=(3, 4)))
    assert [(seed, lost) for seed, lost, _ in found] == [(seed, lost) for seed in (3, 4) for lost in steps]
    for seed, lost, f in found:
        expected = randomized(model, [n for k in lost for n in L[k].parameters], init="normal_matched", seed=seed)
        assert all(torch.equal(a, b) for a, b in zip(f.parameters(), expected.parameters(), strict=True))
    ((_, _, every),) = randomizations(model, [whole(model)], seeds=(3,))
    ((_, lost, same),) = randomizations(model, L, seeds=(3,))
    assert lost == frozenset(range(len(L)))
    assert all(torch.equal(a, b) for a, b in zip(every.parameters(), same.parameters(), strict=True))


@pytest.mark.parametrize("init", INITS)
def test_randomised_parameters_are_new_and_the_others_are_not_touched(init):
    model = net("vit")
    names = [n for n, _ in model.named_parameters() if not n.startswith("head")]
    before = {n: p.clone() for n, p in model.named_parameters()}
    new = dict(randomized(model, names, init=init, seed=1).named_parameters())
    for n, p in model.named_parameters():
        assert torch.equal(p, before[n])
        constant = p.unique().numel() == 1 or (init.startswith("reset") and p.ndim == 1)  # what an initialiser gives
        assert torch.equal(new[n], p) == (n not in names) or constant, n
    if init == "permute":
        assert all(torch.equal(new[n].flatten().sort()[0], before[n].flatten().sort()[0]) for n in names)
    again = dict(randomized(model, names, init=init, seed=1).named_parameters())
    assert all(torch.equal(again[n], new[n]) for n in names)


@pytest.mark.parametrize("init", INITS)
def test_layers_of_one_shape_get_different_numbers(init):
    f = randomized(net("vit"), [n for n, _ in net("vit").named_parameters()], init=init)
    assert not torch.equal(f.blocks[0].attn.qkv.weight, f.blocks[1].attn.qkv.weight)


def test_a_parameter_is_drawn_alike_whatever_else_is():
    some, more = (randomized(net("relu"), names) for names in (["fc.weight"], ["fc.weight", "conv1.weight"]))
    assert torch.equal(some.fc.weight, more.fc.weight)


def test_batch_statistics_are_kept_unless_reset():
    every = [n for n, _ in net("relu").named_parameters()]
    kept = {
        init: torch.equal(randomized(net("relu"), every, init=init).bn1.running_var, net("relu").bn1.running_var)
        for init in INITS
    }
    assert kept == {"permute": True, "normal_matched": True, "reset": False, "reset_keep_bn": True}


def test_a_dead_network_judges_nothing():
    model, x = net("relu"), images(2)
    alive(model, model, x, "permute")
    dead = randomized(model, [])
    dead.fc.weight.data.mul_(1e-6)
    with pytest.raises(ValueError, match="^init: 'reset' leaves this network dead"):
        alive(dead, model, x, "reset")
    with pytest.raises(ValueError, match="^init: must be one of permute"):
        randomized(model, [], init="zeros")


def test_pytorchs_initialisers_leave_efficientnet_dead():
    from methods import _models

    loaded = _models.load("tf_efficientnet_lite0")
    x = torch.randn(1, 3, 224, 224, generator=RNG)
    every = [n for n, _ in loaded.model.named_parameters()]
    for init in ("reset", "reset_keep_bn"):
        with pytest.raises(ValueError, match="leaves this network dead"):
            alive(randomized(loaded.model, every, init=init), loaded.model, x, init)
    assert alive(randomized(loaded.model, every), loaded.model, x, "permute")["variation"] > 0.1


# model randomisation

DIGITS = _nets.net("digits_true")
X = digits().x_test[:24]
C = DIGITS(X).argmax(dim=1)
DOT = _ground_truth.digits_on_textures(24, 0)


def judged(r, column="full_spearman"):
    return verdict(r.columns[column].numpy(), r.columns["null_spearman"].numpy(), r.columns["ceiling"].numpy())


def test_model_randomisation_by_hand():
    model, x = net("relu"), images(3)
    r = model_randomization(model, x, CLASSES, gradient, orders=("top-down", "bottom-up", "independent"), seeds=2)
    blocks = ["conv1", "layer1", "layer2", "layer3", "layer4", "fc"]
    assert r.facts["stages"] == blocks
    ref = gradient(model, x, CLASSES).abs().sum(dim=1).flatten(1)
    both = torch.cat([x, x.flip(3)])
    for order, lost in (
        ("top-down", [blocks[k:] for k in (5, 4, 3, 2, 1, 0)]),
        ("bottom-up", [blocks[:k] for k in (1, 2, 3, 4, 5, 6)]),
        ("independent", [[b] for b in reversed(blocks)]),
    ):
        for step, gone in enumerate(lost):
            want = 0
            names = [n for n, _ in model.named_parameters() if n.replace("bn1", "conv1").startswith(tuple(gone))]
            names = [n for n in names if not (n.startswith("bn1") and "conv1" not in gone)]
            for seed in (0, 1):
                a = gradient(randomized(model, names, seed=seed), x, CLASSES).abs().sum(dim=1).flatten(1)
                want += torch.tensor([stats.spearmanr(p, q)[0] for p, q in zip(ref, a, strict=True)]) / 2
            assert torch.allclose(r.curves[order][:, step], want, atol=1e-9), (order, gone)
    pairs = [[stats.spearmanr(ref[i], ref[j])[0] for j in range(3) if j != i] for i in range(3)]
    assert np.allclose(r.columns["null_spearman"], np.mean(pairs, axis=1))
    assert torch.equal(r.values, r.columns["full_spearman"])
    sure = [
        refitted(randomized(model, [n for n, _ in model.named_parameters()], seed=s), model, both, model(both))
        for s in (0, 1)
    ]
    kept = [
        similarities(gradient(model, x, CLASSES), gradient(f, x, CLASSES), x, ("spearman",))["spearman"] for f in sure
    ]
    assert torch.allclose(r.columns["refitted"], torch.stack(kept).mean(dim=0), atol=1e-6)
    assert torch.allclose(r.columns["refitted_size"], torch.stack(kept).abs().mean(dim=0), atol=1e-6)
    assert r.facts["refitted"] == 2
    assert torch.equal(r.curves["top-down"][:, -1], r.curves["bottom-up"][:, -1])
    assert torch.allclose(r.columns["ceiling"], torch.ones(3, dtype=torch.float64))


def test_the_points_of_a_cascade_are_spread_over_the_stages():
    r = model_randomization(net("relu"), images(2), CLASSES[:2], gradient, points=3, seeds=1)
    assert [len(s) for s in r.facts["steps_top-down"]] == [1, 3, 6]
    assert r.facts["steps_top-down"][0] == ["fc"]
    assert r.facts["steps_bottom-up"][0] == ["conv1"]


def test_repicking_explains_the_new_top_class():
    model, x, seen = net("relu"), images(3), []

    def of(model, x, target):
        seen.append((model(x).argmax(dim=1), target))
        return gradient(model, x, target)

    model_randomization(model, x, model(x).argmax(dim=1), of, points=2, seeds=1, repick=True)
    assert all(torch.equal(top, target) for top, target in seen)


@pytest.mark.parametrize(
    ("keywords", "match"),
    [({"orders": ("sideways",)}, "^orders: "), ({"points": 1}, "^points: "), ({"init": "zeros"}, "^init: ")],
)
def test_model_randomisation_refuses(keywords, match):
    with pytest.raises(ValueError, match=match):
        model_randomization(net("relu"), images(2), CLASSES[:2], gradient, seeds=1, **keywords)


def test_controls_come_out_as_they_must():
    def word(of):
        return judged(model_randomization(DIGITS, X, C, of, points=2, seeds=1))

    assert (
        word(edges)
        == word(CONTROLS["input_magnitude"][1](0))
        == word(CONTROLS["centred_gaussian"][1](0))
        == "insensitive"
    )
    assert word(noise()) == word(CONTROLS["smooth_noise"][1](0)) == "no evidence"


def test_noise_keeps_nothing_and_edges_keep_everything():
    model, x = net("relu"), images(3)
    assert model_randomization(model, x, CLASSES, noise(), seeds=1, points=2).values.abs().max() < 0.15
    r = model_randomization(model, x, CLASSES, edges, seeds=1, points=2)
    assert torch.allclose(r.values, torch.ones(3, dtype=torch.float64))
    assert r.columns["full_partial"].abs().max() == 0  # nothing but edges


def test_dead_maps_are_counted_not_taken_for_a_response():
    def zero_when_random(model, x, target):
        return gradient(model, x, target) * float(torch.equal(model.fc.weight, net("relu").fc.weight))

    r = model_randomization(net("relu"), images(3), CLASSES, zero_when_random, seeds=1, points=2)
    assert r.values.isnan().all()
    assert judged(r) == "no evidence"


FAILING = [(m.name, check) for m in METHODS.values() for check in m.fails]
HOLDS = [
    ("gradient", "model_randomization"),
    ("grad_cam", "model_randomization"),
    ("smooth_grad", "model_randomization"),
]
HOLDS += [("gradient", "random_logit"), ("gradient", "input_shift"), ("grad_cam", "input_shift")]


def passes(name, check):
    """Whether a method passes, on networks of the paper's form; where it is a ViT's, on the small ViT."""
    vit = "cnn" not in METHODS[name].architectures
    model, x, c = (_nets.net("digit_vit"), DOT.x, DOT.digit) if vit else (DIGITS, X, C)
    of = resolve(name, quick=True).bind(model, x, seed=0)
    if check == "input_shift":
        return bool((input_shift(model, x, c, of).values < 1e-4).all())
    if check == "random_logit":
        r = random_logit(model, x, c, of, classes=3)
        return verdict(*(v.numpy() for v in (r.values, r.columns["null"], r.columns["ceiling"]))) == "responds"
    return judged(model_randomization(model, x, c, of, points=2, seeds=2)) == "responds"


@pytest.mark.parametrize(
    ("name", "check"),
    [
        *HOLDS,
        *(pytest.param(n, c, marks=pytest.mark.xfail(strict=True, reason=METHODS[n].fails[c])) for n, c in FAILING),
    ],
)
def test_methods_pass_but_for_their_published_failures(name, check):
    assert passes(name, check)


def test_the_ordering_of_the_papers_small_network_is_met():
    """Absolute Spearman along the cascade, as in the authors' notebook: Integrated Gradients and Input x Gradient
    stay near 1 at every step, Guided Backpropagation falls slowly, the gradient fast."""
    curve = {}
    for name, of in {
        "integrated gradients": partial(integrated_gradients, steps=8),
        "input x gradient": input_x_gradient,
        "guided backprop": guided_backprop,
        "gradient": gradient,
        "smooth grad": partial(smooth_grad, samples=8),
    }.items():
        r = model_randomization(DIGITS, X, C, of, orders=("top-down",), seeds=2)
        curve[name] = r.curves["top-down"].mean(dim=0)  # fc2, fc1, conv2, conv1
    assert len(curve["gradient"]) == 4
    assert min(curve["integrated gradients"].min(), curve["input x gradient"].min()) > 0.85
    assert (torch.minimum(curve["integrated gradients"], curve["input x gradient"]) > curve["guided backprop"]).all()
    assert (curve["guided backprop"] > curve["gradient"] + 0.3).all()
    assert (curve["guided backprop"] > curve["smooth grad"]).all()


NAMES = ("gradient", "input_x_gradient", "guided_backprop", "eigen_cam", "grad_cam", "hires_cam", "generic_attention")
DEFINED = [(kind, name) for name in NAMES for kind in ("cnn", "vit") if kind in METHODS[name].architectures]


@pytest.mark.parametrize(("kind", "name"), DEFINED)
def test_throwing_away_the_head_is_a_random_logit_test(kind, name):
    """Another row of the last linear layer is another class; the two differ only in how the rows are drawn."""
    model = _nets.net(f"digit_{kind}")
    of = resolve(name, quick=True).bind(model, DOT.x, seed=0)
    head = model_randomization(model, DOT.x, DOT.digit, of, orders=("top-down",), points=2, seeds=3).columns["head"]
    other = random_logit(model, DOT.x, DOT.digit, of, classes=9).values
    assert abs(float(head.nanmean() - other.nanmean())) < 0.15


# smooth and efficient MPRT


def test_smooth_model_randomisation_by_hand():
    model, x = net("relu"), images(2)
    r = smooth_model_randomization(model, x, CLASSES[:2], gradient, samples=3, points=2, seed=5)

    def smoothed(f):
        rng = torch.Generator().manual_seed(5)
        sigma = torch.stack([0.1 * (v.max() - v.min()) for v in x]).view(-1, 1, 1, 1)
        eps = [sigma * torch.randn(3, 32, 32, generator=rng, dtype=torch.float64) for _ in range(3)]
        maps = [gradient(f, x + e, CLASSES[:2]) for e in eps[:2]] + [gradient(f, x, CLASSES[:2])]
        return (sum(maps) / 3).abs().sum(dim=1).flatten(1)

    first = [n for n, _ in model.named_parameters() if n.startswith(("conv1", "bn1"))]
    every = [n for n, _ in model.named_parameters()]
    e, q = smoothed(model), []
    for names in (first, every):
        e_l = smoothed(randomized(model, names, seed=5))
        q.append([stats.spearmanr(a, b)[0] for a, b in zip(e, e_l, strict=True)])
    assert np.allclose(r.curves["bottom-up"], np.transpose(q), atol=1e-9)
    assert np.allclose(r.values, np.mean(q, axis=0), atol=1e-9)


def test_one_sample_is_the_plain_map():
    model, x = net("relu"), images(2)
    r = smooth_model_randomization(model, x, CLASSES[:2], gradient, samples=1, order="top-down", points=2)
    s = model_randomization(model, x, CLASSES[:2], gradient, orders=("top-down",), points=2, seeds=1)
    assert torch.allclose(r.curves["top-down"], s.curves["top-down"])


def test_histogram_entropy_is_quantus():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports
        from quantus.functions.complexity_func import discrete_entropy
    a = torch.randn(3, 2, 9, 9, generator=RNG, dtype=torch.float64)
    want = [discrete_entropy(m.numpy(), x=m.numpy(), n_bins=100) for m in a]
    assert np.allclose(entropy(a, 100), want, atol=1e-9)
    assert (entropy(torch.ones(2, 1, 5, 5), 100) == 0).all()
    uniform = torch.arange(100.0).view(1, 1, 10, 10)
    assert np.isclose(entropy(uniform, 100).item(), np.log(100))


def test_edges_score_exactly_zero_and_noise_nearly_so():
    model, x = net("relu"), images(3)
    assert (efficient_model_randomization(model, x, CLASSES, edges, seeds=2).values == 0).all()
    assert efficient_model_randomization(model, x, CLASSES, noise(), seeds=2).values.abs().max() < 0.05


def test_efficient_model_randomisation_by_hand():
    model, x = net("relu"), images(2)
    r = efficient_model_randomization(model, x, CLASSES[:2], gradient, seeds=1, seed=3, bins=10)
    f = randomized(model, [n for n, _ in model.named_parameters()], seed=3)

    def xi(g):
        counts = [np.histogram(m.numpy(), bins=10)[0] for m in gradient(g, x, CLASSES[:2])]
        return np.array([stats.entropy(c) for c in counts])

    assert np.allclose(r.values, (xi(f) - xi(model)) / xi(model), atol=1e-9)
    with pytest.raises(ValueError, match="^bins: "):
        efficient_model_randomization(model, x, CLASSES[:2], gradient, bins=1)


# random logit


def test_random_logit_by_hand():
    model, x = net("relu"), images(3)
    r = random_logit(model, x, CLASSES, gradient, classes=9)  # all others
    ref, want = gradient(model, x, CLASSES).abs().sum(dim=1).flatten(1), np.zeros(3)
    for k in range(1, 10):
        other = gradient(model, x, (CLASSES + k) % 10).abs().sum(dim=1).flatten(1)
        want += [stats.spearmanr(a, b)[0] / 9 for a, b in zip(ref, other, strict=True)]
    assert np.allclose(r.values, want)
    y = model(x)
    y[torch.arange(3), CLASSES] = -torch.inf
    second = gradient(model, x, y.argmax(dim=1)).abs().sum(dim=1).flatten(1)
    assert np.allclose(r.columns["runner_up"], [stats.spearmanr(a, b)[0] for a, b in zip(ref, second, strict=True)])


def test_a_class_blind_map_scores_one_and_a_flipped_sign_is_tolerated():
    model, x = net("relu"), images(3)
    blind = random_logit(model, x, CLASSES, partial(eigen_cam, layer="layer4"), classes=3)
    assert torch.allclose(blind.values, torch.ones(3, dtype=torch.float64))
    assert torch.allclose(blind.columns["ssim"], torch.ones(3, dtype=torch.float64))

    def sign(model, x, target):
        return x * (1 - 2 * (target % 2)).view(-1, 1, 1, 1)

    flipped = random_logit(model, x, CLASSES, sign, classes=9)
    assert torch.allclose(flipped.columns["ssim"], torch.ones(3, dtype=torch.float64))
    assert flipped.columns["signed"].max() < 0.5
    with pytest.raises(ValueError, match="^classes: "):
        random_logit(model, x, CLASSES, gradient, classes=0)


# input shift


def test_input_shift_passes_the_gradient_and_fails_what_multiplies_by_the_input():
    model, x = net("relu"), images(3)  # with zero padding: exact all the same
    assert (input_shift(model, x, CLASSES, gradient).values < 1e-9).all()
    assert (input_shift(model, x, CLASSES, input_x_gradient).values > 0.1).all()
    assert (input_shift(model, x, CLASSES, integrated_gradients).values > 0.1).all()


def test_integrated_gradients_passes_when_its_baseline_is_shifted_too():
    model, x = net("relu"), images(3)
    shifted = [False]

    def of(model, x, target):  # called first for f1, then for f2 at x + 1
        baseline = torch.tensor(float(shifted[0]), dtype=x.dtype)
        shifted[0] = True
        return integrated_gradients(model, x, target, baseline=baseline)

    assert (input_shift(model, x, CLASSES, of).values < 1e-9).all()


def test_a_shift_that_changes_the_logits_voids_the_test():
    with pytest.raises(ValueError, match="^shift: "):
        input_shift(net("relu"), images(2), CLASSES[:2], gradient, shift=1e12)


# repeatability


def test_repeatability():
    model, x = net("relu"), images(3)
    r = repeatability(model, x, CLASSES, gradient)
    assert (r.values == 1).all()
    assert (r.columns["bitwise"] == 1).all()
    assert repeatability(model, x, CLASSES, noise()).values.abs().max() < 0.15
    seeded = repeatability(model, x, CLASSES, partial(smooth_grad, samples=2, seed=0))
    assert (seeded.columns["bitwise"] == 0).all()  # the second run has another seed
    assert (seeded.values > 0).all()


# label randomisation

NETS = LabelNets(*(_nets.net(f"digits_{n}") for n in ("true", "again", "permuted")), memorised=1.0)


def test_the_gradient_of_a_network_that_learnt_nothing_differs():
    r = label_randomization(NETS, X, gradient)
    s, null, ceiling = (v.numpy() for v in (r.values, r.columns["null"], r.columns["ceiling"]))
    assert verdict(s, null, ceiling) in ("responds", "partial")
    assert interval(ceiling - s).low > 0.1
    c = NETS.A(X).argmax(dim=1)
    a, b = (gradient(f, X, c).abs().sum(dim=1).flatten(1) for f in (NETS.A, NETS.B))
    assert np.allclose(r.values, [stats.spearmanr(p, q)[0] for p, q in zip(a, b, strict=True)], atol=1e-6)


def test_edges_are_the_same_whatever_was_learnt():
    r = label_randomization(NETS, X, edges)
    assert torch.allclose(r.values, torch.ones(len(X), dtype=torch.float64))


def test_a_network_that_has_not_memorised_its_labels_is_rejected():
    with pytest.raises(ValueError, match="^nets: the network with permuted labels knows only 80.0%"):
        label_randomization(NETS._replace(memorised=0.8), X, gradient)


def test_the_committed_networks_are_what_the_protocol_asks_for():
    data = digits()
    assert accuracy(NETS.A, data.x_test, data.y_test) > 0.95
    assert accuracy(NETS.again, data.x_test, data.y_test) > 0.95
    assert accuracy(NETS.B, data.x_test, data.y_test) < 0.2
    assert _nets.recorded("digits_permuted")["accuracy"]["train"] >= 0.95


def test_training_learns_and_is_the_same_twice():
    data = digits()
    data = data._replace(x_train=data.x_train[:200], y_train=data.y_train[:200])
    a, b = (train(small_cnn(data, 0), data.x_train, data.y_train, epochs=25) for _ in range(2))
    assert accuracy(a, data.x_train, data.y_train) > 0.8
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    nets = train_nets(data, epochs=1, epochs_permuted=1)
    assert nets.memorised < 0.5


# controls


def test_matched_noise_is_as_smooth_as_the_map():
    def roughness(v):
        return float(((v[..., 1:, :] - v[..., :-1, :]) ** 2).mean() / v.var())

    white = torch.randn(2, 3, 64, 48, generator=RNG, dtype=torch.float64)
    smooth = torch.nn.functional.avg_pool2d(white, 9, 1)  # 2 3 56 40
    a, b = matched(smooth, 0), matched(white, 0)
    assert a.shape == (2, 1, 56, 40)
    assert np.isclose(roughness(a), roughness(smooth.sum(dim=1)), rtol=0.2)
    assert np.isclose(roughness(b), roughness(white.sum(dim=1)), rtol=0.05)
    assert roughness(b) > 5 * roughness(a)
    assert spearman(a.flatten(1), smooth.sum(dim=1).flatten(1).float()).abs().max() < 0.4
    assert torch.equal(matched(smooth, 0), a)
    assert not torch.equal(matched(smooth, 1), a)


def test_the_noise_controls_are_drawn_anew_at_each_call():
    model, x = net("relu"), images(2)
    for name in ("white_noise", "smooth_noise"):
        of, again = CONTROLS[name][1](0), CONTROLS[name][1](0)
        first = of(model, x, CLASSES[:2])
        assert not torch.equal(first, of(model, x, CLASSES[:2]))
        assert torch.equal(first, again(model, x, CLASSES[:2]))


# data


def write_idx(file, array, pack=False):
    raw = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.astype(np.uint8).tobytes()
    file.write_bytes(gzip.compress(raw) if pack else raw)


def test_idx_files_are_read_gzipped_or_not(tmp_path):
    rng = np.random.default_rng(0)
    pictures, labels = rng.integers(0, 256, (5, 28, 28)), np.array([3, 1, 4, 1, 5])
    for part, pack in (("train", True), ("t10k", False)):
        ending = ".gz" if pack else ""
        write_idx(tmp_path / f"{part}-images-idx3-ubyte{ending}", pictures, pack)
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte{ending}", labels, pack)
    data = idx(tmp_path)
    for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
        assert torch.equal((x[:, 0] * 255).round().long(), torch.from_numpy(pictures))
        assert y.tolist() == labels.tolist()
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\x05\3\1")
    with pytest.raises(ValueError, match=r"^data: t10k-labels-idx1-ubyte is cut short: 2 bytes for \(5,\)"):
        idx(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").write_text("labels")
    with pytest.raises(ValueError, match="^data: t10k-labels-idx1-ubyte is not an idx file"):
        idx(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(ValueError, match="^data: .* has no t10k-labels"):
        idx(tmp_path)


@pytest.mark.parametrize("name", ["levit", "weight_norm"])
def test_a_network_that_keeps_tensors_of_its_graph(name):
    """timm's LeViT keeps its attention biases after a pass in evaluation, torch's old weight_norm the weight."""

    def make():
        torch.manual_seed(0)
        if name == "levit":
            return timm.create_model("levit_128s", num_classes=10).eval()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            conv = nn.utils.weight_norm(nn.Conv2d(3, 8, 3))
        return nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)).eval()

    model, x = make(), torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    y = model(x)
    with pytest.raises(RuntimeError, match="deepcopy protocol"):
        copy.deepcopy(model)
    torch.testing.assert_close(copy_of(model)(x), y)
    lost = randomized(model, [n for n, _ in model.named_parameters()])
    fresh = make()
    fresh.load_state_dict(lost.state_dict())
    torch.testing.assert_close(lost(x), fresh(x))
    assert not torch.allclose(lost(x), y)
    assert not any(m.training for m in lost.modules())
