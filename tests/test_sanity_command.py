"""python -m sanity_checks: a user's own method, wrong input, kills and interruptions, and what the report says."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import few_networks
from methods import _models
from sanity_checks import CHECKS, Result, __main__, _provenance, _runner
from sanity_checks._claim import claimed
from sanity_checks._controls import CONTROLS
from sanity_checks._report import COLUMNS, summarise
from sanity_checks._rows import Row, controls
from sanity_checks._runner import Part
from sanity_checks._statistics import interval

ROOT = Path(__file__).resolve().parent.parent
SMALL = ["--model", "test_resnet", "--weights", "random", "--images", "chelsea,coffee,rocket"]
FAST = ["--checks", "random_logit,sparseness,model_randomization,energy_pointing_game"]
FEW = ["--checks", "random_logit,sparseness,complexity"]
MINE = """
import torch

def my_method(model, x, target):
    x = x.detach().requires_grad_()
    y = model(x).gather(1, target[:, None]).sum()
    return torch.autograd.grad(y, x)[0].abs().amax(1, keepdim=True)

def flat(model, x, target):
    return x.mean(dim=(1, 2, 3))

def broken(model, x, target):
    return x / 0

def whole(model, x, target):
    return x.round().long()

def no_graph(model, x, target):
    with torch.no_grad():
        y = model(x)
    return torch.autograd.grad(y.sum(), x)[0]

def two(model, x):
    return x

def greedy(model, x, target, *, temperature):
    return x

def picture(model, x, target):
    return x

not_a_function = 3
"""


@pytest.fixture
def mine(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    return file


def run(*words, out):
    return __main__.main([*map(str, words), "--out", str(out)])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A report on a registered and a user's method."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "mine.py").write_text(MINE)
    with pytest.MonkeyPatch.context() as patch:
        few_networks(patch)
        assert run("grad_cam", folder / "mine.py:my_method", *SMALL, *FAST, out=folder / "report") == 0
    return folder / "report"


def test_a_users_method_gets_a_row_beside_the_controls(finished):
    report = json.loads((finished / "report.json").read_text())
    assert list(report["rows"]) == ["grad_cam", "my_method", *CONTROLS]
    assert report["methods"] == ["grad_cam", "my_method"]
    assert report["complete"]
    assert report["done"] == report["units"]
    assert list(report["images"]["used"]) == ["chelsea", "coffee", "rocket"]
    for row in report["rows"].values():
        assert set(row["checks"]) == {"random_logit", "sparseness", "model_randomization", "energy_pointing_game"}
        assert len(row["checks"]["random_logit"]["values"]) == 3
        assert row["verdict"] in (None, "responds", "partial", "insensitive", "no evidence")
    assert report["rows"]["sobel_edges"]["conditions"]["weights"] == "insensitive"
    assert report["rows"]["white_noise"]["verdict"] == "no evidence"
    assert report["rows"]["grad_cam"]["sentence"].endswith("Not measured: same function, place.")
    found = report["rows"]["my_method"]["checks"]["sparseness"]
    want = interval(np.array(found["values"]))
    assert found["interval"] == {"mean": want.mean, "low": want.low, "high": want.high, "n": 3, "missing": 0}


def test_the_page_is_whole_and_asks_nobody_for_anything(finished):
    page = (finished / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    for name in ("maps", "cascade", "curves"):
        with Image.open(finished / f"{name}.png") as picture:
            assert picture.width > 500
    assert not re.search(r"<script|<link|@import|url\(|src=\"(?!data:)|href=", page)
    for word in (
        "Grad-CAM",
        "my_method",
        "white noise",
        "insensitive",
        "no evidence",
        "Adebayo 2018 (arXiv:1810.03292)",
    ):
        assert word in page
    assert "RANDOM WEIGHTS" in page
    assert not list(finished.glob("**/*.tmp"))


def test_no_path_of_this_machine_is_in_a_report(finished):
    for name in ("report.html", "report.json"):
        text = (finished / name).read_text()
        assert str(finished.parent) not in text
        assert str(ROOT) not in text
    assert "python -m sanity_checks grad_cam mine.py:my_method --model test_resnet" in text


def test_started_again_it_reads_what_is_there(finished, monkeypatch):
    before = (finished / "report.json").read_bytes()
    few_networks(monkeypatch)
    monkeypatch.setattr(_runner, "_compute", lambda *_: pytest.fail("computed again"))
    folder = finished.parent
    assert run("grad_cam", folder / "mine.py:my_method", *SMALL, *FAST, out=finished) == 0
    assert (finished / "report.json").read_bytes() == before


@pytest.mark.usefixtures("as_a_process")
def test_killed_and_started_again_it_gives_the_same_report(tmp_path, mine):
    out, words = tmp_path / "report", ["grad_cam", f"{mine}:my_method", *SMALL, *FEW]
    command = [sys.executable, "-m", "sanity_checks", *words, "--out", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while len(list(out.glob("parts/*/*/*.json"))) < 8 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = {f: f.stat().st_mtime_ns for f in out.glob("parts/**/*.json")}
    assert len(there) >= 8
    assert not (out / "report.json").exists()
    assert subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False).returncode == 0
    assert {f: f.stat().st_mtime_ns for f in there} == there  # nothing is counted twice
    ours = json.loads((out / "report.json").read_text())
    assert ours["done"] == ours["units"]
    again = tmp_path / "again" / "report"  # the same command without a kill
    assert run(*words, out=again) == 0
    assert (again / "report.json").read_bytes() == (out / "report.json").read_bytes()


@pytest.mark.usefixtures("coarse")
def test_ctrl_c_leaves_a_valid_partial_report(tmp_path, mine, monkeypatch):
    out, compute, left = tmp_path / "report", _runner._compute, [5]

    def until(*arguments):
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        return compute(*arguments)

    monkeypatch.setattr(_runner, "_compute", until)
    words = ["gradient", f"{mine}:my_method", *SMALL, *FEW]
    assert run(*words, out=out) == 130
    report = json.loads((out / "report.json").read_text())
    assert not report["complete"]
    assert report["done"] == 5 < report["units"]
    assert "INCOMPLETE: 5 of" in (out / "report.html").read_text()
    left[0] = 1000
    assert run(*words, out=out) == 0
    assert json.loads((out / "report.json").read_text())["complete"]


WRONG = [
    (["grad_cma"], r"METHOD: no method is called 'grad_cma'; the closest are grad_cam"),
    ([], r"METHOD: name at least one"),
    (["gradient", "--checks", "insertion_deletoin"], r"--checks: .*; the closest are insertion_deletion"),
    (["gradient", "gradient"], r"METHOD: two rows would be called 'gradient'"),
    (["{mine}:no_such"], r"METHOD: .*mine.py has no function 'no_such'"),
    (["{mine}:not_a_function"], r"has no function 'not_a_function'"),
    (["nowhere/mine.py:f"], r"METHOD: there is no file nowhere/mine.py"),
    (["no_such_package.x:f"], r"METHOD: no_such_package.x cannot be imported"),
    (["{mine}:two"], r"must be f\(model, x, target, \*, keywords\), got f\(model, x\)"),
    (["{mine}:greedy"], r"needs a default for temperature"),
    (["{mine}:flat"], r"flat: must return B K h w with B = 1, got \(1,\)"),
    (["{mine}:broken"], r"broken: must return finite numbers, got NaN or infinity on image chelsea"),
    (["{mine}:whole"], r"whole: must return floating point numbers, got torch.int64"),
    (["{mine}:no_graph"], r"no_graph: failed on image chelsea: RuntimeError: .*does not require grad"),
    (["attention_rollout"], r"model: attention_rollout is defined for vit models, this is a cnn"),
    (["gradient", "--images", "{empty}"], r"images: the folder .* has no image"),
    (
        ["gradient", "--images", "{unreadable}"],
        r"--images: none of 1 images can be read; the first, a.png: cannot be read as an image",
    ),
    (
        ["gradient", "--images", "chelsae"],
        r"'chelsae' is no packaged photograph, file or folder; did you mean 'chelsea'",
    ),
    (["gradient", "--model", "resnet5"], r"model: timm .* has no 'resnet5'"),
    (["gradient", "--device", "cuda:99"], r"--device: 'cuda:99' cannot be used here"),
    (["gradient", "--shard", "1"], r"--shard: "),
    (["gradient", "--chunk", "0"], r"--chunk: "),
    (
        ["gradient", "--checks", "complexity", "--require", "responds"],
        r"--require: the verdict comes from model_randomization",
    ),
    (["gradient", "--checks", "roar", "--data", "{empty}"], r"data: .* has no train-images"),
]


@pytest.mark.parametrize(("words", "message"), WRONG, ids=[" ".join(w) or "nothing" for w, _ in WRONG])
def test_wrong_input_is_one_clear_message_and_nothing_is_written(words, message, tmp_path, mine, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "unreadable").mkdir()
    (tmp_path / "unreadable/a.png").write_text("not a picture")
    places = {"mine": mine, "empty": tmp_path / "empty", "unreadable": tmp_path / "unreadable"}
    words = [w.format(**places) for w in words]
    assert run(*SMALL, *words, out=tmp_path / "report") == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("sanity_checks: ")]
    assert len(lines) == 1
    assert re.search(message, lines[0])
    assert not (tmp_path / "report").exists()


def test_a_model_without_weights_is_one_message(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert run("gradient", "--model", "vgg11_bn.tv_in1k", "--images", "chelsea", out=tmp_path / "report") == 2
    assert "sanity_checks: model: the weights of vgg11_bn.tv_in1k are not on this machine" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()


@pytest.mark.usefixtures("coarse")
def test_unreadable_images_are_named_left_out_and_counted(tmp_path, capsys):
    folder = tmp_path / "images"
    for k in range(3):
        (folder / f"{k}").mkdir(parents=True)
        noise = np.random.default_rng(k).integers(0, 255, (200, 180, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{k}/a.png")
        (folder / f"{k}/torn.png").write_bytes((folder / f"{k}/a.png").read_bytes()[:500])
    assert run("gradient", *SMALL, "--images", folder, "--checks", "complexity", out=tmp_path / "report") == 0
    report = json.loads((tmp_path / "report/report.json").read_text())
    assert report["images"]["skipped"] == ["0/torn.png", "1/torn.png", "2/torn.png"]
    assert list(report["images"]["used"]) == ["0/a.png", "1/a.png", "2/a.png"]
    assert "left out 3:\n  0/torn.png: cannot be read as an image" in capsys.readouterr().err
    page = (tmp_path / "report/report.html").read_text()
    assert "3 image(s) could not be read and were left out: 0/torn.png, 1/torn.png, 2/torn.png" in page


@pytest.mark.usefixtures("coarse")
def test_require_is_for_a_papers_ci(tmp_path, mine):
    words = [f"{mine}:picture", *SMALL, "--checks", "model_randomization"]
    assert run(*words, "--require", "insensitive", out=tmp_path / "report") == 0
    assert run(*words, "--require", "responds", out=tmp_path / "report") == 1


@pytest.mark.usefixtures("coarse")
def test_what_does_not_apply_is_said_and_the_rest_runs(tmp_path):
    assert run("cam", *SMALL, "--checks", "label_randomization,complexity", out=tmp_path / "report") == 0
    report = json.loads((tmp_path / "report/report.json").read_text())
    row = report["rows"]["cam"]
    assert (
        "this method needs the layer before global average pooling" in row["checks"]["label_randomization"]["refused"]
    )
    assert row["checks"]["complexity"]["interval"]["n"] == 3
    assert any(line.startswith("cam label_randomization: layer: ") for line in report["refusals"])


@pytest.mark.usefixtures("coarse")
def test_shards_do_not_change_the_numbers(tmp_path, mine):
    for shard in (2, 8):
        words = [
            "gradient",
            *SMALL,
            "--images",
            "chelsea,coffee,rocket,china",
            "--checks",
            "complexity,single_deletion",
        ]
        assert run(*words, "--shard", shard, out=tmp_path / str(shard)) == 0
    a, b = (json.loads((tmp_path / f"{n}/report.json").read_text())["rows"]["gradient"]["checks"] for n in (2, 8))
    assert len(list((tmp_path / "2/parts/gradient/complexity").iterdir())) == 2
    for name in ("complexity", "single_deletion"):
        assert np.allclose(a[name]["values"], b[name]["values"], atol=1e-4)


@pytest.mark.usefixtures("coarse")
def test_changed_inputs_are_computed_again(tmp_path):
    words = ["gradient", *SMALL, "--images", "chelsea,coffee", "--checks", "complexity"]
    assert run(*words, out=tmp_path / "report") == 0
    (part,) = (tmp_path / "report/parts/gradient/complexity").iterdir()
    first = json.loads(part.read_text())
    assert run(*words, "--seed", 1, out=tmp_path / "report") == 0
    assert json.loads(part.read_text())["stamp"] != first["stamp"]
    part.write_text(part.read_text()[:50])  # a torn file is as good as none
    assert run(*words, "--seed", 1, out=tmp_path / "report") == 0
    assert len(json.loads(part.read_text())["result"]["values"]) == 2


def test_list_names_every_check(capsys):
    assert __main__.main(["--list"]) == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"^{c.kind} +{name} ", shown, re.M) for name, c in CHECKS.items())


# the numbers of a report


def row(key="m", control=False):
    return Row(key=key, label=key.upper(), fn=lambda: None, control=control)


def part(values, noise=None, **columns):
    def result(v, c):
        return Result(values=torch.tensor(v), columns={k: torch.tensor(w) for k, w in c.items()})

    return Part(result(values, columns), result(noise, columns) if noise else None)


def randomised(s, null, ceiling):
    full = {f"full_{m}_size": s for m in ("spearman", "signed", "nonzero")}
    nulls = {f"null_{m}_size": null for m in ("spearman", "signed", "nonzero")}
    found = part(s, head_size=s, bottom_up_size=s, refitted_size=s, ceiling=ceiling, **full, **nulls)
    return replace(found, result=replace(found.result, facts={"refitted": 1}))


def test_a_map_that_responds_but_is_no_better_than_noise_is_no_evidence():
    n = 12
    low = list(np.linspace(-0.05, 0.05, n))
    moved = randomised(low, [0.1] * n, [1.0] * n)
    good = part([0.5] * n, [0.1] * n)
    bad = part(low, [0.0] * n)

    def judged(**found):
        return summarise([row()], {("m", k): v for k, v in found.items()})["rows"]["m"]["verdict"]

    assert judged(model_randomization=moved) == "partial"  # the other conditions were not measured
    assert judged(model_randomization=moved, road=good) == "partial"
    assert judged(model_randomization=moved, road=bad) == "no evidence"
    kept = randomised([0.99] * n, [0.1] * n, [1.0] * n)
    assert judged(model_randomization=kept, road=good) == "insensitive"
    assert judged(road=good) is None
    rest = {
        "random_logit": part(low, size=low, null_size=[0.1] * n, ceiling=[1.0] * n),
        "implementation_invariance": part([1.0] * n), "grid_pointing_game": part([0.8] * n, [0.2] * n),
    }  # fmt: skip
    assert judged(model_randomization=moved, road=good, **rest) == "responds"
    few = randomised(low[:4], [0.1] * 4, [1.0] * 4)  # of the others the maps became constant
    assert judged(model_randomization=few, road=good, **rest) == "partial"


def test_the_columns_exist_in_the_checks():
    for c in COLUMNS:
        assert c.check in CHECKS
        assert set(CHECKS[c.check].inputs) <= {"model", "x", "target", "maps", "of", "mask", "nets"}


def test_gains_are_paired_and_lower_is_better_where_it_is():
    n = 8
    base = list(np.linspace(0, 1, n))
    columns = {"insertion": [v + 0.2 for v in base], "deletion": [v + 0.1 for v in base]}
    noise = {"insertion": base, "deletion": base}
    found = Part(part(base, **columns).result, part(base, **noise).result)
    table = summarise([row()], {("m", "insertion_deletion"): found})["rows"]["m"]["table"]
    assert np.isclose(table["insertion"]["mean"], 0.2)
    assert np.isclose(table["deletion"]["mean"], -0.1)
    assert table["insertion"]["word"] == "better"
    assert table["deletion"]["word"] == "worse"
    assert table["insertion"]["low"] > 0.19
    assert table["insertion"]["wilcoxon_p"] < 0.01


def test_kendalls_tau_between_checks():
    rows = [row(k) for k in "abcd"]
    found = {(r.key, "road"): part([float(i)], [0.0]) for i, r in enumerate(rows)}
    found |= {(r.key, "single_deletion"): part([float(-i)], [0.0]) for i, r in enumerate(rows)}
    tau = summarise(rows, found)["consistency"]["kendall_tau"]
    assert tau["road"]["single_deletion"] == -1
    assert tau["road"]["road"] == 1


def test_missing_images_are_counted_never_hidden():
    found = summarise([row()], {("m", "complexity"): part([1.0, float("nan"), 3.0])})["rows"]["m"]["checks"][
        "complexity"
    ]
    assert found["interval"]["n"] == 2
    assert found["interval"]["missing"] == 1
    assert found["interval"]["mean"] == 2


def test_controls_are_rows_of_their_own():
    assert [r.key for r in controls()] == list(CONTROLS)
    assert all(r.control for r in controls())


# results of an earlier run


HELPED = """
import {helper}

def helped(model, x, target):
    import {late}
    return {helper}.factor * {late}.factor * x
"""


@pytest.mark.usefixtures("coarse")
@pytest.mark.parametrize("edited", ["at_once", "when_it_runs", "inside"])
def test_an_edit_in_what_a_function_imports_is_seen(edited, tmp_path, capsys):
    names = {n: f"{n}_of_{edited}" for n in ("at_once", "when_it_runs", "inside")}  # they stay loaded here
    (tmp_path / f"{names['inside']}.py").write_text("factor = 2.0\n")
    (tmp_path / f"{names['at_once']}.py").write_text(f"from {names['inside']} import factor\n")
    (tmp_path / f"{names['when_it_runs']}.py").write_text("factor = 1.0\n")
    mine = tmp_path / "mine.py"
    mine.write_text(HELPED.format(helper=names["at_once"], late=names["when_it_runs"]))
    words = ["gradient", f"{mine}:helped", *SMALL, "--checks", "complexity"]
    total = 2 + len(CONTROLS)
    assert run(*words, out=tmp_path / "report") == 0
    assert f"complete: {total} of {total} results, 0 of them from an earlier run" in capsys.readouterr().out
    assert run(*words, out=tmp_path / "report") == 0
    assert f"{total} of them from an earlier run" in capsys.readouterr().out
    with (tmp_path / f"{names[edited]}.py").open("a") as f:
        f.write("factor = -factor\n")
    assert run(*words, out=tmp_path / "report") == 0
    assert f"{total - 1} of them from an earlier run" in capsys.readouterr().out
    assert run(*words, "--fresh", out=tmp_path / "report") == 0
    assert f"complete: {total} of {total} results, 0 of them from an earlier run" in capsys.readouterr().out


MODEL = """
from torch import nn
from temperature_of_mine import T

class Scaled(nn.Linear):
    def forward(self, x):
        return super().forward(x.mean((2, 3))) / T

def make():
    return Scaled(3, 10), dict(mean=[0.5] * 3, std=[0.5] * 3, size=32)
"""


@pytest.mark.usefixtures("coarse")
def test_an_edit_in_what_a_model_imports_is_seen(tmp_path, capsys):
    (tmp_path / "temperature_of_mine.py").write_text("T = 1.0\n")
    (tmp_path / "model.py").write_text(MODEL)
    words = ["gradient", "--model", f"{tmp_path / 'model.py'}:make", "--images", "chelsea,coffee"]
    words += ["--checks", "complexity", "--out", str(tmp_path / "report")]
    assert __main__.main(words) == 0
    assert __main__.main(words) == 0
    assert f"{1 + len(CONTROLS)} of them from an earlier run" in capsys.readouterr().out
    (tmp_path / "temperature_of_mine.py").write_text("T = 2.0\n")
    assert __main__.main(words) == 0
    assert "0 of them from an earlier run" in capsys.readouterr().out


@pytest.mark.usefixtures("coarse")
def test_other_packages_make_other_numbers(tmp_path, capsys, monkeypatch):
    words = ["gradient", *SMALL, "--checks", "complexity"]
    assert run(*words, out=tmp_path / "report") == 0
    for name in ("timm", "numpy", "pillow", "scipy", "scikit-image"):
        monkeypatch.setattr(_runner, "versions", lambda name=name: {name: "0"})
        assert run(*words, out=tmp_path / "report") == 0
        assert "0 of them from an earlier run" in capsys.readouterr().out
        assert name in _provenance.versions()


def test_two_runs_at_once_do_not_share_a_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(_models, "load", lambda *_, **__: pytest.fail("the model was loaded first"))
    out = tmp_path / "report"
    with claimed(out, "--out"):
        assert run("gradient", *SMALL, out=out) == 2
        assert "--out: another run is writing into" in capsys.readouterr().err
        assert out.is_dir()
    assert not out.exists()


def test_a_folder_that_cannot_be_written_is_found_before_the_model_is_loaded(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(_models, "load", lambda *_, **__: pytest.fail("the model was loaded first"))
    (tmp_path / "file").write_text("no folder")
    assert run("gradient", *SMALL, out=tmp_path / "file") == 2
    assert run("gradient", *SMALL, out=tmp_path / "file/report") == 2
    assert capsys.readouterr().err.count("cannot be written") == 2


@pytest.mark.usefixtures("coarse")
def test_a_failure_of_the_program_is_not_a_requirement_missed(tmp_path, capsys, monkeypatch):
    compute, left = _runner._compute, [3]

    def until(*arguments):
        left[0] -= 1
        return compute(*arguments) if left[0] >= 0 else [].pop()

    monkeypatch.setattr(_runner, "_compute", until)
    words = ["gradient", *SMALL, "--checks", "complexity"]
    assert run(*words, out=tmp_path / "report") == 3
    assert "sanity_checks: failed (IndexError); what was finished is kept" in capsys.readouterr().err
    monkeypatch.setattr(_runner, "_compute", compute)
    assert run(*words, out=tmp_path / "report") == 0
    assert "3 of them from an earlier run" in capsys.readouterr().out


OUTPUTS = """
from types import SimpleNamespace
from torch import nn

class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, classes)

    def forward(self, x):
        return SimpleNamespace(logits=self.fc(self.conv(x).relu().mean((2, 3))), hidden=x)

def make(classes):
    return Net(classes), dict(mean=[0.5] * 3, std=[0.5] * 3, size=32)

def several():
    return make(4)

def one():
    return make(1)
"""


@pytest.mark.usefixtures("coarse")
@pytest.mark.parametrize("name", ["several", "one"])
def test_a_model_whose_logits_are_a_part_of_its_output(name, tmp_path):
    (tmp_path / "model.py").write_text(OUTPUTS)
    checks = (
        "random_logit,model_randomization,efficient_model_randomization,insertion_deletion,road,sic_aic,keep_remove"
    )
    words = ["gradient", "--model", f"{tmp_path / 'model.py'}:{name}", "--images", "chelsea,coffee,rocket"]
    assert run(*words, "--checks", checks, out=tmp_path / "report") == 0
    report = json.loads((tmp_path / "report/report.json").read_text())
    found = report["rows"]["gradient"]["checks"]
    refused = {c: f["refused"] for c, f in found.items() if "refused" in f}
    assert list(refused) == ([] if name == "several" else ["random_logit"]), refused
    assert all(v is not None for v in found["road"]["values"])
    curve = found["insertion_deletion"]["curves"]["insertion"]["mean"]
    assert max(curve) - min(curve) > 0  # probabilities of a single logit are no constant 1
