"""python -m methods: from photographs to heat maps, also for a network, weights and class names of the user's own."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import methods
from methods import __main__, _maps, _options
from methods._display import _pixels
from methods._models import state_sha256
from sanity_checks import __main__ as checks
from sanity_checks._small import digits, train

ROOT = Path(__file__).resolve().parent.parent
LITE = ["--model", "tf_efficientnet_lite0"]
MODEL = """
from torch import nn

def make_model():
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )
    return model, {"mean": [0.0], "std": [1.0], "size": 8}
"""
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@pytest.fixture(scope="module")
def lite():
    return methods.load_model("tf_efficientnet_lite0")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """What a user has after training: model.py, best.pth, names.txt and images in two class folders."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "model.py").write_text(MODEL)
    (folder / "names.txt").write_text("\n".join(NAMES))
    data, scope = digits(), {}
    exec(MODEL, scope)
    torch.manual_seed(0)
    net = train(scope["make_model"]()[0], data.x_train, data.y_train, epochs=20, lr=1e-2)
    torch.save({"epoch": 20, "model": net.state_dict()}, folder / "best.pth")
    right = net(data.x_test).argmax(dim=1) == data.y_test
    for digit in (3, 7):
        (folder / "images" / NAMES[digit]).mkdir(parents=True)
        for k, x in enumerate(data.x_test[right & (data.y_test == digit)][:3]):
            pixels = (x[0] * 255).round().byte().numpy()
            Image.fromarray(pixels).save(folder / "images" / NAMES[digit] / f"{k}.png")
    return folder


def own(project):
    words = ["--model", f"{project}/model.py:make_model", "--weights", f"{project}/best.pth"]
    return [*words, "--classes", f"{project}/names.txt"]


def run(*words, out):
    return __main__.main([*map(str, words), "--out", str(out)])


# a network of one's own


def test_maps_of_an_own_network(project, tmp_path, capsys):
    out = tmp_path / "maps"
    assert run("grad_cam", "gradient", project / "images", *own(project), "--npy", out=out) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        f"{out}/{name}_{k}.png" for name in ("seven", "three") for k in range(3)
    ]
    assert all(f": {'seven (7)' if 'seven' in line else 'three (3)'}, probability" in line for line in lines)
    with Image.open(out / "three_0.png") as picture:
        assert picture.width > 1000
    loaded = methods.load_model(own(project)[1], weights=own(project)[3])
    x, rgb = methods.load_image(str(project / "images/three/0.png"), loaded)
    assert x.shape == (1, 1, 8, 8)
    for name in ("grad_cam", "gradient"):
        want = methods.attribute(name, loaded.model, x, 3, resize=False)[0]
        np.testing.assert_allclose(np.load(out / f"three_0.{name}.npy"), want.detach(), atol=1e-6)
    assert (rgb == np.asarray(Image.open(project / "images/three/0.png"))[..., None]).all()


@pytest.mark.usefixtures("as_a_process")
def test_a_report_on_an_own_network(project, tmp_path):
    words = ["grad_cam", *own(project), "--images", str(project / "images"), "--out", str(tmp_path)]
    assert checks.main([*words, "--checks", "model_randomization,sparseness"]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    net = methods.load_model(own(project)[1], weights=own(project)[3])
    assert report["model"] == {
        "tag": "model.py:make_model",
        "note": "Model: own file model.py:make_model, weights file best.pth, entry model",
        "source": "weights file best.pth, entry model",
        "weights_sha256": state_sha256(net.model),
        "code_sha256": net.code_sha256,
        "preprocessing": {
            "mean": [0.0], "std": [1.0], "size": [8, 8], "crop_pct": 1.0, "interpolation": "bilinear"
        },
    }  # fmt: skip
    assert len(net.code_sha256) == 64
    assert list(report["images"]["used"]) == [f"{name}/{k}.png" for name in ("seven", "three") for k in range(3)]
    assert len(set(report["images"]["used"])) == 6
    for check in ("model_randomization", "sparseness"):
        assert report["rows"]["grad_cam"]["checks"][check]["interval"]["n"] == 6, check
    page = (tmp_path / "report.html").read_text()
    assert state_sha256(net.model)[:12] in page
    assert str(project) not in page + (tmp_path / "report.json").read_text()


def test_the_commands_of_the_readme_are_understood(tmp_path):
    readme = (ROOT / "README.md").read_text()
    maps = shlex.split(re.search(r"^python -m methods (grad_cam .*)$", readme, re.M)[1])
    words = __main__._parser().parse_intermixed_args(maps).words
    assert __main__._split(words) == (["grad_cam", "smooth_grad"], ["cat.jpg", "dog.jpg"])
    report = shlex.split(re.search(r"^python -m sanity_checks (grad_cam --model .*)$", readme, re.M)[1])
    args = checks._parser().parse_args(report)
    file = args.model.partition(":")[0]
    (tmp_path / file).write_text(re.search(rf"^# {file}\n(.*?)```", readme, re.M | re.S)[1])
    made = timm.create_model("resnet18", num_classes=5)
    torch.save(made.state_dict(), tmp_path / args.weights)
    (tmp_path / args.classes).write_text("a\nb\nc\nd\ne")
    args.model, args.weights, args.classes = (f"{tmp_path}/{v}" for v in (args.model, args.weights, args.classes))
    net = _options.load(args)
    assert net.weights_sha256 == state_sha256(made)
    assert net.classes == tuple("abcde")


# what is in a picture


def test_the_picture_is_the_map(lite, tmp_path):
    """The panels of the figure are those of `overlay`, in the order of the command."""
    (photo,) = methods._images.load("chelsea", lite.preprocessing)
    picture = _maps.draw(
        lite, photo, ["gradient", "grad_cam", "attention_rollout"], 281, {"layer": "blocks.4", "seed": 0}
    )
    assert list(picture.maps) == ["gradient", "grad_cam"]
    assert "defined for vit models" in picture.refused["attention_rollout"]
    x, rgb = methods.load_image("chelsea", lite)
    want = methods.attribute("grad_cam", lite.model, x, 281, layer="blocks.4", resize=False)[0].detach()
    torch.testing.assert_close(picture.maps["grad_cam"], want)
    shown = [axes.get_images()[0].get_array() for axes in picture.figure.axes]
    np.testing.assert_array_equal(shown[0], rgb / 255)
    np.testing.assert_allclose(shown[2], _pixels(methods._display.Panel(rgb, want[0], overlay=True)))
    said = " ".join(t.get_text() for t in picture.figure.texts).replace("\n", " ")
    for words in (
        "photograph", "Gradient", "Grad-CAM", "tabby 0.17", "chelsea. Explained: tabby (281), probability 0.17",
        "top class tiger cat (282), probability 0.39", "Model: tf_efficientnet_lite0", "99.5th percentile",
        "No map from: Attention Rollout",
    ):  # fmt: skip
        assert words in said
    picture.save(tmp_path / "a.png")
    assert [f.name for f in tmp_path.iterdir()] == ["a.png"]


def test_random_weights_are_loud(lite):
    net = methods.load_model("test_resnet", weights="random")
    (photo,) = methods._images.load("coffee", net.preprocessing)
    picture = _maps.draw(net, photo, ["gradient"], None, {})
    assert "RANDOM WEIGHTS" in [t.get_text() for t in picture.figure.texts]


# classes


@pytest.mark.parametrize(
    ("text", "index"), [("281", 281), ("tabby", 281), ("Tabby Cat", 281), ("espresso", 967), ("egyptian", 285)]
)
def test_a_class_by_index_name_synonym_or_part(lite, text, index):
    assert _maps.class_index(lite, text) == index


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1000", "^--target: classes are 0 to 999, got 1000"),
        ("crane", "^--target: 'crane' fits 2 classes, choose by index: 134 crane; 517 crane"),
        ("terrier", r"^--target: 'terrier' fits 2\d classes, .* \.\.\.$"),
        ("espreso", "^--target: no class is called 'espreso'; the closest are espresso"),
        ("-1", "^--target: no class is called '-1'"),
    ],
)
def test_a_class_that_is_not_certain(lite, text, message):
    with pytest.raises(ValueError, match=message):
        _maps.class_index(lite, text)


# the command


def test_a_method_that_refuses_says_so_once_and_the_others_are_drawn(tmp_path, capsys):
    assert run("attention_rollout,grad_cam", "chelsea", "coffee", *LITE, "--target", "tabby cat", out=tmp_path) == 1
    told = capsys.readouterr()
    assert told.err.count("attention_rollout: model: attention_rollout is defined for vit models, this is a cnn") == 1
    assert "chelsea.png: tabby (281), probability 0.17; top class tiger cat (282), probability 0.39" in told.out
    assert sorted(f.name for f in tmp_path.iterdir()) == ["chelsea.png", "coffee.png"]


def test_names_never_collide(tmp_path, project, capsys):
    for place in ("a", "b", "a/x"):
        (tmp_path / place).mkdir()
        Image.new("L", (9, 9)).save(tmp_path / place / "cat.png")
    Image.new("L", (9, 9)).save(tmp_path / "a/cat.jpg")
    (tmp_path / "a/torn.png").write_text("")
    (tmp_path / "b/torn.png").write_text("")
    words = [tmp_path / "a", tmp_path / "b/cat.png", tmp_path / "b/torn.png", tmp_path / "a"]
    assert run("gradient", *words, *own(project), out=tmp_path / "maps") == 0
    told = capsys.readouterr()
    here = str(tmp_path).strip("/").replace("/", "_")
    names = {"cat.png", "cat-2.png", "x_cat.png", f"{here}_b_cat.png"}
    assert {f.name for f in (tmp_path / "maps").iterdir()} == names
    assert len(told.out.splitlines()) == 4
    assert "left out 2:\n  torn.png: cannot be read" in told.err


def test_it_runs_as_a_process_in_any_order(project, tmp_path):
    command = [sys.executable, "-m", "methods", "gradient", "--out", tmp_path, "grad_cam", *own(project)]
    command += [project / "images/three/0.png", "--layer", "1", project / "images/three/1.png"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(f.name for f in tmp_path.iterdir()) == ["0.png", "1.png"]


WRONG = [
    (["grad_cma", "chelsea"], r"METHOD: no method is called 'grad_cma'; the closest are grad_cam"),
    (["grad_cam,smoth_grad", "chelsea"], r"METHOD: no method is called 'smoth_grad'; the closest are smooth_grad"),
    (
        ["grad_cam", "smoth_grad", "chelsea"],
        r"images: 'smoth_grad' is no .*are smooth_grad.*, but methods come first",
    ),
    (["grad_cam", "chelsea", "gradient"], r"images: 'gradient' is no packaged photograph.*but methods come first"),
    ([], r"METHOD: name at least one"),
    (["grad_cam", "gradient"], r"IMAGE: name at least one"),
    (["gradient", "chelsea", "--layer", "layer3"], r"--layer: gradient has no layer; leave it out"),
    (["gradient", "chelsea", "--chunk", "8"], r"--chunk: gradient has no chunk; leave it out"),
    (["grad_cam", "chelsea", "--layer", "layr1"], r"--layer: test_resnet has no 'layr1'; the closest are layer1"),
    (["grad_cam", "chelsea", "--device", "cuda:99"], r"--device: 'cuda:99' cannot be used here"),
    (["grad_cam", "chelsea", "--target", "no such thing"], r"--target: no class is called 'no such thing'"),
    (["grad_cam", "{torn}"], r"IMAGE: none can be read"),
    (["grad_cam", "chelsea", "--model", "resnet5"], r"model: timm .* has no 'resnet5'"),
    (["grad_cam", "{torn}", "--out", "{torn}"], r"--out: .*torn.png cannot be written \(File exists\)"),
    (["grad_cam", "{torn}", "--out", "{folder}"], r"--out: .*torn.png is one of the photographs"),
]


@pytest.mark.parametrize(("words", "message"), WRONG, ids=[" ".join(w) or "nothing" for w, _ in WRONG])
def test_wrong_input_is_one_clear_message(words, message, tmp_path, capsys):
    torn = tmp_path / "torn.png"
    torn.write_text("not a picture")
    words = [w.format(torn=torn, folder=tmp_path) for w in words]
    base = ["--model", "test_resnet", "--weights", "random", "--out", str(tmp_path / "maps")]
    assert __main__.main([*base, *words]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("methods: ")]
    assert len(lines) == 1
    assert re.match(f"methods: {message}", lines[0])
    assert not list(tmp_path.glob("maps/*"))


def test_the_folder_is_tried_before_the_model_is_loaded(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(__main__._options, "load", lambda _: pytest.fail("loaded"))
    (tmp_path / "file").write_text("")
    assert run("grad_cam", "chelsea", out=tmp_path / "file/maps") == 2
    assert "--out: " in capsys.readouterr().err
