"""XAI-TRIS: what the figure claims, on its numbers; and tetrominoes whose evidence is known."""

import numpy as np
import pytest
import torch

import fig_xai_tris as script
from figure_numbers import numbers
from sanity_checks._tetrominoes import ALPHA, BACKGROUNDS, SCENARIOS, tetrominoes

EACH = sorted(ALPHA)


def test_correlated_noise_moves_maps_off_the_truth():
    """The title."""
    n = numbers("fig_xai_tris")
    assert set(n) == {f"{s}, {b}" for s, b in EACH}
    assert all(v["accuracy"] > 0.8 for v in n.values())
    falls = 0
    for s in SCENARIOS:
        white, other = (n[f"{s}, {b}"]["precision"] for b in BACKGROUNDS)
        falls += sum(other[m]["mean"] < white[m]["mean"] for m in script.METHODS_SHOWN)
        assert abs(white["white_noise"]["mean"] - n[f"{s}, white"]["chance"]) < 0.02
    assert f"falls in {falls} of {4 * len(script.METHODS_SHOWN)} pairs" in script.headline(n)
    assert falls > 2 * len(script.METHODS_SHOWN)


@pytest.mark.parametrize(("scenario", "background"), EACH)
def test_the_class_depends_on_the_masked_pixels_alone(scenario, background):
    found = tetrominoes(400, 0, scenario, background)
    again = tetrominoes(400, 0, scenario, background)
    assert torch.equal(found.x, again.x)
    assert not torch.equal(found.x, tetrominoes(400, 1, scenario, background).x)
    assert found.x.shape == (400, 1, 8, 8)
    assert found.x.abs().max() == 1
    assert found.y.float().mean() == 0.5
    assert set(found.mask.sum(dim=(1, 2)).tolist()) == ({4} if scenario == "translations_rotations" else {8})
    # elsewhere the two classes have the same mean, within its error
    x, outside = found.x[:, 0].double(), ~found.mask.any(dim=0)
    gap = (x[found.y == 0].mean(dim=0) - x[found.y == 1].mean(dim=0)).abs()
    error = x.std(dim=0) * (4 / 400) ** 0.5
    if scenario != "translations_rotations":
        assert (gap[outside] < 4 * error[outside]).all()


def test_shapes_and_signs():
    linear = tetrominoes(2000, 0, "linear", "white")
    both = [linear.x[linear.y == c, 0].mean(dim=0) for c in (0, 1)]
    size = (both[0] - both[1]).abs()
    assert set(map(tuple, (size > size.max() / 2).nonzero().tolist())) == {
        (1, 1), (2, 1), (2, 2), (3, 1), (4, 5), (5, 5), (6, 5), (6, 6),
    }  # fmt: skip
    xor = tetrominoes(400, 0, "xor", "white")
    t, shape = xor.x[:, 0, 1:4, 1].double().mean(dim=1), xor.x[:, 0, 4:7, 5].double().mean(dim=1)
    assert ((t.sign() * shape.sign() < 0).long() == xor.y).double().mean() > 0.95
    dimmed = tetrominoes(2000, 0, "multiplicative", "white")
    spread = [dimmed.x[dimmed.y == c, 0].std(dim=0) for c in (0, 1)]
    assert spread[0][2, 1] < 0.5 * spread[1][2, 1]
    assert spread[1][5, 5] < 0.5 * spread[0][5, 5]
    smooth = tetrominoes(400, 0, "linear", "correlated").x[:, 0].numpy()
    assert np.corrcoef(smooth[:, 0, 3], smooth[:, 0, 4])[0, 1] > 0.9


@pytest.mark.parametrize("wrong", [{"n": 6}, {"n": 0}, {"n": 8, "scenario": "z"}, {"n": 8, "background": "grey"}])
def test_wrong_tetrominoes_are_named(wrong):
    with pytest.raises(ValueError, match="^n: " if wrong["n"] != 8 else "^scenario, background: "):
        tetrominoes(seed=0, **wrong)
