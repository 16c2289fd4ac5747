"""Figure: maps while weights are randomised from the head down."""

import torch

import fig_sanity_cascade as figure
from _curves import METHODS_SHOWN
from _heat import ranked, table
from figure_numbers import numbers
from methods.gradient import gradient
from methods.guided_backprop import guided_backprop
from sanity_checks._cascade import cascade, summary
from sanity_checks._controls import sobel_edges
from sanity_checks._small import digits, small_cnn
from sanity_checks.model_randomization import model_randomization


def curves(order, measure):
    found = numbers("fig_sanity_cascade")[order]["rows"]
    return {name: row["curves"][measure] for name, row in found.items()}


def test_the_reader_sees_that_guided_backprop_ignores_the_head_while_the_gradient_does_not():
    rho = curves("top-down", "spearman")
    _, head, *_ = logits = [v["mean"] for v in numbers("fig_sanity_cascade")["top-down"]["logits"]]
    assert logits[0] > 0.999
    assert abs(head) < 0.1  # the network has forgotten its classes with its last layer
    assert rho["guided_backprop"][1]["low"] > 0.97
    for name in ("gradient", "smooth_grad", "integrated_gradients", "grad_cam", "guided_grad_cam"):
        assert rho[name][1]["high"] < 0.75, name


def test_the_title_says_how_much_guided_backprop_and_the_next_keep_without_the_upper_third():
    n = numbers("fig_sanity_cascade")
    rho = {name: curve[3]["mean"] for name, curve in curves("top-down", "spearman").items()}
    lost = [len(stages) for stages in n["top-down"]["lost"]]
    others = max(rho[name] for name in METHODS_SHOWN if name != "guided_backprop")
    assert n["title"] == figure.message(n["top-down"])
    assert n["title"] == (
        f"Guided Backpropagation depends least on the upper stages: with {lost[3]} of {lost[-1]} randomised it keeps a "
        f"rank correlation of {rho['guided_backprop']:.2f}, the other methods at most {others:.2f}"
    )
    assert lost[3] <= lost[-1] / 3 < lost[4]
    assert rho["guided_backprop"] > 0.9
    assert others < 0.6


def test_panels_are_in_the_order_of_what_is_left():
    n = numbers("fig_sanity_cascade")["top-down"]
    left = [n["rows"][name]["curves"]["spearman"][3]["mean"] for name in ranked(n, figure.upper(n))]
    assert len(left) == len(METHODS_SHOWN)
    assert left == sorted(left, reverse=True)


def test_what_was_not_run_from_the_image_up_is_empty():
    n = numbers("fig_sanity_cascade")["bottom-up"]
    rows = table(n, ["gradient", "smooth_grad"], "spearman")
    assert [len(row) for row in rows.values()] == [len(n["labels"])] * 2  # without the first, with another photograph
    assert rows["SmoothGrad"] == [None] * len(n["labels"])
    assert rows["Gradient"][-1] == n["rows"]["gradient"]["null"]["spearman"]


def test_guided_backprop_still_keeps_most_when_half_of_the_stages_are_gone_and_nothing_in_the_end():
    n = numbers("fig_sanity_cascade")["top-down"]
    rho = curves("top-down", "spearman")
    assert n["labels"][4] == "blocks.4.1"  # 9 of 19 stages
    others = [rho[name][4]["high"] for name in METHODS_SHOWN if name != "guided_backprop"]
    assert rho["guided_backprop"][4]["low"] > max(others)
    assert rho["guided_backprop"][-1]["mean"] < n["rows"]["guided_backprop"]["null"]["spearman"]["high"]


def test_the_product_with_the_image_stays_more_alike_than_the_gradient_but_not_in_sign():
    rho, signed = curves("top-down", "spearman"), curves("top-down", "signed")
    for k in range(1, 9):
        assert rho["input_x_gradient"][k]["mean"] > rho["gradient"][k]["mean"] + 0.05
        assert abs(signed["input_x_gradient"][k]["mean"]) < 0.05


def test_edges_stay_and_noise_changes_whatever_the_weights():
    rho = curves("top-down", "spearman")
    assert all(v["mean"] > 0.9999 for v in rho["sobel_edges"])
    assert all(abs(v["mean"]) < 0.02 for v in rho["white_noise"])


def test_from_the_image_up_the_first_stage_changes_more_than_the_head():
    down, up = curves("top-down", "spearman"), curves("bottom-up", "spearman")
    for name in ("gradient", "input_x_gradient", "guided_backprop"):
        assert up[name][1]["high"] < down[name][1]["low"], name


def toy(n=6):
    data = digits()
    model = small_cnn(data, 0).eval()
    x = data.x_test[:n]
    with torch.no_grad():
        return model, x, model(x).argmax(dim=1)


def test_a_cascade_is_that_of_the_check():
    model, x, target = toy()
    for order in ("top-down", "bottom-up", "independent"):
        check = model_randomization(model, x, target, guided_backprop, orders=(order,), seeds=2, seed=3)
        rows = {"guided_backprop": (guided_backprop, 2)}
        found = cascade(model, x, target, rows, order=order, measures=("spearman",), seed=3)
        torch.testing.assert_close(found.curves["guided_backprop"]["spearman"][:, 1:], check.curves[order])
        torch.testing.assert_close(found.logits[:, 1:], check.curves[f"{order} logits"])
        torch.testing.assert_close(found.null["guided_backprop"]["spearman"], check.columns["null_spearman"])
        assert found.lost[1:] == check.facts[f"steps_{order}"]


def test_zero_maps_are_counted_and_what_does_not_apply_is_left_out():
    model, x, target = toy()

    def blind(f, x, target):  # on every network but the trained one, zero for every second image
        a = gradient(f, x, target)
        return a if f is model else a * (torch.arange(len(x)) % 2).view(-1, 1, 1, 1)

    def refuses(f, x, target):
        raise ValueError("no ReLU")

    rows = {"blind": (blind, 1), "refuses": (refuses, 1), "edges": (sobel_edges(0), 1)}
    found = cascade(model, x, target, rows, points=2, measures=("spearman",))
    assert found.flat == {"blind": [0.5, 0.5, 0.5], "edges": [0.0, 0.0, 0.0]}  # first step: a copy, like the others
    assert torch.equal(found.curves["blind"]["spearman"].isnan(), (torch.arange(6) % 2 == 0)[:, None].expand(-1, 3))
    assert found.refused == {"refuses": "no ReLU"}
    told = summary(found, ("spearman",))["rows"]
    assert [v["n"] for v in told["blind"]["curves"]["spearman"]] == [3, 3, 3]
    assert told["edges"]["verdict"] == {"first": "insensitive", "last": "insensitive"}
