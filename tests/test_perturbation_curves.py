"""Perturbation curves: hand-computed examples, other libraries, literal loops, and what a linear network must give."""

import math
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve, gaussian_filter
from scipy.sparse.linalg import spsolve
from scipy.stats import spearmanr
from torch import nn

from helpers import CLASSES, images
from nets import net
from sanity_checks import CHECKS
from sanity_checks import irof as irof_file
from sanity_checks._impute import factorised, impute, iterated
from sanity_checks._small import Data, small_cnn, train
from sanity_checks.insertion_deletion import insertion_deletion, substrate
from sanity_checks.irof import irof, superpixels
from sanity_checks.keep_remove import keep_remove
from sanity_checks.pixel_flipping import pixel_flipping
from sanity_checks.road import random_ties, road
from sanity_checks.roar import roar
from sanity_checks.sic_aic import blurred, entropy, information_curve, sic_aic
from sanity_checks.single_deletion import single_deletion

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # their imports
    import quantus
    from pytorch_grad_cam.metrics.perturbation_confidence import (
        PerturbationConfidenceMetric,
        RemoveLeastRelevantFirst,
        RemoveMostRelevantFirst,
    )
    from pytorch_grad_cam.metrics.road import NoisyLinearImputer
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget
    from saliency.metrics import pic

close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-12)
x = images()
sigmoid = torch.sigmoid


class Linear(nn.Module):
    """Logits w . x and a constant: the probability of class 0 is sigmoid(w . x - offset)."""

    def __init__(self, w, offset=0.0):
        super().__init__()
        self.w, self.offset = w, offset

    def forward(self, x):
        y = (self.w * x).sum(dim=(1, 2, 3))
        return torch.stack([y, torch.full_like(y, self.offset)], dim=1)


class Lively(nn.Module):
    """A network whose logits spread over classes and images, so that probabilities move."""

    def __init__(self, around=x, spread=3.0):
        super().__init__()
        self.net = net("relu").requires_grad_(False)
        y = self.net(around)
        self.mean, self.scale = y.mean(dim=0), spread / y.std(dim=0)
        self.eval()

    def forward(self, x):
        return (self.net(x) - self.mean.to(x)) * self.scale.to(x)


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def noise(*shape, seed=3):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def order(a, highest=True):
    """Pixels of one map H W by value, equal ones by position."""
    sign = -1 if highest else 1
    return sorted(range(a.numel()), key=lambda u: (sign * float(a.flatten()[u]), u))


def prob(model, image, c):
    return float(model(image[None]).softmax(dim=1)[0, c])


# -- insertion and deletion ------------------------------------------------------------------------------------------

SIXTEEN = (torch.arange(16, 0, -1, dtype=torch.float64) / 10).view(1, 1, 4, 4)  # 1.6 1.5 ... 0.1, in all 13.6
ZERO = torch.tensor([0])


def test_insertion_and_deletion_by_hand():
    model = Linear(torch.ones(1, 4, 4).double(), offset=5.0)
    found = insertion_deletion(model, SIXTEEN, ZERO, SIXTEEN, step=4, insertion="mean")
    out = sigmoid(double([8.6, 2.8, -1.4, -4.0, -5.0]))  # 13.6, without 5.8, 4.2, 2.6 and 1.0; minus 5
    into = sigmoid(double([-5.0, 0.8, 5.0, 7.6, 8.6]))
    close(found.curves["deletion"][0], out)
    close(found.curves["insertion"][0], into)
    deletion = (out[0] / 2 + out[1] + out[2] + out[3] + out[4] / 2) / 4
    insertion = (into[0] / 2 + into[1] + into[2] + into[3] + into[4] / 2) / 4
    close(found.columns["deletion"], deletion[None])
    close(found.columns["insertion"], insertion[None])
    close(found.values, (insertion - deletion)[None])
    assert found.at == (0.0, 0.25, 0.5, 0.75, 1.0)


def test_insertion_and_deletion_forwards():
    model = Linear(torch.ones(1, 4, 4).double(), offset=5.0)
    run = partial(insertion_deletion, model, SIXTEEN, ZERO, step=1, insertion="mean")
    best, worst = run(SIXTEEN).values, run(-SIXTEEN).values
    random = [float(run(noise(1, 1, 4, 4, seed=s)).values) for s in range(40)]
    assert worst < min(random)
    assert max(random) < best
    mean, error = np.mean(random), np.std(random) / 40**0.5
    assert abs(mean) < 3 * error  # with one substrate for both, noise scores 0


def test_the_blur_of_rise_is_nearly_a_box():
    impulse = torch.zeros(1, 1, 21, 21, dtype=torch.float64)
    impulse[..., 10, 10] = 1
    kernel = substrate(impulse, "rise")[0, 0, 5:16, 5:16]
    close(kernel.sum(), double(1.0))
    assert round(float(kernel[5, 5] / kernel[0, 0]), 2) == 1.14
    impulse = torch.nn.functional.pad(impulse, (30, 30, 30, 30))
    gauss = substrate(impulse, "blur")[0, 0]
    assert round(float(gauss[40, 40] / gauss[35, 35]), 2) == 2.72  # exp(25 / 25)


def test_insertion_and_deletion_as_the_repository_of_rise():
    model, maps = Lively(), noise(3, 1, 32, 32)
    found = insertion_deletion(model, x, CLASSES, maps, step=150)
    dirac = np.zeros((11, 11))
    dirac[5, 5] = 1
    kernel = gaussian_filter(dirac, 5)
    for b in range(3):
        blur = torch.tensor(np.stack([convolve(c, kernel, mode="constant") for c in x[b].numpy()]))  # zeros outside
        salient = order(maps[b, 0])
        for name, start, end in (("deletion", x[b], torch.zeros_like(x[b])), ("insertion", blur, x[b])):
            image, scores = start.clone(), []
            for step in range(7 + 1):  # 1024 / 150 = 6.8
                scores.append(prob(model, image, CLASSES[b]))
                for u in salient[150 * step : 150 * (step + 1)]:
                    image[:, u // 32, u % 32] = end[:, u // 32, u % 32]
            close(found.curves[name][b], double(scores))
            close(found.columns[name][b], double((sum(scores) - scores[0] / 2 - scores[-1] / 2) / 7))
    assert found.curves["insertion"].std(dim=1).min() > 1e-3


# -- pixel flipping --------------------------------------------------------------------------------------------------


def from_quantus(metric, model, images, maps, target, **keywords):
    metric = metric(
        abs=False, normalise=False, return_aggregate=False, perturb_baseline=0.0, disable_warnings=True, **keywords
    )
    a, b = images.float().numpy(), maps.float().numpy()
    return double(
        np.asarray(metric(model.float(), a, target.numpy(), b, softmax=True, device="cpu", channel_first=True))
    )


class Grey(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Lively()
        self.eval()

    def forward(self, x):
        return self.net(x.expand(-1, 3, -1, -1))


def test_pixel_flipping_as_quantus():
    model, grey, maps = Grey(), images(3, 16, 16)[:, :1], noise(3, 1, 16, 16)
    every = pixel_flipping(model, grey, CLASSES, maps, region=1, steps=256, fill="mean", softmax=True)
    theirs = from_quantus(quantus.PixelFlipping, model, grey, maps, CLASSES, features_in_step=16)
    close(every.curves["morf"][:, 16::16], theirs, rtol=0, atol=1e-5)  # theirs: float32, without the image itself


def test_region_perturbation_and_selectivity_as_quantus():
    model, maps = Lively(), noise(3, 1, 32, 32)
    found = pixel_flipping(model, x, CLASSES, maps, region=4, steps=20, fill="mean", softmax=True)
    run = partial(from_quantus, model=model, images=x, maps=maps, target=CLASSES, patch_size=4)
    for name in ("morf", "lerf"):
        curve = found.curves[name]
        theirs = run(quantus.RegionPerturbation, regions_evaluation=20, order=name)
        close(curve[:, :1] - curve[:, 1:], theirs, rtol=0, atol=1e-5)
        close(found.columns[f"aopc_{name}"], theirs.sum(dim=1) / 21, rtol=0, atol=1e-5)
    model.double()
    found = pixel_flipping(model, x, CLASSES, maps, region=4, steps=64, fill="mean", softmax=True)
    close(found.curves["morf"][:, 1:], run(quantus.Selectivity), rtol=0, atol=1e-5)
    assert found.curves["morf"].std(dim=1).min() > 1e-2


def test_pixel_flipping_by_hand():
    model = Linear(torch.ones(1, 4, 4).double())
    found = pixel_flipping(model, SIXTEEN, ZERO, SIXTEEN, region=2, fill="mean")
    # sums of the four regions: 5.4 (1.6 1.5 1.2 1.1), 4.6, 2.2, 1.4
    close(found.curves["morf"][0], double([13.6, 8.2, 3.6, 1.4, 0.0]))
    close(found.curves["lerf"][0], double([13.6, 12.2, 10.0, 5.4, 0.0]))
    close(found.columns["aopc_morf"], double([(5.4 + 10.0 + 12.2 + 13.6) / 5]))
    close(found.columns["aopc_lerf"], double([(1.4 + 3.6 + 8.2 + 13.6) / 5]))
    close(found.values, double([(4.0 + 6.4 + 4.0) / 5]))
    assert found.at == (0.0, 0.25, 0.5, 0.75, 1.0)


def test_pixel_flipping_literally_with_noise_and_regions_cut_off():
    model, image, maps = Lively(), images(2, 20, 31), noise(2, 1, 20, 31)
    found = pixel_flipping(model, image, CLASSES[:2], maps, steps=5, repeats=3, seed=7)
    regions = [(slice(i, i + 9), slice(j, j + 9)) for i in (0, 9, 18) for j in (0, 9, 18, 27)]
    for b in range(2):
        R = double([float(maps[b, 0][r].sum()) for r in regions])
        for name, highest in (("morf", True), ("lerf", False)):
            rng, curves = torch.Generator().manual_seed(7), []
            for _ in range(3):
                lo, hi = (f(image[b].flatten(1), dim=1)[:, None, None] for f in (torch.amin, torch.amax))
                uniform = lo + (hi - lo) * torch.rand(3, 20, 31, generator=rng)
                changed, f = image[b].clone(), []
                for k in [None, *order(R, highest)[:5]]:
                    if k is not None:
                        changed[:, regions[k][0], regions[k][1]] = uniform[:, regions[k][0], regions[k][1]]
                    f.append(float(model(changed[None])[0, CLASSES[b]]))
                curves.append(f)
            close(found.curves[name][b], double(curves).mean(dim=0))
    close(found.values, (found.curves["lerf"] - found.curves["morf"]).mean(dim=1))
    assert found.values.abs().min() > 1e-2
    assert found.at[-1] == 5 / 12


# -- ROAD ------------------------------------------------------------------------------------------------------------

GRAD_CAM = pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # it hands tensors to numpy


@pytest.mark.parametrize("share", [0.1, 0.9])
@pytest.mark.parametrize("smooth", [False, True])
def test_imputation_in_batches_solves_the_same_systems(share, smooth):
    """Conjugate gradients, for devices without a sparse factorisation."""
    x, rng = images(4), torch.Generator().manual_seed(0)
    a = torch.randn(4, 1, *((5, 5) if smooth else (32, 32)), generator=rng)
    a = torch.nn.functional.interpolate(a, (32, 32), mode="bilinear").flatten(1)
    mask = (a.argsort(dim=1).argsort(dim=1) < share * 1024).view(4, 32, 32)
    mask[3] = False  # an image without a hole
    torch.testing.assert_close(iterated(x, mask), factorised(x, mask), rtol=1e-5, atol=1e-6)
    assert torch.equal(iterated(x, mask)[3], x[3])


@GRAD_CAM
@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_imputation_as_grad_cam(share):
    image, mask = images(2, 20, 31), torch.rand(2, 20, 31, generator=torch.Generator().manual_seed(0)) < share
    found = impute(image, mask, noise=0.0)
    for b in range(2):
        theirs = NoisyLinearImputer(noise=0)(image[b].float(), (~mask[b]).float())
        close(found[b], theirs.double(), rtol=0, atol=1e-6)  # theirs: rounded to float32
    assert torch.equal(found[~mask[:, None].expand_as(found)], image[~mask[:, None].expand_as(image)])


def test_imputation_by_hand():
    image = double([[1.0, 9, 3], [5, 9, 7], [9, 9, 9]])[None, None]
    mask = torch.zeros(1, 3, 3, dtype=torch.bool)
    mask[0, 0, 1] = True  # on the border: two direct and two diagonal neighbours, and the one below
    close(impute(image, mask, 0.0)[0, 0, 0, 1], double((1 / 6 + 3 / 6 + 9 / 6 + 5 / 12 + 7 / 12) / (3 / 6 + 2 / 12)))
    flat = impute(torch.full((1, 2, 5, 7), 3.0).double(), torch.arange(35).view(1, 5, 7) > 0, 0.0)
    close(flat, torch.full_like(flat, 3.0))
    assert torch.equal(impute(image, torch.zeros_like(mask)), image)
    with pytest.raises(ValueError, match="mask: must leave"):
        impute(image, ~torch.zeros_like(mask))


def test_imputing_pixels_and_normalising_is_imputing_normalised_pixels():
    mean, std = double([0.485, 0.456, 0.406])[:, None, None], double([0.229, 0.224, 0.225])[:, None, None]
    photo, mask = torch.rand(2, 3, 16, 20).double(), torch.rand(2, 16, 20) < 0.6
    normalise = lambda image: (image - mean) / std  # noqa: E731
    theirs = normalise(impute(photo, mask, 0.01, seed=5))  # the authors' protocol
    close(impute(normalise(photo), mask, (0.01 / std).flatten(), seed=5), theirs)


def test_noise_of_the_imputation():
    image, mask = torch.zeros(2, 3, 40, 40), torch.ones(2, 40, 40, dtype=torch.bool)
    mask[:, 0] = False
    found = impute(image, mask, torch.tensor([0.01, 0.1, 1.0]))
    close(found[:, :, 1:].std(dim=(0, 2, 3)), torch.tensor([0.01, 0.1, 1.0]), rtol=0.05, atol=0)
    assert torch.equal(found[0], found[1])  # one draw for the batch
    assert not torch.equal(found, impute(image, mask, torch.tensor([0.01, 0.1, 1.0]), seed=1))


@GRAD_CAM
def test_road_as_grad_cam_on_confidence():
    model, image = Lively(), images(3, 25, 40)  # 1000 pixels: percentiles and shares cut at the same place
    maps = torch.rand(3, 1, 25, 40, generator=torch.Generator().manual_seed(1)).double()
    shares = (0.1, 0.3, 0.5, 0.9)
    found = road(model, image, CLASSES, maps, percentages=shares, noise=0.0)
    targets = [ClassifierOutputSoftmaxTarget(int(c)) for c in CLASSES]
    clean = double([prob(model, image[b], CLASSES[b]) for b in range(3)])
    for name, remove in (("morf", RemoveMostRelevantFirst), ("lerf", RemoveLeastRelevantFirst)):
        for i, p in enumerate(shares):
            metric = PerturbationConfidenceMetric(remove(100 - 100 * p, NoisyLinearImputer(noise=0)))
            theirs = double(metric(image.float(), maps[:, 0].numpy(), targets, model.float()))
            close(found.curves[name][:, i] - clean, theirs, rtol=0, atol=1e-5)
    close(found.values, (found.curves["lerf"] - found.curves["morf"]).mean(dim=1))
    assert found.values.abs().min() > 1e-3


def test_road_literally():
    model, maps, std = Lively(), noise(3, 2, 32, 32), (0.2, 0.3, 0.5)
    target = model(x).argmax(dim=1)
    found = road(model, x, target, maps, std=std, seed=4)
    N = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(4))
    near = {(i, j): 1 / 6 if i * j == 0 else 1 / 12 for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)}
    for b, p in ((0, 0.1), (1, 0.4), (2, 0.7)):
        for name, highest in (("morf", True), ("lerf", False)):
            gone = order(maps[b].sum(dim=0), highest)[: int(1024 * p)]
            A, B = np.zeros((1024, 1024)), x[b].flatten(1).T.numpy().copy()
            for u in range(1024):
                A[u, u] = 1
            for u in gone:
                inside = {(u // 32 + i, u % 32 + j): w for (i, j), w in near.items()}
                inside = {v: w for v, w in inside.items() if 0 <= v[0] < 32 and 0 <= v[1] < 32}
                B[u] = 0
                for (i, j), w in inside.items():
                    A[u, 32 * i + j] = -w / sum(inside.values())
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # wants another sparse format
                solved = torch.tensor(spsolve(A, B)).T.view(3, 32, 32)
            mask = torch.zeros(1024, dtype=torch.bool)
            mask[gone] = True
            image = solved + mask.view(32, 32) * N * 0.01 / double(std)[:, None, None]
            i = found.at.index(p)
            close(found.curves[name][b, i], double(prob(model, image, target[b])), rtol=1e-7, atol=1e-10)
            top = float(model(image[None]).argmax() == target[b])
            assert float(found.curves[f"{name}_accuracy"][b, i]) == top
    for name in ("morf", "lerf", "morf_accuracy", "lerf_accuracy"):
        close(found.columns[name], found.curves[name].mean(dim=1))
    assert 0 < found.curves["morf_accuracy"].mean() < 1


def test_random_ties():
    a, r = noise(2, 5, 6), torch.rand(2, 5, 6)
    assert torch.equal(random_ties(a, r), random_ties(a, -r))  # no ties, nothing to break
    a = (a > 0).double()
    found = random_ties(a, r)
    for b in range(2):
        by = sorted(range(30), key=lambda u: (-float(a[b].flatten()[u]), -float(r[b].flatten()[u])))
        assert found[b].flatten()[by].tolist() == list(range(30))
    flat = torch.zeros(3, 1, 32, 32).double()
    assert torch.equal(road(Lively(), x, CLASSES, flat, percentages=(0.3,)).values, torch.zeros(3).double())


# -- IROF ------------------------------------------------------------------------------------------------------------


def test_irof_by_hand(monkeypatch):
    quarters = torch.arange(4).view(2, 2).repeat_interleave(2, 0).repeat_interleave(2, 1)[None]
    monkeypatch.setattr(irof_file, "superpixels", lambda x, segments: quarters)
    model = Linear(torch.ones(1, 4, 4).double(), offset=5.0)
    found = irof(model, SIXTEEN, ZERO, -SIXTEEN, segments=6)  # lowest first: 1.4, 2.2, 4.6, 5.4
    p = sigmoid(double([8.6, 7.2, 5.0, 0.4, -5.0]))
    over = (p[0] / 2 + p[1] + p[2] + p[3] + p[4] / 2) / 4 / p[0]
    close(found.values, 1 - over[None])
    close(found.curves["p"][0], torch.cat([p, p[-1:], p[-1:]]) / p[0])  # flat when no segment is left
    assert found.columns["segments"].tolist() == [4.0]


def test_irof_literally_on_superpixels():
    model, maps = Lively(), noise(3, 1, 4, 4)
    smooth = substrate(x, "blur") * 5 + 0.2 * torch.tensor([1.0, 2, 3]).double().view(3, 1, 1, 1)
    found = irof(model, smooth, CLASSES, maps, segments=30, fill="image mean")
    labels = superpixels(smooth, 30)
    up = nn.functional.interpolate(maps, size=(32, 32), mode="bilinear")[:, 0]
    for b in range(3):
        L = int(labels[b].max()) + 1
        assert labels[b].unique().tolist() == list(range(L))
        assert 1 < L <= 30
        S = double([float(up[b][labels[b] == s].mean()) for s in range(L)])
        image, p = smooth[b].clone(), [prob(model, smooth[b], CLASSES[b])]
        for s in order(S):
            image[:, labels[b] == s] = smooth[b].mean(dim=(1, 2))[:, None]
            p.append(prob(model, image, CLASSES[b]))
        areas = [(p[i] + p[i + 1]) / 2 / p[0] for i in range(L)]
        close(found.values[b], double(1 - sum(areas) / L))
    assert len(set(found.columns["segments"].tolist())) > 1


def test_irof_extremes():
    constant = Linear(torch.zeros(3, 32, 32).double())
    close(irof(constant, x, ZERO.expand(3), x, segments=10).values, torch.zeros(3).double())
    impossible = Linear(torch.zeros(3, 32, 32).double(), offset=1e4)
    assert irof(impossible, x, ZERO.expand(3), x, segments=10).values.isnan().all()
    for n in (1, 2, 7, 300):
        assert superpixels(x, n).max() < n
    flat = superpixels(torch.zeros(1, 1, 12, 9), 5)
    assert flat.shape == (1, 12, 9)


# -- performance information curves ----------------------------------------------------------------------------------


@pytest.fixture
def pair(monkeypatch):
    monkeypatch.setattr(np, "trapz", np.trapezoid, raising=False)
    return pic


def photographs(n=3, h=24, w=31):
    """Smooth colours with texture: 8 bits, B H W C."""
    a = nn.functional.interpolate(noise(n, 3, 4, 5), size=(h, w), mode="bicubic") + 0.15 * noise(n, 3, h, w)
    return (128 + 40 * a).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalised(photos):
    a = torch.from_numpy(photos).double().permute(0, 3, 1, 2) / 255
    return (a - double(MEAN).view(3, 1, 1)) / double(STD).view(3, 1, 1)


@pytest.mark.parametrize("monotonous", [True, False])
def test_sic_and_aic_as_pair(pair, monotonous):
    model, photos, seed = Lively(normalised(photographs(6))), photographs(6), 2
    image, maps = normalised(photos), noise(6, 1, 24, 31)
    target = model(image).argmax(dim=1).detach()
    target[5] = (target[5] + 1) % 10
    maps[2].clamp_(max=0.2)  # ties: all of them are revealed at once
    run = partial(sic_aic, model, image, target, maps, mean=MEAN, std=STD, monotonous=monotonous, seed=seed)
    found, thresholds = run(min_pred=0.4), CHECKS["sic_aic"].params["thresholds"]
    chosen = torch.randperm(24 * 31, generator=torch.Generator().manual_seed(seed))[:7]
    mask = np.zeros(24 * 31, dtype=bool)
    mask[chosen.numpy()] = True
    left_out = 0
    for b in range(6):
        softmax = lambda z, b=b: model(normalised(z)).softmax(dim=1)[:, target[b]].detach().numpy()  # noqa: E731
        correct = lambda z, b=b: (model(normalised(z)).argmax(dim=1) == target[b]).double().numpy()  # noqa: E731
        for name, area, f in (("sic", found.values, softmax), ("aic", found.columns["aic"], correct)):
            arguments = (photos[b], maps[b, 0].numpy(), mask.reshape(24, 31), f, list(thresholds), 0.4, monotonous)
            try:
                theirs = pair.compute_pic_metric(*arguments)
            except pair.ComputePicMetricError:
                assert area[b].isnan()
                assert found.curves[name][b].isnan().all()
                left_out += 1
                continue
            close(found.curves[name][b], double(theirs.curve_y), rtol=0, atol=1e-12)
            close(area[b], double(theirs.auc))
            close(double(found.at), double(theirs.curve_x))
    assert 2 <= left_out <= 8
    assert found.values[~found.values.isnan()].std() > 1e-2
    assert run(min_pred=1.1).values.isnan().all()


def test_information_curve_by_hand():
    at = np.linspace(0, 1, 1001)
    H, f = double([100, 90, 150, 140, 200]).numpy(), double([0.1, 0.3, 0.7, 0.5, 0.9]).numpy()
    # points (0, 0.25) (0.5, 0.75) (0.4, 0.5 or so far 0.75) between (0, 0), which comes last at 0, and (1, 1)
    running = np.interp(at, [0, 0, 0.4, 0.5, 1], [0.25, 0, 0.75, 0.75, 1])
    assert np.allclose(information_curve(H, f, 0.8), running, rtol=0, atol=1e-12)
    falling = np.interp(at, [0, 0, 0.4, 0.5, 1], [0.25, 0, 0.5, 0.75, 1])
    assert np.allclose(information_curve(H, f, 0.8, monotonous=False), falling, rtol=0, atol=1e-12)
    assert running[0] == 0
    assert np.isnan(information_curve(H, f, 0.95)).all()
    assert np.isnan(information_curve(H, np.where(f == 0.1, 0.9, f), 0.8)).all()  # no better than blurred
    assert np.isnan(information_curve(np.where(H == 100, 200, H), f, 0.8)).all()  # no larger than blurred


def test_blurred_image_and_its_information_as_pair(pair):
    photo = photographs(1)[0]
    for share in (0.0, 0.01, 0.3, 1.1):
        seen = torch.rand(24, 31, generator=torch.Generator().manual_seed(0)).numpy() < share
        theirs = pair.create_blurred_image(photo, seen)
        assert np.array_equal(blurred(photo, seen), theirs)
        assert entropy(blurred(photo, seen)) == pair.estimate_image_entropy(theirs)
        grey = pair.create_blurred_image(photo[..., 0], seen).reshape(24, 31)  # all seen: it keeps its channel
        assert np.array_equal(blurred(photo[..., :1], seen)[..., 0], grey)
        assert entropy(blurred(photo[..., :1], seen)) == pair.estimate_image_entropy(grey)
    assert entropy(photo[..., :2]) == sum(pair.estimate_image_entropy(photo[..., c]) for c in (0, 1))


def test_sic_without_normalisation_uses_the_range_of_the_image():
    model, image, maps = Lively(normalised(photographs(6))), normalised(photographs(2)), noise(2, 1, 24, 31)
    lo, hi = (f(image, dim=(1, 2, 3), keepdim=True) for f in (torch.amin, torch.amax))
    target = model(image).argmax(dim=1).detach()
    found = sic_aic(model, image, target, maps, min_pred=0.0)
    for b in range(2):
        std = float(1 / (hi[b] - lo[b]))
        mean, std = [-float(lo[b]) * std] * 3, [std] * 3
        again = sic_aic(model, image[b : b + 1], target[b : b + 1], maps[b : b + 1], min_pred=0.0, mean=mean, std=std)
        close(again.curves["sic"][0], found.curves["sic"][b])
    assert not found.values.isnan().any()


# -- keep and remove masks -------------------------------------------------------------------------------------------


def test_keep_and_remove_by_hand():
    signs = double([1, -1, 1, 1, -1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, 1]).view(1, 1, 4, 4)
    image, model = SIXTEEN, Linear(signs[0], offset=1.0)
    found = keep_remove(model, image, ZERO, signs * image, fractions=(0.125, 0.25, 1.0), fill="mean")
    # positive values, highest first: 1.6 1.4 1.3 1.1 1.0 .. 0.3 0.1; negative: -1.5 -1.2 -0.2
    total = 13.6 - 2.9
    close(found.curves["kpm"][0], double([1.6 + 1.4, 1.6 + 1.4 + 1.3 + 1.1, total]))
    close(found.curves["rpm"][0], double([0.1 + 0.3, 0.1 + 0.3 + 0.4 + 0.5, total]))
    close(found.curves["knm"][0], double([-2.7, -2.9, -2.9]))
    close(found.curves["rnm"][0], double([-1.4, -2.9, -2.9]))
    assert found.curves["kam"][0].tolist() == [0, 1, 1]  # 1.6 - 1.5 and + 1.4 + 1.3, against 1.0
    assert found.curves["ram"][0].tolist() == [0, 0, 1]
    area = lambda y: 0.125 * (y[0] + y[1]) / 2 + 0.75 * (y[1] + y[2]) / 2  # noqa: E731
    for name in ("kpm", "rpm", "knm", "rnm", "kam", "ram"):
        close(found.columns[name][0], area(found.curves[name][0]))
    close(found.values[0], area(double([2.6, 4.1, 0.0])))


def test_keep_and_remove_literally():
    """One mask at a time, as in the authors' experiment: the top values are left, or the bottom ones above 0."""
    model, image, maps = Lively(), images(3, 36, 30), noise(3, 3, 36, 30)
    found = keep_remove(model, image, CLASSES, maps)
    fractions = np.geomspace(0.01, 1, 16)
    line = np.exp(-((np.arange(51) - 25) ** 2) / (2 * 41) ** 2)
    kernel = np.outer(line, line) / np.outer(line, line).sum()
    for b in range(3):
        blur = torch.tensor(np.stack([convolve(c, kernel, mode="mirror") for c in image[b].numpy()]))
        a = maps[b].mean(dim=0).flatten()
        for name, P in (("pm", a), ("nm", -a), ("am", a.abs())):
            above = [u for u in order(P) if P[u] > 0]
            for i in (0, 7, 12, 15):
                k = min(int(fractions[i] * 1080), len(above))
                for mask, left in (("k", above[:k]), ("r", above[::-1][:k])):
                    z = blur.flatten(1).clone()
                    z[:, left] = image[b].flatten(1)[:, left]
                    y = model(z.view(1, 3, 36, 30))[0]
                    y = float(y.argmax() == CLASSES[b]) if name == "am" else float(y[CLASSES[b]])
                    close(found.curves[mask + name][b, i], double(y), rtol=1e-9, atol=1e-9)
    for name, curve in found.curves.items():
        close(found.columns[name], torch.tensor(np.trapezoid(curve.numpy(), fractions, axis=1)))
    close(found.values, found.columns["kpm"] - found.columns["rpm"])


def test_keep_and_remove_on_maps_that_say_nothing():
    model, target = Linear(noise(3, 32, 32), offset=0.0), ZERO.expand(3)
    run = partial(keep_remove, model, x, target, fill="mean")
    assert torch.equal(run(torch.zeros_like(x)).values, torch.zeros(3).double())
    assert run(model.w * x).values.min() > 0
    values = torch.cat([run(noise(3, 1, 32, 32, seed=s)).values for s in range(30)])
    assert values.mean().abs() < 3 * values.std() / len(values) ** 0.5


# -- single deletion -------------------------------------------------------------------------------------------------


def test_single_deletion_of_a_linear_network():
    for h, w in ((32, 32), (30, 27)):  # cells of one size, or not
        image = images(3, h, w)
        model = Linear(noise(3, h, w))
        exact = model.w * image
        run = partial(single_deletion, model, image, ZERO.expand(3))
        close(run(exact).values, torch.ones(3).double())
        close(run(-exact).values, -torch.ones(3).double())
        close(run(exact.sum(dim=1, keepdim=True)).values, torch.ones(3).double())
        nothing = [torch.zeros_like(exact), torch.full_like(exact, 0.1), torch.full((3, 1, 7, 7), 0.1).double()]
        for flat in nothing:
            assert torch.equal(run(flat).values, torch.zeros(3).double())
    dead = Linear(torch.zeros(3, 32, 32).double())
    assert torch.equal(single_deletion(dead, x, ZERO.expand(3), x).values, torch.zeros(3).double())


@pytest.mark.parametrize(("h", "w"), [(32, 32), (30, 27)])
def test_single_deletion_literally(h, w):
    model, image, maps = Lively(), images(3, h, w), noise(3, 2, h, w)
    maps[:, :, : h // 2, : w // 2] = 0.0  # ties
    found = single_deletion(model, image, CLASSES, maps).values
    rows, cols = ([math.ceil(side * i / 4) for i in range(5)] for side in (h, w))
    for b in range(3):
        a, drop = [], []
        for i in range(4):
            for j in range(4):
                cell = (slice(None), slice(*rows[i : i + 2]), slice(*cols[j : j + 2]))
                deleted = image[b].clone()
                deleted[cell] = 0
                a.append(float(maps[b][cell].sum()))
                drop.append(float((model(image[b : b + 1]) - model(deleted[None]))[0, CLASSES[b]]))
        assert len(set(a)) < 16
        close(found[b], double(spearmanr(a, drop).statistic))


def test_single_deletion_of_noise_is_chance():
    model = Lively()
    values = torch.cat([single_deletion(model, x, CLASSES, noise(3, 1, 32, 32, seed=s)).values for s in range(20)])
    assert values.mean().abs() < 3 * values.std() / len(values) ** 0.5
    assert 0.15 < values.std() < 0.37  # 1 / sqrt(15) = 0.26


# -- ROAR ------------------------------------------------------------------------------------------------------------


def little(n=90, m=30):
    """Class c is a bright patch in corner c of 6 x 6 pixels."""
    rng = torch.Generator().manual_seed(0)
    y = torch.arange(n + m) % 4
    a = 0.1 * torch.rand(n + m, 1, 6, 6, generator=rng)
    for i, c in enumerate(y.tolist()):
        a[i, 0, 4 * (c // 2) : 4 * (c // 2) + 2, 4 * (c % 2) : 4 * (c % 2) + 2] += 1
    return Data("corners", a[:n], y[:n], a[n:], y[n:])


def brightness(model, x, target):
    return x


def corners(model, x, target):
    """Where any class can be: the same for all images, so the mask tells nothing."""
    a = torch.zeros_like(x)
    for i in (0, 4):
        for j in (0, 4):
            a[:, :, i : i + 2, j : j + 2] = 1
    return a


SHARES = {"percentages": (0.0, 0.45), "seeds": 2, "epochs": 10}


def test_roar_on_corners():
    data = little()
    found = roar(data, corners, **SHARES)
    right = found.curves["method"].mean(dim=0)
    assert right[0] > 0.95  # full images
    assert right[1] < 0.5  # 16 of 36 pixels gone: all that tells the class; chance is 0.25
    assert found.values.mean() > 0.2
    kept = roar(data, corners, percentages=(0.45, 0.8), seeds=1, epochs=10, keep=True)
    assert kept.curves["method"].mean(dim=0)[0] > 0.95  # of the other 20 pixels 16 are gone
    assert kept.values.mean() > 0.05
    close(kept.values, (kept.curves["method"] - kept.curves["random"]).mean(dim=1))


def test_roar_sees_nothing_where_the_mask_tells_the_class():
    """The objection of ROAD: the pixels are gone, and their shape still says which they were."""
    found = roar(little(), brightness, percentages=(0.12,), seeds=2, epochs=25)  # 4 of 36 pixels: the bright patch
    assert found.columns["method"].mean() > 0.9


def test_roar_of_a_constant_map_is_zero():
    found = roar(little(), lambda model, x, target: torch.ones_like(x), **SHARES)
    assert torch.equal(found.values, torch.zeros(30))
    assert found.facts["accuracy, method"] == found.facts["accuracy, random"]


def test_roar_literally():
    data = little()
    asked = []

    def of(model, x, target):
        asked.append((model, x, target))
        return x * torch.linspace(1, 2, 36).view(6, 6)

    found = roar(data, of, percentages=(0.0, 0.3), seeds=2, epochs=2, seed=3, chunk=50)
    assert torch.equal(torch.cat([t for _, _, t in asked]), torch.cat([data.y_train, data.y_test]))  # true classes
    full = train(small_cnn(data, 3), data.x_train, data.y_train, epochs=2, seed=3)
    assert all(a.equal(b) for a, b in zip(asked[0][0].state_dict().values(), full.state_dict().values(), strict=True))
    rng = torch.Generator().manual_seed(3)
    colour, right = float(data.x_train.mean()), {"method": 0, "random": 0}
    orders = {"method": [], "random": []}
    for part in (data.x_train, data.x_test):
        r = torch.rand(len(part), 6, 6, generator=rng)
        orders["random"].append(r)
        orders["method"].append(part[:, 0] * torch.linspace(1, 2, 36).view(6, 6))
    for name in orders:
        both = []
        for part, a in zip((data.x_train.clone(), data.x_test.clone()), orders[name], strict=True):
            for image, map_ in zip(part, a, strict=True):
                for u in order(map_)[:10]:  # 0.3 of 36
                    image[0, u // 6, u % 6] = colour
            both.append(part)
        for s in (3, 4):
            model = train(small_cnn(data, s), both[0], data.y_train, epochs=2, seed=s)
            right[name] = right[name] + (model(both[1]).argmax(dim=1) == data.y_test).float() / 2
        assert torch.equal(found.curves[name][:, 1], right[name])
    assert torch.equal(found.values, right["random"] - right["method"])
    assert right["method"].mean() != right["random"].mean()


# -- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "keywords", "message"),
    [
        ("insertion_deletion", {"step": 0}, "step: "),
        ("insertion_deletion", {"deletion": "black"}, "deletion: must be one of mean"),
        ("insertion_deletion", {"insertion": "black"}, "insertion: must be one of mean"),
        ("insertion_deletion", {"chunk": 0}, "chunk: "),
        ("pixel_flipping", {"region": 0}, "region, steps, repeats: "),
        ("pixel_flipping", {"fill": "black"}, "fill: must be uniform or"),
        ("road", {"percentages": (0.0, 0.5)}, "percentages: "),
        ("road", {"std": (0.2, 0.2)}, "std: one for each of the 3 channels"),
        ("irof", {"segments": 0}, "segments: "),
        ("irof", {"fill": "black"}, "fill: must be one of"),
        ("sic_aic", {"thresholds": (0.5, 0.1)}, "thresholds: "),
        ("sic_aic", {"mean": MEAN}, "mean, std: both or neither"),
        ("sic_aic", {"mean": MEAN, "std": (0.2,)}, "mean, std: "),
        ("keep_remove", {"fractions": (0.5,)}, "fractions: "),
        ("keep_remove", {"fill": "black"}, "fill: must be one of"),
        ("single_deletion", {"grid": 33}, "grid: "),
        ("single_deletion", {"fill": "black"}, "fill: must be one of"),
    ],
)
def test_bad_keywords(name, keywords, message):
    with pytest.raises(ValueError, match=message):
        CHECKS[name].fn(net("relu"), x, CLASSES, x, **keywords)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"percentages": (0.0,)}, "percentages: "),
        ({"percentages": (0.5, 0.1)}, "percentages: "),
        ({"seeds": 0}, "seeds"),
    ],
)
def test_bad_keywords_of_roar(keywords, message):
    with pytest.raises(ValueError, match=message):
        roar(little(), brightness, **keywords)
