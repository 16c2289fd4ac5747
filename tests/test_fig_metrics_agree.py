"""Which metrics agree: what the figure claims, on its numbers; and correlations by hand."""

import numpy as np
import pytest
from scipy.stats import spearmanr

import fig_metrics_agree as script
from _table import LONG
from figure_numbers import numbers
from methods import METHODS
from sanity_checks import CHECKS


@pytest.fixture(scope="module")
def found():
    n = numbers("fig_metrics_agree")
    names = n["metrics"]
    return n, {(a, b): n["rho"][i][j] for i, a in enumerate(names) for j, b in enumerate(names)}


def test_every_metric_and_nearly_every_method_is_there(found):
    n, _ = found
    assert set(n["metrics"]) == set(script.METRICS)
    missing = set(METHODS) - set(LONG) - set(n["rows"])
    assert all("vit" in METHODS[m].architectures for m in missing), missing
    assert all(c.check in CHECKS for c in script.METRICS.values())


def test_scores_of_the_same_evidence_are_of_two_kinds(found):
    """The title, and what the docstring says."""
    n, rho = found
    assert rho["energy on the object", "earth mover"] > 0.6
    assert rho["ROC-AUC", "relevance rank"] > 0.85
    assert rho["energy on the object", "ROC-AUC"] < 0.2
    assert f"{rho['energy on the object', 'ROC-AUC']:.2f}" in script.headline(n)
    assert rho["MAS", "energy on the object"] > 0.85  # it reads the values
    assert rho["pixel flipping", "ROC-AUC"] > 0.85
    assert "ROAD agrees most" in script.headline(n)


def test_agreement_by_hand():
    rng = np.random.default_rng(0)
    scores = {
        f"m{k}": {"a": rng.normal(size=6) + k, "b": rng.normal(size=6) - k, "c": rng.normal(size=6)} for k in range(9)
    }
    scores["m0"]["c"][2] = np.nan
    n = script.agreement(scores, ["a", "b", "c"], seed=0)
    assert sorted(n["metrics"]) == ["a", "b", "c"]
    means = {name: [np.nanmean(found[name]) for found in scores.values()] for name in "abc"}
    for i, a in enumerate(n["metrics"]):
        for j, b in enumerate(n["metrics"]):
            assert n["rho"][i, j] == pytest.approx(spearmanr(means[a], means[b])[0])
            assert n["low"][i, j] <= n["high"][i, j]
    at = {name: k for k, name in enumerate(n["metrics"])}
    assert n["high"][at["a"], at["b"]] < -0.5
    assert abs(at["a"] - at["b"]) == 2 or abs(at["a"] - at["b"]) == 1
