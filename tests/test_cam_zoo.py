"""Every class activation map on architectures of timm: it runs, or says what it lacks; and its second derivative."""

import functools

import pytest
import timm
import torch

from helpers import CLASSES, bound, images, in_turn
from methods import METHODS, attribute
from methods._layers import default_layer, finer_layers
from nets import net

CAMS = [name for name, m in METHODS.items() if m.family == "cam"] + ["fuse"]
SIZED = {"img_size": 64}
ZOO = {
    "resnet50": {},
    "densenet121": {},
    "efficientnet_b0": {},
    "convnext_atto": {},
    "vit_tiny_patch16_224": SIZED,
    "deit_tiny_distilled_patch16_224": SIZED,
    "swin_tiny_patch4_window7_224": SIZED | {"window_size": 2},
}
PER_CHANNEL = {"score_cam", "ss_cam", "is_cam", "poly_cam"}  # the whole network for each: at an early layer, of few
RULES = ("relevance_cam", "lift_cam")
NO_VIT = dict.fromkeys(("bag_cam", "cam", "cameras", *RULES), "is defined for cnn")
FLAT = ("fem", "kpca_cam")  # maps of zeros, by their definition: on four positions, and where tanh saturates
REFUSED = {  # method -> what the error names
    "efficientnet_b0": {"bag_cam": "has no relu operation"},
    "convnext_atto": {
        "bag_cam": "has no relu operation",
        "cam": "before global average pooling",
        **dict.fromkeys(RULES, "computes NativeLayerNorm"),
    },
    "vit_tiny_patch16_224": NO_VIT,
    "deit_tiny_distilled_patch16_224": NO_VIT,
    "swin_tiny_patch4_window7_224": dict.fromkeys(("bag_cam", "cameras"), "is defined for cnn"),
}


@functools.cache
def model_of(name):
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=10, **ZOO[name]).eval()


EACH = [(name, method) for name in ZOO for method in CAMS]
TURNS = in_turn(EACH, ["-".join(case) for case in EACH], by=lambda name, method: method)


@pytest.mark.parametrize(("name", "method"), TURNS)
def test_runs_or_says_why_not(name, method):
    m, model, x = METHODS[method], model_of(name), images(2, h=64, w=64, dtype=torch.float32)
    keywords = {k: v for k, v in ({"samples": 2, "steps": 2, "chunk": 64, "stride": 32}).items() if k in m.params}
    if method in PER_CHANNEL:
        keywords["layer"] = [*finer_layers(model, default_layer(model), (3, 64, 64)), default_layer(model)][0]
    if why := REFUSED.get(name, {}).get(method):
        with pytest.raises(ValueError, match=f"^(model|layer): .*{why}"):
            attribute(method, model, x, CLASSES[:2], resize=False, **keywords)
        return
    a = attribute(method, model, x, CLASSES[:2], resize=False, **keywords)
    assert a.isfinite().all()
    assert a.abs().max() > 0 or method in FLAT


ONE_PASS = [n for n in CAMS if METHODS[n].forward.total == METHODS[n].backward.total == 1 and METHODS[n].differentiable]


PAIRS = [(method, name) for method in ONE_PASS if not METHODS[method].needs for name in ("elu", "silu_se")]


@pytest.mark.parametrize(
    ("method", "name"), in_turn(PAIRS, ["-".join(pair) for pair in PAIRS], by=lambda method, name: method)
)
def test_second_derivatives_of_a_map(method, name):
    """A Hessian of the map times a vector, against central differences of its gradient."""
    model, x = net(name), images()
    f = bound(METHODS[method], model)
    rng = torch.Generator().manual_seed(3)
    weight = torch.randn(f(model, x, CLASSES).shape, generator=rng, dtype=x.dtype)
    v = torch.randn(x.shape, generator=rng, dtype=x.dtype)

    def gradient(x):
        x = x.clone().requires_grad_()
        value = (weight * f(model, x, CLASSES)).sum()
        return x, torch.autograd.grad(value, x, create_graph=True)[0]

    at, g = gradient(x)
    (product,) = torch.autograd.grad((g * v).sum(), at)
    eps = 1e-6
    numeric = (gradient(x + eps * v)[1] - gradient(x - eps * v)[1]) / (2 * eps)
    assert product.abs().max() > 1e-8  # not vacuous
    torch.testing.assert_close(product, numeric.detach(), rtol=1e-3, atol=1e-4 * float(product.abs().max()))
