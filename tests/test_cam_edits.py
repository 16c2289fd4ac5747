"""CAMs by edited activations and by rules behind the layer: Recipro-CAM, FD-CAM, LIFT-CAM, Relevance-CAM."""

import copy
import functools

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import methods
from helpers import CLASSES, FirstConvolution, bound, hooks, images, in_turn, references
from methods import METHODS, _grids, _layers
from methods._edits import edited_scores
from methods._rescale import rescale
from methods._torch import activation
from methods.ablation_cam import ablation_cam
from methods.cam import cam
from methods.fd_cam import fd_cam, similar
from methods.lift_cam import coefficients, lift_cam
from methods.recipro_cam import recipro_cam
from methods.relevance_cam import relevance, relevance_cam
from nets import Block, net

# --- edited_scores: the network before the layer once, the rest on every copy


class Convolutions(TorchDispatchMode):
    """Counts what is computed: the number of images in each convolution."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.convolution.default:
            self.batches.append(len(args[0]))
        return func(*args, **(kwargs or {}))


FACTORS = torch.tensor([0.0, 0.5, 1.0, 2.0, 3.0, -1.0, 0.25], dtype=torch.float64)


def scaled(A, k):
    return FACTORS[k][:, None, None, None, None] * A


def one_run_each(model, x, target, layer):
    """Each edit by itself, in a run of the whole network."""
    scores, at = [], _layers.layout(model, layer, x)
    for factor in FACTORS:

        def scale(_module, _args, out, factor=factor):
            return _grids.from_grid((factor * _grids.to_grid(out, at)).clone(), out, at)

        handle = model.get_submodule(layer).register_forward_hook(scale)
        with torch.no_grad():
            scores.append(model(x).gather(1, target[:, None])[:, 0])
        handle.remove()
    return torch.stack(scores)


class Backwards(Block):
    """The shortcut takes the branch up in place: with B = 1 and n copies this cannot be broadcast."""

    def forward(self, x):
        shortcut = self.downsample(x)
        x = self.gate(self.bn2(self.conv2(self.act1(self.bn1(self.conv1(x))))))
        shortcut += x
        return self.act2(shortcut)


class Stale(nn.Module):
    """Takes the batch size at the start and uses it behind the layer: n copies of 1 image would become one long one."""

    def __init__(self):
        super().__init__()
        self.conv, self.act, self.fc = nn.Conv2d(3, 6, 3, 2, 1), nn.Tanh(), nn.Linear(6, 10)

    def forward(self, x):
        B = x.shape[0]
        tokens = self.act(self.conv(x)).reshape(B, 6, -1).transpose(1, 2)
        return self.fc(tokens.reshape(B, -1, 6).max(dim=1).values)


@functools.cache
def _timm(name):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=10).double().eval()
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.weight, 0.5, 1.5)  # not 0 at the end of a residual branch
    return model


def _backwards():
    model = net("relu")
    model.layer3.__class__ = Backwards
    return model


def _stale():
    torch.manual_seed(0)
    return Stale().double().eval()


PLACES = [
    *[(lambda: _timm("resnet18"), layer) for layer in ("layer3.1.conv2", "layer3.1", "layer4.0.downsample.1", "bn1")],
    *[(lambda: _timm("resnet50"), layer) for layer in ("layer3.2.conv3", "layer4.1.bn3", "layer4")],
    *[(lambda: net("relu"), layer) for layer in ("layer1", "layer2.conv1", "layer3.bn2", "layer4.act2")],
    *[(lambda: net("silu_se"), layer) for layer in ("layer3.conv2",)],
    *[(lambda: net("vit"), layer) for layer in ("patch_embed", "blocks.1.attn", "blocks.1.mlp.fc1", "blocks.2.norm1")],
    *[(lambda: net("swin"), layer) for layer in ("layers.0.blocks.1.norm1", "layers.1.blocks.0.mlp", "layers.0")],
    *[(_backwards, layer) for layer in ("layer3.bn2", "layer3.conv1")],
    (_stale, "act"),
]


@functools.lru_cache(maxsize=1)
def expected(i, B):
    """(model, its state, what one run each gives) at a place: the same for every chunk."""
    make, layer = PLACES[i]
    model = make()
    return model, copy.deepcopy(model.state_dict()), one_run_each(model, images(B), CLASSES[:B], layer)


PRODUCT = [(i, B, chunk) for i in range(len(PLACES)) for B in (1, 3) for chunk in (None, 1, 3, 100)]
TURNS = in_turn(PRODUCT, [f"{i}-{PLACES[i][1]}-{B}-{chunk}" for i, B, chunk in PRODUCT], by=lambda i, B, chunk: (i, B))


@pytest.mark.parametrize(("i", "B", "chunk"), TURNS)
def test_edited_copies_equal_one_run_each(i, B, chunk):
    """In residual branches too, where a shortcut holds B images and the branch n B: with B = 1 it broadcasts."""
    layer, x, target = PLACES[i][1], images(B), CLASSES[:B]
    model, before, want = expected(i, B)
    edit = scaled if chunk else lambda A: scaled(A, slice(None))
    with torch.no_grad():
        got = edited_scores(model, x, target, layer, edit, len(FACTORS), chunk)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-11)
    assert (got[0] - got[3]).abs().min() > 1e-9  # the edits reach the score
    assert hooks(model) == 0
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def computed(model, x, layer, chunk):
    _layers.probe(model, x)
    with torch.no_grad(), Convolutions() as counted:
        edited_scores(model, x, CLASSES[: len(x)], layer, scaled, len(FACTORS), chunk)
    return counted.batches


def test_the_network_before_the_layer_is_computed_once():
    model, x = net("relu"), images()
    stem, tail = 1 + 2 + 3 + 2, 3  # convolutions up to layer3, and after it
    assert computed(model, x, "layer3", 6) == [3] * stem + [6] * tail * 3 + [3] * tail
    assert computed(model, x, "layer3", 100) == [3] * stem + [21] * tail


def test_inside_a_block_only_the_block_is_repeated():
    """A shortcut passes layer3.bn2: 3 images meet 6 copies, so the copies begin at the input of layer3."""
    model, x = net("relu"), images()
    block, tail = [6] * 2, [6] * 3
    failed = [3] * 8  # the attempt with 3 images in the shortcut; what comes before layer3 is recorded there
    got = computed(model, x, "layer3.bn2", 6)
    assert got == failed + (block + tail) * 3 + [3] * 5
    x = x[:1]
    assert computed(model, x, "layer3.bn2", 7) == [1] * 8 + [7] * 3  # one image broadcasts


def test_edits_in_a_graph():
    """Gradients through the replayed stem, to the images and to the parameters, are those of one run each."""
    model, x = net("elu"), images().requires_grad_()
    first = next(model.parameters())
    got = edited_scores(model, x, CLASSES, "layer2", scaled, len(FACTORS), 6)
    weight = torch.randn(got.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    a = torch.autograd.grad((weight * got).sum(), [x, first])
    whole = edited_scores(model, x, CLASSES, "layer2", lambda A: scaled(A, slice(None)), len(FACTORS))
    b = torch.autograd.grad((weight * whole).sum(), [x, first])
    for one, other in zip(a, b, strict=True):
        assert one.abs().max() > 1e-4
        torch.testing.assert_close(one, other)


def test_hooks_of_the_caller_see_real_tensors():
    """What is replayed has no tensors to show, so with hooks before the layer every pass is computed."""
    model, x, seen = net("relu"), images(), []
    _layers.probe(model, x)
    model.layer1.register_forward_hook(lambda _m, _a, out: seen.append(out))
    assert computed(model, x, "layer3", 6) == ([3] * 8 + [6] * 3) * 3 + [3] * 11
    assert len(seen) == 4
    assert all(torch.equal(out, seen[0]) for out in seen)
    model = net("relu")
    _layers.probe(model, x)
    model.fc.register_forward_hook(lambda _m, _a, out: seen.append(len(out)))  # as who counts passes does
    assert computed(model, x, "layer3", 6) == [3] * 8 + [6] * 9 + [3] * 3
    assert seen[4:] == [6, 6, 6, 3]


def test_a_network_that_does_something_else_each_time_is_run_in_full():
    class Fickle(nn.Module):
        runs = 0

        def forward(self, x):
            self.runs += 1
            return x * 2 / 2 if self.runs % 2 else torch.flip(torch.flip(x, (0,)), (0,))

    model, x = net("relu"), images()
    want = one_run_each(model, x, CLASSES, "layer3")
    model.act1 = nn.Sequential(nn.ReLU(), Fickle())
    with torch.no_grad():
        got = edited_scores(model, x, CLASSES, "layer3", scaled, len(FACTORS), 6)
    torch.testing.assert_close(got, want)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("place", ["act1", "layer3"])
def test_an_operation_that_cannot_be_recorded_is_computed_each_time(place):
    """A mode does not see what runs below the Python functions of torch: a scripted module, an extension."""

    model, x = net("relu"), images()
    setattr(model, place, nn.Sequential(getattr(model, place), torch.jit.script(nn.Softplus())))
    with torch.no_grad():
        got = edited_scores(model, x, CLASSES, place, scaled, len(FACTORS), 6)
    torch.testing.assert_close(got, one_run_each(model, x, CLASSES, place))
    with torch.no_grad():
        got = edited_scores(model, x, CLASSES, "layer3", scaled, len(FACTORS), 6)
    torch.testing.assert_close(got, one_run_each(model, x, CLASSES, "layer3"))


def test_an_operation_in_place_behind_the_layer_does_not_reach_the_next_pass():
    """With chunks of one version the shortcut is large enough to be written to, and it is kept for all passes."""
    model, x = _backwards(), images(1)
    with torch.no_grad():
        got = edited_scores(model, x, CLASSES[:1], "layer3.bn2", scaled, len(FACTORS), 1)
    torch.testing.assert_close(got, one_run_each(model, x, CLASSES[:1], "layer3.bn2"))


def test_memory_exhausted_is_not_taken_for_a_shortcut():
    model, runs = net("relu"), []

    def exhausted(A, k):
        runs.append(1)
        raise torch.OutOfMemoryError("on purpose")

    with torch.no_grad(), pytest.raises(torch.OutOfMemoryError, match="on purpose"):
        edited_scores(model, images(), CLASSES, "layer3.bn2", exhausted, 4, 2)
    assert runs == [1]
    assert hooks(model) == 0


def test_an_error_of_the_network_is_raised_in_the_end():
    class Broken(nn.Linear):
        def forward(self, input):
            if len(input) > 2:  # more than the probe has
                raise RuntimeError("on purpose")
            return super().forward(input)

    model = net("relu")
    model.fc = Broken(16, 10).double()
    with torch.no_grad(), pytest.raises(RuntimeError, match="on purpose"):
        edited_scores(model, images(), CLASSES, "layer3.bn2", scaled, 4, 2)
    assert hooks(model) == 0


# --- Recipro-CAM


def rescaled(a):
    lo, hi = a.amin(dim=(2, 3), keepdim=True), a.amax(dim=(2, 3), keepdim=True)
    return (a - lo) / (hi - lo)


def test_recipro_cam_of_logits_is_cam_behind_average_pooling():
    """A position alone gives b + w A_n / (h w). On images that are not square."""
    model, x = net("elu"), images(h=32, w=48)
    got = recipro_cam(model, x, CLASSES, layer="layer4", softmax=False)
    torch.testing.assert_close(got, rescaled(cam(model, x, CLASSES, layer="layer4")))
    assert (recipro_cam(model, x, CLASSES, layer="layer4") - got).abs().max() > 1e-3  # the softmax is no affine map


def test_recipro_cam_with_a_gaussian():
    """Pasted over 3 x 3 the features count 1 in the interior, 3/4 at an edge and 9/16 in a corner."""
    model, x = net("elu"), images()
    with torch.no_grad():
        model.fc.bias.zero_()
    inside = torch.full((4, 4), 1.0, dtype=x.dtype)
    inside[[0, -1], :] *= 0.75
    inside[:, [0, -1]] *= 0.75
    want = rescaled(cam(model, x, CLASSES, layer="layer4") * inside)
    got = recipro_cam(model, x, CLASSES, layer="layer4", gaussian=True, softmax=False)
    torch.testing.assert_close(got, want)


def test_recipro_cam_pastes_its_gaussian_around_the_position():
    """Against the released loop over positions, behind a layer where places count."""
    model, x = net("relu"), images(1)
    _, A = activation(model, x, "layer2")
    kernel = torch.tensor([[1, 2, 1], [2, 4, 2], [1, 2, 1]], dtype=x.dtype) / 16
    h, w = A.shape[2:]
    Y = torch.zeros(h, w, dtype=x.dtype)
    with torch.no_grad():
        for i in range(h):
            for j in range(w):
                mosaic = F.pad(torch.zeros_like(A), (1, 1, 1, 1))
                mosaic[:, :, i : i + 3, j : j + 3] = A[:, :, i, j, None, None] * kernel
                tail = model.layer4(model.layer3(mosaic[:, :, 1:-1, 1:-1]))
                Y[i, j] = model.fc(tail.mean((2, 3))).softmax(dim=1)[0, CLASSES[0]]
    got = recipro_cam(model, x, CLASSES[:1], layer="layer2", gaussian=True)
    torch.testing.assert_close(got, rescaled(Y[None, None]))


def test_recipro_cam_hands_a_callable_probabilities():
    model, x, seen = net("relu"), images(), []

    def target(p):
        seen.append(p.detach())
        return p[:, 3] - p[:, 5]

    recipro_cam(model, x, target, layer="layer4")
    torch.testing.assert_close(torch.cat(seen).sum(dim=1), torch.ones(len(torch.cat(seen)), dtype=x.dtype))
    seen.clear()
    recipro_cam(model, x, target, layer="layer4", softmax=False)
    assert (torch.cat(seen).sum(dim=1) - 1).abs().min() > 1e-3


# --- FD-CAM


def per_channel(a):
    lo, hi = a.amin(dim=1, keepdim=True), a.amax(dim=1, keepdim=True)
    return (a - lo) / (hi - lo)


def test_fd_cam_groups():
    """Five channels in two directions: the quantile of each row decides, with interpolation, and > is strict."""
    A = torch.tensor([[1.0, 0], [1, 0.1], [1, 0.2], [0, 1], [0, 0]], dtype=torch.float64).view(1, 5, 1, 2)
    A = torch.cat([A, 3 * A.flip(1)])
    for theta in (0.0, 0.3, 0.5, 0.95, 1.0):
        G = similar(A, torch.arange(5), theta)
        for image, groups in zip(A.flatten(2), G, strict=True):
            norm = image.norm(dim=1)
            cos = torch.nan_to_num(image @ image.T / (norm[:, None] * norm))
            assert torch.equal(groups, cos > torch.quantile(cos, theta, dim=1, keepdim=True))
    assert not similar(A, torch.arange(5), 1.0).any()
    # the channel of zeros is like no other, not even itself; its own row holds only zeros, so its group is empty
    assert similar(A, torch.arange(5), 0.5)[0].tolist() == [
        [True, True, False, False, False],
        [False, True, True, False, False],
        [False, True, True, False, False],
        [False, False, True, True, False],
        [False] * 5,
    ]


def test_fd_cam_behind_average_pooling():
    """f(on) - f(0) and f - f(off) are both the sum of w_j GAP(A_j) over the group."""
    model, x = net("elu"), images()
    _, A = activation(model, x, "layer4")
    A = A.detach()
    gap, w = A.mean(dim=(2, 3)), model.fc.weight[CLASSES]  # B K
    G = similar(A, torch.arange(A.shape[1]), 0.7).to(x.dtype)
    s = 2 * (G @ (w * gap)[:, :, None])[:, :, 0]
    weights = per_channel(s).exp() * per_channel(w) - 0.5
    want = (weights[:, :, None, None] * A).sum(dim=1, keepdim=True).relu()
    torch.testing.assert_close(fd_cam(model, x, CLASSES, layer="layer4", theta=0.7), want.detach())
    assert (fd_cam(model, x, CLASSES, layer="layer4") - want).abs().max() > 1e-3


def test_fd_cam_of_groups_of_none():
    """theta = 1: nothing is above the maximum. on is f(0), off is f(A): all channels agree, and only g is left."""
    model, x = net("relu"), images()
    _, A = activation(model, x, "layer4")
    w = model.fc.weight[CLASSES].detach()
    want = ((per_channel(w) - 0.5)[:, :, None, None] * A.detach()).sum(dim=1, keepdim=True).relu()
    torch.testing.assert_close(fd_cam(model, x, CLASSES, layer="layer4", theta=1.0), want)


@pytest.mark.parametrize("theta", [-0.1, 1.5])
def test_fd_cam_wants_a_quantile(theta):
    with pytest.raises(ValueError, match=rf"theta: must be a quantile in \[0, 1\], got {theta}"):
        fd_cam(net("relu"), images(), CLASSES, layer="layer4", theta=theta)


# --- LIFT-CAM


class Vgg(nn.Module):
    """Convolutions, max pooling with and without overlap, and a classifier of three layers, as in VGG."""

    num_features = 8

    def __init__(self, act=nn.ReLU, inplace=True):
        super().__init__()
        kind = {"inplace": True} if inplace else {}
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 3, 2, 1), act(**kind), nn.Conv2d(6, 8, 3, 1, 1), nn.BatchNorm2d(8), act(**kind),
            nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, 1, 1), act(**kind), nn.MaxPool2d(3, 2, 1),
        )  # fmt: skip
        self.avgpool = nn.AdaptiveAvgPool2d(2)
        self.classifier = nn.Sequential(nn.Linear(32, 12), act(**kind), nn.Dropout(), nn.Linear(12, 10))

    def forward(self, x):
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


def vgg(**options):
    torch.manual_seed(0)
    model = Vgg(**options).double().eval()
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(0, 0.2)
            m.running_var.uniform_(0.5, 1.5)
            nn.init.normal_(m.weight)  # of both signs
            nn.init.normal_(m.bias, 0, 0.2)
    return model


def difference(model, x, layer, target=CLASSES):
    """F(A) - F(0)."""
    with torch.no_grad():
        full, none = edited_scores(model, x, target, layer, lambda A: torch.stack([A, torch.zeros_like(A)]), 2)
    return full - none


COMPLETE = [
    *[(lambda: net("relu"), layer) for layer in ("layer1", "layer2", "layer3.bn2", "layer3.conv1", "layer4")],
    *[(lambda: net("relu_tensor"), layer) for layer in ("layer2", "layer3.bn2")],
    *[(lambda: net("relu6"), layer) for layer in ("layer1", "layer3")],
    *[(lambda: net("elu"), layer) for layer in ("layer2", "layer3")],
    *[(vgg, f"features.{i}") for i in (1, 3, 5, 8)],
    *[(lambda act=act: vgg(act=act, inplace=False), "features.3") for act in (nn.GELU, nn.SiLU, nn.Hardswish, nn.Tanh)],
    (lambda: _timm("resnet18"), "layer2.1.bn2"),
    (lambda: _timm("vgg11_bn"), "features.21"),
    (lambda: _timm("densenet121"), "features.denseblock4.denselayer2"),
    (lambda: _timm("tf_efficientnet_lite0"), "blocks.4"),
]


@pytest.mark.parametrize(("make", "layer"), COMPLETE, ids=[f"{i}-{layer}" for i, (_, layer) in enumerate(COMPLETE)])
def test_lift_cam_is_complete(make, layer):
    """sum_k alpha_k = F(A) - F(0): at any depth, in a block, over overlapping pools and every elementwise function."""
    model, x = make(), images()
    alpha, A = coefficients(model, x, CLASSES, layer)
    torch.testing.assert_close(alpha.sum(dim=1), difference(model, x, layer), rtol=1e-6, atol=1e-8)
    assert alpha.shape == A.shape[:2]
    assert alpha.abs().max() > 1e-6
    assert not alpha.requires_grad


@pytest.mark.filterwarnings("ignore")  # captum
@pytest.mark.parametrize("layer", ["layer1", "layer2", "layer3"])
@pytest.mark.parametrize("name", ["relu", "relu_module", "elu"])
def test_lift_cam_is_captums_deep_lift_away_from_the_last_layer(name, layer):
    want = references("lift_cam")["captum"](net(name), images(), CLASSES, layer=layer)
    got = lift_cam(net(name), images(), CLASSES, layer=layer)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-9)
    assert got.abs().max() > 1e-6


def halves(make, seed=0):
    """(contributions by Rescale, by captum or None, f(z) - f(z0)) at random inputs and random references."""
    rng = torch.Generator().manual_seed(seed)
    z, z0 = torch.randn(2, 3, 2, 8, 8, generator=rng, dtype=torch.float64)
    torch.manual_seed(seed)
    f = nn.Sequential(*make(), nn.Flatten(), nn.LazyLinear(10, bias=False)).double()
    y, y0 = f(z).detach(), f(z0).detach()
    V = torch.cat([z, z0]).requires_grad_()
    with rescale():
        (m,) = torch.autograd.grad(f(V)[:3].gather(1, CLASSES[:, None]).sum(), V)
    assert not m[3:].any()
    return f, z, z0, m[:3] * (z - z0), (y - y0).gather(1, CLASSES[:, None])[:, 0]


POOLS = [nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(2, 1, ceil_mode=True), nn.MaxPool2d(3, 1, dilation=2)]
ACTIVATIONS = [nn.ReLU, nn.ReLU6, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.SELU, nn.CELU, nn.LeakyReLU]
ACTIVATIONS += [nn.PReLU, nn.Sigmoid, nn.Tanh, nn.Hardsigmoid]


@pytest.mark.parametrize("layer", [*POOLS, *(a() for a in ACTIVATIONS)], ids=str)
def test_rescale_is_complete(layer):
    """From any reference, alone and beside a ReLU; captum is not where a max pooling follows or precedes one."""
    for make in (
        lambda: [layer],
        lambda: [nn.Conv2d(2, 4, 3), nn.ReLU(inplace=True), layer],
        lambda: [layer, nn.ReLU()],
    ):
        _, _, _, C, change = halves(make)
        torch.testing.assert_close(C.sum(dim=(1, 2, 3)), change, rtol=1e-9, atol=1e-12)


@pytest.mark.filterwarnings("ignore")  # captum
@pytest.mark.parametrize("layer", [nn.MaxPool2d(2), nn.ReLU(), nn.ELU(), nn.Sigmoid(), nn.Tanh()], ids=str)
def test_rescale_is_captums(layer):
    """With linear layers between: beside a ReLU captum's hooks miss the max pooling's rule."""
    from captum.attr import DeepLift

    f, z, z0, C, _ = halves(lambda: [nn.Conv2d(2, 4, 3), layer, nn.Conv2d(4, 4, 2), nn.ReLU(), nn.Conv2d(4, 4, 1)])
    torch.use_deterministic_algorithms(False)  # its unpooling has no other
    try:
        want = DeepLift(f).attribute(z, z0, target=CLASSES).detach()
    finally:
        torch.use_deterministic_algorithms(True)
    torch.testing.assert_close(C, want, rtol=1e-9, atol=1e-12)


def test_lift_cam_by_hand():
    """y = 2 relu(a - 1) - relu(b + 1): from 0 to (3, 1) the first contributes 4, the second 1 - 2."""
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 10)).double().eval()
    model[0].weight.data.zero_()
    model[0].bias.data.copy_(torch.tensor([3.0, 1.0]))

    class Shift(nn.Module):
        def forward(self, x):
            return F.relu(x + torch.tensor([-1.0, 1.0], dtype=x.dtype)[:, None, None])

    model[1] = Shift()
    model[3].weight.data.copy_(torch.tensor([2.0] * 4 + [-1.0] * 4))
    model[3].bias.data.zero_()
    alpha, _ = coefficients(model, torch.zeros(1, 3, 2, 2, dtype=torch.float64), CLASSES[:1], "0")
    assert alpha[0].tolist() == [4 * (2 * 2.0), 4 * -1.0]


def test_lift_cam_is_ablation_cam_times_the_score_behind_average_pooling():
    model, x = net("relu"), images()
    y = model(x).gather(1, CLASSES[:, None])[:, 0].abs().detach()
    alpha, A = coefficients(model, x, CLASSES, "layer4")
    torch.testing.assert_close(alpha, model.fc.weight[CLASSES].detach() * A.mean(dim=(2, 3)))
    sign = model(x).gather(1, CLASSES[:, None]).sign().detach()
    signed = ((sign * alpha)[:, :, None, None] * A).sum(dim=1, keepdim=True).relu()
    torch.testing.assert_close(ablation_cam(model, x, CLASSES, layer="layer4") * y[:, None, None, None], signed)


@pytest.mark.parametrize(
    ("name", "layer", "names"),
    [
        ("silu_se", "layer3", "a product of activations"),
        ("gelu_ln", "layer4", "NativeLayerNorm"),
        ("vit", "blocks.1.norm1", "(ScaledDotProduct|Softmax|NativeLayerNorm)"),
        ("swin", "layers.0", "(ScaledDotProduct|Softmax|NativeLayerNorm|a product)"),
    ],
)
def test_lift_cam_names_what_it_has_no_rule_for(name, layer, names):
    with pytest.raises(ValueError, match=f"model: between '{layer}' and the logits it computes {names}.*Rescale"):
        lift_cam(net(name), images(), CLASSES, layer=layer)
    assert hooks(net(name)) == 0


def test_lift_cam_refuses_batch_statistics():
    model = net("relu").train()
    with pytest.raises(ValueError, match="batch statistics"):
        lift_cam(model, images(), CLASSES, layer="layer3")


def test_lift_cam_in_a_graph():
    """Its derivative where multipliers are no constants, against central differences."""
    model, x = net("elu"), images()
    weight = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=x.dtype)

    def value(x):
        return (weight * lift_cam(model, x, CLASSES, layer="layer2")).sum()

    xg = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(value(xg), xg)
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    numeric = (value(x + 1e-6 * v) - value(x - 1e-6 * v)) / 2e-6
    torch.testing.assert_close((g * v).sum(), numeric, rtol=1e-5, atol=1e-9)


# --- Relevance-CAM


@pytest.mark.filterwarnings("ignore")  # zennit
@pytest.mark.parametrize("layer", ["layer1", "layer2", "layer3"])
@pytest.mark.parametrize("name", ["relu", "relu_functional", "relu_tensor", "relu6"])
def test_relevance_cam_is_zennits_away_from_the_last_layer(name, layer):
    modules = {"relu6": "relu6"}.get(name, "relu_module")  # zennit sees modules only
    want = references("relevance_cam")["zennit"](net(modules), images(), CLASSES, layer=layer)
    got = relevance_cam(net(name), images(), CLASSES, layer=layer)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-10)
    assert got.abs().max() > 1e-5


@pytest.mark.filterwarnings("ignore")  # zennit
@pytest.mark.parametrize("i", [1, 3, 4, 6])
def test_relevance_is_zennits_in_a_vgg(i):
    """Biases, inputs of both signs (features.3, .6 are not behind a ReLU), overlapping max pooling, linear layers."""
    from zennit.composites import LayerMapComposite
    from zennit.rules import Norm, Pass, ZPlus
    from zennit.types import Activation, AvgPool, BatchNorm, Convolution, Linear

    model, x = vgg(inplace=False), images()
    behind = nn.Sequential(*model.features[i + 1 :], model.avgpool, nn.Flatten(), *model.classifier)
    z_plus = ZPlus(stabilizer=1e-12, zero_params=["bias"])
    layers = [(Convolution, z_plus), (Linear, z_plus), (AvgPool, Norm(stabilizer=1e-12)), (BatchNorm, Pass())]
    R, A = relevance(model, x, CLASSES, f"features.{i}")
    A = A.clone().requires_grad_()
    with LayerMapComposite([*layers, (Activation, Pass())]).context(behind) as ruled:
        logits = ruled(A)
        start = torch.full_like(logits, -0.1).scatter(1, CLASSES[:, None], 1.0)
        (want,) = torch.autograd.grad(logits, A, start)
    torch.testing.assert_close(R, want, rtol=1e-6, atol=1e-9)
    assert R.abs().max() > 1e-4


CONSERVED = [  # wide enough that every number has a positive contribution: where z is 0, relevance is lost
    (vgg, "features.1"),
    (lambda: _timm("resnet18"), "layer2"),
    (lambda: _timm("densenet121"), "features.denseblock4"),
    (lambda: _timm("tf_efficientnet_lite0"), "blocks.5.2"),
]


@pytest.mark.parametrize(("make", "layer"), CONSERVED, ids=[f"{i}-{layer}" for i, (_, layer) in enumerate(CONSERVED)])
def test_relevance_is_conserved(make, layer):
    """What starts at the logits, 1 - (N - 1) / N in all, arrives; grouped convolutions and concatenation included."""
    R, _ = relevance(make(), images(), CLASSES, layer)
    torch.testing.assert_close(R.sum(dim=(1, 2, 3)), torch.full((3,), 0.1, dtype=R.dtype))
    assert not R.requires_grad


def test_relevance_of_a_target():
    """A callable is contrasted as a class is; the relevance is linear in the start."""
    model, x = net("relu"), images()
    R = {c: relevance(model, x, torch.full((3,), c), "layer2")[0] for c in (1, 4)}
    both, _ = relevance(model, x, lambda y: 2 * y[:, 1] - 3 * y[:, 4], "layer2")
    torch.testing.assert_close(both, 2 * R[1] - 3 * R[4])
    assert (R[1] - R[4]).abs().max() > 1e-4


def test_relevance_by_hand():
    """y_0 = a + 2 b - c, y_1 = -a + c: at (1, 2, 4) z+ is 1 + 4 and 4, from 1 and -1/2."""
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Flatten(), nn.Linear(3, 2)).double().eval()
    model[0].weight.data.copy_(torch.eye(3)[..., None, None])
    model[0].bias.data.zero_()
    model[3].weight.data.copy_(torch.tensor([[1.0, 2, -1], [-1, 0, 1]]))
    x = torch.tensor([1.0, 2, 4], dtype=torch.float64).view(1, 3, 1, 1)
    for bias in (0.0, 7.0):  # takes no relevance
        model[3].bias.data.fill_(bias)
        R, A = relevance(model, x, torch.tensor([0]), "1")
        torch.testing.assert_close(R.flatten(), torch.tensor([1 / 5, 4 / 5, -1 / 2], dtype=x.dtype))
        L = relevance_cam(model, x, torch.tensor([0]), layer="1")
        torch.testing.assert_close(L.flatten(), torch.tensor([1 / 5 + 2 * 4 / 5 - 4 / 2], dtype=x.dtype))
        assert torch.equal(A, x)


def test_relevance_of_a_branch_is_its_share_of_the_sum():
    """layer3.bn2 + shortcut: relevance of both adds up to that of the sum, in proportion to the two."""
    model, x = net("relu"), images()
    R, A = relevance(model, x, CLASSES, "layer3.bn2")
    after, _ = relevance(model, x, CLASSES, "layer3")
    shortcut = activation(model, x, "layer2")[1].detach()
    torch.testing.assert_close(R, after * A / (A + shortcut))
    assert R.abs().max() > 1e-4


@pytest.mark.parametrize(
    ("make", "layer", "names"),
    [
        (lambda: net("elu"), "layer3", "Elu"),
        (lambda: net("silu_se"), "layer3", "(Silu|Sigmoid|Mul|a product of activations)"),
        (lambda: net("gelu_ln"), "layer4", "NativeLayerNorm"),
        (lambda: vgg(act=nn.Tanh, inplace=False), "features.3", "Tanh"),
    ],
)
def test_relevance_cam_names_what_it_has_no_rule_for(make, layer, names):
    with pytest.raises(ValueError, match=f"model: between '{layer}' and the logits it computes {names}, for which LRP"):
        relevance_cam(make(), images(), CLASSES, layer=layer)


def test_relevance_of_a_sum_with_a_number_is_refused():
    model = net("relu")
    model.layer4.gate = Plus()
    with pytest.raises(ValueError, match="model: adds something other than two activations of one shape"):
        relevance_cam(model, images(), CLASSES, layer="layer3")


class Plus(nn.Module):
    def forward(self, x):
        return x + 1


def test_rules_of_a_part_in_place():
    """A ReLU in place on half of the channels; any other operation there is hidden from the graph, and refused."""

    class Half(nn.Module):
        def __init__(self, f):
            super().__init__()
            self.f = f

        def forward(self, x):
            x = x * 1.0
            self.f(x[:, :6])
            return x

    model, x = net("relu"), images()
    model.layer4.act1 = nn.Sequential(Half(torch.relu_))
    alpha, _ = coefficients(model, x, CLASSES, "layer3")
    torch.testing.assert_close(alpha.sum(dim=1), difference(model, x, "layer3"))
    model.layer4.act1 = nn.Sequential(Half(torch.exp_))
    with pytest.raises(ValueError, match="computes an in-place operation on a part of a tensor"):
        coefficients(model, x, CLASSES, "layer3")


def test_an_output_that_is_overwritten_later():
    """Rescale does not keep what a GELU returned; what it read, and what a residual sum read, must still be there."""

    class Scaled(nn.Module):
        def forward(self, x):
            x = F.gelu(x)
            x *= 3
            return x

    class Overwritten(nn.Module):
        def forward(self, x):
            x = x * 1.0
            y = F.gelu(x)
            x.detach().zero_()  # unseen by autograd's own check
            return y

    model, x = net("elu"), images()
    model.layer4.act1 = Scaled()
    alpha, _ = coefficients(model, x, CLASSES, "layer3")
    torch.testing.assert_close(alpha.sum(dim=1), difference(model, x, "layer3"))
    model.layer4.act1 = Overwritten()
    with pytest.raises((ValueError, RuntimeError), match=r"overwritten in place|modified by an inplace operation"):
        coefficients(model, x, CLASSES, "layer3")


@pytest.mark.parametrize("method", [lift_cam, relevance_cam])
def test_channels_last(method):
    """Pooling of such tensors is two nodes of the graph."""
    model, x = _timm("resnet18"), images(h=64, w=64)
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    got = method(last, x.contiguous(memory_format=torch.channels_last), CLASSES, layer="layer3")
    torch.testing.assert_close(got, method(model, x, CLASSES, layer="layer3"))


def test_relevance_cam_refuses_batch_statistics():
    with pytest.raises(ValueError, match="batch statistics"):
        relevance_cam(net("relu").train(), images(), CLASSES, layer="layer3")


def test_relevance_cam_in_a_graph():
    """Its derivative, through rules that depend on the activations, against central differences."""
    model, x = net("relu"), images()
    weight = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=x.dtype)

    def value(x):
        return (weight * relevance_cam(model, x, CLASSES, layer="layer2")).sum()

    xg = x.clone().requires_grad_()
    weights = [model.layer1.conv1.weight, model.layer4.conv2.weight]  # before and behind the layer
    g, *g_weights = torch.autograd.grad(value(xg), [xg, *weights])
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    numeric = (value(x + 1e-7 * v) - value(x - 1e-7 * v)) / 2e-7
    torch.testing.assert_close((g * v).sum(), numeric, rtol=1e-5, atol=1e-9)
    for W, g_W in zip(weights, g_weights, strict=True):
        v = torch.randn(W.shape, generator=torch.Generator().manual_seed(2), dtype=x.dtype)
        ends = []
        for step in (1e-7, -2e-7, 1e-7):
            with torch.no_grad():
                W.add_(v, alpha=step)
            ends.append(value(x))
        torch.testing.assert_close((g_W * v).sum(), (ends[0] - ends[1]) / 2e-7, rtol=1e-5, atol=1e-9)
        assert g_W.abs().max() > 1e-6


def test_the_front_door_takes_them():
    for name in ("recipro_cam", "fd_cam", "lift_cam", "relevance_cam"):
        assert methods.attribute(name, net("relu"), images()).shape == (3, 1, 32, 32)


@pytest.mark.parametrize("method", ["ablation_cam", "recipro_cam", "dix"])
@pytest.mark.parametrize(
    ("name", "layer"), [("relu", "layer4"), ("relu", "layer4.bn2"), ("vit", "blocks.2.norm1"), ("vit", "blocks.1.attn")]
)
def test_the_network_before_a_layer_runs_once_also_with_a_branch_around_it(method, name, layer):
    """The copies are made at the block around the layer then, and its input is still on the tape."""
    m, model, x = METHODS[method], net(name), images()
    f = bound(m, model, layer=layer, chunk=6)  # two versions of three images: many passes
    f(model, x, CLASSES)  # probes
    with FirstConvolution(model) as first:
        a = f(model, x, CLASSES)
    assert first.forward == 3 * m.cost(**f.keywords | {"K": 0, "h": 0, "w": 0}).forward.before
    torch.testing.assert_close(a, bound(m, model, layer=layer, chunk=3)(model, x, CLASSES))
