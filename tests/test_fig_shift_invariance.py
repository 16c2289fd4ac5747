"""Input shift: what the figure claims, on its numbers; and the shifted network, against a bias folded by hand."""

import torch
from torch import nn

import fig_shift_invariance
from figure_numbers import numbers
from methods.gradient import gradient
from methods.input_x_gradient import input_x_gradient
from methods.integrated_gradients import integrated_gradients


def test_the_two_networks_are_one_function():
    assert numbers("fig_shift_invariance")["logits"] < 1e-9


def test_gradient_methods_do_not_change():
    rows = numbers("fig_shift_invariance")["rows"]
    for name in (*fig_shift_invariance.ALIKE, "sobel_edges"):
        assert rows[name]["largest"] < 1e-4
        assert rows[name]["passes"] == 1


def test_what_multiplies_by_the_input_or_keeps_its_baseline_changes_by_as_much_as_the_map():
    rows = numbers("fig_shift_invariance")["rows"]
    for name in (fig_shift_invariance.ZERO, "input_x_gradient", "input_magnitude"):
        assert rows[name]["passes"] == 0
        assert rows[name]["change"]["low"] >= 1


def test_integrated_gradients_passes_where_the_baseline_moves_with_the_image():
    row = numbers("fig_shift_invariance")["rows"][fig_shift_invariance.BLACK]
    assert row["passes"] > 0.99
    assert row["change"]["high"] < 1e-4


def test_the_second_network_is_the_first_with_the_shift_folded_into_its_bias():
    torch.manual_seed(0)
    m = -1.0
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)).double().eval()
    x, target = torch.rand(2, 1, 8, 8, dtype=torch.float64), torch.tensor([0, 2])
    x[:, :, :2] = 0  # black is each image's smallest value
    f1, f2 = fig_shift_invariance.shifted(model, m)
    folded = nn.Sequential(nn.Conv2d(1, 4, 3), *model[1:]).double()  # section 2.1: b_2 = b_1 - w m
    folded[0].weight.data = model[0].weight.data
    folded[0].bias.data = model[0].bias.data - m * model[0].weight.data.sum(dim=(1, 2, 3))
    torch.testing.assert_close(f2(x + m), folded(x + m))
    torch.testing.assert_close(f2(x + m), f1(x))
    for method in (gradient, input_x_gradient, integrated_gradients):
        torch.testing.assert_close(method(f2, x + m, target), method(folded, x + m, target))
    black = [fig_shift_invariance.from_black(integrated_gradients, f, x_, target) for f, x_ in ((f1, x), (f2, x + m))]
    torch.testing.assert_close(black[0], black[1])
    torch.testing.assert_close(black[0], integrated_gradients(model, x, target))  # black is zero for the first network
