"""One model of the table of models examined here, and how outcomes are counted."""

import json

import pytest

import _atlas
import _models_page
from figure_numbers import LATER, numbers
from methods import METHODS

# (source, model): the cheapest of eleven families, of every source and kind
SAMPLE = [
    ("timm", "resnet10t"),
    *[
        pytest.param(*case, marks=pytest.mark.exhaustive)
        for case in (
            ("timm", "levit_128s"),
            ("timm", "mobilenetv3_small_050"),
            ("timm", "vit_tiny_patch16_224"),
            ("timm", "convnext_zepto_rms"),
            ("timm", "coat_tiny"),
            ("timm", "swin_tiny_patch4_window7_224"),
            ("timm", "xcit_nano_12_p8_224"),
            ("torchvision", "squeezenet1_1"),
            ("transformers", "ResNetForImageClassification"),
            ("transformers", "ViTForImageClassification"),
        )
    ],
]


@pytest.mark.parametrize(("source", "name"), SAMPLE)
def test_every_method_runs_or_says_why_not_as_the_table_says(source, name):
    (member,) = (m for m in _atlas.members() if (m.source, m.name) == (source, name))
    row = json.loads(json.dumps(_atlas.examine(member)))
    assert not [(n, m["why"]) for n, m in row["methods"].items() if m["status"] == "fails"]
    assert _models_page.dead_cams(row) == []
    (there,) = (r for r in _models_page.expanded(numbers("table_models")) if (r["source"], r["name"]) == (source, name))
    for key in ("kind", "layer", "grid", "size"):
        assert row[key] == there[key]
    for n in METHODS.keys() - LATER:  # what takes too long depends on the machine
        assert len({row["methods"][n]["status"], there["methods"][n]["status"]} - {"not run"}) < 2, n


def row_of(**outcomes):
    methods = {n: {"status": "refuses", "why": "model: no"} for n in METHODS} | outcomes
    return {
        "source": "timm",
        "family": "f",
        "name": "n",
        "kind": "cnn",
        "layer": "l",
        "grid": [7, 7],
        "methods": methods,
    }


def test_what_fails_or_is_dead_is_counted():
    runs, dead = {"status": "runs", "alive": True}, {"status": "runs", "alive": False}
    good, bad = row_of(grad_cam=runs), row_of(grad_cam=runs, cam=dead, gradient={"status": "fails", "why": "KeyError"})
    assert _models_page.dead_cams(good) == []
    assert _models_page.dead_cams(bad) == ["cam"]
    assert "grad_cam" in _models_page.dead_cams(row_of())  # none runs
    totals = _models_page.totals([good, bad | {"family": "g"}])
    assert (totals["runs"], totals["fails"], totals["families with all CAMs alive"]) == (3, 1, 1)
    page = _models_page.page([good, bad])
    assert "constant: cam" in page
    assert f"| 1 | {', '.join(sorted(n for n in METHODS if n != 'grad_cam'))} | n: model: no |" in page


def test_a_method_that_breaks_is_a_failure_and_a_refusal_is_not(monkeypatch):
    member = next(m for m in _atlas.members() if m.name == "resnet10t")
    chosen = {n: METHODS[n] for n in ("gradient", "grad_cam", "hires_cam", "fem")}
    monkeypatch.setattr(_atlas, "METHODS", chosen)
    real = _atlas.attribute

    def attribute(name, model, x, *arguments, **keywords):
        a = real(name, model, x, *arguments, **keywords)
        if name == "gradient":
            raise KeyError("on purpose")
        if name == "grad_cam":
            raise ValueError("model: on purpose")
        if name == "hires_cam":
            model.train()
        return a + len(x) if name == "fem" else a

    monkeypatch.setattr(_atlas, "attribute", attribute)
    found = _atlas.examine(member)["methods"]
    assert found["gradient"] == {"status": "fails", "why": "KeyError: 'on purpose'"}
    assert found["grad_cam"] == {"status": "refuses", "why": "model: on purpose"}
    assert found["hires_cam"]["why"].endswith("the model was changed")
    assert found["fem"]["why"].startswith("the map of an image depends on its batch")


def test_rows_become_short_and_long_again():
    row = row_of(
        grad_cam={"status": "runs", "alive": True}, cam={"status": "runs", "alive": False},
        ss_cam={"status": "not run", "why": "9 passes: many"},
    )  # fmt: skip
    short = _models_page.compact([row, row])
    assert short["reasons"] == ["refuses: model: no", "not run: 9 passes: many"]
    assert short["rows"][0]["methods"]["cam"] == "constant"
    assert _models_page.expanded(short) == [row, row]
