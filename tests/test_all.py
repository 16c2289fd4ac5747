"""reproduce/all.py: what is out of date, what failed, and what it says of both."""

import importlib
import json
import sys
from pathlib import Path

import pytest

import _sources
import all as everything

ROOT = Path(__file__).resolve().parent.parent
NAME, WORDS = "fig_combined", ["--quick", "--seed", "3"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The output of one small script."""
    out = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"{NAME}.py", *WORDS, "--out", str(out)])
        importlib.import_module(NAME).main()
    return out


@pytest.fixture
def out(made, tmp_path):
    for file in made.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def edit(out, change):
    file = out / f"{NAME}.json"
    facts = json.loads(file.read_text())
    change(facts)
    file.write_text(json.dumps(facts))


def test_what_is_there_is_up_to_date(out):
    assert everything.stale(NAME, WORDS, out) == ""
    assert everything.stale(NAME, [*WORDS, "--out", str(out)], out) == ""
    assert everything.stale("fig_cam", WORDS, out) == "not there"


@pytest.mark.parametrize("words", [["--quick"], [*WORDS, "--images", "rocket"], ["--seed", "3"]])
def test_other_arguments(out, words):
    assert everything.stale(NAME, words, out) == "other arguments"


CHANGES = [
    (lambda f: f["sources"].update({"methods/combine.py": "0"}), "the code of methods/combine.py changed"),
    (lambda f: f["sources"].update({"methods/gone.py": "0"}), "the code of methods/gone.py changed"),
    (lambda f: f["methods"].update({"occlusion": {}}), "the code of methods/occlusion.py changed"),
    (lambda f: f["packages"].update({"torch": "1.0"}), "made with torch 1.0"),
    (lambda f: f["model"][0].update({"weights_sha256": "0"}), "tf_efficientnet_lite0 had other weights"),
    (lambda f: f["nets"].update({"digit_cnn": "0"}), "the weights of digit_cnn changed"),
    (lambda f: f["outputs"].update({f"{NAME}.png": "0"}), f"{NAME}.png is missing or was changed"),
]


@pytest.mark.parametrize(("change", "reason"), CHANGES, ids=[reason for _, reason in CHANGES])
def test_what_a_sidecar_says_is_compared_with_what_is_there(out, change, reason):
    edit(out, change)
    assert everything.stale(NAME, WORDS, out) == reason


def test_a_deleted_or_damaged_output_is_made_again(out):
    (out / f"{NAME}.png").unlink()
    assert everything.stale(NAME, WORDS, out) == f"{NAME}.png is missing or was changed"
    (out / f"{NAME}.json").write_text("{")
    assert everything.stale(NAME, WORDS, out) == "not there"


def test_check_makes_nothing_and_tells(out, capsys):
    before = sorted(out.iterdir())
    assert everything.main(["--check", "--only", NAME, *WORDS, "--out", str(out)]) == 0
    assert everything.main(["--check", "--only", f"{NAME},fig_cam", *WORDS, "--out", str(out)]) == 1
    assert capsys.readouterr().out.splitlines()[-1].split() == ["fig_cam", "not", "there"]
    assert sorted(out.iterdir()) == before


def test_nothing_to_do(out, capsys):
    assert everything.main(["--only", NAME, *WORDS, "--out", str(out)]) == 0
    assert "made: 0; up to date: 1; failed: 0" in capsys.readouterr().out


@pytest.mark.parametrize("jobs", [1, 2])
def test_failures_are_told_and_the_rest_is_made(tmp_path, monkeypatch, capsys, jobs):
    bodies = {
        "fig_good": "from pathlib import Path; Path(__file__).with_suffix('.made').touch()",
        "fig_bad": "raise SystemExit('no photograph')",
        "fig_also": "from pathlib import Path; Path(__file__).with_suffix('.made').touch()",
    }
    for name, body in bodies.items():
        (tmp_path / f"{name}.py").write_text(body)
    monkeypatch.setattr(everything, "SCRIPTS", {name: tmp_path / f"{name}.py" for name in bodies})
    monkeypatch.setattr(everything, "stale", lambda *_: "not there")
    assert everything.main(["--jobs", str(jobs), "--out", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "made: 2; up to date: 0; failed: 1" in printed
    assert "fig_bad                      exit status 1: no photograph" in printed
    assert sorted(f.stem for f in tmp_path.glob("*.made")) == ["fig_also", "fig_good"]


@pytest.mark.parametrize(
    ("argv", "message"), [(["--only", "fig_cma"], "fig_cam"), (["--sede", "3"], "no such argument")]
)
def test_wrong_arguments(capsys, argv, message):
    try:
        code = everything.main(argv)
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert message in capsys.readouterr().err


def test_comments_and_docstrings_do_not_make_a_figure_old(tmp_path):
    bodies = [
        '"""Doc."""\nx = 1\n\ndef f():\n    """Doc."""\n    return x\n',
        'x = 1  # a comment\n\n\ndef f():\n    """Another."""\n    return x\n',
        'x = 2\n\ndef f():\n    """Doc."""\n    return x\n',
    ]
    hashes = []
    for i, body in enumerate(bodies):
        (tmp_path / f"{i}.py").write_text(body)
        hashes.append(_sources._read(tmp_path / f"{i}.py")[0])
    assert hashes[0] == hashes[1] != hashes[2]


def test_sources_follow_imports_to_the_methods_that_a_method_uses():
    found = _sources.sources(ROOT / "reproduce/fig_cam_discrimination.py", ["guided_grad_cam"], ["wsol"])
    assert {
        "reproduce/fig_cam_discrimination.py", "reproduce/_pairs.py", "methods/_models.py",
        "methods/guided_grad_cam.py", "methods/guided_backprop.py", "methods/grad_cam.py", "methods/_torch.py",
        "methods/_rules.py", "sanity_checks/wsol.py",
    } <= set(found)  # fmt: skip
    assert not {"methods/xrai.py", "methods/layer_cam.py", "reproduce/_plot.py"} & set(found)
    assert all(len(v) == 64 for v in found.values())
