"""The table of models: what it says."""

import timm
import torchvision

import _atlas
import _models_page
from _atlas import Member
from figure_numbers import LATER, numbers
from methods import METHODS


def test_the_reader_sees_every_family():
    rows = _models_page.expanded(numbers("table_models"))
    assert [Member(r["source"], r["family"], r["name"]) for r in rows] == list(_atlas.members())
    ours = {r["family"] for r in rows if r["source"] == "timm"}
    without = {"deepseek_vit", "gemma4_vit", "qwen3_vit"}  # image encoders of language models: no classifier
    assert ours | without == set(timm.list_modules())
    theirs = {
        torchvision.models.get_model_builder(name).__module__.rpartition(".")[2]
        for name in torchvision.models.list_models(module=torchvision.models)
    }
    assert {r["family"] for r in rows if r["source"] == "torchvision"} == theirs
    assert sum(r["source"] == "transformers" for r in rows) == 10


def test_the_reader_sees_that_nothing_fails_and_cams_are_alive():
    rows, totals = _models_page.expanded(numbers("table_models")), numbers("table_models")["totals"]
    assert totals == _models_page.totals(rows)
    assert totals["fails"] == 0
    assert totals["families with all CAMs alive"] >= 0.95 * totals["families"]
    for r in rows:
        assert set(r["methods"]) == set(METHODS) - LATER
        for name, m in r["methods"].items():
            argument = m.get("why", "").partition(":")[0]
            assert m["status"] != "refuses" or argument in ("model", "layer", "layers"), (r["name"], name, m["why"])
