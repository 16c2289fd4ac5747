"""What every check promises. A new file in sanity_checks/ is tested by being there."""

import copy
import functools
import re
from functools import partial
from pathlib import Path

import pytest
import torch

from helpers import hooks, images, in_turn
from methods.grad_cam import grad_cam
from methods.gradient import gradient
from nets import net
from sanity_checks import CHECKS, Result
from sanity_checks._controls import CONTROLS, matched
from sanity_checks._randomize import stages
from sanity_checks._registry import INPUTS

ROOT = Path(__file__).resolve().parent.parent
NOT_A_CHECK = {"similarity", "localize"}
MASK = torch.zeros(4, 32, 32, dtype=torch.bool)
MASK[:, 8:20, 10:26] = True
TARGET = torch.tensor([1, 4, 7, 2])
FEW = {  # keywords for small random nets and images
    "grid_pointing_game": {"confidence": 0.0},
    "pointing_game": {"margin": 3.0},
    "wsol": {"size": 32, "interval": 0.1},
}

every = pytest.mark.parametrize("c", CHECKS.values(), ids=CHECKS.keys())
TRAINED = {"data", "nets"}  # checks of small networks have tests of their own
plain = [c for c in CHECKS.values() if not TRAINED & set(c.inputs)]
on_maps = [c for c in plain if "maps" in c.inputs]
on_plain = pytest.mark.parametrize("c", plain, ids=[c.name for c in plain])


def keywords(c, **more):
    return dict(c.quick) | FEW.get(c.name, {}) | {k: v for k, v in more.items() if k in c.params}


def run(c, model=None, x=None, *, maps=None, of=None, mask=None, **more) -> Result:
    model = net("relu") if model is None else model
    x = images(4) if x is None else x
    target = TARGET[: len(x)].to(x.device)
    of = of or gradient
    given = {
        "model": model,
        "x": x,
        "target": target,
        "of": of,
        "mask": (MASK[: len(x)] if mask is None else mask).to(x.device),
    }
    given["maps"] = of(model, x, target) if maps is None and "maps" in c.inputs else maps
    return c.fn(*(given[k] for k in c.inputs), **keywords(c, **more))


@functools.cache
def usual(name) -> Result:
    """What the check says of the gradient, on four images: once for all tests that compare with it."""
    return run(CHECKS[name])


@every
def test_declares_itself(c):
    assert set(c.inputs) <= set(INPUTS)
    assert set(c.quick) <= set(c.params)
    assert c.kind in ("randomization", "faithfulness", "robustness", "complexity", "axiom", "localization")
    assert c.protocol.endswith(".")
    assert c.verified
    assert re.search(rf"^@\w+\{{{c.cite},", (ROOT / "methods/references.bib").read_text(), re.M), c.cite


@every
def test_the_file_says_what_a_reader_needs(c):
    text = (ROOT / f"sanity_checks/{c.name}.py").read_text()
    doc = text.split('"""')[1]
    for heading in ("Differs from the paper:", "Differs from other code:", "Good to know:"):
        assert f"\n{heading}" in doc, heading
    entry = re.search(rf"^@\w+\{{{c.cite}, .*", (ROOT / "methods/references.bib").read_text(), re.M)[0]
    year, eprint = re.search(r"year=\{(\d+)\}", entry)[1], re.search(r"eprint=\{([\d.]+)\}", entry)
    assert year in doc
    assert not eprint or f"arXiv:{eprint[1]}" in doc
    assert "=" in doc
    assert "    Args:" in c.fn.__doc__
    assert len(text.splitlines()) <= 160


def test_a_file_is_a_check():
    files = {p.stem for p in (ROOT / "sanity_checks").glob("[a-z]*.py")}
    assert files - NOT_A_CHECK == set(CHECKS)


@on_plain
def test_answers_in_the_form_of_a_result_and_leaves_the_model_alone(c):
    model, x = net("relu"), images(4)
    before, x0 = copy.deepcopy(model.state_dict()), x.clone()
    r = run(c, model, x)
    assert r.values.shape == (4,)
    assert not r.values.requires_grad
    assert all(v.shape == (4,) for v in r.columns.values())
    assert all(v.shape == (4, len(r.at)) for v in r.curves.values()), {k: v.shape for k, v in r.curves.items()}
    assert hooks(model) == 0
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in before.items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert torch.equal(x, x0)
    assert usual(c.name).values.nan_to_num(-7).equal(r.values.nan_to_num(-7))  # and again


@on_plain
def test_passes_are_counted(c):
    model, x, B = net("relu"), images(4), 4
    seen, explained, inside = [0], [0], [0]

    def of(model, x, target):
        explained[0] += len(x)
        inside[0] += 1
        try:
            return gradient(model, x, target)
        finally:
            inside[0] -= 1

    def note(_module, args):
        seen[0] += 0 if inside[0] else len(args[0])

    handle = model.register_forward_pre_hook(note)  # copies of the model keep the hook
    maps = gradient(model, x, TARGET) if "maps" in c.inputs else None
    seen[0] = 0
    r = run(c, model, x, maps=maps, of=of)
    handle.remove()
    assert r.values.shape == (4,)
    sizes = {"H": 32, "W": 32, "B": B, "N": 10, "S": len(stages(model, x)), "C": 3}
    forward, runs = c.cost(**keywords(c), **sizes)
    assert explained[0] == runs * B
    look = 16 if "of" in c.inputs else 0  # to look at a network, once a batch
    assert forward * B <= seen[0] <= forward * B + look, (forward, seen[0] / B)


EACH = [(c, kind) for c in on_maps for kind in ("zero", "constant", "one", *CONTROLS, "matched")]
TURNS = in_turn(EACH, [f"{kind}-{c.name}" for c, kind in EACH], by=lambda c, kind: (c.name, kind in CONTROLS))


@pytest.mark.parametrize(("c", "kind"), TURNS)
def test_any_map_has_a_number(c, kind):
    model, x = net("relu"), images(4)
    target = TARGET
    maps = torch.zeros(4, 1, 32, 32, dtype=torch.float64)
    if kind == "constant":
        maps += 0.1
    elif kind == "one":
        maps[:, :, 3, 4] = 1
    elif kind in CONTROLS:
        maps = CONTROLS[kind][1](0)(model, x, target).double()
    elif kind == "matched":
        maps = matched(gradient(model, x, target), 0).double()
    r = run(c, model, x, maps=maps, of=lambda model, x, target: maps.repeat(len(x) // 4, 1, 1, 1))
    known = r.values if c.name != "sic_aic" else r.values[~r.values.isnan()]  # it leaves images out, by protocol
    assert known.isfinite().all()


alone = [c for c in plain if c.name != "grid_pointing_game"]  # a mosaic needs four images


@pytest.mark.parametrize("c", alone, ids=[c.name for c in alone])
def test_an_image_does_not_depend_on_its_batch(c):
    model, x = net("relu"), images(4)
    both, one = usual(c.name), run(c, model, x[:1])
    assert torch.allclose(one.values, both.values[:1], atol=1e-9, equal_nan=True)


chunked = [c for c in plain if "chunk" in c.params]


@pytest.mark.parametrize("c", chunked, ids=[c.name for c in chunked])
def test_the_chunk_changes_nothing(c):
    model, x = net("relu"), images(4)
    assert torch.allclose(
        run(c, model, x, chunk=5).values, run(c, model, x, chunk=64).values, atol=1e-9, equal_nan=True
    )


@pytest.mark.parametrize("c", on_maps, ids=[c.name for c in on_maps])
def test_maps_of_a_layer_will_do_and_bad_ones_are_refused(c):
    model, x = net("relu"), images(4)
    of = partial(grad_cam, layer="layer4")
    assert run(c, model, x, of=of).values.shape == (4,)
    bad = torch.ones(4, 1, 32, 32, dtype=torch.float64)
    bad[1, 0, 2, 2] = torch.nan
    with pytest.raises(ValueError, match="^maps: "):
        run(c, model, x, maps=bad)


in_half = [c for c in plain if c.name not in ("input_shift",)]


@pytest.mark.parametrize("c", in_half, ids=[c.name for c in in_half])
def test_float32(c):
    model, x = net("relu").float(), images(4, dtype=torch.float32)
    assert run(c, model, x).values.shape == (4,)
