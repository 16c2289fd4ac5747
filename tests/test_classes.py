"""Several classes of one image: it runs through the network once, and each map is that of its row alone."""

import pytest
import torch

from helpers import FirstConvolution, bound, images, last_layer, masks_of, small
from methods import METHODS, attribute
from nets import net
from test_contract import home

# Passes that are the same for all classes: no gradient decides what is run.
ADAPTIVE = ("hipe", "moxi", "shap_bpt", "smdl")  # scores decide what is run next
CLASSLESS = [m for m in METHODS.values() if m.backward.total == 0 and m.name not in ADAPTIVE]
# Their gradients reach almost the whole network, for each class.
DEEP = ("full_grad", "refine_cam", "generic_attention")
SINGLE = [m for m in METHODS.values() if m.forward.total == 1 and m.name not in DEEP]
ROWS = [0, 1, 0, 0, 1]  # five classes of two images
TARGETS = torch.tensor([1, 4, 7, 0, 3])


def keywords(m, **more):
    return small(m, **more) | masks_of(m, 5)


def counted(m, model, x, target, **more):
    with FirstConvolution(model) as passes:
        a = attribute(m.name, model, x, target, resize=False, **keywords(m, **more))
    return a, passes


@pytest.mark.parametrize("m", METHODS.values(), ids=METHODS)
def test_the_map_of_each_row_is_that_of_the_row_alone(m):
    model, x = net(home(m)), images()
    last_layer(model)
    together = attribute(m.name, model, x[ROWS], TARGETS, resize=False, **keywords(m))
    for i, row in enumerate(ROWS):
        alone = bound(m, model)(model, x[row : row + 1], TARGETS[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("m", CLASSLESS, ids=lambda m: m.name)
def test_five_classes_cost_the_passes_of_one(m):
    model, x = net(home(m)), images(1)
    last_layer(model)
    _, one = counted(m, model, x, TARGETS[:1])
    _, five = counted(m, model, x.expand(5, -1, -1, -1), TARGETS)
    assert five.forward == one.forward
    if "chunk" in m.params:
        _, passes = counted(m, model, x.expand(5, -1, -1, -1), TARGETS, chunk=4)
        assert passes.forward == one.forward


@pytest.mark.parametrize("m", SINGLE, ids=lambda m: m.name)
def test_single_pass_methods_share_what_comes_before_the_layer(m):
    model, x = net(home(m)), images(1)
    last_layer(model)
    _, one = counted(m, model, x, TARGETS[:1])
    _, five = counted(m, model, x.expand(5, -1, -1, -1), TARGETS)
    assert (five.forward, five.backward) == (one.forward, 5 * one.backward)


@pytest.mark.parametrize("name", ["gradient", "integrated_gradients", "smooth_grad"])
def test_gradients_share_the_forward_pass(name):
    model, x = net("relu"), images(2)
    n = counted(METHODS[name], model, x, TARGETS[:2])[1].forward
    _, four = counted(METHODS[name], model, x[[0, 1, 1, 0]], TARGETS[:4], chunk=100)
    assert (four.forward, four.backward) == (n, 2 * n)


@pytest.mark.parametrize("m", CLASSLESS, ids=lambda m: m.name)
def test_no_pass_is_larger_than_the_chunk(m):
    if "chunk" not in m.params:
        pytest.skip("has no chunk")
    model, sizes = net(home(m)), []
    last_layer(model)
    head = model.get_classifier()
    forward = head.forward
    head.forward = lambda x: sizes.append(len(x)) or forward(x)
    attribute(m.name, model, images(2)[ROWS], TARGETS, **keywords(m, chunk=6))
    assert max(sizes) == 6


def test_a_layer_inside_a_residual_block():
    """The shortcut around it has fewer rows, so that nothing can be shared."""
    model, x = net("relu"), images(2)
    for layer in ("layer4.conv2", "layer4"):
        a = attribute("grad_cam", model, x[ROWS], TARGETS, layer=layer)
        for i, row in enumerate(ROWS):
            alone = attribute("grad_cam", model, x[row : row + 1], TARGETS[i : i + 1], layer=layer)
            torch.testing.assert_close(a[i : i + 1], alone)


def test_a_callable_target_gets_every_row():
    model, x = net("relu"), images(1).expand(5, -1, -1, -1)

    def margin(logits):
        assert len(logits) == 5
        return logits[torch.arange(5), TARGETS] - logits.mean(dim=1)

    for name in ("score_cam", "ablation_cam", "grad_cam", "gradient"):
        a, _ = counted(METHODS[name], model, x, margin, chunk=1)
        for i in range(5):
            alone = attribute(name, model, x[:1], lambda y, i=i: y[:, TARGETS[i]] - y.mean(dim=1), resize=False)
            torch.testing.assert_close(a[i : i + 1], alone)


class Mixing(torch.nn.Module):
    """Its scores depend on the other images of the batch."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return self.body(x - x.mean(dim=0, keepdim=True) / 2)


def passes_of_five(model, x):
    with FirstConvolution(model) as passes:
        attribute("grad_cam", model, x, TARGETS)
    return passes.forward


def test_rows_that_are_not_shared():
    model, x = net("relu"), images(1).expand(5, -1, -1, -1)
    last_layer(model)
    assert passes_of_five(model, x) == 1
    assert passes_of_five(model, x.clone().requires_grad_()) == 5  # each row has its own gradient
    other = x.clone()
    other[1, 2, 31, 31] += 1e-12
    assert passes_of_five(model, other) == 2
    handle = model.layer2.register_forward_hook(lambda *_: None)  # it may count rows
    assert passes_of_five(model, x) == 5
    handle.remove()
    with pytest.warns(UserWarning, match="other images of the batch"):
        assert passes_of_five(Mixing(net("relu")).eval(), x) == 5
    model.layer1.train()  # dropout in it would draw for each row
    with pytest.warns(UserWarning, match="training mode"):
        assert passes_of_five(model, x) == 5
