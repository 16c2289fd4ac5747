"""Figure: maps while one stage at a time loses its weights."""

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


def test_edges_stay_and_noise_changes_whichever_stage_it_is():
    assert all(v["mean"] > 0.9999 for v in rho()["sobel_edges"])
    assert all(abs(v["mean"]) < 0.02 for v in rho()["white_noise"])


def test_each_step_has_lost_one_stage():
    lost = numbers("fig_sanity_independent")["independent"]["lost"]
    assert [len(names) for names in lost] == [0] + [1] * (len(lost) - 1)
