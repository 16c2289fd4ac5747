"""Other weights, the same function: the twins are equal, honest maps stay, and maps made of the weights change."""

import hashlib
from functools import partial

import pytest
import timm
import torch
from torch import nn

from methods._calls import logits
from methods.grad_cam import grad_cam
from methods.gradient import gradient
from methods.integrated_gradients import integrated_gradients
from sanity_checks._same_function import executed, twins
from sanity_checks.implementation_invariance import implementation_invariance

X = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(3))
TARGET = torch.tensor([1, 5, 7])
NAMES = {  # model: the twins that its architecture has a place for
    "resnet18": {"rescaled", "permuted", "nudged"},
    "mobilenetv3_small_050": {"rescaled", "permuted", "nudged"},
    "convnext_atto": {"permuted", "nudged"},
    "vit_tiny_patch16_224": {"permuted", "nudged"},
}


def build(name):
    torch.manual_seed(0)
    more = {"img_size": 64} if "vit" in name else {}
    model = timm.create_model(name, num_classes=10, **more)
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(0, 0.1)
            m.running_var.uniform_(0.5, 2)
            nn.init.normal_(m.bias, 0, 0.1)
    return model.eval()


def from_weights(model, x, target):
    """Noise that only the weights decide."""
    h = hashlib.sha256(b"".join(p.detach().flatten()[:64].numpy().tobytes() for p in model.parameters()))
    rng = torch.Generator().manual_seed(int.from_bytes(h.digest()[:7], "big"))
    return torch.randn(1, 1, *x.shape[2:], generator=rng).expand(len(x), -1, -1, -1)


def from_rounded_weights(model, x, target):
    """The same for weights rounded to a tenth of their largest: a change by 1e-6 does not reach it."""
    parts = [(p.detach() / p.detach().abs().max() * 10).round().flatten()[:64] for p in model.parameters()]
    h = hashlib.sha256(torch.cat(parts).numpy().tobytes())
    rng = torch.Generator().manual_seed(int.from_bytes(h.digest()[:7], "big"))
    return torch.randn(1, 1, *x.shape[2:], generator=rng).expand(len(x), -1, -1, -1)


@pytest.mark.parametrize("name", NAMES)
def test_twins_compute_the_same_with_other_weights(name):
    model = build(name)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    y, found = logits(model, X).detach(), set()
    for kind, twin in twins(model, X):
        found.add(kind)
        torch.testing.assert_close(logits(twin, X).detach(), y, rtol=1e-3, atol=1e-3 * float(y.abs().max()))
        changed = [k for k, v in twin.state_dict().items() if not torch.equal(v, before[k])]
        assert changed, kind
        assert all(v.dtype == before[k].dtype for k, v in twin.state_dict().items())
    assert found == NAMES[name]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_honest_maps_stay(name):
    model = build(name)
    layer = {"resnet18": "layer3", "vit_tiny_patch16_224": "blocks.5"}[name]
    for of in (gradient, partial(integrated_gradients, steps=8), lambda m, x, t: grad_cam(m, x, t, layer=layer)):
        result = implementation_invariance(model, X, TARGET, of)
        assert result.values.min() > 0.99


def test_maps_made_of_the_weights_change():
    result = implementation_invariance(build("resnet18"), X, TARGET, from_weights)
    assert result.values.max() < 0.1
    assert all(v.max() < 0.1 for v in result.columns.values())


def test_weights_that_were_rounded_first_are_found_by_the_other_twins():
    result = implementation_invariance(build("resnet18"), X, TARGET, from_rounded_weights)
    assert result.columns["nudged"].min() == 1
    assert result.values.max() < 0.1


def test_a_constant_map_stays_and_half_a_constant_one_does_not():
    model = build("resnet18")
    constant = implementation_invariance(model, X, TARGET, lambda m, x, t: torch.ones(len(x), 1, 8, 8))
    assert constant.values.tolist() == [1, 1, 1]
    first = model.conv1.weight.detach().clone()

    def of(m, x, t):
        return torch.ones(len(x), 1, 8, 8) if torch.equal(m.conv1.weight, first) else x[:, :1, :8, :8]

    assert implementation_invariance(model, X, TARGET, of).values.tolist() == [0, 0, 0]


def test_a_twin_that_is_not_there_gives_no_number():
    result = implementation_invariance(build("vit_tiny_patch16_224"), X, TARGET, gradient)
    assert result.columns["rescaled"].isnan().all()
    assert not result.values.isnan().any()


def test_modules_are_listed_as_they_run():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5))
    model(torch.zeros(2, 3, 8, 8))
    assert executed(model.eval(), torch.zeros(1, 3, 8, 8)) == ["0", "1", "4"]
