"""What the other tests lean on: one probe for all networks of one name."""

import pytest
import torch

from helpers import PROBES, last_layer
from methods import _layers
from nets import MAKE, net


@pytest.mark.parametrize("name", MAKE)
def test_one_probe_is_that_of_any_weights(name):
    last_layer(net(name))
    for seed, dtype in ((1, torch.float64), (2, torch.float32)):
        assert _layers.probe(net(name, seed, dtype), (3, 32, 32)) == PROBES[name]
