"""Published numbers: the table, and each protocol against its printed definition on a toy network."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import table_published as table
from _published import PROTOCOLS
from figure_numbers import numbers
from methods import METHODS
from methods._progress import progress
from sanity_checks._parallel import World
from sanity_checks._runner import Bench


class Toy(nn.Module):
    """A small network with a named layer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.features(x).mean(dim=(2, 3)))


MODEL, X = Toy().eval(), torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(2))
TARGET = MODEL(X).argmax(dim=1)


def run_of(protocol, folder):
    """The cells of the command, on the toy."""
    bench = Bench(
        name=protocol, note="", model=MODEL, names=["a", "b", "c"], read=slice,
        prepare=lambda part: {"x": X[part], "target": TARGET[part]}, stamp="toy",
    )  # fmt: skip
    run = SimpleNamespace(
        args=SimpleNamespace(parts=str(folder), seed=0, shard=8, workers=0, quick=False, device="cpu"),
        script="table_published", out=folder, bar=progress("test", "call"), checks={}, methods={}, refused={},
    )  # fmt: skip
    return table.measured(run, World(), PROTOCOLS[protocol], bench, None, quick=False)


def by_definition(name, score):
    """ADCC, drop, coherency, complexity and increase of a method, image by image, as the sources print them."""

    def cam(x, c):
        return METHODS[name].fn(MODEL, x[None], score(c), layer="features.3")[0, 0]

    def rescaled(a):
        a = torch.nn.functional.interpolate(a[None, None], size=(16, 16), mode="bilinear", align_corners=False)[0, 0]
        return (a - a.min()) / (a.max() - a.min()), a

    found = []
    for x, c in zip(X, TARGET, strict=True):
        M, a = rescaled(cam(x, c[None]))
        _, again = rescaled(cam(x * M, c[None]))
        Y, O = (MODEL(v[None]).softmax(dim=1)[0, c].detach() for v in (x, x * M))
        coherency = (np.corrcoef(a.detach().flatten(), again.detach().flatten())[0, 1] + 1) / 2
        complexity, drop = float(M.mean()), float((Y - O).clamp(min=0) / Y)
        adcc = 3 / (1 / coherency + 1 / (1 - complexity) + 1 / (1 - drop))
        found.append((adcc, drop, coherency, complexity, 100.0 * (O > Y)))
    return np.mean(found, axis=0)


@pytest.mark.parametrize("method", ["grad_cam", "grad_cam_plus_plus", "layer_cam"])
def test_adcc_is_the_printed_definition(method, tmp_path):
    cells = run_of("adcc", tmp_path)[method]
    expected = by_definition(method, lambda c: c)
    np.testing.assert_allclose([cells[h]["mean"] for h in PROTOCOLS["adcc"].columns], expected, rtol=1e-4)


def test_rest_explains_the_logit_plus_the_log_probability(tmp_path):
    def target(c):
        return lambda y: y[:, c].sum(dim=1) + y.log_softmax(dim=1)[:, c].sum(dim=1)

    cells = run_of("adcc_rest", tmp_path)
    expected = by_definition("hires_cam", target)
    np.testing.assert_allclose([v["mean"] for v in cells["hires_cam"].values()], expected, rtol=1e-4)
    plain = by_definition("hires_cam", lambda c: c)
    assert not np.allclose(expected, plain, rtol=1e-3)


@pytest.mark.parametrize("protocol", ["average_drop", "torchcam"])
def test_average_drop_is_the_printed_definition(protocol, tmp_path):
    cells = run_of(protocol, tmp_path)["grad_cam"]
    _, drop, _, _, increase = by_definition("grad_cam", lambda c: c)
    np.testing.assert_allclose([v["mean"] for v in cells.values()], [100 * drop, increase], rtol=1e-4)


def test_each_printed_row_has_a_number_for_each_column():
    for protocol in PROTOCOLS.values():
        assert set(protocol.layers) <= set(protocol.models)
        for printed in protocol.printed.values():
            for method, values in printed.items():
                assert method in METHODS
                assert len(values) == len(protocol.columns)


def test_the_committed_table_has_every_protocol_on_the_packaged_photographs():
    found = numbers("table_published")
    assert found["n"] == 7
    assert set(found["protocols"]) == set(PROTOCOLS)
    for name, cells in found["protocols"].items():
        assert set(cells) == set(PROTOCOLS[name].methods)
        for by in cells.values():
            assert set(by) == set(PROTOCOLS[name].columns)
            assert all(v["n"] == 7 for v in by.values())


def test_a_method_is_run_at_the_layer_of_the_printed_number():
    row = table.row_of("grad_cam", PROTOCOLS["adcc_rest"], "layer4.2.conv3", quick=False)
    assert row.keywords["layer"] == "layer4.2.conv3"
