"""Closed forms, identities and keywords of CAMs that differ from Grad-CAM in one step."""

import math
from functools import partial

import pytest
import timm
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputReST
from sklearn.decomposition import KernelPCA
from torch import nn

from helpers import CLASSES, images
from methods import attribute
from methods._torch import activation, activation_and_gradient, minmax, upsample
from methods.eigen_cam import first_component
from methods.fem import fem
from methods.finer_cam import finer, finer_cam
from methods.grad_cam import grad_cam
from methods.grad_cam_elementwise import grad_cam_elementwise
from methods.grad_cam_plus_plus import grad_cam_plus_plus
from methods.gradient import gradient
from methods.hires_cam import hires_cam
from methods.kpca_cam import kpca_cam
from methods.layer_cam import layer_cam
from methods.random_cam import random_cam
from methods.refine_cam import refine_cam
from methods.shapley_cam import rest, shapley_cam
from methods.smooth_grad import smooth_grad
from methods.smooth_grad_cam_plus_plus import smooth_grad_cam_plus_plus
from nets import net

x = images()
close = partial(torch.testing.assert_close, rtol=1e-7, atol=1e-10)


class Direct(nn.Module):
    """A classifier whose layer `at` hands on the image itself: A = x."""

    num_features = 3

    def __init__(self, head):
        super().__init__()
        self.at, self.head = nn.Identity(), head

    def forward(self, x):
        return self.head(self.at(x).mean(dim=(2, 3)))


def differ(a, b):
    return (a - b).abs().max() > 1e-3 * b.abs().max()


# grad_cam_elementwise


@pytest.mark.parametrize(("name", "layer", "same"), [("relu", "layer3", True), ("silu_se", "layer3", False)])
def test_elementwise_is_layer_cam_where_nothing_is_negative(name, layer, same):
    model = net(name)
    a, b = (f(model, x, CLASSES, layer=layer) for f in (grad_cam_elementwise, layer_cam))
    assert same != bool(differ(a, b))


def test_elementwise_lets_no_channel_cancel_another():
    for name, layer in (("relu", "layer3"), ("gelu_ln", "layer2"), ("vit", "blocks.1.norm1")):
        a, H = (f(net(name), x, CLASSES, layer=layer) for f in (grad_cam_elementwise, hires_cam))
        against = grad_cam_elementwise(net(name), x, lambda z: -z[torch.arange(3), CLASSES], layer=layer)
        close(a - against, H)  # what speaks for, minus what speaks against
        assert (a > H.relu()).any()


# random_cam


def weights_of(model, x, layer, seed):
    """The weights behind a map, solved for: all images together determine them."""
    A = activation(model, x, layer)[1].detach()  # B K h w
    L = random_cam(model, x, CLASSES[: len(x)], layer=layer, seed=seed)
    return torch.linalg.lstsq(A.transpose(1, 3).flatten(0, 2), L.transpose(1, 3).flatten(0, 2)).solution[:, 0]  # K


def test_random_weights_are_one_uniform_draw_for_the_whole_batch():
    model = net("silu_se")
    draws = torch.stack([weights_of(model, x, "layer3", seed) for seed in range(120)])  # 120 K
    for seed in (0, 7):
        A = activation(model, x, "layer3")[1].detach()
        again = (draws[seed][:, None, None] * A).sum(dim=1, keepdim=True)
        close(random_cam(model, x, CLASSES, layer="layer3", seed=seed), again, rtol=1e-6, atol=1e-8)
    assert draws.abs().max() < 1
    assert draws.min() < -0.98
    assert draws.max() > 0.98
    assert draws.mean().abs() < 4 * math.sqrt(1 / 3 / draws.numel())
    torch.testing.assert_close(draws.var(), torch.tensor(1 / 3).to(draws), rtol=0.1, atol=0)


def test_random_weights_do_not_depend_on_precision():
    double = random_cam(net("relu"), x, CLASSES, layer="layer3")
    single = random_cam(net("relu", dtype=torch.float32), x.float(), CLASSES, layer="layer3")
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-5)


# fem


def test_fem_by_hand():
    """Two strong positions in one channel, a constant channel, and one with too many to be strong."""
    A = torch.zeros(1, 3, 8, 8, dtype=x.dtype)
    A[0, 0, 2, 3], A[0, 0, 5, 5] = 4.0, 4.0
    A[0, 1] = 0.1  # its mean is not exactly 0.1: constant all the same
    A[0, 2, :4] = 1.0  # half of the positions: mean 1/2, deviation 1/2
    model, c = Direct(nn.Linear(3, 2).double()), torch.zeros(1).long()
    L = torch.zeros(1, 1, 8, 8, dtype=x.dtype)
    L[0, 0, 2, 3] = L[0, 0, 5, 5] = 8 / 64
    close(fem(model, A, c, layer="at"), L)
    L[0, 0, :4] += 1 / 2
    close(fem(model, A, c, layer="at", sigmas=0.9), L)
    close(fem(model, A, c, layer="at", sigmas=1.1), L - A[:, 2:] / 2)
    close(fem(model, A, c, layer="at", weights="share"), 2 / 64 * A[:, :1])


@pytest.mark.parametrize("f", [fem, random_cam, kpca_cam])
def test_no_class_is_used(f):
    assert torch.equal(*(f(net("relu"), x, c, layer="layer3") for c in (CLASSES, 0 * CLASSES)))


# kpca_cam


def test_linear_kernel_is_eigen_cam_of_centred_features():
    for name, layer in (("relu", "layer3"), ("vit", "blocks.1.norm1")):
        A = activation(net(name), x, layer)[1].detach()
        close(kpca_cam(net(name), x, CLASSES, layer=layer, kernel="linear"), first_component(A, center=True))


@pytest.mark.parametrize(("kernel", "slope"), [("rbf", 2), ("sigmoid", 1 / math.cosh(1) ** 2), ("poly", 3)])
def test_narrow_kernels_are_linear(kernel, slope):
    """For gamma -> 0 the centred kernel is slope * gamma * <a, b>, and a component grows with its root."""
    model, gamma = net("relu"), 1e-9
    linear = kpca_cam(model, x, CLASSES, layer="layer3", kernel="linear")
    narrow = kpca_cam(model, x, CLASSES, layer="layer3", kernel=kernel, gamma=gamma)
    torch.testing.assert_close(narrow / math.sqrt(slope * gamma), linear, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kernel", ["rbf", "sigmoid", "poly"])
@pytest.mark.parametrize("gamma", [None, 0.3])
def test_kernels_are_scikit_learns(kernel, gamma):
    model = net("relu")
    L = kpca_cam(model, x, CLASSES, layer="layer3", kernel=kernel, gamma=gamma)
    for L_b, A in zip(L, activation(model, x, "layer3")[1].detach(), strict=True):
        O = A.flatten(1).T.numpy()
        want = KernelPCA(n_components=1, kernel=kernel, gamma=gamma).fit_transform(O - O.mean(axis=0))
        want = torch.as_tensor(want).view(L_b.shape)
        assert (want * A.sum(dim=0)).sum().abs() > 1e-6  # the sign is decided
        close(L_b, want * (want * A.sum(dim=0)).sum().sign(), rtol=1e-6, atol=1e-8)


def test_the_sign_is_not_the_decompositions():
    model, eigh = net("relu"), torch.linalg.eigh
    L = kpca_cam(model, x, CLASSES, layer="layer3")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.linalg, "eigh", lambda K: (lambda e: (e[0], -e[1]))(eigh(K)))
        close(kpca_cam(model, x, CLASSES, layer="layer3"), L)


# shapley_cam


@pytest.mark.parametrize("layer", ["layer2", "layer4.bn2"])
def test_without_curvature_shapley_cam_is_grad_cam(layer):
    model = net("relu")
    close(shapley_cam(model, x, CLASSES, layer=layer), grad_cam(model, x, CLASSES, layer=layer))
    assert differ(*(f(net("gelu_ln"), x, CLASSES, layer="layer2") for f in (shapley_cam, grad_cam)))


class Quadratic(nn.Module):
    def __init__(self):
        super().__init__()
        self.Q = nn.Parameter(torch.tensor([[2.0, 0.5, 0.1], [0.5, 1.0, 0.3], [0.1, 0.3, 3.0]]).double())
        self.b = nn.Parameter(torch.tensor([1.0, 0.2, 0.7]).double())

    def forward(self, m):
        y = (m @ self.Q * m).sum(dim=1) / 2 + m @ self.b
        return torch.stack([y, -y], dim=1)


def test_shapley_values_of_a_quadratic_score_sum_to_what_it_gained():
    """To second order is exact here: the map adds up to f(A) - f(0), and each channel gets its Shapley value."""
    model, A, c = Direct(Quadratic()), x.abs(), torch.zeros(3).long()
    L = shapley_cam(model, A, c, layer="at")
    close(L.sum(dim=(1, 2, 3)), (model(A) - model(0 * A))[:, 0].detach())
    Q, b, m = model.head.Q.detach(), model.head.b.detach(), A.mean(dim=(2, 3))
    value = m * b + m * (m @ Q) / 2  # of a quadratic game: own term, and half of each interaction
    close(L, ((value / m)[:, :, None, None] * A / A[0, 0].numel()).sum(dim=1, keepdim=True))


def test_rest_is_the_packages_and_has_curvature():
    z = torch.randn(3, 10, dtype=x.dtype, generator=torch.Generator().manual_seed(5)) * 4
    want = [ClassifierOutputReST(int(c))(row) for c, row in zip(CLASSES, z, strict=True)]
    close(rest(CLASSES)(z), torch.cat([w.view(1) for w in want]))

    model = net("relu")  # the head is linear: u = z_c + log p_c of z = W mean(A) + b
    W = model.fc.weight.detach()
    A = activation(model, x, "layer4")[1].detach()
    m, p = A.mean(dim=(2, 3)), model(x).softmax(dim=1).detach()
    s = m @ W.T
    Hm = -(p * s - p * (p * s).sum(dim=1, keepdim=True)) @ W  # - W^T (diag p - p p^T) W m
    w = (2 * W[CLASSES] - p @ W - Hm / 2) / 16
    got = shapley_cam(model, x, rest(CLASSES), layer="layer4")
    close(got, (w[:, :, None, None] * A).sum(dim=1, keepdim=True).relu())
    assert differ(got, grad_cam(model, x, rest(CLASSES), layer="layer4"))


@pytest.mark.parametrize(("name", "layer"), [("gelu_ln", "layer2"), ("vit", "blocks.1.norm1"), ("swin", "layers.0")])
def test_shapley_cam_has_the_right_derivative_behind_layer_norms(name, layer):
    """The third derivative of the score, which torch.layer_norm does not have; the map itself is the same."""
    model, image = net(name), x.clone().requires_grad_()
    f = partial(shapley_cam, model, target=rest(CLASSES), layer=layer)
    L = f(x=image)
    close(L.detach(), f(x=x))
    rng = torch.Generator().manual_seed(4)
    W, v = (torch.randn(shape, generator=rng, dtype=x.dtype) for shape in (L.shape, x.shape))
    (g,) = torch.autograd.grad((W * L).sum(), image)
    numeric = (W * (f(x=x + 1e-6 * v) - f(x=x - 1e-6 * v))).sum() / 2e-6
    close((g * v).sum(), numeric, rtol=1e-5)
    assert numeric.abs() > 1e-3


def test_shapley_cam_refuses_what_cannot_change_the_score():
    with pytest.raises(ValueError, match=r"layer: no position of 'blocks.2.norm2' .* such as 'blocks.2.norm1'"):
        shapley_cam(net("vit"), x, CLASSES, layer="blocks.2.norm2")


# smooth_grad_cam_plus_plus


smooth = partial(smooth_grad_cam_plus_plus, layer="layer3", samples=4)


def test_without_noise_it_is_grad_cam_plus_plus():
    model = net("relu")
    want = grad_cam_plus_plus(model, x, CLASSES, layer="layer3")
    close(smooth(model, x, CLASSES, noise=0.0), want)
    close(smooth(model, x, CLASSES, noise=0.0, samples=1), want)
    assert differ(smooth(model, x, CLASSES, noise=0.3), want)
    whole = smooth_grad(model, x, CLASSES, of=partial(grad_cam_plus_plus, layer="layer3"), samples=4, noise=0.3)
    assert differ(smooth(model, x, CLASSES, noise=0.3), whole)


def test_the_numerator_as_printed_forgets_the_size_of_gradients():
    model = net("relu")
    _, A, g = activation_and_gradient(model, x, CLASSES, "layer3")
    w = ((g > 0) / (2 + A.sum(dim=(2, 3), keepdim=True) * g)).sum(dim=(2, 3), keepdim=True)
    got = smooth(model, x, CLASSES, noise=0.0, numerator="first")
    close(got, (w * A).sum(dim=1, keepdim=True).relu())


def test_closed_form_derivatives_are_those_of_the_exponential():
    """D_p by autograd, cell by cell, at a linear head, where S is linear in A."""
    model, S = net("relu"), CLASSES[:1]
    logits, A = activation(model, x[:1], "layer4")
    g = activation_and_gradient(model, x[:1], S, "layer4")[2]
    y = logits[0, S[0]]
    d = y.exp()
    for p in (1, 2, 3):
        (d,) = torch.autograd.grad(d, A, create_graph=True)
        d = d[0, 3, 2, 1]  # the same cell each time: the diagonal
        close(d.detach(), (y.exp() * g[0, 3, 2, 1] ** p).detach())


def test_samples_count_by_the_exponential_of_their_score():
    """By a large score only the best sample is left; and however large, nothing overflows, in whatever chunks."""
    model, found = net("relu"), {}
    alone = partial(smooth_grad_cam_plus_plus, layer="layer3", noise=0.3)

    def large(z):
        return 1e4 * z[torch.arange(len(z)), CLASSES]

    for chunk in (1, 6, 100):
        found[chunk] = alone(model, x, large, samples=4, chunk=chunk)
        assert found[chunk].isfinite().all()
        close(found[chunk], found[1])
    shifted = alone(model, x, lambda z: z[torch.arange(len(z)), CLASSES] + 5000, samples=4)
    close(shifted, alone(model, x, CLASSES, samples=4), rtol=1e-6, atol=1e-9)

    rng = torch.Generator().manual_seed(0)
    spread = 0.3 * (x.amax(dim=(1, 2, 3)) - x.amin(dim=(1, 2, 3)))[:, None, None, None]
    X = [x + spread * torch.randn(x.shape[1:], generator=rng, dtype=x.dtype) for _ in range(4)]
    y = torch.stack([model(n)[torch.arange(3), CLASSES] for n in X])  # 4 B
    best = y.argmax(dim=0).tolist()
    A = activation(model, x, "layer3")[1].detach()
    for b in range(3):
        g = activation_and_gradient(model, X[best[b]], large, "layer3")[2][b]
        w = (g.relu() / (2 + A[b].sum(dim=(1, 2), keepdim=True) * g)).sum(dim=(1, 2), keepdim=True)
        close(found[1][b, 0], (w * A[b]).sum(dim=0).relu(), rtol=1e-5, atol=1e-8)


# finer_cam


def nearest(model, T):
    z = model(x).detach()
    distance = (z - z.gather(1, CLASSES[:, None])).abs()
    return distance.scatter(1, CLASSES[:, None], math.inf).topk(T, dim=1, largest=False).indices  # B T


def test_finer_is_a_difference_that_any_method_explains():
    model = net("gelu_ln")
    D = nearest(model, 3)
    for f in (gradient, partial(hires_cam, layer="layer2")):
        others = torch.stack([f(model, x, d) for d in D.T]).mean(dim=0)
        for gamma in (0.0, 0.6, 1.0):
            close(f(model, x, finer(CLASSES, gamma=gamma)), f(model, x, CLASSES) - gamma * others)
    close(finer_cam(model, x, CLASSES, layer="layer2", of=hires_cam, gamma=0.0), f(model, x, CLASSES))
    close(finer_cam(model, x, CLASSES, layer="layer2", of=hires_cam), f(model, x, finer(CLASSES)))


def test_references_are_a_number_or_the_classes_themselves():
    model = net("relu")
    for T in (1, 4):
        by_number = finer_cam(model, x, CLASSES, layer="layer3", references=T)
        close(by_number, finer_cam(model, x, CLASSES, layer="layer3", references=nearest(model, T)))
    everyone = finer_cam(model, x, CLASSES, layer="layer3", references=9)
    close(everyone, finer_cam(model, x, CLASSES, layer="layer3", references=99))
    named = torch.tensor([[0], [2], [3]])
    want = grad_cam(
        model, x, lambda z: z[torch.arange(3), CLASSES] - 0.6 * z[torch.arange(3), named[:, 0]], layer="layer3"
    )
    close(finer_cam(model, x, CLASSES, layer="layer3", references=named), want)
    of = partial(finer_cam, layer="layer3", references=named)
    close(smooth_grad(model, x, CLASSES, of=of, samples=2, noise=0.0), want)  # copies of the batch


def test_softmax_weights_are_the_similar_classes_own_and_not_held_fixed():
    z = (3 * torch.randn(2, 6, dtype=x.dtype, generator=torch.Generator().manual_seed(3))).requires_grad_()
    c, D = torch.tensor([0, 5]), torch.tensor([[1, 2], [3, 4]])
    p = z.softmax(dim=1).gather(1, D)
    want = z.gather(1, c[:, None])[:, 0] - 0.7 * (p * z.gather(1, D)).sum(dim=1) / p.sum(dim=1)
    got = finer(c, gamma=0.7, references=D, weights="softmax")(z)
    close(got, want)
    close(torch.autograd.grad(got.sum(), z)[0], torch.autograd.grad(want.sum(), z)[0])


def test_a_class_is_not_compared_with_itself_in_a_tie():
    z = torch.tensor([[5.0, 1.0, 5.0, 3.0]])
    for c, twin in ((0, 2), (2, 0)):
        w = z.clone().requires_grad_()
        (g,) = torch.autograd.grad(finer(torch.tensor([c]), gamma=1.0, references=1)(w).sum(), w)
        assert g[0, c] == 1
        assert g[0, twin] == -1
    picked = finer(lambda z: z[:, 0], gamma=1.0, references=2)(z)  # a callable: class 0, by its score
    close(picked, torch.tensor([5.0 - (5.0 + 3.0) / 2]))


# refine_cam


def test_refine_cam_is_a_product_of_rescaled_maps():
    model, want = net("relu"), 1.0
    for layer in ("layer4", "layer3", "layer1"):
        M = minmax(upsample(grad_cam_plus_plus(model, x, CLASSES, layer=layer), x))
        close(refine_cam(model, x, CLASSES, layer=layer, layers=()), M)
        want = want * M
    close(refine_cam(model, x, CLASSES, layer="layer4", layers=("layer1", "layer3")), want)
    close(refine_cam(model, x, CLASSES, layer="layer4", layers=("layer3", "layer1")), want)
    close(refine_cam(model, x, CLASSES, layer="layer1", layers=("layer3", "layer4")), want)
    close(refine_cam(model, x, CLASSES, layer="layer4"), want)  # layer2 has the grid of layer3
    assert want.max() <= 1


def test_refine_cam_of_another_cam():
    def hires(A, g):
        return (A * g).sum(dim=1, keepdim=True)

    model = net("vit")
    want = 1.0
    for layer in ("blocks.0.norm1", "blocks.1.norm1", "blocks.2.norm1"):
        want = want * minmax(upsample(hires_cam(model, x, CLASSES, layer=layer), x))
    layers = ("blocks.0.norm1", "blocks.1.norm1")
    close(refine_cam(model, x, CLASSES, layer="blocks.2.norm1", layers=layers, of=hires), want)


@pytest.mark.parametrize(
    ("name", "layer", "layers"),
    [
        ("resnet18", "layer4", ("layer1", "layer2", "layer3")),
        ("resnet18", "layer2.0.act1", ("layer1",)),
        ("mobilenetv3_small_050", "blocks", ("bn1", "blocks.0", "blocks.1", "blocks.3")),
    ],
)
def test_layers_by_default_are_the_last_blocks_of_each_finer_grid(name, layer, layers):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5).double().eval()
    for p in model.parameters():
        if not p.any():  # timm starts the last norm of a block at zero: nothing would pass
            nn.init.normal_(p)
    X, c = images(1, 64, 64), torch.tensor([3])
    layers = [n for n in layers if any(True for _ in model.get_submodule(n).children())]
    by_default = refine_cam(model, X, c, layer=layer)
    assert by_default.abs().max() > 0
    close(by_default, refine_cam(model, X, c, layer=layer, layers=layers))


def test_all_layers_in_one_pass():
    model, seen, graph = net("relu"), [], []
    refine_cam(model, x, CLASSES, layer="layer4")
    model.conv1.register_forward_hook(lambda _m, _a, out: seen.append(len(out)))
    model.act1.register_forward_hook(lambda _m, _a, out: graph.append(out.requires_grad))
    refine_cam(model, x, CLASSES, layer="layer4")
    assert seen == [3]
    assert graph == [False]  # nothing is recorded before the first layer


def test_a_layer_that_sees_nothing_makes_the_product_zero():
    model = net("relu")
    L = refine_cam(model, x, CLASSES, layer="layer4", of=lambda A, g: 0 * A[:, :1] + (A.shape[-1] == 8))
    assert torch.equal(L, torch.zeros_like(x[:, :1]))


@pytest.mark.parametrize(
    ("f", "keywords", "message"),
    [
        (fem, {"weights": "median"}, r"weights: must be 'mean' .* got 'median'"),
        (kpca_cam, {"kernel": "cosine"}, r"kernel: must be one of 'sigmoid', 'rbf', .* got 'cosine'"),
        (smooth_grad_cam_plus_plus, {"numerator": "third"}, r"numerator: must be .* got 'third'"),
        (smooth_grad_cam_plus_plus, {"samples": 0}, r"samples, noise: .* got 0"),
        (smooth_grad_cam_plus_plus, {"chunk": 0}, r"chunk: .* got 0"),
        (finer_cam, {"references": 0}, r"references: must be 1 or more .* got 0"),
        (finer_cam, {"weights": "sum"}, r"weights: must be .* got 'sum'"),
    ],
)
def test_bad_keywords_are_named(f, keywords, message):
    with pytest.raises(ValueError, match=message):
        f(net("relu"), x, CLASSES, layer="layer3", **keywords)


def test_one_class_has_none_to_be_compared_with():
    model = Direct(nn.Linear(3, 1).double())
    with pytest.raises(ValueError, match=r"references: must be classes .* got \(3, 0\) for 3 images"):
        finer_cam(model, x, torch.zeros(3).long(), layer="at")
    with pytest.raises(ValueError, match=r"references: must be classes .* got \(2, 1\) for 3 images"):
        finer_cam(net("relu"), x, CLASSES, layer="layer3", references=torch.zeros(2, 1).long())


@pytest.mark.parametrize("method", ["eigen_cam", "kpca_cam"])
def test_the_sign_is_no_matter_of_rounding_after_a_layer_norm(method):
    """There the channels sum to 0 at every position, so the sum of the activation tells no sign."""

    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.fc = nn.Conv2d(3, 16, 4, 4), nn.LayerNorm(16), nn.Linear(16, 10)

        def forward(self, x):
            return self.fc(self.norm(self.conv(x).permute(0, 2, 3, 1)).mean((1, 2)))

    torch.manual_seed(0)
    model, x = Normed().eval(), images(8, dtype=torch.float32)
    a = attribute(method, model, x, layer="norm", resize=False)
    exact = attribute(method, model.double(), x.double(), layer="norm", resize=False)
    close(a.double(), exact, rtol=1e-3, atol=1e-3)
    peak = exact.flatten(1).gather(1, exact.flatten(1).abs().argmax(dim=1, keepdim=True))
    assert (peak > 0).all()
