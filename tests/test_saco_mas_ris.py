"""SaCo, MAS, and relative stability: the papers' definitions in loops, cases with a known answer, and Quantus."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from helpers import images
from methods.gradient import gradient
from nets import net
from sanity_checks.insertion_deletion import insertion_deletion, substrate
from sanity_checks.mas import density, mas
from sanity_checks.relative_stability import relative_stability
from sanity_checks.saco import saco

X, CLASSES = images(3), torch.tensor([1, 4, 7])


class Additive(nn.Module):
    """Two logits; the first is the sum of weight x pixel, the second is 0."""

    def __init__(self, weight):
        super().__init__()
        self.weight = weight

    def forward(self, x):
        y = (x * self.weight).sum(dim=(1, 2, 3))
        return torch.stack([y, torch.zeros_like(y)], dim=1)


def p(model, x, c):
    return float(model(x[None]).detach().softmax(dim=1)[0, c])


# ---- SaCo


def saco_in_loops(model, x, c, a, K):
    order = a.flatten().argsort(descending=True, stable=True)
    n, groups = len(order), [[] for _ in range(K)]
    for place, pixel in enumerate(order.tolist()):
        groups[place * K // n].append(pixel)
    s, d = [], []
    for G in groups:
        without = x.flatten(1).clone()
        without[:, G] = 0
        s.append(float(a.flatten()[G].mean()))
        d.append(p(model, x, c) - p(model, without.view_as(x), c))
    F = total = 0.0
    for i in range(K):
        for j in range(i + 1, K):
            w = s[i] - s[j] if d[i] >= d[j] else s[j] - s[i]
            F, total = F + w, total + abs(w)
    return F / total


@pytest.mark.parametrize("K", [2, 5, 10])
def test_saco_is_the_definition(K):
    model = net("relu")
    maps = gradient(model, X, CLASSES)
    found = saco(model, X, CLASSES, maps, groups=K, chunk=4).values
    expected = [saco_in_loops(model, x, c, m.sum(dim=0), K) for x, c, m in zip(X, CLASSES, maps, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_saco_of_the_exact_map_is_one_of_its_negative_minus_one_and_of_a_constant_zero():
    weight = torch.arange(64.0, dtype=torch.float64).view(1, 8, 8) / 640
    model, x, target = Additive(weight), torch.ones(1, 1, 8, 8, dtype=torch.float64), torch.tensor([0])
    run = lambda maps: saco(model, x, target, maps, groups=8).values.item()  # noqa: E731
    exact = (weight * x[0])[None]
    assert run(exact) == 1
    assert run(-exact) == -1
    assert run(torch.ones_like(exact)) == 0
    assert run(3 * exact + 5) == 1  # neither scale nor offset counts
    assert -1 < run(torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double()) < 1


@pytest.mark.parametrize("groups", [1, 0, 5000])
def test_saco_needs_two_groups_and_pixels_for_them(groups):
    with pytest.raises(ValueError, match="^groups: from 2 to the number of pixels, 1024"):
        saco(net("relu"), X, CLASSES, X[:, :1], groups=groups)


# ---- MAS


def mas_in_loops(model, x, c, a, step):
    n = a.numel()
    order = a.flatten().abs().argsort(descending=True, stable=True).tolist()
    blank, blurred = torch.zeros_like(x), substrate(x[None], "rise")[0]

    def curve(start, end, rising):
        now, probabilities, d = start.flatten(1).clone(), [p(model, start, c)], [0.0 if rising else 1.0]
        for first in range(0, n, step):
            G = order[first : first + step]
            now[:, G] = end.flatten(1)[:, G]
            probabilities.append(p(model, now.view_as(x), c))
            share = float(a.flatten().abs()[G].sum() / a.abs().sum())
            d.append(d[-1] + share if rising else d[-1] - share)
        without = probabilities[0] if rising else probabilities[-1]
        full, best, r = p(model, x, c), 0.0 if rising else 1.0, []
        for v in probabilities:
            v = min(max((v - without) / (full - without), 0.0), 1.0)
            best = max(best, v) if rising else min(best, v)
            r.append(best)
        s = [u - abs(w - u) if rising else u + abs(w - u) for u, w in zip(r, d, strict=True)]
        s = np.clip(s, 0, 1)
        s = (s - s.min()) / (s.max() - s.min())
        return (s.sum() - (s[0] + s[-1]) / 2) / (len(s) - 1)

    return curve(blurred, x, True), curve(x, blank, False)


@pytest.mark.parametrize("step", [100, 128])
def test_mas_is_the_definition(step):
    model = net("relu")
    maps = gradient(model, X, CLASSES)
    found = mas(model, X, CLASSES, maps, step=step, chunk=5)
    expected = [mas_in_loops(model, x, c, m.sum(dim=0), step) for x, c, m in zip(X, CLASSES, maps, strict=True)]
    both = torch.stack([found.columns["insertion"], found.columns["deletion"]], dim=1)
    np.testing.assert_allclose(both, expected, atol=1e-6)
    np.testing.assert_allclose(found.values, both[:, 0] - both[:, 1])


def test_mas_corrects_a_map_with_the_right_order_and_the_wrong_sizes():
    """Insertion and deletion depend on the order alone: they do not see the difference."""
    weight = torch.linspace(0.001, 0.05, 64, dtype=torch.float64).view(1, 8, 8)
    model, x, target = Additive(weight), torch.ones(1, 1, 8, 8, dtype=torch.float64), torch.tensor([0])
    exact = weight[None]
    steep = exact**6
    options = {"step": 4, "insertion": "mean"}
    curves = [insertion_deletion(model, x, target, a, **options).values.item() for a in (exact, steep)]
    assert curves[0] == curves[1]
    right, wrong = (mas(model, x, target, a, **options).values.item() for a in (exact, steep))
    assert right > wrong + 0.05


def test_density_is_the_share_of_the_highest_pixels():
    a = torch.tensor([[[1.0, 4.0], [3.0, 2.0]]])
    torch.testing.assert_close(density(a), torch.tensor([[0.0, 0.4, 0.7, 0.9, 1.0]]).double())


def test_mas_of_a_score_that_never_changes_is_zero():
    model = Additive(torch.zeros(1, 8, 8, dtype=torch.float64))
    x = torch.rand(2, 1, 8, 8, dtype=torch.float64)
    found = mas(model, x, torch.tensor([0, 1]), x, step=8)
    assert found.values.tolist() == [0, 0]
    assert found.columns["insertion"].tolist() == [0.5, 0.5]


# ---- relative stability


def test_relative_stability_as_in_quantus(monkeypatch):
    model, seen = net("elu"), []
    target = model(X).argmax(dim=1)
    maps = gradient(model, X, target)

    def of(model, x, target):
        seen.append(x)
        return gradient(model, x, target)

    n, radius = 4, 1e-3
    found = relative_stability(model, X, target, maps, of, samples=n, radius=radius, chunk=5)
    neighbours = torch.cat(seen).unflatten(0, (n, 3))  # n B C H W
    assert (model(neighbours.flatten(0, 1)).argmax(dim=1).view(n, 3) == target).all()

    def explain_func(model, inputs, targets, **_):
        x, c = torch.as_tensor(inputs, dtype=torch.float64), torch.as_tensor(targets)
        return gradient(net("elu"), x, c).numpy()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import quantus

        for kind, ours in (
            ("RelativeInputStability", found.values),
            ("RelativeOutputStability", found.columns["output"]),
        ):
            given = iter(neighbours.numpy())
            metric = getattr(quantus, kind)(
                nr_samples=n,
                abs=False,
                normalise=False,
                return_aggregate=False,
                disable_warnings=True,
                display_progressbar=False,
                return_nan_when_prediction_changes=False,
                perturb_func=lambda arr, indices, given=given, **_: next(given).reshape(len(arr), -1),
            )
            theirs = metric(
                model=copy.deepcopy(model).float(),
                x_batch=X.numpy(),
                y_batch=target.numpy(),
                a_batch=maps.numpy(),
                explain_func=explain_func,
                device="cpu",
            )
            np.testing.assert_allclose(ours, theirs, rtol=1e-3)


def test_a_map_that_never_changes_is_stable_and_a_map_that_is_the_image_has_one():
    model = net("relu")
    target = model(X).argmax(dim=1)
    still = relative_stability(model, X, target, X, lambda m, x, t: X.repeat(len(x) // 3, 1, 1, 1), samples=3)
    assert still.values.tolist() == [0, 0, 0]
    image = relative_stability(model, X, target, X, lambda m, x, t: x, samples=3)
    torch.testing.assert_close(image.values, torch.ones(3, dtype=torch.float64))


def test_neighbours_of_another_class_are_left_out():
    weight = torch.zeros(1, 4, 4, dtype=torch.float64)
    weight[0, 0, 0] = 1
    x = torch.ones(1, 1, 4, 4, dtype=torch.float64)
    x[0, 0, 0, 0], x[0, 0, 1, 1] = 1e-9, 2.0

    def run(seed, samples):
        y = relative_stability(
            Additive(weight), x, torch.tensor([0]), x, lambda m, x, t: x, samples=samples, seed=seed, radius=0.1
        )
        return y.values

    alone = [run(seed, 1) for seed in range(8)]
    assert any(v.isnan() for v in alone)
    assert any(not v.isnan() for v in alone)
    assert not run(0, 30).isnan()


def test_errors_name_the_argument():
    for keywords, name in (({"samples": 0}, "samples"), ({"radius": 0.0}, "samples, radius"), ({"eps": 0.0}, "eps")):
        with pytest.raises(ValueError, match=f"^{name}"):
            relative_stability(net("relu"), X, CLASSES, X, gradient, **keywords)
    with pytest.raises(ValueError, match="^step: "):
        mas(net("relu"), X, CLASSES, X, step=0)
