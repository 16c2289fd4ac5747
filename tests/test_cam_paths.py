"""CAMs that integrate over a layer, and combinators over layers and versions of the image: identities, closed forms."""

from functools import partial

import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAMElementWise
from torch import nn
from torch.nn import functional as F

from helpers import CLASSES, bound, hooks, images, references
from methods import METHODS
from methods._edits import edited_gradients
from methods._layers import probe
from methods._torch import activation_and_gradient
from methods.aug_smooth import aug_smooth
from methods.dix import dix
from methods.fuse import fuse
from methods.grad_cam import grad_cam
from methods.gradient import gradient
from methods.hires_cam import hires_cam
from methods.iia import iia
from methods.layer_cam import layer_cam
from methods.six import six
from nets import net
from peers import grad_cam_package

same = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-12)
gradient_at = references("dix")["literal"].__globals__["_gradient_at"]


def features(model, layer, x=None, target=CLASSES):
    """A and ds/dA, B K h w, and r: the minimum of each channel, written with a sort."""
    x = images() if x is None else x
    _, A, g = activation_and_gradient(model, x, target, layer)
    r = A.flatten(2).sort(dim=2).values[:, :, :1, None].expand_as(A)
    return A, g, r


# ---- edited_gradients


def doubled(A):
    return torch.stack([A, 2 * A, A - 1])


@pytest.mark.parametrize(
    ("name", "layer"), [("relu", "layer3"), ("relu", "layer3.bn2"), ("vit", "blocks.1.norm1"), ("swin", "norm")]
)
def test_gradients_at_edited_versions_of_a_layer(name, layer):
    """Also behind a shortcut around the layer, where batch sizes disagree."""
    model, x = net(name), images()
    A, V, g = edited_gradients(model, x, CLASSES, [(layer, doubled, 3)])
    same(A, features(model, layer)[0])
    same(V, doubled(A))
    for k in range(3):
        for b in range(3):
            same(g[k, b], gradient_at(net(name), x[b], CLASSES[b], layer, V[k, b]))
    assert not any(a.requires_grad for a in (A, V, g))
    assert hooks(model) == 0


@pytest.mark.parametrize("suffix", ["", ".bn2"])
def test_gradients_at_edits_of_two_layers(suffix):
    """The second layer sees what the first edit makes of it; last edits come first."""
    model, x = net("elu"), images()

    def shifted(A):
        return torch.stack([A, A + 1])

    layers = ["layer2" + suffix, "layer3" + suffix]
    A, V, g = edited_gradients(model, x, CLASSES, [(layers[0], doubled, 3), (layers[1], shifted, 2)])
    assert A.shape[0] == 9
    assert V.shape[:2] == g.shape[:2] == (2, 9)
    for k in range(3):
        handle = model.get_submodule(layers[0]).register_forward_hook(lambda _m, _a, out, k=k: doubled(out)[k])
        A_k, g_k, _ = features(model, layers[1])
        shifted_by_hand = [gradient_at(model, x[b], CLASSES[b], layers[1], A_k[b] + 1) for b in range(3)]
        handle.remove()
        same(A[3 * k : 3 * k + 3], A_k)
        same(V[0, 3 * k : 3 * k + 3], A_k)
        same(g[0, 3 * k : 3 * k + 3], g_k)
        same(g[1, 3 * k : 3 * k + 3], torch.stack(shifted_by_hand))


def test_the_network_before_the_layer_runs_once():
    model, seen = net("relu"), []
    probe(model, images())
    model.conv1.register_forward_hook(lambda _m, _a, out: seen.append(len(out)))
    dix(model, images(), CLASSES, layer="layer3", steps=5)
    assert seen == [3]


def test_a_layer_that_cannot_change_the_score_is_refused():
    for method in (dix, six, iia):
        with pytest.raises(ValueError, match=r"^layer: no position of 'blocks.2'.*exactly zero"):
            method(net("vit"), images(), CLASSES, layer="blocks.2", steps=2)


# ---- dix


@pytest.mark.parametrize("steps", [1, 3])
def test_dix_with_a_linear_head(steps):
    """There ds/dv is the same everywhere on the way."""
    model = net("elu")
    A, g, r = features(model, "layer4")
    points = [r + i / steps * (A - r) for i in range(1, steps + 1)]
    want = sum((g * v).relu() for v in points).sum(dim=1, keepdim=True) / steps
    same(dix(model, images(), CLASSES, layer="layer4", steps=steps), want)


def test_dix_converges_whatever_the_rule():
    model = net("elu")
    exact = dix(model, images(), CLASSES, layer="layer2", steps=64, rule="middle", chunk=200)
    gaps = [
        (dix(model, images(), CLASSES, layer="layer2", steps=n, chunk=200) - exact).abs().max() for n in (4, 16, 64)
    ]
    assert gaps[0] > 3 * gaps[1] > 9 * gaps[2] > 0


def test_dix_starts_where_it_is_told():
    model = net("elu")
    A, g, _ = features(model, "layer4")
    from_zero = dix(model, images(), CLASSES, layer="layer4", reference="zero", rule="middle")
    same(from_zero, (g * A).relu().sum(dim=1, keepdim=True) / 2)
    assert not torch.allclose(from_zero, dix(model, images(), CLASSES, layer="layer4", rule="middle"))
    with pytest.raises(ValueError, match=r"^reference: must be 'minimum', 'zero' or 'activation', got 'mean'"):
        dix(model, images(), CLASSES, layer="layer4", reference="mean")
    with pytest.raises(ValueError, match=r"^rule: must be one of"):
        dix(model, images(), CLASSES, layer="layer4", rule="simpson")
    with pytest.raises(ValueError, match=r"^steps: need at least one"):
        dix(model, images(), CLASSES, layer="layer4", steps=0)


def by_axis_of_length_one(A):
    """The minimum as the released code for CNNs takes it: of activations 1 K h w, over an axis put in front."""
    return A[:, None].min(dim=1).values


@pytest.mark.parametrize("layer", ["layer2", "layer4"])
def test_the_released_dix_is_an_element_wise_grad_cam(layer):
    """Its reference is the activation itself, so there is no way to integrate along, and steps do not matter."""
    model = net("relu")
    A, g, _ = features(model, layer)
    assert torch.equal(by_axis_of_length_one(A), A)
    released = sum((g * (A + i / 4 * (A - by_axis_of_length_one(A)))).relu() for i in range(5)).sum(dim=1, keepdim=True)
    for steps, rule in ((1, "right"), (7, "middle"), (3, "gauss_legendre")):
        ours = dix(model, images(), CLASSES, layer=layer, reference="activation", steps=steps, rule=rule)
        same(ours, released / 5)
    same(ours, grad_cam_package(GradCAMElementWise, net("relu"), images(), CLASSES, layer), rtol=1e-6, atol=1e-9)


def resized(H, K, h, w):
    """Trilinear, one axis after the other."""
    H = F.interpolate(H, size=(h, w), mode="bilinear", align_corners=False)
    return F.interpolate(H.flatten(2).transpose(1, 2), size=K, mode="linear").transpose(1, 2).unflatten(2, (h, w))


def test_dix_fused_as_in_the_released_code():
    """Image by image: H1 at the features themselves, H2 and H3 at 4 points from the minimum over channels."""
    model, x = net("elu"), images()
    layers, H = ["layer4", "layer3", "layer1"], []
    for layer in layers:
        A, g, _ = features(model, layer)
        maps = []
        for b in range(3):
            if layer == "layer4":
                maps.append(4 * g[b].relu() * A[b].relu())
                continue
            r, total = A[b].min(dim=0).values.expand_as(A[b]), 0
            for i in range(4):
                v = r + i / 3 * (A[b] - r)
                length = ((v - r) / 3).square().sum().sqrt()
                total = total + (gradient_at(model, x[b], CLASSES[b], layer, v) * v.relu() * length).relu()
            maps.append(total)
        H.append(resized(torch.stack(maps), 1024, 28, 28))
    f = partial(dix, model, x, CLASSES, layer="layer4", steps=3)
    same(f(fuse_as_released=layers[1:2]), (H[1] * H[0] + H[0]).sum(dim=1, keepdim=True))
    same(f(fuse_as_released=layers[1:]), ((H[1] * H[2] * H[0] + H[0]) * H[0]).sum(dim=1, keepdim=True))
    with pytest.raises(ValueError, match=r"^fuse_as_released: the rule is for one or two more layers, got 3"):
        f(fuse_as_released=[*layers[1:], "conv1"])


# ---- six


def test_six_with_a_linear_head():
    """There the integral is half of A + r. One noise for the batch, of standard deviation 0.994."""
    model = net("relu")
    A, g, _ = features(model, "layer4")
    got = six(model, images(), CLASSES, layer="layer4", rule="middle", seed=5)
    noise = torch.randn(A.shape[1:], generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    r = 0.0062887601655**0.5 * A + 0.9937112398345 * noise
    same(got, (g * (A + r) / 2).sum(dim=1, keepdim=True), rtol=1e-7, atol=1e-9)


def test_six_averages_its_draws_and_ends_at_the_activation():
    model = net("elu")
    A, g, _ = features(model, "layer2")
    f = partial(six, model, images(), CLASSES, layer="layer2")
    last = six(model, images(), CLASSES, layer="layer2", steps=1)  # its one point is the activation
    same(last, (g * A).sum(dim=1, keepdim=True))
    same(last, f(samples=4, steps=1, seed=9))
    one, two, three = (f(samples=n) for n in (1, 2, 3))  # further draws leave the first ones as they are
    second, third = 2 * two - one, 3 * three - 2 * two
    assert not torch.allclose(second, one)
    assert not torch.allclose(third, second)
    same(f(samples=3, chunk=1), three)
    without_noise = f(diffusion=0)
    assert (without_noise - last).abs().max() < 1e-3 * last.abs().max() < (one - last).abs().max()
    for bad in ({"samples": 0}, {"diffusion": -1}):
        with pytest.raises(ValueError, match=r"^samples, diffusion: must be at least 1 and 0"):
            f(**bad)


@pytest.mark.parametrize("chunk", [1, 100])
def test_six_as_in_the_released_code(chunk):
    """Each channel of the noise over its maximum; both ends; a ReLU between the last layer and the pooling."""
    model, x, H = net("elu"), images(), []
    rng = torch.Generator().manual_seed(3)
    p = torch.linspace(1 - 1e-4, 0.98, 501, dtype=torch.float64).prod()
    for layer in ("layer4", "layer3"):
        A, _, _ = features(model, layer)
        noise = torch.randn(A.shape[1:], generator=rng.manual_seed(3), dtype=torch.float64)
        r = p.sqrt() * A + (1 - p) * noise
        low, high = r.flatten(2).min(dim=2).values[..., None, None], r.flatten(2).max(dim=2).values[..., None, None]
        r, total = (r - low) / high * (high - low) + low, 0
        for i in range(3):
            v = r + i / 2 * (A - r)
            seen = v.relu() if layer == "layer4" else v
            g = torch.stack([gradient_at(model, x[b], CLASSES[b], layer, seen[b]) for b in range(3)])
            total = total + (g * (v > 0) * v if layer == "layer4" else g * v)
        H.append(total)
        got = six(model, x, CLASSES, layer=layer, form="released", steps=3, seed=3, chunk=chunk)
        same(got, total.sum(dim=1, keepdim=True))
    H1, H2 = (resized(h, 1024, 28, 28) for h in H)
    f = partial(six, model, x, CLASSES, layer="layer4", steps=3, seed=3, chunk=chunk)
    same(f(fuse_as_released=["layer3"]), (H2 * H1 + H1).sum(dim=1, keepdim=True))
    with pytest.raises(ValueError, match=r"^fuse_as_released: the rule is for one more layer, got 2"):
        f(fuse_as_released=["layer3", "layer1"])


# ---- iia


@pytest.mark.parametrize("steps", [1, 3])
def test_iia_with_a_linear_head(steps):
    """There the inner integral is g (u + r) / 2, so the integrand is half of g (u^2 - r^2)."""
    model, x, want = net("relu"), images(), 0
    for i in range(steps):
        u, g, r = features(model, "layer4", (i + 0.5) / steps * x)
        want = want + (g * (u**2 - r**2) / 2).sum(dim=1, keepdim=True) / steps
    same(iia(model, x, CLASSES, layer="layer4", steps=steps, rule="middle"), want)


def test_iia_of_one_step_is_taken_at_the_image():
    for name, layer, earlier in (("relu", "layer3", "layer1"), ("vit", "blocks.2.norm1", "blocks.1.norm1")):
        model = net(name)
        u, g, r = features(model, layer)
        want = ((u - r) * u * g).sum(dim=1, keepdim=True)
        same(iia(model, images(), CLASSES, layer=layer, steps=1), want)
        same(iia(model, images(), CLASSES, layer=layer, earlier=earlier, steps=1), want)


@pytest.mark.parametrize("chunk", [1, 60])  # 60: two images, three points at each layer
@pytest.mark.parametrize("suffix", ["", ".bn2"])
def test_iia_over_three_integrals_literally(suffix, chunk):
    model, x, n = net("elu"), images(), 3
    points, weights = np.polynomial.legendre.leggauss(n)  # on [-1, 1]; the weights differ
    a, w = (points + 1) / 2, weights / 2
    x_ = torch.full_like(x[:1], 0.3)
    earlier, layer, want = "layer1" + suffix, "layer3" + suffix, 0
    for i in range(n):
        point = x_ + a[i] * (x - x_)
        U, _, R = features(model, earlier, point)
        for j in range(n):
            V = R + a[j] * (U - R)
            handle = model.get_submodule(earlier).register_forward_hook(lambda _m, _a, out, V=V: V.clone())
            u, _, r = features(model, layer, point)
            handle.remove()
            for k in range(n):
                v = r + a[k] * (u - r)
                g = torch.stack([at_two(model, point[b], b, {earlier: V[b], layer: v[b]}) for b in range(3)])
                want = want + w[i] * w[j] * w[k] * ((u - r) * v * g).sum(dim=1, keepdim=True)
    f = partial(iia, model, x, CLASSES, layer=layer, baseline=x_, steps=n, rule="gauss_legendre", chunk=chunk)
    same(f(earlier=earlier), want)
    assert not torch.allclose(f(), want)


def at_two(model, image, b, values):
    """The gradient at the last of two layers, both set to values."""
    *_, last = values.values()
    last.requires_grad_()
    handles = [
        model.get_submodule(layer).register_forward_hook(lambda _m, _a, out, v=v: v[None].clone())
        for layer, v in values.items()
    ]
    (g,) = torch.autograd.grad(model(image[None])[0, CLASSES[b]], last)
    for handle in handles:
        handle.remove()
    return g


def test_the_released_iia_does_not_integrate_over_the_layer():
    """Its points there, less the first of them, are 0 but for the first; with the paper's u - r the map would be 0."""
    model, x = net("relu"), images()
    released, want = 0, 0
    for i in range(5):
        u, g, _ = features(model, "layer3", i / 4 * x)
        r = by_axis_of_length_one(u)
        points = [r + k / 6 * (u - r) for k in range(7)]
        points = [points[0]] + [point - points[0] for point in points[1:]]
        released = released + sum((g * v.relu()).sum(dim=1) for v in points)
        want = want + (g * u.relu()).sum(dim=1)
    same(released, want)
    same(iia(model, x, CLASSES, layer="layer3", form="released", steps=4, chunk=4), want[:, None])
    assert iia(model, x, CLASSES, layer="layer3", steps=2, reference="activation").abs().max() == 0


def test_the_released_iia_over_three_ways_literally():
    """Image by image: the references at both layers are minima over the points between the baseline and that image."""
    model, x, n = net("elu"), images(), 2
    earlier, layer, want = "layer2", "layer3", torch.zeros(3, 1, 8, 8, dtype=torch.float64)

    def at_layer(point, V=None):
        handle = model.get_submodule(earlier).register_forward_hook(lambda _m, _a, out: out if V is None else V.clone())
        A = features(model, earlier if V is None else layer, point, CLASSES[b].repeat(len(point)))[0]
        handle.remove()
        return A

    for b in range(3):
        points = torch.stack([i / n * x[b] for i in range(n + 1)])
        U = at_layer(points)
        for j in range(n + 1):
            low = U.min(dim=0).values
            V = low + j / n * (U - low)
            u = at_layer(points, V)
            least = u.min(dim=0).values
            for k in range(n + 1):
                v = least + k / n * (u - least)
                for i in range(n + 1):
                    g = at_two(model, points[i], b, {earlier: V[i], layer: v[i].clone()})
                    want[b, 0] += (g * v[i].relu()).relu().sum(dim=0)
    for chunk in (1, 20, 200):
        got = iia(model, x, CLASSES, layer=layer, earlier=earlier, form="released", steps=n, chunk=chunk)
        same(got, want)


@pytest.mark.parametrize("method", [six, iia])
def test_an_unknown_form_is_refused(method):
    with pytest.raises(ValueError, match=r"^form: must be 'integral' or 'released', got 'paper'"):
        method(net("relu"), images(), CLASSES, layer="layer3", form="paper")


RELEASED = [
    (dix, {"fuse_as_released": ["layer3", "layer2"]}),
    (six, {"form": "released", "samples": 2}),
    (six, {"fuse_as_released": ["layer2"], "samples": 2}),
    (iia, {"form": "released", "steps": 3}),
    (iia, {"form": "released", "earlier": "layer2", "steps": 2}),
]


@pytest.mark.parametrize(("method", "keywords"), RELEASED)
def test_released_forms_keep_the_contract(method, keywords):
    """Neighbours and chunks do not matter; derivatives are those of central differences."""
    model, x = net("elu"), images()
    f = partial(method, model, layer="layer4", **keywords)
    together = f(x, CLASSES)
    same(f(x, CLASSES, chunk=1), together, rtol=1e-7, atol=1e-10)
    for b in range(3):
        same(f(x[b : b + 1], CLASSES[b : b + 1]), together[b : b + 1], rtol=1e-7, atol=1e-10)
    rng = torch.Generator().manual_seed(2)
    weight, v = (torch.randn(a.shape, generator=rng, dtype=a.dtype) for a in (together, x))
    xg = x.clone().requires_grad_()
    (g,) = torch.autograd.grad((weight * f(xg, CLASSES)).sum(), xg)
    ahead, back = ((weight * f(x + step * v, CLASSES)).sum() for step in (1e-6, -1e-6))
    assert g.abs().max() > 1e-8
    same((g * v).sum(), (ahead - back) / 2e-6, rtol=1e-5, atol=1e-9)


# ---- fuse


def test_fuse_finds_the_last_layer_of_each_grid():
    model, asked = net("relu"), []

    def cam(model, x, target, *, layer):
        asked.append(layer)
        return layer_cam(model, x, target, layer=layer)

    a = fuse(model, images(), CLASSES, layer="layer4", of=cam)
    assert sorted(asked) == ["layer1", "layer3", "layer4"]
    assert a.shape == (3, 1, 16, 16)
    same(a, fuse(model, images(), CLASSES, layer="layer4", layers=["layer3", "layer1"]))
    asked.clear()
    fuse(net("swin"), images(), CLASSES, layer="norm", of=cam)  # attention maps look like grids
    assert asked == ["patch_embed", "norm"]  # its two stages lie in one module that changes the grid
    assert fuse(net("swin"), images(), CLASSES, layer="norm", layers=["layers.0"]).shape == (3, 1, 8, 8)


def test_fuse_on_a_network_without_a_square():
    model = net("relu")
    x = images(h=48, w=32)
    a = fuse(model, x, CLASSES, layer="layer4")
    assert a.shape == (3, 1, 24, 16)
    assert len(probe(model).candidates) > 10


@pytest.mark.parametrize("how", ["max", "mean", "product"])
def test_fuse_of_signed_maps_by_hand(how):
    """Each map over its largest magnitude keeps its sign; tanh is for all but the deepest; the mean is not of three."""
    model = net("elu")
    up = partial(F.interpolate, size=(16, 16), mode="bilinear", align_corners=False)
    M1, M4 = (hires_cam(model, images(), CLASSES, layer=layer) for layer in ("layer1", "layer4"))
    assert (M1.amin(dim=(1, 2, 3)) < 0).all()
    S1, S4 = (M / M.abs().flatten(1).max(dim=1).values[:, None, None, None] for M in (M1, M4))
    combined = {"max": torch.maximum, "mean": lambda a, b: (a + b) / 2, "product": torch.mul}[how]
    f = partial(fuse, model, images(), CLASSES, layer="layer4", layers=["layer1"], of=hires_cam, how=how)
    same(f(), combined((2 * S1).tanh(), up(S4)))
    same(f(gamma=0.5), combined((0.5 * S1).tanh(), up(S4)))
    same(f(gamma=None), combined(S1, up(S4)))
    same(f(gamma=None, scale="none"), combined(M1, up(M4)))


def test_fuse_gives_every_map_the_same_weight_whatever_its_scale():
    model = net("relu")

    def loud(model, x, target, *, layer):
        return layer_cam(model, x, target, layer=layer) * (1e4 if layer == "layer3" else 1)

    f = partial(fuse, model, images(), CLASSES, layer="layer4", how="mean")
    same(f(of=loud), f())
    assert not torch.allclose(f(of=loud, scale="none"), f(scale="none"))
    silent = f(of=lambda model, x, target, layer: torch.zeros(3, 1, 4, 4).double())
    assert silent.abs().max() == 0


@pytest.mark.parametrize("bad", [{"how": "sum"}, {"scale": "l2"}])
def test_fuse_refuses(bad):
    with pytest.raises(ValueError, match=r"^how, scale: must be one of max, mean, product and one of"):
        fuse(net("relu"), images(), CLASSES, layer="layer4", **bad)


# ---- aug_smooth


def test_a_map_that_follows_the_image_is_its_own_average():
    """|x| turns with the mirror and scales with the values: the mean of 0.9, 1 and 1.1 is 1."""

    def follows(model, x, target):
        return x.abs()

    same(aug_smooth(nn.Identity(), images(), CLASSES, of=follows), images().abs())
    same(aug_smooth(nn.Identity(), images(), CLASSES, of=follows, factors=(2.0,), flip=False), 2 * images().abs())


def test_a_map_of_a_fixed_place_is_mirrored():
    ramp = torch.arange(32.0).double().expand(1, 1, 32, 32)
    got = aug_smooth(nn.Identity(), images(), CLASSES, of=lambda model, x, target: ramp.repeat(len(x), 1, 1, 1))
    same(got, torch.full_like(got, 15.5))


def test_no_augmentation_is_the_map_itself():
    model = net("relu")
    of = partial(grad_cam, layer="layer3")
    plain = aug_smooth(model, images(), CLASSES, of=of, flip=False, factors=(1.0,))
    same(plain, of(model, images(), CLASSES))
    assert not torch.allclose(aug_smooth(model, images(), CLASSES, of=of), plain)


def test_scales_in_space_come_back_to_the_first_grid():
    """A smooth picture is nearly the same at another size."""
    smooth = F.interpolate(images(h=4, w=4), size=(32, 32), mode="bicubic")
    seen = []

    def follows(model, x, target):
        seen.append(tuple(x.shape[2:]))
        return x

    f = partial(aug_smooth, nn.Identity(), smooth, CLASSES, of=follows, chunk=100)
    got = f(sizes=(1.0, 0.75, 1.5))
    assert seen == [(32, 32), (24, 24), (48, 48)]
    assert got.shape == smooth.shape
    torch.testing.assert_close(got, smooth, rtol=0, atol=0.1 * float(smooth.abs().max()))
    assert f(sizes=(0.5, 1.0)).shape[-1] == 16
    cam = partial(grad_cam, layer="layer4")
    wide = images(h=32, w=64)
    assert aug_smooth(net("relu"), wide, CLASSES, of=cam, sizes=(1.0, 2.0)).shape == (3, 1, 4, 8)


@pytest.mark.parametrize("bad", [{"factors": ()}, {"sizes": ()}, {"sizes": (1.0, 0.0)}])
def test_aug_smooth_refuses(bad):
    with pytest.raises(ValueError, match=r"^factors, sizes: need at least one of each, sizes above 0"):
        aug_smooth(net("relu"), images(), CLASSES, **bad)


VARIANTS = [
    *((method.__name__, keywords) for method, keywords in RELEASED),
    ("iia", {"earlier": "layer2", "steps": 2}),
    ("fuse", {"layers": ["layer2"]}),
    ("aug_smooth", {"flip": False, "sizes": (1.0, 0.5)}),
]


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_passes_of_variants(name, variant):
    """Counted at the classifier, as the contract does, for keywords that change the number."""
    m, model, x, seen = METHODS[name], net("relu"), images(), [0, 0]
    f = bound(m, model)
    keywords = f.keywords | variant
    head = model.get_classifier()
    head.register_forward_hook(lambda _m, _a, out: seen.__setitem__(0, seen[0] + len(out)))
    head.register_full_backward_hook(lambda _m, _i, g: seen.__setitem__(1, seen[1] + len(g[0])))
    m.fn(model, x, CLASSES, **keywords)
    assert (seen[0] / 3, seen[1] / 3) == m.cost(**keywords | {"H": 32, "W": 32, "h": 4, "w": 4, "K": 16}).total


def test_a_method_of_layers_smoothed_over_versions():
    """Combinators take one another."""
    model = net("relu")
    of = partial(fuse, layer="layer4", of=partial(dix, steps=2))
    got = aug_smooth(model, images(), CLASSES, of=of)
    assert got.shape == (3, 1, 16, 16)
    one = fuse(model, images(), CLASSES, layer="layer4", of=partial(dix, steps=2))
    assert 0.5 < F.cosine_similarity(got.flatten(1), one.flatten(1)).min() < 1 - 1e-6
    assert gradient(model, images(), CLASSES).shape == (3, 3, 32, 32)
