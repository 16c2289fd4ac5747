"""The figure of bands of blur: the bands add up, and the blur is that of the method."""

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

import fig_blurig as figure
from figure_numbers import numbers


def test_the_reader_sees_bands_that_add_up_to_the_change_of_the_score():
    found = numbers("fig_blurig")
    shares = np.array(list(found["shares"].values()))  # bands, photographs
    assert len(shares) == len(figure.EDGES) - 1
    np.testing.assert_allclose(shares.sum(axis=0), found["sum"], atol=2e-3)  # four digits are kept
    np.testing.assert_allclose(found["sum"], 1, atol=0.15)


def test_each_share_is_near_the_rise_of_the_score_over_its_band():
    found = numbers("fig_blurig")
    f = {float(k): np.array(v) for k, v in found["scores"].items()}
    change = f[0] - f[50]
    for (a, b), share in zip(
        zip(figure.EDGES[:-1], figure.EDGES[1:], strict=True), found["shares"].values(), strict=True
    ):
        np.testing.assert_allclose(share, (f[b] - f[a]) / change, atol=0.15)


def test_the_title_names_the_largest_band_of_each_photograph():
    parts = {"50 to 20 px": torch.tensor([0.1, 0.7]), "20 to 0 px": torch.tensor([0.9, 0.3])}
    assert figure.headline(parts, ["a", "b"]).endswith(": a 20 to 0 px (90%), b 50 to 20 px (70%)")


def test_the_blur_is_scipys():
    x = torch.randn(1, 1, 9, 12, dtype=torch.float64)
    assert torch.equal(figure.blur(x, 0), x)
    expected = gaussian_filter(x[0, 0].numpy(), 2.0, mode="constant")
    np.testing.assert_allclose(figure.blur(x, 2.0)[0, 0], expected, atol=1e-12)
