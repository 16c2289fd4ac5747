"""Figure: maps while one stage at a time is randomised."""

import fig_sanity_independent as figure
from figure_numbers import numbers

UPPER = range(1, 5)  # classifier, and one stage each of the last, fifth and fourth block


def rho():
    rows = numbers("fig_sanity_independent")["independent"]["rows"]
    return {name: row["curves"]["spearman"] for name, row in rows.items()}


def test_whichever_stage_it_is_the_logits_are_random_without_it():
    logits = numbers("fig_sanity_independent")["independent"]["logits"]
    assert logits[0]["mean"] > 0.999
    assert all(abs(v["mean"]) < 0.2 for v in logits[1:])


def test_the_reader_sees_that_guided_backprop_notices_only_the_lower_stages():
    curves = rho()
    guided = [v["mean"] for v in curves["guided_backprop"]]
    assert guided == sorted(guided, reverse=True)
    assert guided[1] > 0.97
    assert guided[-1] < 0.5
    for k in UPPER:
        others = ("gradient", "smooth_grad", "input_x_gradient", "integrated_gradients", "grad_cam", "guided_grad_cam")
        for name in others:
            assert curves["guided_backprop"][k]["low"] > curves[name][k]["high"], (name, k)


def test_the_title_says_what_one_stage_does_to_the_logits_and_to_guided_backprop():
    n = numbers("fig_sanity_independent")
    guided = [v["mean"] for v in rho()["guided_backprop"]]
    logits = max(v["mean"] for v in n["independent"]["logits"][1:])
    assert n["title"] == figure.message(n["independent"])
    assert n["title"] == (
        f"With any one stage randomised, the logits keep a rank correlation of at most {logits:.2f}; Guided "
        f"Backpropagation keeps {guided[1]:.2f} (classifier) to {guided[-1]:.2f} (conv_stem)"
    )
    assert logits < 0.2
    assert (max(guided[1:]), min(guided)) == (guided[1], guided[-1])


def test_a_cell_has_the_mean_and_half_the_interval():
    assert figure.cell({"mean": 0.941, "low": 0.9, "high": 0.98, "n": 4}) == "0.94 ±.04"
    assert figure.cell({"mean": -0.001, "low": -0.3, "high": 0.1, "n": 4}) == "0.00 ±.20"
    assert figure.cell({"mean": 0.5, "low": float("nan"), "high": float("nan"), "n": 1}) == "0.50"


def test_edges_stay_and_noise_changes_whichever_stage_it_is():
    assert all(v["mean"] > 0.9999 for v in rho()["sobel_edges"])
    assert all(abs(v["mean"]) < 0.02 for v in rho()["white_noise"])


def test_each_step_has_lost_one_stage():
    lost = numbers("fig_sanity_independent")["independent"]["lost"]
    assert [len(names) for names in lost] == [0] + [1] * (len(lost) - 1)
