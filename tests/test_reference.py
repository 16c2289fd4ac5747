"""`verified` is a claim; this file is the proof. tests/reference/<method>.py holds one function per name claimed."""

import pytest
import torch

from helpers import CLASSES, bound, images, in_turn, masks_of, references
from methods import METHODS
from nets import KIND, applies, net


@pytest.mark.parametrize("m", METHODS.values(), ids=METHODS.keys())
def test_claims_match_files(m):
    assert set(m.verified) == set(references(m.name))
    assert m.verified


LAYERS = {  # more than one depth, and inside a block: at the last layer many CAMs coincide
    "relu": ["layer2", "layer3", "layer4", "layer4.bn2"],
    "silu_se": ["layer3", "layer4"],
    "gelu_ln": ["layer2", "layer4"],
    "vit": ["blocks.1.norm1", "blocks.2.norm1"],
    "vit_avg": ["blocks.2"],
    "swin": ["layers.0", "norm"],
}


def cases():
    for m in METHODS.values():
        for name, layers in LAYERS.items():
            if applies(m, name):
                layers = ["norm" if name == "swin" else "layer4"] if m.needs in ("linear head", "rule") else layers
                for layer in layers if "layer" in m.params else [None]:
                    for ref, function in references(m.name).items():
                        if ref == "authors":  # stored maps: test_golden.py
                            continue
                        if name not in getattr(function, "only", {name}):
                            continue  # the other code cannot run on this net: the reason stands at `@on`
                        yield m, name, layer, ref


EACH = [*cases()]
NAMES = ["-".join(filter(None, (m.name, name, layer, ref))) for m, name, layer, ref in EACH]
TURNS = in_turn(EACH, NAMES, by=lambda m, name, layer, ref: (m.name, ref, name in KIND))
OURS = {}  # the last map: what follows may be another reference for the same


def ours(m, name, layer, variant):
    """(keywords, map) of ours."""
    key = m.name, name, layer, str(variant)
    if key not in OURS:
        model = net(name)
        f = bound(m, model, **({"layer": layer} if layer else {}), **variant)
        OURS.clear()
        OURS[key] = f.keywords, f(model, images(), CLASSES)
    return OURS[key]


@pytest.mark.filterwarnings("ignore")  # third-party code
@pytest.mark.parametrize(("m", "name", "layer", "ref"), TURNS)
def test_equals(m, name, layer, ref):
    reference = references(m.name)[ref]
    variant = getattr(reference, "keywords", {})  # ours set to what the other code does
    keywords, got = ours(m, name, layer, variant)
    keywords = keywords | masks_of(m, 3)
    want = reference(net(name), images(), CLASSES, **{k: v for k, v in keywords.items() if k not in variant})
    tolerance = getattr(reference, "tolerance", {"rtol": 1e-7, "atol": 1e-10})  # a looser one stands beside its reason
    torch.testing.assert_close(got, torch.as_tensor(want, dtype=got.dtype), **tolerance)
