"""Correlation-type faithfulness, confidence, robustness, complexity and completeness, beside other implementations."""

import math
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients
from captum.metrics import infidelity as captum_infidelity
from captum.metrics import sensitivity_max
from pytorch_grad_cam.metrics.cam_mult_image import DropInConfidence, IncreaseInConfidence
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget
from scipy import stats
from torch import nn

from helpers import CLASSES, images
from methods.grad_cam import grad_cam
from methods.gradient import gradient
from methods.hires_cam import hires_cam
from methods.input_x_gradient import input_x_gradient
from methods.integrated_gradients import integrated_gradients
from nets import net
from sanity_checks.adcc import adcc
from sanity_checks.average_drop import average_drop, masked, unit
from sanity_checks.completeness import completeness
from sanity_checks.complexity import complexity
from sanity_checks.faithfulness_correlation import faithfulness_correlation, subsets
from sanity_checks.infidelity import infidelity, square
from sanity_checks.max_sensitivity import max_sensitivity
from sanity_checks.monotonicity_correlation import monotonicity_correlation
from sanity_checks.sensitivity_n import sensitivity_n, sizes
from sanity_checks.sparseness import sparseness

x = images()
num = partial(torch.tensor, dtype=torch.float64)
close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-11, check_dtype=False)
on_subsets = partial(faithfulness_correlation, size=9, samples=24)
on_sizes = partial(sensitivity_n, points=5, samples=24)
on_squares = partial(monotonicity_correlation, size=3, samples=4)
CORRELATIONS = {"faithfulness": on_subsets, "sensitivity_n": on_sizes, "monotonicity": on_squares}


class Linear(nn.Module):
    """Logits linear in the image, C x 8 x 7; `exact` is the map whose sums are what removal costs."""

    def __init__(self, C, seed=0, dtype=torch.float64):
        super().__init__()
        rng = torch.Generator().manual_seed(seed)
        self.fc = nn.Linear(C * 56, 10, dtype=dtype)
        self.fc.weight.data = torch.randn(10, C * 56, generator=rng, dtype=torch.float64).to(dtype)
        self.x = torch.randn(3, C, 8, 7, generator=rng, dtype=torch.float64).to(dtype)

    def forward(self, x):
        return self.fc(x.flatten(1))

    def gradient(self):
        return self.fc.weight.detach()[CLASSES].view_as(self.x)

    def exact(self, b=0.0):
        return (self.x - b) * self.gradient()


class Grey(nn.Module):
    """A small smooth network on 1 x 8 x 8 images, in float32: Quantus casts images to it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fc = nn.Conv2d(1, 6, 3), nn.Linear(6 * 36, 10)
        self.x = torch.rand(3, 1, 8, 8) + 0.1
        self.eval()

    def forward(self, x):
        return self.fc(self.conv(x).tanh().flatten(1)) * 3


class Recorder(nn.Module):
    """A model that keeps what it is asked."""

    def __init__(self, model):
        super().__init__()
        self.model, self.asked = model, []

    def forward(self, x):
        self.asked.append(x)
        return self.model(x)


def versions(recorder, B):
    """What was asked after the images themselves: n B C H W."""
    return torch.cat(recorder.asked)[B:].unflatten(0, (-1, B))


def logit(model, x):
    with torch.no_grad():
        return model(x)[torch.arange(len(x)), CLASSES].double()


def from_quantus(metric, model, x, maps, **more):
    """The scores of a Quantus metric on logits, image by image; it must not rescale maps."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import quantus

        call = getattr(quantus, metric)(
            normalise=False, return_aggregate=False, disable_warnings=True, display_progressbar=False, **more
        )
        return torch.tensor(
            call(
                model=model,
                x_batch=x.numpy(),
                y_batch=CLASSES.numpy(),
                a_batch=None if maps is None else maps.numpy().copy(),
                softmax=False,
                device="cpu",
                **({"explain_func": more["explain"]} if "explain" in more else {}),
            )
        )


# ---- correlation-type faithfulness


@pytest.mark.parametrize("C", [1, 3])
@pytest.mark.parametrize("b", [0.0, 0.3, torch.tensor([0.1, -0.4, 0.7], dtype=torch.float64)[:, None, None]])
def test_the_exact_map_of_a_linear_model_scores_one(C, b):
    if isinstance(b, torch.Tensor):
        b = b[:C]
    m = Linear(C)
    ones = torch.ones(3)
    for check in CORRELATIONS.values():
        for maps in (m.exact(b), m.exact(b).sum(dim=1, keepdim=True)):  # every channel, or one number per pixel
            close(check(m, m.x, CLASSES, maps, baseline=b).values, ones)
    close(
        sensitivity_n(m, m.x, CLASSES, m.exact(b), points=7, samples=9, baseline=b).curves["correlation"].mean(1), ones
    )
    for check in (on_subsets, on_sizes):
        close(check(m, m.x, CLASSES, -m.exact(b), baseline=b).values, -ones)
    close(on_squares(m, m.x, CLASSES, -m.exact(b), baseline=b).values, ones)  # it has no sign


@pytest.mark.parametrize("name", CORRELATIONS)
def test_noise_scores_zero(name):
    model, n = net("relu"), 100
    noise = torch.randn(n, 1, 12, 15, generator=torch.Generator().manual_seed(3))
    x = images(1, 12, 15).expand(n, -1, -1, -1)
    values = CORRELATIONS[name](model, x, CLASSES[:1].expand(n), noise).values
    assert abs(values.mean()) < 3 * values.std() / n**0.5
    assert values.std() > 0.02


@pytest.mark.parametrize("name", CORRELATIONS)
def test_a_map_that_is_constant_scores_zero_even_when_enlarged(name):
    """Enlarging rounds: 0.1 everywhere is not the same number everywhere on the image's grid."""
    model, x = net("relu"), images(h=12, w=13)
    for maps in (0.0 * x, 0 * x + 0.1, torch.full((3, 1, 7, 5), 0.1), torch.full((3, 2, 3, 3), -1 / 3)):
        assert torch.equal(CORRELATIONS[name](model, x, CLASSES, maps).values, torch.zeros(3).double())


def test_faithfulness_correlation_literally():
    """Whole pixels, `size` of them, the same for every image; and numpy's correlation."""
    model, a = Recorder(net("relu")), x.cos()
    got = faithfulness_correlation(model, x, CLASSES, a, size=30, samples=11, baseline=0.25, chunk=7).values
    X = versions(model, 3)
    gone = X == 0.25  # 11 3 3 32 32
    assert torch.equal(gone, gone[:, :1, :1].expand_as(gone))
    assert (gone.sum(dim=(2, 3, 4)) == 3 * 30).all()
    assert torch.equal(X[~gone], x.expand_as(X)[~gone])
    assert len({tuple(S.flatten().tolist()) for S in gone[:, 0, 0]}) == 11
    for i in range(3):
        sums = [float(sum(a[i][c][gone[k, i, c]].sum() for c in range(3))) for k in range(11)]
        drops = [float(logit(model.model, x)[i] - logit(model.model, X[k])[i]) for k in range(11)]
        assert got[i].item() == pytest.approx(np.corrcoef(sums, drops)[0, 1], abs=1e-9)


def test_faithfulness_correlation_as_in_quantus(monkeypatch):
    m = Grey()
    a = m.x.sin()
    S = subsets(64, 12, 20, torch.Generator().manual_seed(0))
    draws = iter([k.nonzero()[:, 0].numpy() for k in S for _ in range(3)])  # it draws for each image
    monkeypatch.setattr(np.random, "choice", lambda n, size, replace: next(draws))
    theirs = from_quantus(
        "FaithfulnessCorrelation", m, m.x, a, abs=False, nr_runs=20, subset_size=12, perturb_baseline=0.0
    )
    ours = faithfulness_correlation(m, m.x, CLASSES, a, size=12, samples=20).values
    close(ours, theirs, rtol=0, atol=1e-5)
    assert ours.abs().max() > 0.1


def test_sensitivity_n_literally():
    model, a = Recorder(net("relu")), x.cos()
    found = sensitivity_n(model, x, CLASSES, a, points=4, samples=6, baseline=0.25)
    gone = (versions(model, 3) == 0.25)[:, 0, 0].unflatten(0, (4, 6))  # points samples H W
    assert found.at == (1.0, 9.0, 88.0, 819.0)
    assert torch.equal(gone.sum(dim=(2, 3)), torch.tensor(found.at).long()[:, None].expand(4, 6))
    X, f = versions(model, 3).unflatten(0, (4, 6)), logit(model.model, x)
    for p in range(4):
        sums = torch.stack([(a.sum(dim=1) * S).sum(dim=(1, 2)) for S in gone[p]])  # 6 3
        drops = torch.stack([f - logit(model.model, X[p, k]) for k in range(6)])  # 6 3
        for i in range(3):
            want = stats.pearsonr(sums[:, i], drops[:, i]).statistic
            assert found.curves["correlation"][i, p].item() == pytest.approx(want, abs=1e-9)
    close(found.values, found.curves["correlation"].mean(dim=1))


@pytest.mark.parametrize("n", [5, 64, 1000, 50176])
@pytest.mark.parametrize("points", [2, 3, 4])
def test_sizes_are_distinct_and_end_at_80_percent(n, points):
    for k in {points, int(0.8 * n) if n <= 1000 else 40}:
        found = sizes(n, k)
        assert found[0] == 1
        assert found[-1] == int(0.8 * n)
        assert len(found) == k
        assert (np.diff(found) > 0).all()


def test_all_subsets_are_equally_likely():
    S = subsets(5, 2, 4000, torch.Generator().manual_seed(1))
    _, counts = np.unique(S.numpy(), axis=0, return_counts=True)
    assert len(counts) == math.comb(5, 2)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_monotonicity_correlation_literally():
    """Squares of nearly one size, one after the other, filled with the image's own pixels; ranks by scipy."""
    model, a = Recorder(net("relu")), images(h=10, w=13).cos()
    x = images(h=10, w=13)
    found = monotonicity_correlation(model, x, CLASSES, a, size=4, samples=3).values
    X = versions(model, 3).unflatten(0, (12, 3))  # feature draw B C H W
    f = logit(model.model, x)
    for i in range(3):
        colours = {tuple(c) for c in x[i].flatten(1).T.tolist()}
        size, e = [], []
        for r, (top, bottom) in enumerate([(0, 4), (4, 7), (7, 10)]):
            for c, (left, right) in enumerate([(0, 4), (4, 7), (7, 10), (10, 13)]):
                box = (slice(None), slice(top, bottom), slice(left, right))
                there = X[4 * r + c, :, i]  # 3 C H W
                outside = torch.ones(10, 13, dtype=torch.bool)
                outside[box[1:]] = False
                assert torch.equal(there[:, :, outside], x[i][:, outside].expand(3, -1, -1))
                assert {tuple(v) for v in there[:, *box].flatten(2).transpose(1, 2).flatten(0, 1).tolist()} <= colours
                size.append(abs(float(a[i][box].sum())))
                e.append(np.mean([float(f[i] - logit(model.model, X[4 * r + c, k])[i]) ** 2 for k in range(3)]))
        assert found[i].item() == pytest.approx(stats.spearmanr(size, e).statistic, abs=1e-9)


def test_monotonicity_of_a_linear_model_with_a_broad_p():
    """e_i = w_i^2 E(x_i - X_i)^2: its root scores 1, and x w does not."""
    m = Recorder(Linear(1))
    x, w = m.model.x, m.model.gradient()
    check = partial(monotonicity_correlation, size=1, samples=5)
    below = check(m, x, CLASSES, w * x).values
    X = versions(m, 3).unflatten(0, (56, 5))  # feature draw B 1 8 7
    new = torch.stack([X[k].flatten(2)[..., k] for k in range(56)], dim=-1)  # draw B 56
    e = (w.flatten(1) ** 2 * ((x.flatten(1) - new) ** 2).mean(dim=0)).view_as(x)
    close(check(m, x, CLASSES, e.sqrt()).values, torch.ones(3))
    assert (below < 0.99).all()
    assert (below > 0.3).all()


def test_monotonicity_correlation_as_in_quantus():
    m = Grey()
    a = m.x.sin() - 0.5
    theirs = from_quantus(
        "MonotonicityCorrelation", m, m.x, a, abs=True, features_in_step=1, nr_samples=1, perturb_baseline=0.0
    )
    ours = monotonicity_correlation(m, m.x, CLASSES, a, size=1, baseline=0.0).values
    close(ours, theirs, rtol=0, atol=1e-6)
    assert ours.abs().max() > 0.1


# ---- infidelity


@pytest.mark.parametrize("kind", ["square", "gaussian"])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("of", [gradient, input_x_gradient])
def test_infidelity_as_in_captum(kind, normalize, of):
    model, n = Recorder(net("elu")), 12
    maps = of(model.model, x, CLASSES)
    keywords = {"perturbation": kind, "samples": n, "normalize": normalize, "baseline": 0.1, "side": 9}
    found = infidelity(model, x, CLASSES, maps, **keywords)
    X = versions(model, 3)  # n B C H W
    I = (x != X).double() if kind == "square" else x - X

    def perturb(inputs):
        assert torch.equal(inputs, x.repeat_interleave(n, dim=0))
        return I.transpose(0, 1).flatten(0, 1), X.transpose(0, 1).flatten(0, 1)

    theirs = captum_infidelity(
        model.model, perturb, x, maps, target=CLASSES, n_perturb_samples=n, normalize=normalize
    ).detach()
    close(found.values, theirs, rtol=1e-7)
    if not normalize:
        assert torch.equal(found.columns["beta"], torch.ones(3))
    if kind == "gaussian":
        spread = (X - 0.1).std(dim=(0, 2, 3, 4)) / (x.amax(dim=(1, 2, 3)) - x.amin(dim=(1, 2, 3)))
        close(spread, torch.full((3,), 0.2), rtol=0.02)
        close((X - 0.1)[:, 0] / (X - 0.1)[:, 1], (0 * X[:, 0] + (X - 0.1)[0, 0, 0, 0, 0] / (X - 0.1)[0, 1, 0, 0, 0]))


@pytest.mark.parametrize("C", [1, 3])
def test_infidelity_of_a_linear_model_is_zero(C):
    m = Linear(C)
    zero = torch.zeros(3)
    run = partial(infidelity, m, m.x, CLASSES, samples=20, side=4, baseline=0.3)
    for normalize in (True, False):
        close(run(m.exact(0.3), normalize=normalize).values, zero)
        close(run(m.gradient(), perturbation="gaussian", normalize=normalize).values, zero)
    scaled = run(-2 * m.exact(0.3))
    close(scaled.values, zero)
    close(scaled.columns["beta"], num([-0.5] * 3))
    assert (run(-2 * m.exact(0.3), normalize=False).values > 1).all()
    for kind in ("square", "gaussian"):  # a zero map is the unit of the relative column, scaled or not
        for normalize in (True, False):
            close(run(0 * m.x, perturbation=kind, normalize=normalize).columns["relative"], torch.ones(3))
    noise = run(torch.randn(m.x.shape, generator=torch.Generator().manual_seed(0)))
    assert ((noise.columns["relative"] > 0.5) & (noise.columns["relative"] <= 1)).all()


def test_all_squares_are_equally_likely():
    rng = torch.Generator().manual_seed(0)
    M = torch.stack([square(4, 5, 3, rng) for _ in range(3800)])
    found, counts = np.unique(M.flatten(1).numpy(), axis=0, return_counts=True)
    assert len(found) == 20 + 12 + 6
    assert stats.chisquare(counts).pvalue > 1e-3
    for S in found.reshape(-1, 4, 5):
        r, c = S.any(axis=1), S.any(axis=0)
        assert r.sum() == c.sum()
        assert (np.outer(r, c) == S).all()
        assert np.ptp(np.flatnonzero(r)) == r.sum() - 1
        assert np.ptp(np.flatnonzero(c)) == c.sum() - 1


# ---- confidence


def two_pixels():
    """Logits (x_0 + x_1, 0) of 1 x 1 x 2 images."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, dtype=torch.float64))
    model[1].weight.data, model[1].bias.data = torch.tensor([[1.0, 1], [0, 0]]).double(), torch.zeros(2).double()
    return model


def test_average_drop_by_hand():
    """Map (3, 1): M = (1, 0), so the second pixel goes."""
    x = torch.tensor([[2.0, 1], [2, -1]]).view(2, 1, 1, 2).double()
    maps = torch.tensor([3.0, 1]).view(1, 1, 1, 2).expand(2, -1, -1, -1).double()
    found = average_drop(two_pixels(), x, torch.zeros(2).long(), maps)
    p = lambda z: 1 / (1 + math.exp(-z))  # noqa: E731
    close(found.values, num([100 * (p(3) - p(2)) / p(3), 0]))
    close(found.columns["increase"], num([0, 100]))
    close(found.columns["gain"], num([0, 100 * (p(2) - p(1)) / (1 - p(1))]))
    close(found.columns["complexity"], num([0.5, 0.5]))
    away = average_drop(two_pixels(), x, torch.zeros(2).long(), maps, baseline=-4.0)  # the second pixel becomes -4
    close(away.values, num([100 * (p(3) - p(-2)) / p(3), 100 * (p(1) - p(-2)) / p(1)]))


def test_average_drop_of_a_sure_classifier():
    """Y = 1 leaves nothing to gain, Y = 0 nothing to lose."""
    x = torch.tensor([[900.0, 900], [-900, -900]]).view(2, 1, 1, 2).double()
    found = average_drop(
        two_pixels(), x, torch.zeros(2).long(), torch.tensor([1.0, 0]).view(1, 1, 1, 2).repeat(2, 1, 1, 1)
    )
    assert torch.equal(found.values, torch.zeros(2).double())
    assert torch.equal(found.columns["gain"], torch.zeros(2).double())


@pytest.mark.parametrize("name", ["relu", "silu_se", "vit"])
def test_drop_and_increase_as_in_grad_cam_package(name):
    model, maps = net(name), images().sin().sum(dim=1, keepdim=True)
    found = average_drop(model, x, CLASSES, maps)
    M, targets = unit(maps, x), [ClassifierOutputSoftmaxTarget(int(c)) for c in CLASSES]
    with torch.no_grad():
        Y = model(x).softmax(dim=1)[torch.arange(3), CLASSES]
    theirs = torch.from_numpy(DropInConfidence()(x, M.numpy(), targets, model)).double()
    close(found.values, 100 * theirs / Y, rtol=1e-5, atol=1e-4)  # it rounds to float32
    close(found.columns["increase"], 100 * torch.from_numpy(IncreaseInConfidence()(x, M.numpy(), targets, model)))
    close(M.flatten(1).amin(dim=1), torch.zeros(3))
    close(M.flatten(1).amax(dim=1), torch.ones(3))


def test_masking_the_image_instead_of_the_tensor():
    mean, std = (torch.tensor(v).view(3, 1, 1).double() for v in ([0.4, 0.5, 0.6], [0.2, 0.3, 0.1]))
    image, M = torch.rand(3, 3, 8, 6).double(), torch.rand(3, 8, 6).double()
    close(masked((image - mean) / std, M, -mean / std), (image * M[:, None] - mean) / std)


CONSTANT = [torch.zeros(3, 1, 32, 32), torch.full((3, 3, 32, 32), 0.1), torch.full((3, 1, 7, 5), -1 / 3)]


@pytest.mark.parametrize("maps", CONSTANT)
def test_the_row_of_the_constant_map(maps):
    model = net("relu")
    kept = average_drop(model, x, CLASSES, maps)
    whole = adcc(model, x, CLASSES, maps, lambda model, x, target: maps)
    for zero in (kept.values, kept.columns["increase"], kept.columns["gain"], whole.values, whole.columns["drop"]):
        assert torch.equal(zero, torch.zeros_like(zero))
    for one in (kept.columns["complexity"], whole.columns["complexity"]):
        assert torch.equal(one, torch.ones_like(one))
    assert torch.equal(unit(maps, x), torch.ones_like(unit(maps, x)))


def test_adcc_literally():
    model = net("elu")
    of = partial(hires_cam, layer="layer2")
    maps = of(model, x, CLASSES)
    found = adcc(model, x, CLASSES, maps, of)
    for i in range(3):
        a = nn.functional.interpolate(maps[i : i + 1], size=(32, 32), mode="bilinear")[0, 0]
        M = (a - a.min()) / (a.max() - a.min())
        again = of(model, (x[i] * M)[None], CLASSES[i : i + 1])
        again = nn.functional.interpolate(again, size=(32, 32), mode="bilinear")[0, 0]
        coherency = (stats.pearsonr(a.flatten(), again.flatten()).statistic + 1) / 2
        with torch.no_grad():
            Y, O = model(torch.stack([x[i], x[i] * M])).softmax(dim=1)[:, CLASSES[i]].tolist()
        drop = max(0, Y - O) / Y
        assert found.columns["coherency"][i].item() == pytest.approx(coherency, abs=1e-9)
        assert found.columns["complexity"][i].item() == pytest.approx(M.mean().item(), abs=1e-9)
        assert found.columns["drop"][i].item() == pytest.approx(drop, abs=1e-9)
        assert found.values[i].item() == pytest.approx(stats.hmean([coherency, 1 - M.mean().item(), 1 - drop]))


def test_adcc_of_maps_that_stay_turn_round_or_vanish():
    """Map (3, 1) leaves half of the image. The same again: coherency 1; its negative: 0; a constant: 0."""
    x = torch.tensor([[2.0, -1]] * 3).view(3, 1, 1, 2).double()
    maps = torch.tensor([3.0, 1]).view(1, 1, 1, 2).repeat(3, 1, 1, 1).double()
    later = torch.stack([maps[0], -maps[1], 0 * maps[2]])
    found = adcc(two_pixels(), x, torch.zeros(3).long(), maps, lambda model, x, target: later)
    close(found.columns["coherency"], torch.tensor([1.0, 0, 0]))
    close(found.values, num([3 / (1 + 2 + 1), 0, 0]))


# ---- robustness


def test_max_sensitivity_as_in_captum_and_quantus(monkeypatch):
    model, seen = net("elu"), []
    maps = gradient(model, x, CLASSES)

    def of(model, x, target):
        seen.append(x)
        return gradient(model, x, target)

    n = 5
    found = max_sensitivity(model, x, CLASSES, maps, of, samples=n, radius=0.05, chunk=6)
    X = torch.cat(seen).unflatten(0, (n, 3))  # n B C H W
    explain = lambda x, target: gradient(model, x, target)  # noqa: E731
    theirs = sensitivity_max(
        lambda x, target: (explain(x[0] if isinstance(x, tuple) else x, target),),
        x,
        lambda inputs: X.transpose(0, 1).flatten(0, 1),
        n_perturb_samples=n,
        target=CLASSES,
    )
    close(found.values, theirs, rtol=1e-6)

    reach = (X - x).abs().amax(dim=(0, 2, 3, 4)) / (x.amax(dim=(1, 2, 3)) - x.amin(dim=(1, 2, 3)))
    assert ((reach > 0.0499) & (reach <= 0.05)).all()
    assert abs(stats.kstest((X - x)[:, 0].flatten() / (X - x)[:, 0].abs().max(), "uniform", (-1, 2)).pvalue) > 1e-3
    box = (X - x) / (x.amax(dim=(1, 2, 3), keepdim=True) - x.amin(dim=(1, 2, 3), keepdim=True))
    close(box, box[:, :1].expand_as(box))  # shared by the images

    deltas = iter((X - x).flatten(2).numpy())
    monkeypatch.setattr(np.random, "uniform", lambda low, high, size: next(deltas))

    def explain_func(model, inputs, targets, **_):
        return gradient(net("elu"), torch.as_tensor(inputs, dtype=torch.float64), torch.as_tensor(targets)).numpy()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import quantus

        metric = quantus.MaxSensitivity(
            nr_samples=n,
            lower_bound=0.05,
            abs=False,
            normalise=False,
            return_aggregate=False,
            return_nan_when_prediction_changes=False,
            disable_warnings=True,
            display_progressbar=False,
        )
        quantus_values = metric(
            model=model.float(),
            x_batch=x.numpy(),
            y_batch=CLASSES.numpy(),
            a_batch=maps.numpy(),
            explain_func=explain_func,
            device="cpu",
        )
    close(found.values, torch.tensor(quantus_values), rtol=1e-6)


def test_max_sensitivity_closed_forms():
    m = Linear(3)
    run = partial(max_sensitivity, m, m.x, CLASSES, samples=6)
    still = run(gradient(m, m.x, CLASSES), gradient)
    assert torch.equal(still.values, torch.zeros(3).double())
    most = run(m.x, lambda model, x, target: x).values
    for radius in (0.1, 0.4):  # it is linear in the radius
        close(
            max_sensitivity(m, m.x, CLASSES, m.x, lambda model, x, t: x, samples=6, radius=radius).values,
            most * radius / 0.2,
        )
    more = max_sensitivity(m, m.x, CLASSES, m.x, lambda model, x, t: x, samples=12).values
    assert (more >= most).all()  # the first six draws are the same
    from_zero = run(0 * m.x, lambda model, x, target: x)
    assert from_zero.values.isfinite().all()


# ---- complexity


def test_gini_by_hand():
    rows = [[0, 0, 0, 1], [1, 2, -3, 4], [5, 5, 5, -5], [0, 0, 0, 0], [0, 3, -3, 0]]
    maps = torch.tensor(rows).double().view(5, 1, 2, 2)
    close(sparseness(maps).values, torch.tensor([0.75, 0.25, 0, 0, 0.5]))
    close(sparseness(1e-30 * maps).values, sparseness(maps).values)


def test_entropy_by_hand():
    rows = [[0, 0, 0, 1], [1, -1, 0, 0], [5, 5, 5, -5], [0, 0, 0, 0], [1, 1, 2, 0]]
    found = complexity(torch.tensor(rows).double().view(5, 1, 2, 2))
    close(found.values, num([0, math.log(2), math.log(4), math.log(4), 1.5 * math.log(2)]))
    close(found.columns["relative"], torch.tensor([0, 0.5, 1, 1, 0.75]))
    assert complexity(torch.ones(2, 1, 1, 1)).values.tolist() == [0, 0]


def test_gini_and_entropy_literally_and_as_in_quantus():
    m = Grey()
    maps = m.x.cos() - 0.8
    gini, mu = sparseness(maps).values, complexity(maps).values
    for i in range(3):
        v = np.sort(np.abs(maps[i].numpy().ravel().astype(float)))
        d = len(v)
        literal = 1 - 2 * sum(v[k - 1] / v.sum() * (d - k + 0.5) / d for k in range(1, d + 1))
        assert gini[i].item() == pytest.approx(literal, abs=1e-9)
        assert mu[i].item() == pytest.approx(stats.entropy(v), abs=1e-9)
    close(gini, from_quantus("Sparseness", m, m.x, maps, abs=True), rtol=0, atol=1e-5)
    close(mu, from_quantus("Complexity", m, m.x, maps, abs=True), rtol=0, atol=1e-5)
    close(sparseness(maps.repeat(1, 2, 1, 1)).values, gini)  # channels are summed


def test_complexity_of_noise_and_of_resolution():
    noise = torch.randn(4, 1, 200, 200, generator=torch.Generator().manual_seed(0))
    close(sparseness(noise).values, torch.full((4,), math.sqrt(2) - 1), rtol=0, atol=5e-3)
    small = noise[..., :8, :8]
    close(
        complexity(small.repeat_interleave(2, 2).repeat_interleave(2, 3)).values - complexity(small).values,
        num([2 * math.log(2)] * 4),
    )


# ---- completeness


def test_completeness_of_exact_maps():
    for C in (1, 3):
        m = Linear(C)
        for b in (0.0, 0.5):
            found = completeness(m, m.x, CLASSES, m.exact(b), baseline=b)
            close(found.values, torch.zeros(3))
        close(completeness(m, m.x, CLASSES, 1.25 * m.exact()).values, num([0.25] * 3))
    assert torch.equal(completeness(m, m.x, CLASSES, torch.zeros(3, 1, 2, 2)).values, torch.ones(3).double())


def test_completeness_is_captums_convergence_delta():
    model, b = net("elu"), torch.full((1, 3, 32, 32), 0.2, dtype=torch.float64)
    maps, delta = IntegratedGradients(model).attribute(x, b, CLASSES, n_steps=9, return_convergence_delta=True)
    found = completeness(model, x, CLASSES, maps.detach(), baseline=b)
    close(found.columns["gap"], delta.abs(), rtol=1e-7)
    close(found.values, delta.abs() / (logit(model, x) - logit(model, b.expand_as(x))).abs(), rtol=1e-7)


def test_completeness_shrinks_with_steps():
    model = net("elu")
    gaps = [
        completeness(model, x, CLASSES, integrated_gradients(model, x, CLASSES, steps=n, rule="gauss_legendre")).values
        for n in (2, 100)
    ]
    assert (gaps[1] < 1e-4).all()
    assert (gaps[0] > 10 * gaps[1])[:2].all()  # the third was near already


def test_completeness_has_no_number_where_nothing_is_to_be_distributed():
    m = Linear(3)
    found = completeness(m, m.x, CLASSES, m.exact(), baseline=m.x)
    assert found.values.isnan().all()
    assert found.columns["gap"].isfinite().all()


# ---- errors


@pytest.mark.parametrize(
    ("check", "keywords", "names"),
    [
        (faithfulness_correlation, {"size": 0}, "size"),
        (faithfulness_correlation, {"size": 1024}, "size"),
        (faithfulness_correlation, {"samples": 1}, "samples"),
        (faithfulness_correlation, {"baseline": torch.zeros(5)}, "baseline"),
        (faithfulness_correlation, {"chunk": 0}, "chunk"),
        (sensitivity_n, {"points": 1}, "points"),
        (sensitivity_n, {"points": 820}, "points"),
        (sensitivity_n, {"samples": 1}, "samples"),
        (monotonicity_correlation, {"size": 0}, "size"),
        (monotonicity_correlation, {"size": 32}, "size"),
        (monotonicity_correlation, {"samples": 0}, "samples"),
        (infidelity, {"perturbation": "blur"}, "perturbation"),
        (infidelity, {"samples": 0}, "samples"),
        (infidelity, {"side": 33}, "side"),
        (infidelity, {"side": 0}, "side"),
        (infidelity, {"baseline": torch.zeros(2, 1, 1)}, "baseline"),
        (average_drop, {"baseline": torch.zeros(2, 1, 1)}, "baseline"),
        (completeness, {"baseline": torch.zeros(2, 1, 1)}, "baseline"),
        (partial(max_sensitivity, of=gradient), {"samples": 0}, "samples"),
        (partial(max_sensitivity, of=gradient), {"radius": 0.0}, "radius"),
        (partial(max_sensitivity, of=partial(grad_cam, layer="layer4")), {}, "maps"),
        (partial(adcc, of=gradient), {"baseline": torch.zeros(2, 1, 1)}, "baseline"),
    ],
)
def test_errors_name_the_argument(check, keywords, names):
    with pytest.raises(ValueError, match=names):
        check(net("relu"), x, CLASSES, x, **keywords)


@pytest.mark.parametrize("check", [sparseness, complexity])
def test_maps_must_be_finite(check):
    with pytest.raises(ValueError, match="finite"):
        check(torch.full((1, 1, 2, 2), torch.nan))
