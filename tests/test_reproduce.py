"""The scripts' shared part: which weights are loaded, which photographs, what is saved; and what is in figures/."""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import _run
import _sidecar
from methods import _display, _hub, _images, _models, _timm

ROOT = Path(__file__).resolve().parent.parent

SIDECARS = sorted(f for f in (ROOT / "figures").glob("*.json") if f.stem != "sanity_report")
SCRIPTS = sorted(f.stem for kind in ("fig", "table") for f in (ROOT / "reproduce").glob(f"{kind}_*.py"))
FIELDS = {
    "command", "outputs", "caption", "model", "inputs", "methods", "checks", "nets", "sources", "refused", "seed",
    "quick", "packages", "python", "device", "dtype", "commit", "seconds", "numbers",
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """No hub, and empty caches."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(_timm, "try_to_load_from_cache", lambda *_: None)


@pytest.fixture(scope="module")
def lite():
    return _models.load("tf_efficientnet_lite0")


def run(tmp_path, *argv):
    """A started run with one drawn panel: (run, figure)."""
    r = _run.start("fig_test.py", "", photos="coffee", quick_photos="coffee", argv=["--out", str(tmp_path), *argv])
    loaded = _run.load(r, "tf_efficientnet_lite0")
    rows = _run.subjects(r, loaded)
    panels = _run.explain(r, loaded, "gradient", rows) + _run.explain(r, loaded, "grad_cam", rows)
    return r, _display.grid([_display.Block(["a", "b"], [panels])], "caption")


# weights


def test_the_embedded_model_recognises_the_photographs(lite):
    photos = _images.load("chelsea,coffee,rocket", lite.preprocessing)
    (cat, cat_name, _), (cup, cup_name, p), (rocket, rocket_name, _) = _models.predict(
        lite, _images.tensor(photos, lite)
    )
    assert cat in (281, 282, 285)
    assert (cup, rocket) == (967, 657)
    assert (cup_name, rocket_name) == ("espresso", "missile")
    assert "cat" in cat_name or cat_name == "tabby"
    assert p > 0.9  # 0.95 with the preprocessing that the weights were trained with


def test_photographs_are_prepared_as_timm_does(lite):
    p = lite.preprocessing
    transform = timm.data.create_transform(
        p.size, mean=p.mean, std=p.std, interpolation=p.interpolation, crop_pct=p.crop_pct
    )
    path = _images._packaged_file("chelsea")  # 300 x 451: neither square nor a multiple
    theirs = transform(Image.open(path).convert("RGB"))
    ours = _images.tensor(_images.load("chelsea", p), lite)[0]
    torch.testing.assert_close(ours, theirs)


def test_loaded_weights_have_a_stable_hash(lite):
    again = _models.load("tf_efficientnet_lite0")
    assert lite.weights_sha256 == again.weights_sha256
    assert len(lite.weights_sha256) == 64
    with torch.no_grad():
        again.model.conv_stem.weight[0, 0, 0, 0] += 1e-6
    assert _models.state_sha256(again.model) != lite.weights_sha256


def test_the_default_falls_back_loudly(capsys):
    loaded = _models.load()
    assert loaded.tag == "tf_efficientnet_lite0"
    assert "STAND-IN" in loaded.note
    printed = capsys.readouterr().err
    assert "STAND-IN" in printed
    assert "resnet50-0676ba61.pth" in printed  # the command that helps


@pytest.mark.parametrize("tag", ["resnet50", "resnet50.a1_in1k", "vit_base_patch16_224"])
def test_a_named_model_never_falls_back(tag):
    with pytest.raises(FileNotFoundError, match=r"HF_HUB_OFFLINE(?s:.)*(curl|hf download)"):
        _models.load(tag)


def test_an_unreachable_hub_is_given_up(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(_hub, "SECONDS", 0.2)
    monkeypatch.setattr(_timm, "get_hf_file_metadata", lambda *_, **__: threading.Event().wait(5))
    with pytest.raises(FileNotFoundError, match="out of reach"):
        _models.load("resnet50")


@pytest.mark.parametrize(
    ("tag", "hint"), [("resnet5o", "resnet50"), ("resnet50.nope", "tv_in1k"), ("nothing_like_it", "close names")]
)
def test_an_unknown_model_is_an_error_with_a_hint(tag, hint):
    with pytest.raises(ValueError, match=f"^model: .*{hint}"):
        _models.load(tag)


def test_resnet50_is_the_pinned_recipe():
    assert timm.get_pretrained_cfg(_timm._full_name("resnet50")).url.endswith("resnet50-0676ba61.pth")


@pytest.mark.parametrize("where", ["weights_dir", "torch_cache"])
@pytest.mark.parametrize("tag", ["resnet50", None])
def test_a_damaged_file_with_the_pinned_name_is_refused(tmp_path, where, tag):
    folder = tmp_path if where == "weights_dir" else Path(torch.hub.get_dir()) / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "resnet50-0676ba61.pth").write_bytes(b"not weights")
    with pytest.raises(ValueError, match="0676ba61"):
        _models.load(tag, weights_dir=tmp_path if where == "weights_dir" else None)


def test_weights_dir_is_used_and_named_in_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"weights-dir: .*resnet50-0676ba61\.pth"):
        _models.load("resnet50", weights_dir=tmp_path)
    torch.manual_seed(3)
    net = timm.create_model("mobilenetv3_small_050")
    torch.save(net.state_dict(), tmp_path / "mobilenetv3_small_050.lamb_in1k.pth")
    loaded = _models.load("mobilenetv3_small_050", weights_dir=tmp_path)
    assert loaded.weights_sha256 == _models.state_sha256(net)


def test_random_weights_only_by_name():
    a, b, c = (_models.load("mobilenetv3_small_050", weights="random", seed=s) for s in (0, 0, 1))
    assert a.weights_sha256 == b.weights_sha256 != c.weights_sha256
    assert "RANDOM" in a.note
    assert "random" in a.weights_source
    with pytest.raises(FileNotFoundError):
        _models.load("mobilenetv3_small_050")
    with pytest.raises(ValueError, match="weights: got 'rnd'"):
        _models.load("mobilenetv3_small_050", weights="rnd")


# photographs


def test_composite_has_two_halves(lite):
    (both,) = _images.load("chelsea_coffee", lite.preprocessing)
    assert both.rgb.shape == (224, 224, 3)
    assert set(both.sha256) == {"chelsea.png", "coffee.png"}
    for half, name in ((both.rgb[:, :112], "chelsea"), (both.rgb[:, 112:], "coffee")):
        photo = Image.open(_images._packaged_file(name)).convert("RGB")
        height = photo.height
        left = (photo.width - height // 2) // 2
        middle = photo.crop((left, 0, left + height // 2, height)).resize((112, 224))
        assert np.abs(half.astype(float) - np.asarray(middle)).mean() < 6  # other resampling; the other photo: > 50


def test_rows_explain_both_classes_of_the_composite(tmp_path):
    r = _run.start("t.py", "", photos="chelsea_coffee", quick_photos="", argv=["--out", str(tmp_path)])
    cat, cup = _run.subjects(r, _run.load(r, "tf_efficientnet_lite0"))
    assert cat.target in (281, 282, 285)
    assert cup.target == 967
    assert cat.photo is cup.photo


@pytest.mark.parametrize(
    ("which", "message"),
    [("chelsae", "did you mean 'chelsea'"), ("coffee,cofee", "did you mean 'coffee'"), ("no/such/place", "Packaged:")],
)
def test_unknown_image_is_an_error(lite, which, message):
    with pytest.raises(ValueError, match=f"^images: .*{message}"):
        _images.load(which, lite.preprocessing)


def test_image_folder(lite, tmp_path):
    with pytest.raises(ValueError, match="has no image"):
        _images.load(str(tmp_path), lite.preprocessing)
    Image.new("RGB", (300, 500), "red").save(tmp_path / "b.png")
    Image.new("L", (640, 200)).save(tmp_path / "a.jpg")
    photos = _images.load(str(tmp_path), lite.preprocessing)
    assert [p.name for p in photos] == ["a.jpg", "b.png"]
    assert all(p.rgb.shape == (224, 224, 3) for p in photos)
    assert photos[1].sha256 == {"b.png": hashlib.sha256((tmp_path / "b.png").read_bytes()).hexdigest()}
    (tmp_path / "c.png").write_text("no image")
    with pytest.raises(ValueError, match=r"^images: c\.png: cannot be read as an image"):
        _images.load(str(tmp_path), lite.preprocessing)


def test_scripts_leave_out_what_cannot_be_read_and_name_it(tmp_path, capsys):
    folder = tmp_path / "images"
    for place in ("cat", "dog"):
        (folder / place).mkdir(parents=True)
        (folder / place / "a.png").write_text("no image")
    words = ["--out", str(tmp_path), "--images", str(folder)]
    r = _run.start("t.py", "", photos="coffee", argv=words)
    with pytest.raises(SystemExit, match=r"t: --images: no image can be read"):
        _run.subjects(r, _run.load(r, "tf_efficientnet_lite0"))
    Image.new("RGB", (300, 300)).save(folder / "cat/b.png")
    (row,) = _run.subjects(r, _run.load(r, "tf_efficientnet_lite0"))
    assert row.photo.name == "cat/b.png"
    assert "left out 2:\n  cat/a.png: cannot be read as an image" in capsys.readouterr().err


# drawing


def test_a_map_is_scaled_by_its_own_percentile_and_an_empty_one_says_so():
    a = torch.linspace(-1, 1, 2001)[None]
    assert _display.scale(3 * a) == pytest.approx(3 * 0.995)
    spike = torch.zeros(100, 100)
    spike[0, 0] = -2
    assert _display.scale(spike) == 2
    rgb = np.zeros((100, 100, 3), np.uint8)
    panels = [_display.Panel(rgb, m) for m in (spike, torch.zeros(100, 100))]
    texts = [[t.get_text() for t in ax.texts] for ax in _display.grid([_display.Block("ab", [panels])], "").axes]
    assert texts[:2] == [[], ["all zero"]]
    blue, white = _display._pixels(panels[0])[0, 0], _display._pixels(panels[0])[0, 1]
    assert blue[2] > 2 * blue[0]
    np.testing.assert_allclose(white, 1)


# saving


def test_save_writes_a_sidecar_that_matches(tmp_path):
    r, figure = run(tmp_path, "--seed", "4")
    png = _run.save(r, figure, "caption")
    text = png.with_suffix(".json").read_text()
    facts = json.loads(text)
    assert set(facts) == FIELDS
    assert facts["outputs"] == {png.name: hashlib.sha256(png.read_bytes()).hexdigest()}
    assert facts["sources"]["methods/grad_cam.py"]
    assert facts["command"] == f"python reproduce/fig_test.py --out {tmp_path.name} --seed 4"
    assert str(ROOT) not in text
    assert str(tmp_path) not in text
    assert facts["model"][0]["weights_sha256"] == r.models["tf_efficientnet_lite0"].weights_sha256
    source = (ROOT / "methods" / "grad_cam.py").read_bytes()
    assert facts["methods"]["grad_cam"] == {
        "params": {"layer": "bn2"}, "source_sha256": hashlib.sha256(source).hexdigest()
    }  # fmt: skip
    pixels, cam = facts["numbers"]["cells"]
    assert np.shape(pixels["map"]) == (28, 28)
    assert np.shape(cam["map"]) == (7, 7)
    assert np.max(cam["map"]) == cam["max"]
    assert np.abs(np.mean(pixels["map"])) <= pixels["p99.5_abs"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fig_test.json", "fig_test.png"]


def test_same_run_same_png(tmp_path):
    pngs = [_run.save(*run(tmp_path / name), "caption").read_bytes() for name in "ab"]
    assert pngs[0] == pngs[1]


@pytest.mark.parametrize("fails", ["write_png", "_json"])
def test_save_leaves_nothing_behind_on_an_error(tmp_path, monkeypatch, fails):
    r, figure = run(tmp_path)
    old = tmp_path / "fig_test.png"
    old.write_bytes(b"the last good one")
    real = getattr(_sidecar, fails)

    def broken(*args):
        real(*args)
        raise OSError("disk full")

    monkeypatch.setattr(_sidecar, fails, broken)
    with pytest.raises(OSError, match="disk full"):
        _run.save(r, figure, "caption")
    assert [p.name for p in tmp_path.iterdir()] == ["fig_test.png"]
    assert old.read_bytes() == b"the last good one"


def test_a_method_that_does_not_apply_is_named(tmp_path):
    r = _run.start("t.py", "", photos="coffee", quick_photos="", argv=["--out", str(tmp_path)])
    loaded = _run.load(r, "tf_efficientnet_lite0")
    assert _run.explain(r, loaded, "attention_rollout", _run.subjects(r, loaded)) == [None]
    assert "Attention Rollout" in _run.refusals(r)
    with pytest.raises(KeyError, match="no_such_cam"):
        _run.explain(r, loaded, "no_such_cam", _run.subjects(r, loaded))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--quick", "--out", str(ROOT / "figures")], "must not overwrite"),
        (["--device", "nonsense"], "--device: 'nonsense'"),
        (["--weights", "best"], "--weights"),
    ],
)
def test_bad_arguments_end_with_a_message(capsys, argv, message):
    with pytest.raises(SystemExit) as stop:
        _run.start("t.py", "", photos="coffee", quick_photos="coffee", argv=argv)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_quick_script_runs_from_anywhere_and_stays_out_of_figures(tmp_path):
    before = {p: p.read_bytes() for p in (ROOT / "figures").iterdir() if p.is_file()}
    environment = os.environ | {"TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "reproduce" / "fig_combined.py"), "--quick"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    png = Path(re.search(r"^(\S+\.png) and \.json .* s$", done.stdout, re.MULTILINE)[1])
    assert png.parent.parent == tmp_path
    facts = json.loads(png.with_suffix(".json").read_text())
    assert facts["quick"] is True
    assert facts["command"] == "python reproduce/fig_combined.py --quick"
    assert before == {p: p.read_bytes() for p in (ROOT / "figures").iterdir() if p.is_file()}


# figures/


def test_every_script_has_its_output_and_every_output_its_script():
    commands = [json.loads(f.read_text())["command"].split()[1] for f in SIDECARS]
    assert sorted({Path(c).stem for c in commands}) == SCRIPTS
    outputs = {name for f in SIDECARS for name in json.loads(f.read_text())["outputs"]}
    there = {f.name for f in (ROOT / "figures").iterdir() if f.suffix != ".json" and not f.name.startswith(".")}
    assert outputs == there - {"sanity_report.png", "README.md"}


@pytest.mark.parametrize("sidecar", SIDECARS, ids=lambda p: p.stem)
def test_committed_output_has_its_sidecar(sidecar):
    text = sidecar.read_text()
    facts = json.loads(text)
    assert set(facts) == FIELDS
    assert facts["outputs"]
    for name, sha256 in facts["outputs"].items():
        file = sidecar.parent / name
        assert sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
        assert file.stat().st_size < 2e6  # fig_cam shows a family of 36, each for two classes
    assert facts["quick"] is False
    assert facts["numbers"]
    assert not facts["commit"].endswith("-dirty")
    assert not re.search(r'"/|(?<!:)/(home|root|tmp|Users|work)/', text)  # no path of the machine it was made on
    assert len(text) < 400_000
    if sidecar.stem.startswith("fig_"):
        assert facts["refused"] == {}  # every method of the default figure applies to its model
