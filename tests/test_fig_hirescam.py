"""The gradient-averaging figure: its example, exact; what its numbers show on photographs; and its measure."""

import pytest
import torch
from torch import nn

import fig_hirescam as figure
from figure_numbers import numbers
from methods.grad_cam import grad_cam
from methods.hires_cam import hires_cam
from nets import net

TARGET = torch.zeros(1, dtype=torch.long)


def test_the_example_by_hand():
    """One linear layer: what a cell adds to the score is its weight, and nothing else."""
    model, x = figure.Example().eval(), figure.picture()
    exact = torch.tensor([[0.0, 2, 0], [3, 0, -1], [0, 0, 0]])
    assert torch.equal(hires_cam(model, x, TARGET, layer="features")[0, 0], exact)
    assert torch.equal(figure.without(model, x, TARGET, "features")[0, 0], exact)
    assert model(x).item() == exact.sum() == 4
    # the mean weight of red is 1 at the left and at the right; that of blue is 0
    expected = torch.tensor([[0.0, 0, 0], [1, 0, 1], [0, 0, 0]])
    assert torch.equal(grad_cam(model, x, TARGET, layer="features")[0, 0], expected)


def test_the_reader_sees_the_example():
    found = numbers("fig_hirescam")["example"]
    assert found["maps"]["hires_cam"] == found["effect"]
    assert found["alpha"] == [1, 0]
    assert found["score"] == found["sum"]["hires_cam"] == 4
    assert found["sum"]["grad_cam"] == 2
    grad, effect = (torch.tensor(a) for a in (found["maps"]["grad_cam"], found["effect"]))
    assert (grad[effect < 0] > 0).any()  # marks what lowers the score ...
    assert (grad[effect > 0] == 0).any()  # ... and leaves out what raises it


def test_both_agree_behind_the_last_layer():
    last, *_ = numbers("fig_hirescam")["layers"].values()
    for name in ("hires_cam", figure.BEFORE):
        assert last[name]["values"] == pytest.approx([1.0] * 6, abs=1e-3)


def test_before_it_hires_cam_is_closer_to_what_a_place_does():
    _, *earlier = numbers("fig_hirescam")["layers"].values()
    assert len(earlier) == 2
    for rows in earlier:
        for name in ("grad_cam", figure.BEFORE, *figure.CONTROLS):
            assert rows["hires_cam"]["low"] > rows[name]["high"]
    assert earlier[0]["hires_cam"]["low"] > 0.7


def test_what_is_lost_without_a_place():
    """Against a hook that sets places to 0, one by one; 16 x 16 positions make 8 x 8 places of four."""
    model, x = net("relu", dtype=torch.float32), torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([1, 4])
    for layer, side, b in (("layer1", 8, 2), ("layer4", 4, 1)):
        got = figure.without(model, x, target, layer)
        assert got.shape == (2, 1, side, side)
        for i, j in ((0, 0), (3, 1), (side - 1, side - 1)):

            def hide(_module, _args, out, i=i, j=j, b=b):
                out = out.clone()
                out[:, :, b * i : b * (i + 1), b * j : b * (j + 1)] = 0
                return out

            y = model(x)
            handle = model.get_submodule(layer).register_forward_hook(hide)
            lost = (y - model(x)).gather(1, target[:, None])[:, 0]
            handle.remove()
            torch.testing.assert_close(got[:, 0, i, j], lost, rtol=1e-4, atol=1e-6)


def test_grad_cam_before_its_relu():
    model, x = net("elu", dtype=torch.float32), torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([1, 4])

    def of(model, x, target):
        return grad_cam(model, x, target, layer="layer2")

    both = figure.unclipped(of)(model, x, target)
    assert both.min() < 0 < both.max()
    torch.testing.assert_close(both.relu(), of(model, x, target))
    head = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)).eval()

    def last(model, x, target):
        return grad_cam(model, x, target, layer="0")

    # with one linear layer after pooling, all positions have the same gradient
    exact = hires_cam(head, x, target, layer="0")
    torch.testing.assert_close(figure.unclipped(last)(head, x, target), exact)
