"""Models that users bring, wrapped, compiled ... : a map that equals another way to it, or one sentence."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from helpers import CLASSES, images
from methods import METHODS, attribute
from methods._grids import to_grid
from methods._layers import default_layer, probe
from methods._torch import attention
from nets import net

pytestmark = pytest.mark.filterwarnings("ignore:.*lazily:UserWarning")
TARGET = CLASSES[:2]


def large(*cases):
    """Cases on large networks, for pytest -m exhaustive."""
    return [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.exhaustive) for case in cases
    ]


def stock(name, **options):
    """A model of timm whose norms leave nothing at zero or one."""
    torch.manual_seed(3)
    model = timm.create_model(name, num_classes=10, **options).eval()
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.running_var, 0.5, 1.5)
            nn.init.normal_(m.running_mean, std=0.1)
    return model


def smooth(n, size, channels=3):
    rng = torch.Generator().manual_seed(7)
    return F.interpolate(torch.randn(n, channels, size // 8, size // 8, generator=rng), (size, size), mode="bilinear")


def same(a, b, rtol=1e-3):
    assert b.abs().max() > 0
    torch.testing.assert_close(a, b, rtol=0, atol=rtol * float(b.abs().max()))


class Small(nn.Module):
    """Convolutions, the mean over positions, one linear layer."""

    def __init__(self, classes=10, channels=3):
        super().__init__()
        torch.manual_seed(1)
        self.f = nn.Sequential(
            nn.Conv2d(channels, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, 2), nn.ReLU()
        )
        self.fc = nn.Linear(16, classes)

    def features(self, x):
        return self.f(x).mean(dim=(2, 3))

    def forward(self, x):
        return self.fc(self.features(x))


class Wrapped(nn.Module):
    """A network with something done to its images and its output."""

    def __init__(self, net, before=lambda x: x, after=lambda y: y):
        super().__init__()
        self.inner, self.before, self.after = net, before, after

    def forward(self, x):
        return self.after(self.inner(self.before(x)))


# Gradients


@pytest.mark.parametrize(
    "name",
    ["levit_128s", *large("efficientformer_l1", "xcit_nano_12_p16_224", "mobilevitv2_050", "coatnet_nano_rw_224")],
)
def test_a_batch_of_one_is_the_batch_of_two(name):
    """torch 2.14 on a CPU passes a wrong gradient through batch_norm at batch 1 where its output becomes tokens."""
    model = stock(name)
    size = model.pretrained_cfg["input_size"][1]
    x = smooth(2, size)
    same(attribute("gradient", model, x[:1], TARGET[:1]), attribute("gradient", model, x, TARGET)[:1])


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.InstanceNorm2d])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_norms_before_tokens_agree_with_finite_differences(norm, order):
    torch.manual_seed(0)
    n = norm(4, affine=True)
    weight = torch.randn(1, 36, 4, dtype=torch.float64)
    model = Wrapped(n, after=lambda y: (y.flatten(2).transpose(1, 2) * weight).sum(dim=1)).double().eval()
    x = torch.randn(1, 4, 6, 6, dtype=torch.float64).contiguous(memory_format=order)
    v = torch.randn_like(x)
    g = attribute("gradient", model, x, 2)
    numeric = (model(x + 1e-5 * v) - model(x - 1e-5 * v))[0, 2] / 2e-5
    torch.testing.assert_close((g * v).sum(), numeric, rtol=1e-6, atol=1e-6)


@pytest.mark.xfail(strict=True, reason="torch 2.14 on a CPU: batch_norm's backward at batch 1 before tokens")
def test_torch_is_mended():
    """If this passes, the guard in methods/_calls.py can go."""
    torch.manual_seed(0)
    n, weight = nn.BatchNorm2d(4).double().eval(), torch.randn(1, 36, 4, dtype=torch.float64)
    x = torch.randn(1, 4, 6, 6, dtype=torch.float64, requires_grad=True)
    (n(x).flatten(2).transpose(1, 2) * weight).sum().backward()
    want = (n.weight / (n.running_var + n.eps).sqrt())[:, None, None] * weight.transpose(1, 2).unflatten(2, (6, 6))
    torch.testing.assert_close(x.grad, want.detach())


@pytest.mark.parametrize("cut", ["no_grad", "detach"])
def test_a_part_without_gradient_is_said(cut):
    class Cut(Small):
        def features(self, x):
            with torch.set_grad_enabled(cut != "no_grad" and torch.is_grad_enabled()):
                f = super().features(x)
            return f.detach()

    model, x = Cut().eval(), smooth(2, 64)
    with pytest.raises(ValueError, match=r"^model: its score does not depend on the image in a differentiable way"):
        attribute("gradient", model, x, TARGET)
    same(attribute("score_cam", model, x, TARGET), attribute("score_cam", Small().eval(), x, TARGET))


def test_a_map_that_is_not_a_number_is_refused():
    class Root(Small):
        def features(self, x):
            return self.f(x).pow(3).mean(dim=(2, 3)).pow(1 / 3)

    model = Root().eval()
    nn.init.constant_(model.f[3].bias[:1], -50.0)
    with pytest.raises(ValueError, match="^model: the map of grad_cam has NaN or infinity in image 0, 1"):
        attribute("grad_cam", model, smooth(2, 64), TARGET)


# Wrappers


WRAPPERS = {
    "Sequential": lambda m: nn.Sequential(nn.Identity(), m),
    "class": Wrapped,
    "DataParallel": nn.DataParallel,
    "compile": lambda m: torch.compile(m, backend="eager"),
    "compiled inside": lambda m: Wrapped(torch.compile(m, backend="eager")),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("relu", "hires_cam"),
        ("vit", "grad_cam"),
        ("vit", "generic_attention"),
        ("vit_avg", "attention_rollout"),
        ("swin", "cam"),
    ],
)
def test_a_wrapper_changes_no_map(wrapper, name, method):
    model, x = net(name), images(2)
    same(attribute(method, WRAPPERS[wrapper](model).eval(), x, TARGET), attribute(method, model, x, TARGET))


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", *large("vgg11_bn")])
def test_a_wrapper_hides_no_layer(name):
    model = stock(name)
    normalise = Wrapped(model, before=lambda x: (x - 0.5) / 0.2).eval()
    assert default_layer(normalise, (3, 224, 224)) == f"inner.{default_layer(model)}"


def test_a_layer_has_its_name_inside_the_wrapper_or_outside():
    model, x = net("relu"), images(2)
    want = attribute("hires_cam", model, x, TARGET, layer="layer3")
    for layer in ("layer3", "module.layer3", model.layer3):
        same(attribute("hires_cam", nn.DataParallel(model), x, TARGET, layer=layer), want)


# Functions and outputs


def test_a_function_is_a_model():
    model, x = net("relu"), images(2)
    same(attribute("gradient", lambda x: model(x), x, TARGET), attribute("gradient", model, x, TARGET))
    with_layer = attribute("hires_cam", lambda x: model(x), x, TARGET, layer=model.layer3)
    same(with_layer, attribute("hires_cam", model, x, TARGET, layer="layer3"))


OUTPUTS = {
    "tuple": lambda y: (y, 2 * y),
    "list": lambda y: [y, None],
    "dict": lambda y: {"features": 2 * y, "logits": y},
    "logits": lambda y: SimpleNamespace(logits=y, loss=None),
}


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize(
    "method", ["gradient", "hires_cam", "occlusion", "score_cam", "integrated_gradients", "recipro_cam", "cam"]
)
def test_logits_are_found_in_the_output(output, method):
    model, x = net("relu"), images(2)
    dressed = Wrapped(model, after=OUTPUTS[output]).eval()
    same(attribute(method, dressed, x, TARGET), attribute(method, model, x, TARGET))
    index = {"dict": "logits", "logits": None}.get(output, 0)
    pick = lambda out: (out.logits if index is None else out[index])[:, 3]  # noqa: E731
    if method not in ("recipro_cam", "cam"):
        same(attribute(method, dressed, x, pick), attribute(method, model, x, 3))


@pytest.mark.parametrize("method", ["gradient", "hires_cam", "occlusion", "score_cam"])
def test_a_dense_output_is_explained_by_a_callable(method):
    model, x = net("relu"), images(2)
    dense = Wrapped(model, after=lambda y: y[:, :, None, None].expand(-1, -1, 6, 6)).eval()
    same(attribute(method, dense, x, lambda out: out[:, 4].mean(dim=(1, 2))), attribute(method, model, x, 4))
    flat = Wrapped(model, after=lambda y: y[:, 4]).eval()  # a regression (B,)
    same(attribute(method, flat, x, lambda out: out), attribute(method, model, x, 4))


@pytest.mark.parametrize(
    ("after", "shown"),
    [
        (lambda y: y[:, :, None, None], r"a tensor \(2, 10, 1, 1\) of float64"),
        (lambda y: y.argmax(1), r"a tensor \(2,\) of int64"),
        (lambda y: {"out": y}, r"a dict with 'out': a tensor"),
        (lambda y: None, "None"),
    ],
)
def test_an_output_without_logits_is_shown(after, shown):
    model = Wrapped(net("relu"), after=after).eval()
    with pytest.raises(ValueError, match=f"^model: returned {shown}.*no logits.*target=lambda out"):
        attribute("gradient", model, images(2), 4)


@pytest.mark.parametrize("method", [m for m in METHODS if m not in ("finer_cam", "combine", "xrai")])
def test_one_logit_is_explained(method):
    """A binary network: its one class has a probability by the sigmoid."""
    torch.manual_seed(0)
    model = net("relu")
    model.fc = nn.Linear(16, 1).double().eval()
    keywords = {k: 2 for k in ("samples", "steps", "segments") if k in METHODS[method].params}
    if METHODS[method].architectures == ("vit",):
        with pytest.raises(ValueError, match="^model: "):
            attribute(method, model, images(2), 0)
        return
    a = attribute(method, model, images(2), 0, **keywords)
    assert a.isfinite().all()
    assert a.abs().max() > 0 or method in ("opti_cam", "group_cam", "kpca_cam")
    with pytest.raises(ValueError, match=r"^target: classes must be in 0 .. 0, got \[1, 1\]"):
        attribute(method, model, images(2), 1, **keywords)


# What was learnt about a model


def test_a_model_that_changed_is_looked_at_again():
    model, x = stock("resnet10t"), smooth(1, 96)
    attribute("grad_cam", model, x, 3)
    model.reset_classifier(3)
    with pytest.raises(ValueError, match=r"^target: classes must be in 0 .. 2, got \[3\]"):
        attribute("grad_cam", model, x, 3)
    model.fc = nn.Linear(512, 5).eval()
    assert probe(model, x).classes == 5
    model.global_pool = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten()).eval()
    attribute("hires_cam", model, x, 4)
    resnet = torchvision.models.resnet18(num_classes=10).eval()
    assert probe(resnet, smooth(1, 32)).layer != probe(resnet, smooth(1, 224)).layer == "layer4"


# Attention and windows


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("xcit_nano_12_p16_224", "runs over channels, not over positions"),
        *large(
            ("gcvit_xxtiny", "runs inside windows"),
            ("efficientformer_l1", "also mixes the positions of the tokens"),
            ("nest_tiny", "runs inside windows"),
            ("levit_128s", "queries and keys are at other places|has other tokens"),
            ("convit_tiny", "changes its attention map after the softmax"),
            ("pvt_v2_b0", "queries and keys are at other places"),
        ),
    ],
)
def test_attention_that_is_no_map_of_tokens_is_refused_by_name(name, why):
    model, x = stock(name), smooth(1, 224)
    for method in ("attention_rollout", "generic_attention"):
        with pytest.raises(ValueError, match=f"^model: {method} is defined for vit models, this is a swin; .*({why})"):
            attribute(method, model, x, 1)


@pytest.mark.exhaustive
def test_torchvisions_vit():
    torch.manual_seed(0)
    model = torchvision.models.vit_b_16(num_classes=10).eval()
    nn.init.normal_(model.heads.head.weight, std=0.02)
    x = smooth(2, 224)
    tokens = probe(model, x).tokens
    assert tokens is not None
    assert (len(tokens.maps), tokens.T, tokens.h, tokens.w, tokens.read) == (12, 197, 14, 14, (0,))
    assert (attribute("grad_cam", model, x, TARGET).abs().amax(dim=(1, 2, 3)) > 0).all()
    with pytest.raises(ValueError, match=r"^layer: no position of 'encoder.ln' can change the score"):
        attribute("grad_cam", model, x, TARGET, layer="encoder.ln")
    with torch.no_grad():
        first = model.encoder.layers.encoder_layer_0
        seen = model._process_input(x)
        seen = torch.cat([model.class_token.expand(2, -1, -1), seen], dim=1) + model.encoder.pos_embedding
        seen = first.ln_1(seen)
        _, maps = first.self_attention(seen, seen, seen, need_weights=True, average_attn_weights=False)
    kept = attention(model, x)[1]
    torch.testing.assert_close(kept[0].detach(), maps)


def test_tokens_in_another_order_than_row_by_row():
    """Hiera's tokens of the early stages lie window by window."""
    model, x = stock("hiera_tiny_224"), smooth(2, 224)
    at = probe(model, x).grids["blocks.0"]
    assert at.cells is not None
    assert list(at.cells) != sorted(at.cells)
    seen = []
    handle = model.blocks[0].register_forward_hook(lambda _m, _a, out: seen.append(out))
    half = x.clone()
    half[:, :, :112] = 0  # only the upper half changes
    with torch.no_grad():
        model(x), model(half)
    handle.remove()
    changed = (to_grid(seen[0], at) - to_grid(seen[1], at)).abs().amax(dim=1)  # B h w
    assert changed[:, : at.h // 2 - 4].min() > 0
    assert changed[:, at.h // 2 + 4 :].max() == 0


@pytest.mark.parametrize("method", ["eigen_cam", *large("grad_cam", "ablation_cam")])
def test_a_layer_inside_a_window_is_refused(method):
    model, x = stock("swin_tiny_patch4_window7_224"), smooth(2, 224)
    block = "layers.0.blocks.0"
    why = rf"parts of images \(windows\).*128 rows for 2 images; the nearest layer with whole images is '{block}'"
    with pytest.raises(ValueError, match=f"^layer: '{block}.attn': .*{why}"):
        attribute(method, model, x, 1, layer=f"{block}.attn")


@pytest.mark.parametrize("method", ["grad_cam", "eigen_cam", "ablation_cam", "full_grad"])
def test_a_batch_folded_inside_the_model_is_refused(method):
    class Flip(Small):
        def forward(self, x):
            return super().forward(torch.cat([x, x.flip(3)])).unflatten(0, (2, -1)).mean(0)

    with pytest.raises(ValueError, match="^(layer|model): .*4 rows for 2 images|^layer: none found"):
        attribute(method, Flip().eval(), smooth(2, 64), 1, **({} if method == "full_grad" else {"layer": "f"}))


# Modes


def test_inference_mode():
    model, x = net("relu"), images(2)
    want = attribute("hires_cam", model, x, TARGET)
    with torch.inference_mode():
        inside = TARGET.clone(), x.clone()
        built = net("relu")
    same(attribute("hires_cam", model, inside[1], inside[0]), want)
    with pytest.raises(ValueError, match=r"^model: was built or loaded under torch.inference_mode"):
        attribute("gradient", built, x, TARGET)


@pytest.mark.parametrize("method", ["hires_cam", "generic_attention", "ablation_cam"])
def test_gradient_checkpointing(method):
    model, x = net("vit"), images(2)
    want = attribute(method, model, x, TARGET)
    model.set_grad_checkpointing(True)
    same(attribute(method, model, x, TARGET), want)
    assert model.grad_checkpointing is True


def test_checkpointing_that_has_no_switch_is_refused():
    class Twice(Small):
        def features(self, x):
            return checkpoint(super().features, x, use_reentrant=False)

    with pytest.raises(ValueError, match=r"^model: the model calls torch.utils.checkpoint"):
        attribute("grad_cam", Twice().eval(), smooth(2, 64), 1)


def test_a_part_in_training_mode_is_warned_about_and_its_statistics_stay():
    model, x = net("relu"), images(2)
    model.layer4.train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.warns(UserWarning, match=r"^model: 'layer4' is in training mode.*model.eval\(\)"):
        attribute("grad_cam", model, x, TARGET)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_statistics_of_the_batch_are_warned_about():
    model = Small().eval()
    model.f[1] = nn.BatchNorm2d(8, track_running_stats=False).eval()
    with pytest.warns(UserWarning, match="^model: a score depends on the other images of the batch"):
        attribute("gradient", model, smooth(2, 64), 1)


def test_autocast_acts_on_the_model_alone():
    model, x = Small().eval(), smooth(2, 64)
    with torch.autocast("cpu", torch.bfloat16):
        a = attribute("occlusion", model, x, TARGET)
        assert torch.is_autocast_enabled("cpu")
    b = attribute("occlusion", model, x, TARGET)
    assert a.dtype == torch.float32
    assert 0 < (a - b).abs().max() < 0.1 * b.abs().max()  # the model did run in bfloat16


def test_a_default_device_of_the_caller_is_not_used():
    model, x = net("relu"), images(2)
    want = {name: attribute(name, model, x, TARGET) for name in ("gradient", "ablation_cam")}
    fresh = net("relu")
    with torch.device("meta"):
        for name, a in want.items():
            same(attribute(name, fresh, x, TARGET), a)


def test_another_thread_on_the_same_model():
    """Hooks act in the thread that called."""
    model, x = net("relu"), images(2)
    want, wrong, died, stop = attribute("gradient", model, x, TARGET), [], [], threading.Event()

    def explain():
        while not stop.is_set():
            try:
                attribute("grad_cam", model, x, TARGET, layer="layer3.bn1")
            except Exception as e:
                died.append(e)
                return

    other = threading.Thread(target=explain)
    other.start()
    try:
        for _ in range(20):
            z = x.clone().requires_grad_()
            (g,) = torch.autograd.grad(model(z).gather(1, TARGET[:, None]).sum(), z)
            wrong.append(not torch.allclose(g, want))
    finally:
        stop.set()
        other.join()
    assert not died
    assert not any(wrong)


# How a model is built


@pytest.mark.parametrize("method", ["gradient", "hires_cam", "occlusion", "ablation_cam"])
def test_channels_that_the_first_convolution_does_not_have(method):
    grey = Wrapped(Small(), before=lambda x: x.repeat(1, 3, 1, 1)).eval()
    folded = Wrapped(Small(channels=12), before=lambda x: F.pixel_unshuffle(x, 2)).eval()
    assert attribute(method, grey, smooth(2, 64, 1), TARGET).abs().max() > 0
    assert attribute(method, folded, smooth(2, 64), TARGET).abs().max() > 0


@pytest.mark.parametrize("method", ["gradient", "occlusion", "grad_cam", "ablation_cam", "integrated_gradients"])
def test_a_model_that_changes_its_input_in_place(method):
    x = smooth(2, 64)
    kept = x.clone()
    inplace = Wrapped(Small(), before=lambda x: x.sub_(0.5).div_(2.0)).eval()
    want = attribute(method, Wrapped(Small(), before=lambda x: (x - 0.5) / 2.0).eval(), kept, TARGET)
    same(attribute(method, inplace, x, TARGET), want)
    assert torch.equal(x, kept)


def test_a_grid_that_is_wider_than_high_is_channels_first():
    class Audio(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.AvgPool2d((64, 2)))
            self.fc = nn.Linear(32, 5)

        def forward(self, x):
            return self.fc(self.f(x).amax(dim=(2, 3)))

    assert attribute("grad_cam", Audio().eval(), smooth(2, 128, 1), 1, layer="f", resize=False).shape == (2, 1, 2, 64)


def test_a_module_that_runs_twice_is_no_default_layer():
    act = nn.ReLU()
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), act, nn.Conv2d(8, 16, 3, 2), act, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)
    ).eval()
    assert default_layer(model, (3, 64, 64)) == "2"


@pytest.mark.parametrize("head", ["weight_norm", "spectral_norm", "conv"])
def test_heads_that_are_no_plain_linear_layer(head):
    model = Small().eval()
    want = attribute("cam", model, smooth(2, 64), TARGET)
    if head == "conv":
        conv = nn.Conv2d(16, 10, 1)
        conv.weight.data, conv.bias.data = model.fc.weight.data[:, :, None, None], model.fc.bias.data
        model.fc = nn.Sequential(nn.Unflatten(1, (16, 1, 1)), conv, nn.Flatten()).eval()
    else:
        make = getattr(nn.utils.parametrizations, head)
        make(model.fc)
        model.eval()
        if head == "spectral_norm":
            want = want / torch.linalg.matrix_norm(model.fc.parametrizations.weight.original.detach(), 2)
    got = attribute("cam", model, smooth(2, 64), TARGET)
    same(got, want, rtol=1e-3 if head != "spectral_norm" else 0.2)  # a few power iterations


@pytest.mark.filterwarnings("ignore")
def test_quantised_layers_have_no_gradient():
    model, x = Small().eval(), smooth(2, 64)
    quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    with pytest.raises(TypeError, match=r"^model: 'fc' is quantised .*floating-point model"):
        attribute("gradient", quantised, x, TARGET)
    a, b = (attribute("score_cam", m, x, TARGET) for m in (quantised, model))
    assert torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] > 0.9


def test_scripted_and_exported_parts_are_refused():
    x = smooth(2, 64)
    with pytest.warns(FutureWarning, match="deprecated"):
        traced = torch.jit.trace(Small().eval(), x)
    with pytest.raises(TypeError, match=r"^model: 'inner' is scripted"):
        attribute("gradient", Wrapped(traced), x, TARGET)
    program = torch.export.export(Small().eval(), (x,))
    with pytest.raises(TypeError, match=r"^model: an exported program hides its modules"):
        attribute("gradient", program, x, TARGET)
    with pytest.raises(TypeError, match=r"^model: it is an exported graph"):
        attribute("gradient", program.module(), x, TARGET)


# Arguments


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    "target", [np.int64(1), [1, 1], (1, 1), np.array([1, 1]), torch.tensor(1), torch.tensor([1, 1], dtype=torch.int32)]
)
def test_targets_of_every_kind_of_whole_number(target):
    model, x = net("relu"), images(2)
    same(attribute("gradient", model, x, target), attribute("gradient", model, x, torch.tensor([1, 1])))


def test_a_number_as_baseline():
    model, x = net("relu"), images(2)
    want = attribute("integrated_gradients", model, x, TARGET, baseline=torch.tensor(0.5, dtype=x.dtype))
    same(attribute("integrated_gradients", model, x, TARGET, baseline=0.5), want)


@pytest.mark.parametrize(
    ("method", "keywords", "message"),
    [
        ("integrated_gradients", {"steps": 2.5}, "^steps: must be a whole number, got 2.5"),
        ("integrated_gradients", {"steps": "many"}, "^steps: must be a whole number, got 'many'"),
        ("integrated_gradients", {"chunk": None}, "^chunk: must be a whole number, got None"),
        ("integrated_gradients", {"baseline": "black"}, "^baseline: must be a tensor, a number or None, got 'black'"),
        ("occlusion", {"size": (15, 15)}, r"^size: must be a whole number, got \(15, 15\)"),
        ("smooth_grad", {"seed": None}, "^seed: must be a whole number, got None"),
        ("smooth_grad", {"noise": "much"}, "^noise: must be a number, got 'much'"),
        ("recipro_cam", {"softmax": 1}, "^softmax: must be a bool, got 1"),
        ("score_cam", {"weights": 3}, "^weights: must be a str, got 3"),
    ],
)
def test_keywords_of_another_type(method, keywords, message):
    with pytest.raises(TypeError, match=message):
        attribute(method, net("relu"), images(2), TARGET, **keywords)


@pytest.mark.usefixtures("untyped")
def test_swapped_arguments():
    with pytest.raises(
        TypeError, match=r"^name: must be the name of a method, got Tiny; the order is attribute\(method"
    ):
        attribute(net("relu"), "grad_cam", images(2))


@pytest.fixture
def untyped(monkeypatch):
    """The tests' run-time type checks would speak first; users do not have them."""
    import methods._front_door as front

    monkeypatch.setitem(globals(), "attribute", getattr(front.attribute, "__wrapped__", front.attribute))
