"""The figure of the error by passes: its numbers, and its measures where the answer is known."""

import numpy as np
import pytest
import torch

import fig_convergence as figure
from figure_numbers import numbers


@pytest.fixture(scope="module")
def found():
    return numbers("fig_convergence")["found"]


def test_the_reader_sees_all_methods_and_that_errors_fall(found):
    assert set(found) == set(figure.LABELS)
    for k, by in found.items():
        at = list(by["error"])
        assert len(at) == len(figure.PASSES)
        assert by["error"][at[-1]]["mean"] < by["error"][at[0]]["mean"], k
        assert by["rank"][at[-1]]["mean"] > by["rank"][at[0]]["mean"], k


def test_the_reader_sees_what_the_default_of_kernel_shap_rests_on(found):
    for n in ("500", "1000", "2000"):
        assert found["leverage"]["error"][n]["mean"] < found["kernel"]["error"][n]["mean"]


def additive():
    a = np.arange(1.0, figure.R + 1)
    return a, figure.every() @ a


def test_of_a_sum_all_methods_tend_to_its_terms():
    a, v = additive()
    exact = figure.limits(v)
    for k in ("leverage", "kernel", "lime", "glime"):
        np.testing.assert_allclose(exact[k], a, rtol=1e-9)
    np.testing.assert_allclose(np.diff(exact["rise"]), 0.5)  # the mean where a region is seen: half of its term more
    np.testing.assert_allclose(exact["sobol"], a**2 / (a**2).sum())
    assert list(exact["hsic"].argsort()) == list(range(figure.R))


def test_shapley_values_of_an_interaction_are_shared_equally():
    z = figure.every()
    exact = figure.limits(z[:, 0] * z[:, 1])["leverage"]
    np.testing.assert_allclose(exact[:2], 0.5)
    np.testing.assert_allclose(exact[2:], 0, atol=1e-12)


def test_recorded_scores_are_read_by_the_regions_that_are_seen():
    _, v = additive()
    x = torch.zeros(1, 3, figure.ROWS, figure.COLUMNS)
    x[0, :, 1, 2] = 1  # region 5
    assert float(figure.Recorded(v)(x)) == 6


def test_the_error_is_relative_and_knows_no_constant():
    exact = np.array([1.0, 2, 4])
    assert figure.error(exact + 7, exact) == pytest.approx(0)
    assert figure.error(2 * exact, exact) == pytest.approx(1)
