"""Protocols of the last years: SRG, quality gap, local Lipschitz, GEF, contrast, F-Fidelity, earth mover's distance."""

import warnings
from functools import partial

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from scipy.stats import spearmanr
from torch import nn

from helpers import CLASSES, images
from methods.gradient import gradient
from methods.input_x_gradient import input_x_gradient
from methods.integrated_gradients import integrated_gradients
from nets import net
from sanity_checks import CHECKS
from sanity_checks._small import Data, accuracy, digits, small_cnn, train
from sanity_checks.contrastivity import contrastivity
from sanity_checks.earth_mover import earth_mover
from sanity_checks.f_fidelity import f_fidelity
from sanity_checks.gef import gef, noisy
from sanity_checks.insertion_deletion import insertion_deletion
from sanity_checks.local_lipschitz import local_lipschitz
from sanity_checks.quality_gap import inverse, quality_gap
from sanity_checks.srg import srg

x = images()
close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-11, check_dtype=False)


class Quarters(nn.Module):
    """Two classes; the logit of the first is a weighted sum of the means of the four quarters of the image."""

    weights = torch.tensor([4.0, 1.0, -2.0, 0.5], dtype=torch.float64)

    def forward(self, x):
        means = x.mean(dim=1).unflatten(2, (2, -1)).unflatten(1, (2, -1)).mean(dim=(2, 4)).flatten(1)  # B 4
        y = means @ self.weights.to(x)
        return torch.stack([y, -y], dim=1)


def quarters(values, side=8):
    cells = torch.tensor(values, dtype=torch.float64).view(1, 1, 2, 2)
    return cells.repeat_interleave(side, 2).repeat_interleave(side, 3)


BRIGHT = 0.2 + torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
FIRST = torch.zeros(3, dtype=torch.int64)


# symmetric relevance gain


def test_srg_by_loops():
    model, maps = net("relu"), gradient(net("relu"), x, CLASSES)
    found = srg(model, x, CLASSES, maps, segments=3, fills=("mean", "zero"), points=10, chunk=7)
    labels = (torch.arange(32) * 3 // 32)[:, None] * 3 + torch.arange(32) * 3 // 32
    for i in range(3):
        a = maps[i].sum(dim=0)
        phi = [a[labels == r].mean().item() for r in range(9)]
        for fill in ("mean", "zero"):
            areas = {}
            for order, sign in (("lif", 1), ("mif", -1)):
                first, image, p = sorted(range(9), key=lambda r: sign * phi[r]), x[i].clone(), []
                for n in range(10):
                    p.append(model(image[None]).softmax(dim=1)[0, CLASSES[i]].item())
                    if n < 9:
                        inside = labels == first[n]
                        new = x[i][:, inside].mean(dim=1, keepdim=True) if fill == "mean" else 0.0
                        image[:, inside] = new
                areas[order] = np.mean(p)
                close(found.curves[f"{order}, {fill}"][i], torch.tensor(p, dtype=torch.float64))
            assert found.columns[fill][i].item() == pytest.approx(areas["lif"] - areas["mif"])
    close(found.values, (found.columns["mean"] + found.columns["zero"]) / 2)
    close(found.values, found.columns["lif"] - found.columns["mif"])


def test_srg_closed_forms():
    run = partial(srg, Quarters(), BRIGHT, FIRST, segments=2, fills=("zero",), points=5)
    right = run(quarters([4, 1, -2, 0.5]).expand(3, -1, -1, -1))
    wrong = run(-quarters([4, 1, -2, 0.5]).expand(3, -1, -1, -1))
    close(right.values, -wrong.values)
    assert (right.values > 0.1).all()
    for other in ([1, 4, -2, 0.5], [0.5, 1, -2, 4], [4, 1, 0.5, -2]):
        assert (run(quarters(other).expand(3, -1, -1, -1)).values <= right.values).all()
    for wrong in ({"fills": ()}, {"points": 1}, {"fills": ("paint",)}):
        with pytest.raises(ValueError, match="^fill"):
            srg(Quarters(), BRIGHT, FIRST, BRIGHT, segments=2, **wrong)


def test_srg_of_superpixels_that_differ_in_number():
    labels = torch.stack([torch.arange(256).view(16, 16) // size for size in (64, 128, 32)])
    maps = torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    run = partial(srg, Quarters(), fills=("mean", "inpaint"), points=5)
    both = run(x=BRIGHT, target=FIRST, maps=maps, segments=labels)
    for i in range(3):
        alone = run(x=BRIGHT[i : i + 1], target=FIRST[:1], maps=maps[i : i + 1], segments=labels[i])
        close(alone.values, both.values[i : i + 1])


# the quality gap


def test_the_inverse_of_a_ranking():
    a = torch.tensor([[[1.0, 2.0], [3.0, 7.0]], [[0.0, 0.0], [5.0, 1.0]]])
    close(inverse(a), torch.tensor([[[7.0, 3.0], [2.0, 1.0]], [[3.0, 3.0], [0.0, 0.0]]]))
    noise = torch.randn(2, 9, 8, dtype=torch.float64)
    turned = inverse(noise)
    close(turned.flatten(1).sort().values, noise.flatten(1).sort().values)
    for p, q in zip(noise.flatten(1), turned.flatten(1), strict=True):
        assert spearmanr(p, q)[0] == pytest.approx(-1)


def test_the_quality_gap_is_the_score_of_the_map_less_that_of_its_inverse():
    model, maps = net("relu"), gradient(net("relu"), x, CLASSES)
    found = quality_gap(model, x, CLASSES, maps, keywords={"step": 128})
    q = [insertion_deletion(model, x, CLASSES, a, step=128).values for a in (maps, inverse(maps.sum(dim=1))[:, None])]
    close(found.values, q[0] - q[1])
    close(found.columns["inverse"], q[1])
    lower = quality_gap(model, x, CLASSES, maps, score="infidelity", keywords={"samples": 20})
    close(lower.values, lower.columns["inverse"] - lower.columns["score"])
    gain = srg(Quarters(), BRIGHT, FIRST, BRIGHT, segments=2, points=5).values
    twice = quality_gap(Quarters(), BRIGHT, FIRST, BRIGHT, score="srg", keywords={"segments": 2, "points": 5}).values
    noise = torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert twice.shape == gain.shape
    flat = quality_gap(Quarters(), BRIGHT, FIRST, torch.ones_like(noise), score="srg", keywords={"segments": 2}).values
    assert (flat == 0).all()


@pytest.mark.parametrize("score", ["no_such", "roar", "max_sensitivity", "quality"])
def test_the_quality_gap_needs_a_score_of_maps(score):
    with pytest.raises(ValueError, match="^score: "):
        quality_gap(net("relu"), x, CLASSES, x, score=score)


# local Lipschitz


def test_local_lipschitz_as_in_quantus():
    import quantus

    model, seen = net("elu"), []
    maps = gradient(model, x, CLASSES)

    def of(model, x, target):
        seen.append(x)
        return gradient(model, x, target)

    found = local_lipschitz(model, x, CLASSES, maps, of, samples=5, radius=0.05, chunk=6)
    X = torch.cat(seen).unflatten(0, (5, 3))  # n B C H W
    moved = iter(X.numpy())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = quantus.LocalLipschitzEstimate(
            nr_samples=5, perturb_func=lambda arr, **_: next(moved).reshape(arr.shape), normalise=False, abs=False,
            disable_warnings=True, return_nan_when_prediction_changes=False,
        )(
            model=model, x_batch=x.numpy(), y_batch=CLASSES.numpy(), a_batch=maps.numpy(), channel_first=True,
            explain_func=lambda model, inputs, targets, **_: gradient(
                net("elu"), torch.as_tensor(inputs, dtype=torch.float64), torch.as_tensor(targets)).numpy(),
        )  # fmt: skip
    close(found.values, torch.tensor(theirs), rtol=1e-6)
    close(found.columns["relative"], found.values / maps.flatten(1).norm(dim=1))


def test_local_lipschitz_closed_forms():
    model = net("relu")
    run = partial(local_lipschitz, model, x, CLASSES, samples=4)
    close(run(3 * x, lambda model, x, target: 3 * x).values, torch.full((3,), 3.0))
    still = run(torch.zeros_like(x), lambda model, x, target: 0 * x)
    assert (still.values == 0).all()
    assert still.columns["relative"].isnan().all()
    with pytest.raises(ValueError, match="samples, radius"):
        run(x, lambda model, x, target: x, radius=0.0)


# generalised faithfulness


def test_gef_by_loops():
    model, maps = net("relu"), gradient(net("relu"), x, CLASSES)
    found = gef(model, x, CLASSES, maps, gradient, levels=4, repeats=3, sigma=0.3, seed=2)
    scaled = lambda a: a / a.square().mean().sqrt()  # noqa: E731
    for i in range(3):
        c, rho = CLASSES[i], []
        for m in range(3):
            d_f, d_e = [], []
            for z, s in enumerate(np.linspace(1e-3, 0.3, 4)):
                f = noisy(model, float(s), 2 + 7919 * m + z)
                d_f.append(abs((f(x[i : i + 1]) - model(x[i : i + 1]))[0, c].item()))
                a = gradient(f, x[i : i + 1], CLASSES[i : i + 1])
                d_e.append((scaled(a) - scaled(maps[i : i + 1])).norm().item())
            rho.append(spearmanr(d_f, d_e)[0])
        assert found.values[i].item() == pytest.approx(np.mean(rho), abs=1e-6)


def test_gef_closed_forms():
    model = net("relu")
    first = model(x).detach().gather(1, CLASSES[:, None])[..., None, None]  # B 1 1 1

    def follows(f, x, target):
        moved = f(x).detach().gather(1, target[:, None])[..., None, None] - first
        return torch.cat([moved, torch.ones_like(moved)], dim=3)

    run = partial(gef, model, x, CLASSES, repeats=2)
    close(run(follows(model, x, CLASSES), follows).values, torch.ones(3))
    assert (run(x, lambda model, x, target: x).values == 0).all()
    seeds = iter(range(1000))
    noise = lambda model, x, target: torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(next(seeds)))  # noqa: E731
    assert run(noise(model, x, CLASSES), noise, repeats=20).values.abs().max() < 0.35
    f = noisy(model, 0.2, 0)
    pairs = zip(f.parameters(), model.parameters(), strict=True)
    factor = torch.cat([(p / q).detach().flatten() for p, q in pairs if q.ndim > 1])
    assert factor.mean().item() == pytest.approx(1, abs=0.02)
    assert factor.std().item() == pytest.approx(0.2, abs=0.02)
    for wrong in ({"levels": 1}, {"repeats": 0}, {"sigma": 0.001}):
        with pytest.raises(ValueError, match="^levels, repeats, sigma"):
            gef(model, x, CLASSES, x, gradient, **wrong)


# contrast


def test_contrastivity_by_loops():
    model = net("relu")
    found = contrastivity(model, x, CLASSES, input_x_gradient, points=4)
    for i in range(3):
        y = model(x[i : i + 1])[0]
        b = max((c for c in range(10) if c != CLASSES[i]), key=lambda c: y[c].item())
        p, q = (input_x_gradient(model, x[i : i + 1], torch.tensor([c])).sum(dim=1)[0] for c in (CLASSES[i], b))
        a = p - q
        order, gaps = a.flatten().argsort(descending=True), []
        for alpha in np.linspace(0.1, 0.9, 4):
            image = x[i].clone().flatten(1)
            image[:, order[: int(alpha * 1024)]] = 0
            p = model(image.view(1, 3, 32, 32)).softmax(dim=1)[0]
            gaps.append((p[CLASSES[i]] - p[b]).item())
        close(found.curves["contrast"][i], torch.tensor(gaps, dtype=torch.float64))
        assert found.values[i].item() == pytest.approx(np.trapezoid(gaps, np.linspace(0.1, 0.9, 4)))


def test_contrastivity_closed_forms():
    class Linear(nn.Module):
        def forward(self, x):
            return torch.stack(
                [x.sum(dim=(1, 2, 3)), x[..., :8].sum(dim=(1, 2, 3)), 0 * x.sum(dim=(1, 2, 3)) - 9], dim=1
            )

    run = partial(contrastivity, Linear(), BRIGHT, FIRST)
    best = run(input_x_gradient)  # the right half speaks for the first class against the second
    assert (best.values < best.columns["random"]).all()
    assert (run(lambda *a: -input_x_gradient(*a)).values > best.columns["random"]).all()
    blind = run(lambda model, x, target: x)
    assert torch.equal(blind.values, run(lambda model, x, target: torch.ones_like(x)).values)
    assert torch.allclose(best.columns["random"], run(gradient).columns["random"])
    with pytest.raises(ValueError, match="^points"):
        run(gradient, points=1)
    with pytest.raises(ValueError, match="^model: a contrast needs two classes"):
        contrastivity(nn.Sequential(nn.Flatten(), nn.Linear(768, 1).double()), BRIGHT, FIRST, gradient)


# earth mover's distance


def literal_distance(p, q, at):
    n = len(p)
    cost = np.linalg.norm(at[:, None] - at[None], axis=2).flatten()
    sums = np.concatenate([np.kron(np.eye(n), np.ones(n)), np.kron(np.ones(n), np.eye(n))])
    return linprog(cost, A_eq=sums, b_eq=np.concatenate([p / p.sum(), q / q.sum()])).fun


def test_the_earth_mover_by_a_linear_programme():
    maps = torch.randn(3, 2, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mask = torch.zeros(3, 5, 5, dtype=torch.bool)
    mask[0, 1:3, 1:4] = mask[1, 4, 4] = mask[2, :, 0] = True
    at = np.stack(np.meshgrid(np.arange(5.0), np.arange(5.0), indexing="ij"), axis=-1).reshape(-1, 2)
    found = earth_mover(maps, mask)
    for i in range(3):
        p, q = maps[i].sum(dim=0).abs().flatten().numpy(), mask[i].flatten().double().numpy()
        assert found.values[i].item() == pytest.approx(1 - literal_distance(p, q, at) / np.hypot(4, 4), abs=1e-6)


def test_the_earth_mover_closed_forms():
    mask = torch.zeros(4, 32, 32, dtype=torch.bool)
    mask[0, 8:16, 8:24] = mask[1, :4, :4] = mask[2, :4, :4] = True
    maps = mask[:, None].double()
    maps[1] = 0
    maps[1, 0, -4:, -4:] = 1  # the opposite corner
    maps[2] = 0
    maps[2, 0, :4, 4:8] = -3  # the next cell; the size counts
    found = earth_mover(maps, mask).values
    close(found[:3], torch.tensor([1.0, 0.0, 1 - 4 / np.hypot(28, 28)]))
    assert found[3].isnan()
    double = lambda v: v.repeat_interleave(2, -1).repeat_interleave(2, -2)  # noqa: E731
    large = earth_mover(double(maps), double(mask))
    close(large.values[:3], found[:3])
    zero = torch.zeros_like(maps)
    close(earth_mover(zero, mask).values[:3], earth_mover(zero + 1, mask).values[:3])
    with pytest.raises(ValueError, match="^cells"):
        earth_mover(maps, mask, cells=1)


# F-Fidelity


@pytest.fixture(scope="module")
def few():
    d = digits()
    return Data("few digits", d.x_train[:600], d.y_train[:600], d.x_test[:60], d.y_test[:60])


def test_f_fidelity_by_loops(few):
    seen = []

    def of(model, x, target):
        seen.append(model)
        return input_x_gradient(model, x, target)

    run = {"sizes": (0.2, 0.6), "samples": 3, "epochs": 3, "tuning": 2}
    found = f_fidelity(few, of, seed=1, **run)
    net, rng = seen[0], torch.Generator().manual_seed(1)
    colour = few.x_train.mean()
    a = input_x_gradient(net, few.x_test, few.y_test).sum(dim=1)
    for s, column in ((0.2, 0), (0.6, 1)):
        k = round(s * 64)
        for name, size in (("plus", k), ("minus", 64 - k)):
            draws, part = [torch.rand(60, 8, 8, generator=rng) for _ in range(3)], min(0.5, 0.1 * 64 / size)
            for i in range(60):
                order = a[i].flatten().argsort(descending=True, stable=True)
                chosen = set(order[:k].tolist() if name == "plus" else order[k:].tolist())
                y = few.y_test[i].item()
                after = []
                for r in draws:
                    image = few.x_test[i].clone()
                    for p in chosen:
                        if r[i, p // 8, p % 8] < part:
                            image[0, p // 8, p % 8] = colour
                    after.append(net(image[None]).argmax().item() == y)
                before = net(few.x_test[i : i + 1]).argmax().item() == y
                assert found.curves[name][i, column].item() == pytest.approx(before - np.mean(after))
    close(found.values, (found.curves["plus"] - found.curves["minus"]).mean(dim=1))


def test_f_fidelity_tells_a_map_from_noise_and_tunes_the_network(few):
    run = partial(f_fidelity, few, sizes=(0.1, 0.3), samples=20, epochs=6, tuning=4)
    ig = run(partial(integrated_gradients, steps=8))
    noise = torch.Generator().manual_seed(0)
    random = run(lambda model, x, target: torch.randn(x.shape, generator=noise))
    turned = run(lambda *a: -integrated_gradients(*a, steps=8))
    assert ig.values.mean() > random.values.mean() + 0.02 > turned.values.mean() + 0.02
    assert random.values.mean().abs() < 0.03
    assert ig.facts["accuracy, fine-tuned"] > 0.8
    f = train(small_cnn(few, 0), few.x_train, few.y_train, epochs=6)
    assert ig.facts["accuracy, trained"] == accuracy(f, few.x_test, few.y_test)


@pytest.mark.parametrize(
    "wrong", [{"sizes": ()}, {"sizes": (0.5, 1.0)}, {"alpha": 0.0}, {"beta": 1.5}, {"samples": 0}, {"tuning": 0}]
)
def test_f_fidelity_names_what_is_wrong(wrong, few):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        f_fidelity(few, gradient, **wrong)


def test_they_are_checks():
    names = {"srg", "quality_gap", "local_lipschitz", "gef", "contrastivity", "earth_mover", "f_fidelity"}
    assert names <= set(CHECKS)
