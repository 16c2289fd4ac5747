"""fig_rrr_decoy: a penalty on maps makes networks ignore a swatch; the training loop leaves batch statistics right."""

from functools import partial

import pytest
import torch
from torch import nn

import _rrr as rrr
import fig_rrr_decoy as fig
from figure_numbers import numbers
from methods import METHODS
from methods.grad_cam import grad_cam
from methods.gradient import gradient


@pytest.fixture(scope="module")
def data():
    return rrr.Decoys(*(v[:128] for v in rrr.decoys("train", "label", 0, 1)))


def fresh(build, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build().eval()


@pytest.mark.parametrize("network", ["CNN", "ViT"])
@pytest.mark.parametrize("name", ["gradient", "hires_cam", "integrated_gradients"])
def test_the_reader_sees_accuracy_fall_with_a_lying_swatch_and_recover_with_a_penalty(network, name):
    n = numbers("fig_rrr_decoy")[network]
    without, mended = n["none"]["accuracy"]["lost"], n[name]["accuracy"]["lost"]
    assert without["low"] > 0.03
    assert mended["high"] < without["low"]
    assert mended["mean"] < without["mean"] / 3
    assert n[name]["accuracy"]["random"]["mean"] > n["none"]["accuracy"]["random"]["mean"]


@pytest.mark.parametrize("network", ["CNN", "ViT"])
def test_the_reader_sees_that_a_penalty_on_grad_cam_empties_it_and_helps_least(network):
    n = numbers("fig_rrr_decoy")[network]
    others = ("gradient", "hires_cam", "integrated_gradients")
    assert n["grad_cam"]["grad_cam"]["high"] < n["none"]["grad_cam"]["low"]
    lost = n["grad_cam"]["accuracy"]["lost"]["low"]
    assert lost > max(0, *(n[name]["accuracy"]["lost"]["mean"] for name in others))
    if network == "CNN":  # of the ViT it depends on the initial weights
        for name in others:
            assert n["grad_cam"][name]["mean"] > 0.8 * n["none"][name]["mean"]


@pytest.mark.parametrize("network", ["CNN", "ViT"])
@pytest.mark.parametrize("name", ["gradient", "hires_cam", "integrated_gradients"])
def test_the_reader_sees_the_penalised_map_leave_the_swatch(network, name):
    """At most a third of what it was, and no more than an even spread; next to nothing in the ViT's pixels."""
    n = numbers("fig_rrr_decoy")[network]
    assert n[name][name]["mean"] < n["none"][name]["mean"] / 3
    assert n[name][name]["mean"] < (0.1 if network == "ViT" and name != "hires_cam" else 1.15)


def test_decoys_tell_the_label_by_shade_in_every_corner():
    d = rrr.decoys("test", "label", 3, 4)
    assert d.mask.sum(dim=(1, 2)).eq(16).all()
    shade = (d.x[:, 0] * d.mask).sum(dim=(1, 2)) / 16
    torch.testing.assert_close(shade, 1 - 25 / 255 * d.y)
    corners = d.mask[:, [0, 0, -1, -1], [0, -1, 0, -1]].view(4, -1, 4)
    assert corners.sum(dim=0).eq(1).all()  # each digit once in each
    random = rrr.decoys("test", "random", 3, 4)
    assert ((random.x != d.x).any(dim=1) <= d.mask).all()
    assert 0.05 < float((random.x == d.x).all(dim=(1, 2, 3)).float().mean()) < 0.15  # one label in ten is right


def test_a_map_without_weight_changes_nothing(data):
    """No update of running statistics, no leftover gradient: the same network to the bit as without a map."""
    plain, mapped = fresh(rrr.CNN), fresh(rrr.CNN)
    rrr.train(plain, data, None, epochs=1, lr=1e-3)
    rrr.train(mapped, data, partial(grad_cam, layer="features"), weight=0.0, epochs=1, lr=1e-3)
    assert mapped.features.bn1.num_batches_tracked == 2
    for name, value in plain.state_dict().items():
        assert torch.equal(value, mapped.state_dict()[name]), name


def test_in_training_mode_a_map_would_depend_on_its_neighbours(data):
    """Why the loop takes the map in evaluation mode."""
    model, x, y = fresh(rrr.CNN), data.x[:8], data.y[:8]
    alone = gradient(model, x[:4], y[:4])
    torch.testing.assert_close(gradient(model, x, y)[:4], alone)
    model.train()
    assert not torch.allclose(gradient(model, x, y)[:4], gradient(model, x[:4], y[:4]), rtol=0.01)


@pytest.mark.parametrize("network", ["CNN", "ViT"])
@pytest.mark.parametrize("name", fig.METHODS_SHOWN)
def test_the_penalty_reaches_the_parameters(data, network, name):
    """Its derivative in a random direction of all parameters, by finite differences in float64."""
    model = fresh(rrr.NETWORKS[network][0]).double()
    x, y, mask = data.x[:4].double(), data.y[:4], data.mask[:4]
    m = METHODS[name]
    layer = {"CNN": "features", "ViT": "blocks.1.norm1"}[network]
    of = partial(m.fn, **{k: v for k, v in {"layer": layer, "steps": 2}.items() if k in m.params})
    mask = torch.ones_like(mask) if name == "grad_cam" else mask  # a ReLU may leave nothing in the corners

    def loss():
        return rrr.penalty(of(model, x.clone().requires_grad_(), y), mask)

    p = list(model.parameters())
    rng = torch.Generator().manual_seed(0)
    d = [torch.randn(v.shape, generator=rng, dtype=v.dtype) for v in p]
    with torch.no_grad():  # without a bias, black pixels sit on the kink of the ReLU
        for v, direction in zip(p, d, strict=True):
            v += 0.1 * direction.roll(1, 0) * (v.ndim == 1 or not v.any())  # ... and a new ViT's head is zero
    slopes = torch.autograd.grad(loss(), p, allow_unused=True)
    exact = sum((g * v).sum() for g, v in zip(slopes, d, strict=True) if g is not None)
    middle, along = nn.utils.parameters_to_vector(p).detach(), nn.utils.parameters_to_vector(d)
    h, found = 1e-8, []  # small: the penalty jumps where a ReLU switches
    for sign in (1, -1):
        nn.utils.vector_to_parameters(middle + sign * h * along, p)
        found.append(loss().detach())
    assert exact.abs() > 1e-6
    torch.testing.assert_close((found[0] - found[1]) / (2 * h), exact.detach(), rtol=1e-3, atol=1e-8)


def test_methods_that_cannot_be_trained_on_are_refused(capsys):
    with pytest.raises(SystemExit):
        fig.main(["--quick", "--method", "eigen_cam"])
    assert "eigen_cam is not differentiable" in capsys.readouterr().err
