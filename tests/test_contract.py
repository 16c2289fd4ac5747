"""What every method promises (README: contracts). A new file in methods/ is tested by being there."""

import copy
from collections import Counter

import pytest
import torch
from torch.overrides import _get_current_function_mode_stack

import methods
from helpers import CLASSES, FirstConvolution, bound, hooks, images, in_turn, last_layer, masks_of
from methods import METHODS
from methods._layers import finer_layers
from methods._torch import activation
from nets import KIND, MAKE, RELU, applies, net

pytestmark = pytest.mark.filterwarnings("error")


# Not zero where the score is constant: a mean of the feature maps; a mean of masks, times the constant; the mask that
# a search started from; an order of regions.
FEATURES = ("score_cam", "ss_cam", "is_cam", "opti_cam", "poly_cam")
ORDERS = ("moxi", "smdl")
ENOUGH = {"sobol_attribution": {"designs": 32}, "hsic_attribution": {"samples": 64}}  # means that 16 bits leave alone
MASKS = ("rise", "meaningful_perturbation", "extremal_perturbation", *ORDERS)


def smooth(m):
    """The network whose second derivatives are not zero: for ReLU rules a ReLU net (see `probability`)."""
    return "vit" if "cnn" not in m.architectures else "relu" if m.needs == "relu" else "elu"


def classless(m):
    """Whether the method looks at no target."""
    return m.fails.get("random_logit", "").startswith("uses no class")


def home(m):
    return "vit" if "cnn" not in m.architectures else "relu"


def probability(logits):
    """A score that is not linear in the logits, so that maps of a ReLU net have derivatives."""
    return logits.softmax(dim=1)[torch.arange(len(logits)), CLASSES[: len(logits)]]


every = pytest.mark.parametrize("m", METHODS.values(), ids=METHODS.keys())
PAIRS = [(m, name) for m in METHODS.values() for name in MAKE]
meant = [(m, name) for m, name in PAIRS if applies(m, name)]
turns = in_turn(meant, [f"{m.name}-{name}" for m, name in meant], by=lambda m, name: (m.name, name in KIND))
on_each_net = pytest.mark.parametrize(("m", "name"), turns)


USUAL = {}  # (method, network): its map of the images and classes, once for all tests that compare with it


def usual(m, name):
    if (m.name, name) not in USUAL:
        model = net(name)
        USUAL[m.name, name] = bound(m, model)(model, images(), CLASSES)
    return USUAL[m.name, name]


@on_each_net
def test_shape_dtype_and_model_left_as_it_was(m, name):
    model, x = net(name), images()
    before, x0 = copy.deepcopy(model.state_dict()), x.clone()
    state = [(type(k), k.training, getattr(k, "inplace", None)) for k in model.modules()]
    a = bound(m, model)(model, x, CLASSES)
    sizes = {"B": 3, "C": 3, "H": 32, "W": 32, "1": 1}
    for got, axis in zip(a.shape, m.output.split(), strict=True):
        assert got == sizes.get(axis, got), f"{m.output} but {tuple(a.shape)}"
    assert a.dtype == torch.float64
    assert a.isfinite().all()
    assert a.abs().max() > 0
    assert not a.requires_grad
    assert hooks(model) == 0
    assert state == [(type(k), k.training, getattr(k, "inplace", None)) for k in model.modules()]
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in before.items())
    assert torch.equal(x, x0)
    assert not x.requires_grad
    USUAL[m.name, name] = a


refused = [(m, name) for m, name in PAIRS if not applies(m, name)]


@pytest.mark.parametrize(("m", "name"), refused, ids=[f"{m.name}-{name}" for m, name in refused])
def test_refuses_what_it_is_not_meant_for(m, name):
    model = net(name)
    with pytest.raises(ValueError, match=r"^(model|layer): "):
        methods.attribute(m.name, model, images(), CLASSES)
    assert hooks(model) == 0


@every
@pytest.mark.parametrize("where", ["target", "model"])
def test_cleans_up_after_an_error(m, where):
    model = net(home(m))
    f = bound(m, model)  # probes before the model breaks

    def fail(*_):
        raise KeyError("on purpose")

    if where == "model":
        model.get_classifier().forward = fail
    elif classless(m):
        pytest.skip("looks at no target")
    with pytest.raises(KeyError, match="on purpose"):
        f(model, images(), fail if where == "target" else CLASSES)
    assert hooks(model) == 0
    assert not _get_current_function_mode_stack()
    assert torch.is_grad_enabled()
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


@on_each_net
def test_neighbours_in_the_batch_do_not_matter(m, name):
    model, x = net(name), images()
    f, together = bound(m, model), usual(m, name)
    for i in range(len(x)):
        torch.testing.assert_close(
            together[i : i + 1], f(model, x[i : i + 1], CLASSES[i : i + 1]), rtol=1e-6, atol=1e-9
        )
    loud = torch.cat([x[:1], 5 * x[1:] + 1])
    torch.testing.assert_close(together[0], f(model, loud, CLASSES)[0], rtol=1e-6, atol=1e-9)


@every
def test_same_call_same_map_whatever_the_chunk(m):
    model, x = net(home(m)), images()
    a = bound(m, model)(model, x, CLASSES)
    assert torch.equal(a, bound(m, model)(model, x, CLASSES))
    for chunk in (1, 100) if "chunk" in m.params else ():
        torch.testing.assert_close(a, bound(m, model, chunk=chunk)(model, x, CLASSES), rtol=1e-7, atol=1e-10)
    if m.stochastic:
        assert not torch.equal(a, bound(m, model, seed=1)(model, x, CLASSES))


@every
def test_works_under_no_grad_inference_mode_and_frozen_weights(m):
    model, x = net(home(m)), images()
    f = bound(m, model)
    a = f(model, x, CLASSES)
    with torch.no_grad():
        assert torch.equal(a, f(model, x, CLASSES))
    model.requires_grad_(False)
    assert torch.equal(a, f(model, x, CLASSES))
    keywords = f.keywords | masks_of(m, 3)
    with torch.inference_mode():
        torch.testing.assert_close(a, methods.attribute(m.name, model, x.clone(), CLASSES, resize=False, **keywords))


def lowest(m, name):
    """Of the maps for the classes, and for what speaks against the highest logit."""
    model, x = net(name), images()[:, :1].expand(-1, 3, -1, -1)  # grey for a colour-blind net: XRAI takes
    first = next(p for p in model.parameters() if p.ndim == 4)  # the maximum over channels
    first.data = first.data.mean(dim=1, keepdim=True).repeat(1, 3, 1, 1)
    f = bound(m, model)
    return min(f(model, x, t).min().item() for t in (CLASSES, lambda y: -y.amax(dim=1)))


@pytest.mark.parametrize("m", [m for m in METHODS.values() if m.signed], ids=lambda m: m.name)
def test_declared_signed_it_is_negative_somewhere_on_some_net(m):
    assert any(lowest(m, name) < 0 for name in MAKE if applies(m, name))


unsigned = [(m, name) for m, name in meant if not m.signed]


@pytest.mark.parametrize(
    ("m", "name"),
    in_turn(unsigned, [f"{m.name}-{name}" for m, name in unsigned], by=lambda m, name: (m.name, name in KIND)),
)
def test_declared_unsigned_it_is_negative_nowhere(m, name):
    assert lowest(m, name) >= 0


def counted(m, name, **fill):
    """Images through the classifier and through the first convolution, forward and backward, per image of the batch."""
    model, x, seen = net(name), images(), Counter()
    f = bound(m, model, **fill)
    head = model.get_classifier()
    head.register_forward_hook(lambda _m, _a, out: seen.update(forward=len(out)))
    head.register_full_backward_hook(lambda _m, _i, g: seen.update(backward=len(g[0])))
    with FirstConvolution(model) as first:
        f(model, x, CLASSES)
    sizes = {"B": 3, "C": 3, "H": 32, "W": 32}
    if "layer" in m.params:
        plain = net(name)
        last_layer(plain)
        at = [*finer_layers(plain, f.keywords["layer"], (3, 32, 32)), f.keywords["layer"]]
        found = [activation(plain, x, layer)[1].shape[1:] for layer in at]
        sizes |= dict(zip("Khw", found[-1], strict=True)) | {"depth": len(at), "channels": sum(K for K, _, _ in found)}
    cost = m.cost(**sizes | f.keywords)
    got = (seen["forward"], first.forward), (seen["backward"], first.backward)
    return [[n / 3 for n in pair] for pair in got], [[*n] for n in cost]


@every
@pytest.mark.parametrize("fill", [{}, {"samples": 5, "steps": 6, "stride": 4, "chunk": 100}], ids=["few", "more"])
def test_passes_as_declared(m, fill):
    """Of edited layers the part before them runs less often, and gradients that end at a layer do not enter it."""
    got, declared = counted(m, home(m), **fill)
    if getattr(m.forward.total, "at_most", False):
        got, declared = [g for pair in got for g in pair], [d for pair in declared for d in pair]
        assert all(g <= d for g, d in zip(got, declared, strict=True))
        assert got[0] > 1
    else:
        assert got == declared


@every
def test_differentiable_exactly_when_declared(m):
    """And correctly so, to x and to the parameters: against central differences in float64."""
    model, x = net(smooth(m)), images()
    f = bound(m, model)
    target = probability if m.needs == "relu" else CLASSES
    xg = x.clone().requires_grad_()
    out = f(model, xg, target)
    assert out.requires_grad == m.differentiable
    if not m.differentiable:
        return
    rng = torch.Generator().manual_seed(2)
    weight = torch.randn(out.shape, generator=rng, dtype=x.dtype)
    theta = [p for p in model.parameters() if p.ndim > 1]
    g_x, *g_theta = torch.autograd.grad((weight * out).sum(), [xg, *theta], allow_unused=True)
    v_x = torch.randn(x.shape, generator=rng, dtype=x.dtype)
    v_theta = [torch.randn(p.shape, generator=rng, dtype=x.dtype) for p in theta]
    eps = 1e-7  # small: a kink of |.| or ReLU within the step is no derivative

    def value(x, step):
        with torch.no_grad():
            for p, v in zip(theta, v_theta, strict=True):
                p.add_(v, alpha=step)
            y = (weight * f(model, x, target)).sum()
            for p, v in zip(theta, v_theta, strict=True):
                p.sub_(v, alpha=step)
        return y

    numeric_x = (value(x + eps * v_x, 0) - value(x - eps * v_x, 0)) / (2 * eps)
    torch.testing.assert_close((g_x * v_x).sum(), numeric_x, rtol=1e-5, atol=1e-9)
    numeric_theta = (value(x, eps) - value(x, -eps)) / (2 * eps)
    along = sum((g * v).sum() for g, v in zip(g_theta, v_theta, strict=True) if g is not None)
    torch.testing.assert_close(along, numeric_theta, rtol=1e-5, atol=1e-9)
    assert g_x.abs().max() > 1e-8  # not vacuous
    assert numeric_theta.abs() > 1e-8


@every
def test_module_functional_and_in_place_relu_agree(m):
    if "cnn" not in m.architectures:
        pytest.skip("no ReLU in a transformer")
    for name in sorted(RELU - {"relu", "relu6"}):
        torch.testing.assert_close(usual(m, "relu"), bound(m, net(name))(net(name), images(), CLASSES))


@every
def test_degenerate_maps_are_defined(m):
    """A constant image, an image of zeros, and a network that ignores its input: finite, and 0 in the last case."""
    model = net(home(m))
    f = bound(m, model)
    for x in (torch.full_like(images(), 0.5), torch.zeros_like(images())):
        assert f(model, x, CLASSES).isfinite().all()
    with torch.no_grad():
        model.get_classifier().weight.zero_()
    try:
        a = f(model, images(), CLASSES)
    except ValueError as e:  # a transformer whose patch tokens cannot change the score
        assert "exactly zero" in str(e)  # noqa: PT017
    else:
        assert a.isfinite().all()
        if not classless(m) and m.name not in FEATURES + MASKS:
            assert a.abs().max() <= 1e-12


@on_each_net
def test_half_precision_is_computed_in_float32(m, name):
    x = images(dtype=torch.bfloat16)
    f = bound(m, net(name), **ENOUGH.get(m.name, {}))
    a = f(net(name, dtype=torch.bfloat16), x, CLASSES)
    assert a.dtype == torch.float32
    assert a.isfinite().all()
    exact = f(net(name, dtype=torch.float32), x.float(), CLASSES)
    assert exact.dtype == torch.float32
    if m.name in ORDERS:  # 16 bits of a network turn nearly equal scores round: the same ranks, on other regions
        torch.testing.assert_close(a.flatten(1).sort().values, exact.flatten(1).sort().values)
        return
    cosine = torch.nn.functional.cosine_similarity(a.flatten(), exact.flatten(), dim=0)
    assert cosine > 0.8


@every
def test_a_callable_target_and_a_class_tensor_agree(m):
    model, x = net(home(m)), images()
    f = bound(m, model)
    logit = probability if m.name == "smdl" else lambda logits: logits[torch.arange(len(logits)), CLASSES]
    by_call = f(model, x, logit)  # SMDL takes the probability of a class
    torch.testing.assert_close(usual(m, home(m)), by_call)


@every
@pytest.mark.parametrize("batch", [1, 2])
def test_the_network_sees_images_in_the_order_of_memory_that_they_came_in(m, batch):
    """Products with masks and resizes change it, and a CNN is slower by 5 to 25 % on the other order."""
    model, last = net(home(m)), torch.channels_last
    x, f, orders = images(batch), bound(m, model), []
    f(model, x, CLASSES[:batch])  # probes of the layers are kept from here on
    handle = model.register_forward_pre_hook(
        lambda _m, args: orders.append((args[0].is_contiguous(), args[0].is_contiguous(memory_format=last)))
    )
    f(model, x, CLASSES[:batch])
    assert orders
    assert set(orders) == {(True, False)}
    orders.clear()
    f(model, x.contiguous(memory_format=last), CLASSES[:batch])
    handle.remove()
    assert set(orders) == {(False, True)}


@pytest.mark.parametrize("argument", ["layer", "layers"])
def test_an_unknown_layer_is_named(argument):
    for m in METHODS.values():
        if argument in m.params:
            model = net(home(m))
            wrong = {argument: "layer5" if argument == "layer" else ("layer5",)}
            with pytest.raises(ValueError, match=r"^layer: .*'layer5'"):
                bound(m, model, **wrong)(model, images(), CLASSES)
            assert hooks(model) == 0


@every
def test_images_need_not_be_square(m):
    name = home(m)
    if name == "vit" or m.name == "xrai":
        pytest.skip("a ViT is built for one size; segments of the tests are square")
    model, x = net(name), images(h=32, w=48)
    a = bound(m, model)(model, x, CLASSES)
    assert a.shape[-2] * 48 == a.shape[-1] * 32


@every
def test_front_door_runs_it_and_finds_layer_and_class(m):
    model, x = net(home(m)), images()
    small = {k: v for k, v in bound(m, model).keywords.items() if k != "layer"}
    small |= masks_of(m, 3)
    a = methods.attribute(m.name, model, x, **small)
    assert a.shape[0] == 3
    assert a.shape[2:] == (32, 32)
    top = model(x).argmax(dim=1)
    torch.testing.assert_close(a, methods.attribute(m.name, model, x, top, **small))


def test_names_and_kinds_are_consistent():
    assert len(METHODS) >= 28
    assert set(KIND) < set(MAKE)
    assert all(m.verified for m in METHODS.values())
