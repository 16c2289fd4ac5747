"""The figure of FullGrad's parts: shares of the score, grouped by the size of the maps."""

import numpy as np
import torch
from torch import nn

import fig_fullgrad as figure
from figure_numbers import numbers
from methods._torch import scores
from methods.full_grad import full_gradients


def test_the_reader_sees_that_the_biases_carry_more_than_the_image():
    found = numbers("fig_fullgrad")
    shares = {k: np.array(v) for k, v in found["shares"].items()}
    image = shares.pop(figure.IMAGE)
    assert (np.sum(list(shares.values()), axis=0) > image).all()
    np.testing.assert_allclose(image + np.sum(list(shares.values()), axis=0) + found["rest"], 1, atol=1e-3)


def test_groups_hold_every_term_once_and_nothing_is_left_on_a_network_of_relus():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4),
        nn.ReLU(), nn.Flatten(), nn.Linear(64, 5),
    ).eval()  # fmt: skip
    x, target = torch.randn(2, 3, 8, 8), torch.tensor([1, 4])
    at_x, at_biases = full_gradients(model, x, target)
    groups = figure.by_size(at_biases)
    assert list(groups) == ["biases\n8 x 8", "biases\n4 x 4", "bias of the head"]
    assert sum(len(g) for g in groups.values()) == len(at_biases) == 4
    total = at_x.sum(dim=(1, 2, 3)) + sum(t.flatten(1).sum(dim=1) for g in groups.values() for t in g)
    torch.testing.assert_close(total, scores(model, x[None], target)[0])


def test_the_title_is_the_mean_over_photographs():
    shares = {figure.IMAGE: torch.tensor([0.1, 0.3]), "biases": torch.tensor([0.5, 0.7])}
    complete = "Of the logit the image itself makes 20%, the biases 60%"
    assert figure.headline(shares, torch.tensor([0.001, 0.0])) == complete
    assert figure.headline(shares, torch.tensor([0.3, 0.1])) == complete + ", what is cut off 20%"
