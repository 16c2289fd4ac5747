"""What the other tests lean on: which cases the default run keeps, and one probe for all networks of one name."""

import pytest
import torch

from helpers import PROBES, in_turn, last_layer
from methods import _layers
from nets import MAKE, net

CASES = [(method, name, chunk) for method in "abcd" for name in ("relu", "elu", "vit") for chunk in (1, 100)]


def kept(cases, by):
    return [p.values for p in in_turn(cases, map(str, cases), by) if not p.marks]


def test_each_subject_keeps_a_case_of_its_own_turn():
    turns = [("a", "relu", 1), ("b", "relu", 100), ("c", "elu", 1), ("d", "elu", 100)]
    assert kept(CASES, by=lambda method, name, chunk: method) == sorted([*turns, ("a", "vit", 1)])  # no other has a ViT


@pytest.mark.parametrize("axis", range(3))
def test_the_default_run_meets_every_value(axis):
    for by in (lambda *case: case[0], lambda *case: case[:2], lambda *case: None):
        assert {case[axis] for case in kept(CASES, by)} == {case[axis] for case in CASES}
        marked = [p for p in in_turn(CASES, map(str, CASES), by) if p.marks]
        assert len(marked) + len(kept(CASES, by)) == len(CASES)
        assert {m.name for p in marked for m in p.marks} == {"exhaustive"}


@pytest.mark.parametrize("name", MAKE)
def test_one_probe_is_that_of_any_weights(name):
    last_layer(net(name))
    for seed, dtype in ((1, torch.float64), (2, torch.float32)):
        assert _layers.probe(net(name, seed, dtype), (3, 32, 32)) == PROBES[name]
