"""CAMs that look at the image through masks, or at several sizes of it: closed forms, reductions, and what is found."""

from functools import partial

import pytest
import timm
import torch
from torch import nn
from torchvision.transforms.functional import gaussian_blur

from helpers import CLASSES, images, references
from methods import METHODS
from methods._layers import default_layer, finer_layers, probe
from methods._torch import activation, activation_and_gradient, minmax, upsample
from methods.cameras import cameras
from methods.grad_cam import grad_cam
from methods.group_cam import blur, group_cam
from methods.is_cam import is_cam
from methods.opti_cam import opti_cam
from methods.poly_cam import poly_cam
from methods.score_cam import score_cam
from methods.ss_cam import ss_cam
from nets import net

pytestmark = pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad=True to a scalar")  # tests/peers
close = partial(torch.testing.assert_close, rtol=1e-7, atol=1e-10)


class Linear(nn.Module):
    """Logits that are linear in the image: what is seen through masks adds up."""

    num_features = 6

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 6, 8, 8, bias=False)
        self.fc = nn.Linear(6, 10, bias=False)

    def get_classifier(self):
        return self.fc

    def forward(self, x):
        return self.fc(self.conv(x).mean(dim=(2, 3)))


def linear():
    return Linear().double().eval()


@pytest.mark.parametrize("samples", [1, 3])
def test_ss_cam_without_noise_is_score_cam(samples):
    model, x = net("relu"), images()
    got = ss_cam(model, x, CLASSES, layer="layer3", samples=samples, noise=0.0)
    close(got, score_cam(model, x, CLASSES, layer="layer3"))
    assert not torch.allclose(got, ss_cam(model, x, CLASSES, layer="layer3", samples=samples), rtol=1e-3)


def test_ss_cam_averages_scores_and_not_maps():
    """On a linear network the smoothed score is that of the mask plus that of the mean noise."""
    model, x, N = linear(), images(), 4
    rng = torch.Generator().manual_seed(3)
    delta = torch.randn(6 * N, 32, 32, generator=rng, dtype=x.dtype).unflatten(0, (6, N)).mean(dim=1)  # K H W
    A = model.conv(x).detach()
    seen = x[:, None] * (minmax(upsample(A, x)) + 0.7 * delta)[:, :, None]  # B K C H W
    f = model(seen.flatten(0, 1)).unflatten(0, (3, 6))[torch.arange(3), :, CLASSES]  # B K
    expected = (f.softmax(dim=1)[:, :, None, None] * A).sum(dim=1, keepdim=True).relu().detach()
    close(ss_cam(model, x, CLASSES, layer="conv", samples=N, noise=0.7, seed=3), expected)


@pytest.mark.parametrize("path", ["sum", "linear"])
def test_is_cam_of_one_step_is_score_cam(path):
    model, x = net("relu"), images()
    got = is_cam(model, x, CLASSES, layer="layer3", steps=1, path=path)
    close(got, score_cam(model, x, CLASSES, layer="layer3"))


@pytest.mark.parametrize(("path", "factor"), [("sum", 2.2), ("linear", 0.55)])
def test_is_cam_of_a_linear_network_scales_the_score(path, factor):
    """The mean over ten points: of i (i + 1) / 20 it is 2.2, of i / 10 it is 0.55."""
    model, x = linear(), images()
    A = model.conv(x).detach()
    seen = x[:, None] * minmax(upsample(A, x))[:, :, None]  # B K C H W
    f = model(seen.flatten(0, 1)).unflatten(0, (3, 6))[torch.arange(3), :, CLASSES]  # B K
    expected = ((factor * f).softmax(dim=1)[:, :, None, None] * A).sum(dim=1, keepdim=True).relu().detach()
    close(is_cam(model, x, CLASSES, layer="conv", path=path), expected)


def test_group_cam_blurs_as_torchvision_does():
    x = images(h=32, w=48)
    close(blur(32, 51, 50.0) @ x @ blur(48, 51, 50.0).T, gaussian_blur(x, [51, 51], [50.0, 50.0]))
    close(blur(32, 7, 1.5) @ x @ blur(48, 7, 1.5).T, gaussian_blur(x, [7, 7], [1.5, 1.5]))


@pytest.mark.parametrize("n", [1, 2, 5])
def test_group_cam_blurs_images_smaller_than_its_window(n):
    b = blur(n, 51, 50.0)
    close(b.sum(dim=1), torch.ones(n, dtype=b.dtype))
    close(b, b.flip(0, 1))
    assert b.min() > 0


def test_group_cam_of_one_group_is_grad_cam_times_a_gain():
    model, x = net("relu"), images()
    L = grad_cam(model, x, CLASSES, layer="layer4")
    M = minmax(upsample(torch.where(L.amin(dim=(2, 3), keepdim=True) < L, L, 0), x))
    hidden = gaussian_blur(x, [51, 51], [50.0, 50.0])
    p = [model(v).softmax(dim=1).detach()[torch.arange(3), CLASSES] for v in (M * x + (1 - M) * hidden, hidden)]
    gain = (p[0] - p[1])[:, None, None, None]
    assert gain.max() > 0
    close(group_cam(model, x, CLASSES, layer="layer4", groups=1, theta=0.0), (gain * M).relu())


@pytest.mark.parametrize(
    "keywords",
    [{"groups": 3}, {"groups": 5, "theta": 40.0}, {"groups": 3, "kernel": 7, "sigma": 1.5, "confidence": "score"}],
)
def test_group_cam_equals_its_definition(keywords):
    """With groups of 4 and 6 channels, the last one smaller."""
    literal, model, x = references("group_cam")["literal"], net("relu"), images()
    got = group_cam(model, x, CLASSES, layer="layer4", **keywords)
    assert got.max() > 0
    close(got, literal(net("relu"), x, CLASSES, layer="layer4", **keywords))


@pytest.mark.parametrize(("groups", "masks"), [(1, 1), (3, 3), (5, 4), (6, 6), (16, 16), (32, 16)])
def test_group_cam_counts_its_groups(groups, masks):
    seen, model = [], net("relu")
    probe(model, images())
    model.register_forward_hook(lambda _m, _a, out: seen.append(len(out)))
    group_cam(model, images(), CLASSES, layer="layer4", groups=groups)
    assert sum(seen) == 3 * (2 + masks)
    assert METHODS["group_cam"].cost(K=16, groups=groups).total == (2 + masks, 1)


def test_opti_cam_is_a_better_map_than_the_mean():
    """It starts from the mean activation, and the score seen through it goes up, for each image."""
    model, x = net("relu"), images()
    _, A = activation(model, x, "layer4")
    close(opti_cam(model, x, CLASSES, layer="layer4", steps=1, lr=1e-12), A.mean(dim=1, keepdim=True).detach())

    def seen(steps, **keywords):
        S = opti_cam(model, x, CLASSES, layer="layer4", steps=steps, **keywords)
        assert (A.amin(dim=1, keepdim=True) <= S).all()
        assert (A.amax(dim=1, keepdim=True) >= S).all()
        return model(x * minmax(upsample(S, x)))[torch.arange(3), CLASSES]

    before, later, after = seen(1, lr=1e-12), seen(10), seen(50)
    assert (later > before).all()
    assert (after > later).all()
    y = model(x)[torch.arange(3), CLASSES]
    assert ((seen(50, objective="norm") - y).abs() < 1e-4).all()
    assert ((after - y).abs() > 1e-3).all()


def test_opti_cam_equals_its_definition_with_the_other_loss():
    literal, x = references("opti_cam")["literal"], images()
    keywords = {"layer": "layer3", "steps": 7, "lr": 0.02, "objective": "norm"}
    close(opti_cam(net("relu"), x, CLASSES, **keywords), literal(net("relu"), x, CLASSES, **keywords))


def test_opti_cam_does_not_stop_for_the_batch():
    """In the authors' loop an image that cannot be improved ends the search for all."""
    model, x = net("relu"), images()
    alone = opti_cam(model, x[:1], CLASSES[:1], layer="layer4")
    stuck = torch.cat([x[:1], torch.zeros_like(x[1:])])
    close(opti_cam(model, stuck, CLASSES, layer="layer4")[:1], alone, rtol=1e-6)


def test_poly_cam_of_a_linear_network():
    """What a mask shows and what it hides add up to the score: w- is w+ where that is positive, and w+- twice that."""
    model, x = linear(), images()
    f = partial(poly_cam, model, x, CLASSES, layer="conv", confidence="score")
    A = model.conv(x).detach()
    lo, hi = A.flatten(2).quantile(torch.tensor([0.001, 0.999], dtype=x.dtype), dim=2)[..., None, None]
    M = upsample(((A - lo) / hi.clamp(min=1e-12)).clamp(0, 1), x)
    w = model((x[:, None] * M[:, :, None]).flatten(0, 1)).unflatten(0, (3, 6))[torch.arange(3), :, CLASSES].detach()
    assert w.min() < 0 < w.max()
    close(f(variant="+"), (w[:, :, None, None] * A).sum(dim=1, keepdim=True).relu())
    close(f(variant="-"), (w.relu()[:, :, None, None] * A).sum(dim=1, keepdim=True).relu())
    close(f(variant="+-"), 2 * f(variant="-"))


@pytest.mark.parametrize(
    "keywords",
    [
        {"variant": "+"},
        {"variant": "-"},
        {"percentile": 25.0},
        {"confidence": "score"},
        {"layers": ("layer2",)},
        {"layers": ()},
        {"layers": ("conv1", "layer2", "layer3")},
    ],
    ids=str,
)
def test_poly_cam_equals_its_definition(keywords):
    literal, x = references("poly_cam")["literal"], images()
    got = poly_cam(net("relu"), x, CLASSES, layer="layer4", **keywords)
    assert got.max() > 0
    close(got, literal(net("relu"), x, CLASSES, layer="layer4", **keywords))


def test_poly_cam_without_detail_resizes_the_deep_map():
    """LNorm of a constant is 1."""
    model, x = net("relu"), images()
    with torch.no_grad():
        for name in ("conv1", "bn1"):
            model.get_submodule(name).weight.zero_()
        model.conv1.bias.fill_(1)
    deep = poly_cam(model, x, CLASSES, layer="act1", layers=(), variant="+")
    close(deep, deep[:, :, :1, :1].expand_as(deep))
    assert deep.min() > 0
    both = poly_cam(model, x, CLASSES, layer="layer4", layers=("act1",), variant="+")
    close(both, upsample(poly_cam(model, x, CLASSES, layer="layer4", layers=(), variant="+"), deep))


FINER = {
    "resnet18": ["act1", "layer1", "layer2", "layer3"],
    "tf_efficientnet_lite0": ["blocks.0", "blocks.1", "blocks.2", "blocks.4"],
    "convnext_atto": ["stages.0", "stages.1", "stages.2"],
    "regnety_002": ["stem", "s1", "s2", "s3"],
    "swin_tiny_patch4_window7_224": ["layers.0", "layers.1", "layers.2"],
    "vit_tiny_patch16_224": [],
}


@pytest.mark.parametrize("name", FINER)
def test_the_last_layer_of_each_grid_is_found(name):
    """Of the stages, not of the first block of the next one, which begins on the grid of the one before."""
    model = timm.create_model(name, pretrained=False).eval()
    assert finer_layers(model, default_layer(model)) == FINER[name]


@pytest.mark.parametrize("keywords", [{}, {"variant": "-"}, {"layers": ("layer2",)}], ids=str)
def test_poly_cam_counts_passes(keywords):
    seen, model = [], net("relu")
    probe(model, images())
    model.register_forward_hook(lambda _m, _a, out: seen.append(len(out)))
    poly_cam(model, images(), CLASSES, layer="layer4", **keywords)
    K = [12, 16] if "layers" in keywords else [8, 12, 16]
    assert sum(seen) == 3 * METHODS["poly_cam"].cost(depth=len(K), channels=sum(K), **keywords).forward.total


def test_cameras_at_one_size_is_a_resized_product():
    model, x = net("relu"), images()
    _, A, g = activation_and_gradient(model, x, CLASSES, "layer3")
    expected = (upsample(A, x) * upsample(g, x)).sum(dim=1, keepdim=True).relu()
    close(cameras(model, x, CLASSES, layer="layer3", steps=1), expected)


@pytest.mark.parametrize("keep", ["agreeing", "all"])
@pytest.mark.parametrize(("h", "w"), [(32, 32), (32, 56)])
def test_cameras_equals_its_definition(keep, h, w):
    literal, x = references("cameras")["literal"], images(h=h, w=w)
    keywords = {"layer": "layer4", "steps": 3, "stride": 13, "keep": keep}
    close(cameras(net("relu"), x, CLASSES, **keywords), literal(net("relu"), x, CLASSES, **keywords))


def test_cameras_keeps_sizes_image_by_image():
    """Three images: one with all its sizes, one with some, one with none but its own."""
    model, x = net("relu"), images(40)
    top = torch.stack([model(nn.functional.interpolate(x, 32 + 8 * t, mode="bicubic")).argmax(dim=1) for t in range(4)])
    kept = (top == top[0]).sum(dim=0)
    pick = torch.stack([(kept == n).nonzero()[0, 0] for n in (4, 2, 1)])
    f = partial(cameras, model, layer="layer4", stride=8)
    together = f(x[pick], CLASSES, steps=4)
    close(together[0], f(x[pick], CLASSES, steps=4, keep="all")[0])
    close(together[2], f(x[pick], CLASSES, steps=1)[2])
    assert not torch.allclose(together[1], f(x[pick], CLASSES, steps=4, keep="all")[1])
    assert not torch.allclose(together[1], f(x[pick], CLASSES, steps=1)[1])
    for i, b in enumerate(pick):
        close(together[i : i + 1], f(x[b : b + 1], CLASSES[i : i + 1], steps=4))


def test_cameras_needs_a_model_of_many_sizes():
    settings = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 10}
    build = partial(timm.create_model, "vit_tiny_patch16_224", **settings)
    f = partial(cameras, x=images(), target=CLASSES, layer="blocks.1.norm1", steps=2, stride=8)
    with pytest.raises(ValueError, match=r"^model: takes 32 x 32 images, but not 40 x 40 \(.*\); .* dynamic_img_size$"):
        f(build().double().eval())
    a = f(build(dynamic_img_size=True).double().eval())
    assert a.shape == (3, 1, 32, 32)
    assert a.max() > 0


def test_cameras_hides_no_other_error():
    def fail(*_):
        raise torch.OutOfMemoryError("on purpose")

    model = net("relu")
    model.register_forward_pre_hook(lambda _m, args: fail() if args[0].shape[2] > 32 else None)
    with pytest.raises(torch.OutOfMemoryError):
        cameras(model, images(), CLASSES, layer="layer4", steps=2, stride=8)


@pytest.mark.parametrize("f", [partial(ss_cam, samples=3), partial(is_cam, steps=3), group_cam, poly_cam])
def test_no_pass_holds_more_than_a_chunk(f):
    seen, model = [], net("relu")
    model.register_forward_hook(lambda _m, _a, out: seen.append(len(out)))
    f(model, images(2), CLASSES[:2], layer="layer4", chunk=7)
    assert max(seen) == 6
    with pytest.raises(ValueError, match=r"^chunk: "):
        f(model, images(2), CLASSES[:2], layer="layer4", chunk=0)


BAD = [
    (ss_cam, {"samples": 0}, "samples"),
    (ss_cam, {"noise": -1.0}, "noise"),
    (is_cam, {"steps": 0}, "steps"),
    (is_cam, {"path": "straight"}, "path"),
    (group_cam, {"groups": 0}, "groups"),
    (group_cam, {"theta": 101.0}, "theta"),
    (group_cam, {"kernel": 4}, "kernel"),
    (group_cam, {"sigma": 0.0}, "sigma"),
    (group_cam, {"confidence": "logit"}, "confidence"),
    (opti_cam, {"steps": 0}, "steps"),
    (opti_cam, {"lr": 0.0}, "lr"),
    (opti_cam, {"objective": "l2"}, "objective"),
    (poly_cam, {"variant": "±"}, "variant"),
    (poly_cam, {"percentile": 50.0}, "percentile"),
    (poly_cam, {"confidence": "logit"}, "confidence"),
    (cameras, {"steps": 0}, "steps"),
    (cameras, {"stride": 0}, "stride"),
    (cameras, {"keep": "some"}, "keep"),
]


@pytest.mark.parametrize(("f", "keywords", "name"), BAD, ids=[f"{f.__name__}-{name}" for f, _, name in BAD])
def test_bad_keywords_are_named(f, keywords, name):
    with pytest.raises(ValueError, match=rf"^(\w+, )*{name}(, \w+)*: ") as error:
        f(net("relu"), images(), CLASSES, layer="layer4", **keywords)
    (value,) = keywords.values()
    assert str(value[0] if isinstance(value, tuple) else value) in str(error.value)
