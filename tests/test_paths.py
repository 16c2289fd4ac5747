"""Path methods, XRAI and occlusion beyond the common contract: axioms, identities, and the numbers of the peers."""

import math
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

from helpers import references
from methods import METHODS
from methods.blur_ig import blur_ig, gaussian
from methods.guided_ig import guided_ig
from methods.integrated_gradients import integrated_gradients
from methods.occlusion import occlusion, windows
from methods.xrai import segment, xrai

RULES = ["right", "left", "middle", "gauss_legendre"]
same = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-11)


def smooth():
    """A small network without kinks, so that integrals converge fast."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 5, 2), nn.Softplus(), nn.Conv2d(8, 8, 3, 2), nn.Tanh(), nn.Flatten(), nn.LazyLinear(5)
    net = nn.Sequential(*layers).double().eval()
    net(torch.zeros(1, 3, 24, 20, dtype=torch.float64))
    return net


@pytest.fixture
def net():
    return smooth()


@pytest.fixture
def batch():
    """Three images that differ in range, and their classes."""
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(3, 3, 24, 20, generator=rng, dtype=torch.float64)
    return x * torch.tensor([1.0, 3.0, 0.2], dtype=torch.float64)[:, None, None, None], torch.tensor([1, 4, 2])


def score(net, x, target):
    with torch.no_grad():
        return net(x).gather(1, target[:, None])[:, 0]


VARIANTS = {
    "integrated_gradients": [{"rule": rule, "steps": 6} for rule in RULES] + [{"steps": 5, "baseline": 0.3}],
    "blur_ig": [{"steps": 5, "max_sigma": 4.0}, {"steps": 3, "max_sigma": 7.3, "grad_step": 0.3}],
    "guided_ig": [
        {"steps": 6},
        {"steps": 5, "max_dist": 0.3, "fraction": 0.1},
        {"steps": 7, "max_dist": 1.0, "fraction": 0.4, "baseline": -0.2},
    ],
    "xrai": [{"steps": 3, "min_pixel_diff": 5}],
    "occlusion": [{"size": 7, "stride": 5}, {"size": 6, "stride": 6, "value": 0.7}, {"size": 20, "stride": 3}],
}
CASES = [(m, r, v) for m, variants in VARIANTS.items() for r in METHODS[m].verified for v in variants]


@pytest.mark.parametrize(("m", "r", "keywords"), CASES, ids=[f"{m}-{r}-{i}" for i, (m, r, _) in enumerate(CASES)])
def test_equals_reference(m, r, keywords, net, batch):
    keywords = dict(keywords)
    if "baseline" in keywords:  # another one for each image
        keywords["baseline"] = keywords["baseline"] * batch[0].flip(0)
    with warnings.catch_warnings(action="ignore"):  # theirs
        theirs = references(m)[r](net, *batch, **keywords)
    same(METHODS[m].fn(net, *batch, **keywords), theirs, rtol=1e-7, atol=1e-9)


BAD = [
    (integrated_gradients, {"rule": "trapezoid"}, "rule"),
    (integrated_gradients, {"steps": 0}, "steps"),
    (integrated_gradients, {"chunk": 0}, "chunk"),
    (integrated_gradients, {"baseline": torch.zeros(2, 1, 1, 1)}, "baseline"),
    (blur_ig, {"steps": 0}, "steps"),
    (blur_ig, {"max_sigma": 0.0}, "max_sigma"),
    (blur_ig, {"grad_step": -0.1}, "grad_step"),
    (guided_ig, {"steps": 0}, "steps"),
    (guided_ig, {"fraction": 0.0}, "fraction"),
    (guided_ig, {"fraction": 1.1}, "fraction"),
    (guided_ig, {"max_dist": -0.1}, "max_dist"),
    (guided_ig, {"baseline": torch.zeros(3, 7, 7)}, "baseline"),
    (xrai, {"min_pixel_diff": 0}, "min_pixel_diff"),
    (xrai, {"segments": []}, "segments"),
    (xrai, {"steps": 0}, "steps"),
    (occlusion, {"size": 21}, "size"),
    (occlusion, {"size": 0}, "size"),
    (occlusion, {"stride": 16}, "stride"),
    (occlusion, {"stride": 0}, "stride"),
]


@pytest.mark.parametrize(("f", "keywords", "word"), BAD, ids=[f"{f.__name__}-{k}" for f, k, _ in BAD])
def test_a_bad_keyword_is_named(f, keywords, word, net, batch):
    with pytest.raises(ValueError, match=rf"(^|, ){word}[,:]"):
        f(net, *batch, **keywords)


# Integrated Gradients


@pytest.mark.parametrize(("rule", "order"), [("right", 1), ("left", 1), ("middle", 2), ("gauss_legendre", math.inf)])
def test_completeness_at_the_rate_of_the_rule(rule, order, net, batch):
    x, target = batch
    baseline = torch.full((3, 1, 1), 0.1, dtype=x.dtype)
    change = score(net, x, target) - score(net, baseline.expand_as(x), target)
    gaps = []
    for steps in (32, 128):
        total = integrated_gradients(net, x, target, baseline=baseline, rule=rule, steps=steps, chunk=99).sum(
            dim=(1, 2, 3)
        )
        gaps.append(((total - change) / change).abs().max())
    assert gaps[1] < (0.03 if order == 1 else 1e-4 if order == 2 else 1e-9)
    if order < math.inf:  # four times the steps
        assert 0.8 * 4**order < gaps[0] / gaps[1] < 1.25 * 4**order


@pytest.mark.parametrize("rule", RULES)
def test_exact_on_a_linear_model(rule, batch):
    x, target = batch
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 20, 5)).double()
    exact = x * net[1].weight[target].detach().view_as(x)
    for steps in (1, 2, 7):
        same(integrated_gradients(net, x, target, rule=rule, steps=steps), exact)


class Square(nn.Module):
    def forward(self, x):
        return x.square().sum(dim=(2, 3))  # a class for each channel


@pytest.mark.parametrize(("rule", "factor"), [("right", 5 / 4), ("left", 3 / 4), ("middle", 1), ("gauss_legendre", 1)])
def test_on_a_quadratic(rule, factor, batch):
    x = batch[0]
    a = integrated_gradients(Square(), x, torch.tensor([0, 1, 2]), rule=rule, steps=4)
    own_channel = torch.eye(3, dtype=x.dtype)[:, :, None, None]
    same(a, factor * own_channel * x**2)  # 2/m sum_k alpha_k = 1 +- 1/m


def test_a_baseline_is_broadcast(net, batch):
    x, target = batch
    colour = torch.tensor([0.1, -0.2, 0.3], dtype=torch.float32).view(3, 1, 1)
    whole = integrated_gradients(net, x, target, steps=3, baseline=colour.double().expand_as(x).clone())
    same(integrated_gradients(net, x, target, steps=3, baseline=colour), whole)
    for f in (integrated_gradients, guided_ig):
        assert (f(net, x, target, steps=3, baseline=x) == 0).all()
        assert not f(net, x, target, steps=3, baseline=x.clone().requires_grad_()).requires_grad


# Blur IG


@pytest.mark.parametrize("sigma", [0.0, 0.01, 0.12, 0.13, 0.5, 1.2, 3.0, 12.49, 12.5, 50.0, 50.01])
@pytest.mark.parametrize(("H", "W"), [(24, 20), (7, 33), (1, 5)])
def test_the_blur_is_scipys(sigma, H, W):
    x = np.random.default_rng(0).normal(size=(H, W))
    s = torch.tensor([sigma, 2.0], dtype=torch.float64)  # a wider kernel beside it changes nothing
    ours = gaussian(s, H) @ torch.tensor(x) @ gaussian(s, W)
    same(ours[0].numpy(), gaussian_filter(x, sigma, mode="constant", truncate=4.0), atol=1e-14)


def test_blur_ig_converges_to_completeness(net, batch):
    x, target = batch
    blurred = torch.tensor(gaussian_filter(x.numpy(), (0, 0, 4, 4), mode="constant"))
    change = score(net, x, target) - score(net, blurred, target)
    gaps = []
    for steps in (50, 100, 400):
        total = blur_ig(net, x, target, steps=steps, max_sigma=4.0, grad_step=1e-4, chunk=99).sum(dim=(1, 2, 3))
        gaps.append(((total - change) / change).abs().max())
    assert gaps[0] > 1.5 * gaps[1] > 3 * gaps[2]
    assert gaps[2] < 0.02


def test_blur_ig_keeps_its_digits_in_float32(net, batch):
    """L(sigma + e) - L(sigma) cancels most of a float32's digits; subtracting the kernels in float64 does not."""
    x, target = batch
    exact = blur_ig(net, x, target, steps=5, grad_step=1e-4, max_sigma=20.0)
    low = blur_ig(smooth().float(), x.float(), target, steps=5, grad_step=1e-4, max_sigma=20.0)
    assert ((low - exact).flatten(1).norm(dim=1) < 1e-4 * exact.flatten(1).norm(dim=1)).all()


# Guided IG


def test_guided_ig_of_an_image_does_not_depend_on_its_neighbours(net, batch):
    """Ranges, quantiles and the number of turns of the inner loop all differ between the images."""
    x, target = batch
    for keywords in ({"max_dist": 0.3}, {"max_dist": 1.0, "fraction": 0.05}):
        whole = guided_ig(net, x, target, steps=6, **keywords)
        for b in range(len(x)):
            same(guided_ig(net, x[b : b + 1], target[b : b + 1], steps=6, **keywords)[0], whole[b])


def test_guided_ig_without_room_is_integrated_gradients(net, batch):
    straight = integrated_gradients(net, *batch, steps=9, rule="left")
    same(guided_ig(net, *batch, steps=9, max_dist=0.0), straight, rtol=1e-7, atol=1e-9)
    assert not torch.allclose(guided_ig(net, *batch, steps=9, max_dist=0.1), straight, rtol=0.01)


def test_guided_ig_is_exact_on_a_linear_model(batch):
    """Whatever the path is, it must end at the image."""
    x, target = batch
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 20, 5)).double()
    for max_dist in (0.02, 1.0):
        a = guided_ig(net, x, target, steps=5, max_dist=max_dist)
        same(a, x * net[1].weight[target].detach().view_as(x))


def test_guided_ig_converges_to_completeness(net, batch):
    x, target = batch
    change = score(net, x, target) - score(net, torch.zeros_like(x), target)
    total = guided_ig(net, x, target, steps=200, max_dist=0.1).sum(dim=(1, 2, 3))
    assert ((total - change).abs() < 0.02 * change.abs()).all()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_guided_ig_ends_on_gradients_that_are_not_finite(value, batch):
    x, target = batch

    class Broken(nn.Module):
        def forward(self, x):
            return (x * x.new_tensor([1.0, value, 2.0])[:, None, None]).sum(dim=(2, 3))[:, [1] * 5]

    a = guided_ig(Broken(), x, target, steps=3)
    assert a.shape == x.shape


# XRAI


def test_xrai_on_given_segments_is_pairs(net, batch):
    x, target = batch
    rng = torch.Generator().manual_seed(3)
    attribution = torch.randn(x.shape, generator=rng, dtype=x.dtype)
    segments = [(torch.rand(n, 24, 20, generator=rng) < torch.rand(n, 1, 1, generator=rng)) for n in (30, 1, 12)]
    segments[0][5] = segments[0][3]  # a tie
    for least in (1, 10, 50):
        given = {"attribution": attribution, "segments": segments, "min_pixel_diff": least}
        same(xrai(net, x, target, **given), references("xrai")["saliency"](net, x, target, **given))
    assert METHODS["xrai"].cost(attribution=attribution).total == (0, 0)
    assert METHODS["xrai"].cost().total == (200, 200)


def test_xrai_takes_the_densest_region_first(net):
    A = torch.zeros(1, 3, 8, 8, dtype=torch.float64)
    A[0, 1, :4], A[0, 2, 4:], A[0, 0, 7, 7] = 1.0, 3.0, 19.0  # the maximum over the channels: 1 above, 3 below
    s = torch.zeros(3, 8, 8, dtype=torch.bool)
    s[0, :6], s[1, 4:], s[2, :1] = True, True, True
    a = xrai(net, A, torch.tensor([0]), attribution=A, segments=[s], min_pixel_diff=1)[0, 0]
    assert (a[4:] == 3.5).all()  # s[1], 31 pixels of 3 and one of 19
    assert (a[:4] == 1).all()
    a = xrai(net, A, torch.tensor([0]), attribution=A, segments=[s[2:]], min_pixel_diff=9)[0, 0]
    assert (a == (32 * 1 + 31 * 3 + 19) / 64).all()  # 8 pixels are too few: nothing is covered


def test_xrai_segments_a_photograph_as_pair_does(net):
    from saliency.core.xrai import _get_segments_felzenszwalb
    from skimage.data import chelsea

    photo = chelsea()[40:260:2, 80:380:2] / 255.0  # 110 x 150, neither square nor 224
    x = torch.tensor(photo).movedim(-1, 0)[None].contiguous()
    ours, theirs = segment(x[0]), np.stack(_get_segments_felzenszwalb(photo))
    ours = ours[ours.flatten(1).any(dim=1)]
    theirs = theirs[theirs.any(axis=(1, 2))]  # resizing back can lose a label
    assert len(ours) > 50
    assert np.array_equal(ours.numpy(), theirs)
    attribution = torch.randn(x.shape, generator=torch.Generator().manual_seed(4), dtype=x.dtype)
    pair = partial(references("xrai")["saliency"], segments=[torch.tensor(theirs)])
    same(*(f(net, x, torch.tensor([0]), attribution=attribution) for f in (xrai, pair)))


# Occlusion


@pytest.mark.parametrize(
    ("n", "size", "stride"), [(20, 7, 5), (24, 15, 8), (9, 9, 4), (10, 1, 1), (32, 15, 8), (16, 8, 8)]
)
def test_windows_reach_every_pixel(n, size, stride):
    w = windows(n, size, stride)
    assert len(w) == math.ceil((n - size) / stride) + 1
    assert w.any(dim=0).all()
    assert w[-1, -1]
    assert not w[:-1, -1].any()  # one window fewer would leave the last pixel out
    assert (w[:-1].sum(dim=1) == size).all()


def test_occlusion_of_a_linear_model(batch):
    """Windows side by side: each shows its own share of the score."""
    x, target = batch
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 20, 5)).double()
    share = ((x - 0.5) * net[1].weight[target].detach().view_as(x)).sum(dim=1, keepdim=True)
    blocks = torch.nn.functional.avg_pool2d(share, 4) * 16
    a = occlusion(net, x, target, size=4, stride=4, value=0.5)
    same(a, blocks.repeat_interleave(4, 2).repeat_interleave(4, 3))
