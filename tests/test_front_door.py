"""Bad input: one clear error each, that names the argument, what it got and what would be right."""

import pytest
import torch
from torch import nn
from torch.fx.experimental.optimization import fuse

from helpers import CLASSES, images
from methods import attribute
from nets import net

with_nan = images()
with_nan[1, 0, 3, 5] = torch.nan


@pytest.fixture(scope="module")
def model():
    return net("relu")


@pytest.fixture
def x():
    return images()


@pytest.mark.parametrize(
    ("kind", "message", "change"),
    [
        (ValueError, r"name: no method is called 'gradcam'; the closest are grad_cam", {"name": "gradcam"}),
        (ValueError, r"layer: the model has no 'layer44'; the closest are .*layer4", {"layer": "layer44"}),
        (ValueError, r"layer: this Linear is not a module of the model", {"layer": nn.Linear(2, 2)}),
        (TypeError, r"layer: must be a dotted name, a module of the model or None, got int", {"layer": 4}),
        (ValueError, r"layers: the model has no 'layr1'; .* layer1", {"name": "poly_cam", "layers": ["layr1"]}),
        (TypeError, r"layers: must be a dotted name, a module .* got int", {"name": "refine_cam", "layers": [1]}),
        (TypeError, r"layers: must be a list .* got str", {"name": "fuse", "layers": "layer1"}),
        (TypeError, r"layer: gradient looks at no layer", {"name": "gradient", "layer": "layer4"}),
        (TypeError, r"x: must be a torch.Tensor, got list", {"x": [1]}),
        (ValueError, r"x: images must be B C H W, got shape \(3, 32, 32\).*x\[None\]", {"x": images()[0]}),
        (TypeError, r"x: images must be floating point .* got torch.uint8", {"x": images().to(torch.uint8)}),
        (ValueError, r"x: the batch holds no image", {"x": images()[:0]}),
        (ValueError, r"x: images must be finite; NaN or infinity in image 1", {"x": with_nan}),
        (TypeError, r"x: is torch.float32 but the model torch.float64", {"x": images().float()}),
        (ValueError, r"target: classes must be in 0 .. 9, got \[10\]", {"target": torch.tensor([1, 10, 2])}),
        (ValueError, r"target: classes must be in 0 .. 9, got \[-1, -1, -1\]", {"target": -1}),
        (ValueError, r"target: needs one class per image, shape \(3,\), got \(2,\)", {"target": CLASSES[:2]}),
        (TypeError, r"target: must be None, an int.* got a tensor of torch.float32", {"target": torch.ones(3)}),
        (TypeError, r"target: must be None, an int.* got str", {"target": "cat"}),
        (ValueError, r"target: must map logits \(3, 10\) to one score .* got \(3, 10\)", {"target": lambda y: y}),
        (TypeError, r"sample: var_grad has no such keyword; the .* samples", {"name": "var_grad", "sample": 3}),
        (TypeError, r"model: must be a torch.nn.Module or a function of images, got str", {"model": "resnet50"}),
        (ValueError, r"layer: a function as a model hides", {"model": lambda x: x}),
        (ValueError, r"model: attention_rollout is .* for vit models, this is a cnn", {"name": "attention_rollout"}),
        (ValueError, r"samples, noise: need at least one sample", {"name": "smooth_grad", "samples": 0}),
        (ValueError, r"chunk: .* must be 1 or more, got 0", {"name": "smooth_grad", "chunk": 0}),
        (ValueError, r"weights: must be 'softmax' .* got 'max'", {"name": "score_cam", "weights": "max"}),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("untyped")
def test_bad_input(model, x, kind, message, change):
    call = {"name": "grad_cam", "model": model, "x": x, "target": CLASSES} | change
    with pytest.raises(kind, match="^" + message):
        attribute(**call)


@pytest.fixture
def untyped(monkeypatch):
    """The tests' run-time shape checks would speak first; users do not have them."""
    import methods._front_door as front

    monkeypatch.setitem(globals(), "attribute", getattr(front.attribute, "__wrapped__", front.attribute))


def test_device_is_compared(model):
    with pytest.raises(ValueError, match=r"x: is on meta but the model on cpu; move one: x.to\('cpu'\)"):
        attribute("grad_cam", model, torch.zeros(1, 3, 8, 8, device="meta", dtype=torch.float64))


@pytest.mark.filterwarnings("ignore")
def test_scripted_models_are_refused_and_compiled_ones_unwrapped(model, x):
    with pytest.raises(TypeError, match="model: it is scripted"):
        attribute("grad_cam", torch.jit.trace(model, x), x)
    compiled = torch.compile(model, backend="eager")
    torch.testing.assert_close(attribute("grad_cam", compiled, x), attribute("grad_cam", model, x))


def test_training_mode_is_warned_about(x):
    model = net("elu").train()
    with pytest.warns(UserWarning, match=r"model: it is in training mode.*model.eval\(\)"):
        attribute("gradient", model, x, CLASSES)


def test_target_none_is_each_images_top_class_and_free_for_single_pass_methods(model, x):
    runs = []
    handle = model.register_forward_hook(lambda *_: runs.append(1))
    top = model(x).argmax(dim=1)
    attribute("grad_cam", model, x, layer="layer3")  # the first call looks at the model
    runs.clear()
    attribute("grad_cam", model, x, layer="layer3")
    assert len(runs) == 1
    runs.clear()
    attribute("integrated_gradients", model, x, steps=4, chunk=100)
    assert len(runs) == 2
    handle.remove()
    for name in ("grad_cam", "integrated_gradients"):
        torch.testing.assert_close(attribute(name, model, x), attribute(name, model, x, top))


def test_int_target_module_layer_and_resizing(model, x):
    want = attribute("grad_cam", model, x, torch.full((3,), 4), layer="layer3")
    torch.testing.assert_close(attribute("grad_cam", model, x, 4, layer=model.layer3), want)
    assert want.shape == (3, 1, 32, 32)
    small = attribute("grad_cam", model, x, 4, layer="layer3", resize=False)
    assert small.shape == (3, 1, 8, 8)
    up = nn.functional.interpolate(small, size=(32, 32), mode="bilinear", align_corners=False)
    torch.testing.assert_close(up, want)


def test_contrastive_and_probability_targets(model, x):
    a = attribute("hires_cam", model, x, 1)
    b = attribute("hires_cam", model, x, 4)
    torch.testing.assert_close(attribute("hires_cam", model, x, lambda y: y[:, 1] - y[:, 4]), a - b)
    p = attribute("gradient", model, x, lambda y: y.softmax(dim=1)[:, 1])
    assert not torch.allclose(p, attribute("gradient", model, x, 1))


def test_a_map_in_a_training_loss():
    """The use in the README: the loss has a gradient for every convolution, and a step lowers it."""
    torch.manual_seed(0)
    model, x = net("elu"), images()
    mask = torch.zeros(3, 1, 32, 32, dtype=x.dtype)
    mask[..., :16] = 1
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(5):
        a = attribute("hires_cam", model, x.requires_grad_(), CLASSES)
        loss = (a * (1 - mask)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.abs().max() > 0 for n, p in model.named_parameters() if "conv" in n)
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_a_model_with_folded_batch_norms_gives_the_same_maps_of_pixels():
    model, x = net("relu").float(), images(2, dtype=torch.float32)
    folded = fuse(model).eval()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    for name, keywords in (("occlusion", {"size": 16, "stride": 8}), ("gradient", {}), ("integrated_gradients", {})):
        a, b = (attribute(name, one, x, [1, 4], **keywords) for one in (model, folded))
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(a.abs().max()))  # rounding of float32
