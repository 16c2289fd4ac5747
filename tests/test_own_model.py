"""Models that are not timm's pretrained ones: your own file, your own weights, torchvision, the hub."""

import argparse
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from methods import _models, _options, _timm, load_model
from methods._models import state_sha256

ROOT = Path(__file__).resolve().parent.parent

MODEL = """
from __future__ import annotations

from dataclasses import dataclass

from helper import width

from torch import nn

PREP = {"mean": (0.5, 0.5, 0.5), "std": [0.25] * 3, "size": 16}

def net():
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 4))

def bare():
    return net()

def told():
    return net(), PREP

@dataclass
class Settings:
    depth: int = 3

def named():
    import later
    return net(), PREP | {"classes": ["a", "b, c", "d", "e"], "crop_pct": 0.8, "interpolation": "bicubic"}

def too_many():
    return net(), PREP | {"classes": ["a"] * 5}

def strange():
    return net(), PREP | {"mena": 0}

def features():
    return net()[:3], PREP

def text():
    return "net"

def fails():
    return net(1)

constant = 3
"""


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture
def own(tmp_path):
    (tmp_path / "helper.py").write_text("width = 8")
    (tmp_path / "later.py").write_text("")
    (tmp_path / "model.py").write_text(MODEL)
    yield f"{tmp_path}/model.py"
    for name in ("helper", "later"):
        sys.modules.pop(name, None)


@pytest.fixture
def trained(own):
    """The network of the file with other weights than it draws."""
    torch.manual_seed(7)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))


# the file


def test_a_function_says_everything(own):
    net = load_model(f"{own}:named")
    assert net.tag == "model.py:named"
    assert not net.model.training
    assert net.preprocessing == _models.Preprocessing((0.5,) * 3, (0.25,) * 3, (16, 16), 0.8, "bicubic")
    assert net.classes == net.descriptions == ("a", "b, c", "d", "e")
    assert net.note == "Model: own file model.py:named, with the weights that the function sets"
    assert net.weights_sha256 == load_model(f"{own}:named").weights_sha256 == state_sha256(net.model)
    assert net.weights_sha256 != load_model(f"{own}:named", seed=1).weights_sha256


def test_what_is_given_replaces_what_the_model_says(own, tmp_path):
    (tmp_path / "names.txt").write_text("one\ntwo\n\nthree\nfour\n")
    net = load_model(f"{own}:named", mean=[0.1] * 3, size=(9, 12), crop_pct=1.0, classes=tmp_path / "names.txt")
    assert net.preprocessing == _models.Preprocessing((0.1,) * 3, (0.25,) * 3, (9, 12), 1.0, "bicubic")
    assert net.classes == ("one", "two", "three", "four")
    bare = load_model(f"{own}:bare", mean=[0.1] * 3, std=[1.0] * 3, size=8)
    assert bare.classes == ("class 0", "class 1", "class 2", "class 3")


WRONG = [
    ("bare", {}, r"^model: how images become inputs of model.py:bare is not known: mean, std, size. Give --mean --std"),
    ("bare", {"mean": [0.5] * 3, "size": 9}, r"is not known: std. Give --std,"),
    ("told", {"mean": [123.7, 116.3, 103.5]}, r"^mean: must be 1 or 3 numbers for pixels from 0 to 1, got \(123.7"),
    ("told", {"std": [0.5]}, r"^std: must be as many numbers as mean, 3"),
    ("told", {"mean": [0.5], "std": [0.5]}, r"^model: model.py:told does not run on 1 x 1 x 16 x 16: RuntimeError"),
    ("told", {"size": 1}, r"^model: model.py:told does not run on 1 x 3 x 1 x 1"),
    ("told", {"size": (1, 2, 3)}, r"^size: "),
    ("told", {"crop_pct": 0.0}, r"^crop_pct: "),
    ("told", {"classes": ["a", "b"]}, r"^classes: got 2 names, but model.py:told has 4 classes"),
    ("told", {"classes": "nowhere.txt"}, r"^classes: there is no file nowhere.txt"),
    ("told", {"weights": "random"}, r"^weights: 'random' is for named models"),
    ("told", {"weights": "nowhere.pth"}, r"^weights: there is no file nowhere.pth"),
    ("too_many", {}, r"^classes: got 5 names, but model.py:too_many has 4 classes"),
    ("strange", {}, r"^model: model.py:strange returns 'mena', which is none of mean, std"),
    ("features", {}, r"^model: model.py:features must return logits, images x classes, got a tensor \(1, 8, 1, 1\) of"),
    ("text", {}, r"^model: model.py:text must return a torch.nn.Module, or one and a dict, got str"),
    ("fails", {}, r"^model: model.py:fails failed: TypeError"),
    ("constant", {}, r"^model: .*model.py has no function 'constant'"),
]


@pytest.mark.parametrize(("function", "options", "message"), WRONG, ids=[f"{f} {o}" for f, o, _ in WRONG])
def test_what_is_wrong_is_one_clear_message(own, function, options, message):
    with pytest.raises(ValueError, match=message):
        load_model(f"{own}:{function}", **options)


def test_a_file_that_cannot_be_imported(tmp_path):
    (tmp_path / "broken.py").write_text("import no_such_module")
    with pytest.raises(ValueError, match=r"^model: .*broken.py cannot be imported: ModuleNotFoundError"):
        load_model(f"{tmp_path}/broken.py:f")
    (tmp_path / "script.py").write_text("import sys; sys.exit(2)")
    with pytest.raises(ValueError, match=r"^model: .*script.py cannot be imported: SystemExit: 2"):
        load_model(f"{tmp_path}/script.py:f")
    with pytest.raises(ValueError, match=r"^model: there is no file nowhere.py"):
        load_model("nowhere.py:f")


def test_weights_without_a_model(tmp_path):
    with pytest.raises(ValueError, match=r"^model: weights 'x.pth' need the name of the model"):
        load_model(weights="x.pth")


# weights


def prefixed(state, prefix):
    return {prefix + k: v for k, v in state.items()}


FORMS = {
    "plain": lambda s: s,
    "state_dict": lambda s: {"state_dict": s, "epoch": 3, "args": argparse.Namespace(lr=0.1)},
    "nested": lambda s: {"model": {"model_state_dict": prefixed(s, "module._orig_mod.")}},
    "lightning": lambda s: {"state_dict": prefixed(s, "model."), "hyper_parameters": {"lr": 0.1}},
    "swa": lambda s: prefixed(s, "module.") | {"n_averaged": torch.tensor(3)},
    "average": lambda s: {"state_dict_ema": prefixed(s, "module."), "optimizer": {"state": {}}},
}


@pytest.mark.parametrize("form", FORMS)
def test_a_checkpoint_is_loaded_completely(own, trained, tmp_path, form):
    torch.save(FORMS[form](trained.state_dict()), tmp_path / "best.pth")
    net = load_model(f"{own}:told", weights=tmp_path / "best.pth")
    assert net.weights_sha256 == state_sha256(trained)
    entry = {
        "plain": "",
        "swa": "",
        "nested": ", entry model, entry model_state_dict",
        "average": ", entry state_dict_ema",
    }
    assert net.weights_source == "weights file best.pth" + entry.get(form, ", entry state_dict")
    assert net.note == f"Model: own file model.py:told, {net.weights_source}"


def test_safetensors(own, trained, tmp_path):
    save_file(trained.state_dict(), tmp_path / "best.safetensors")
    net = load_model(f"{own}:told", weights=str(tmp_path / "best.safetensors"))
    assert net.weights_sha256 == state_sha256(trained)


def test_what_does_not_fit_is_listed_and_nothing_is_loaded(own, trained, tmp_path):
    state = trained.state_dict() | {"4.weight": torch.zeros(5, 8), "extra": torch.zeros(1)}
    del state["0.bias"]
    torch.save(state, tmp_path / "best.pth")
    message = (
        r"^weights: best.pth does not fit the model. 1 missing: 0.bias; 1 not in the model: extra; 1 of another shape: "
        r"4.weight \(5 x 8 in the file, 4 x 8 in the model\)$"
    )
    with pytest.raises(ValueError, match=message):
        load_model(f"{own}:told", weights=tmp_path / "best.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (nn.Linear(1, 1), r"^weights: x.pth is a pickle that runs code when it is read; load it where it was trained"),
        ({"epoch": 3}, r"^weights: x.pth has no state dict, only epoch"),
        ([1], r"^weights: x.pth has no state dict, only list"),
        (b"not weights", r"^weights: x.pth is damaged or no weights file"),
        (b"", r"^weights: x.pth is damaged or no weights file"),
    ],
    ids=["a module", "no tensors", "a list", "garbage", "empty"],
)
def test_other_files_are_refused(own, tmp_path, content, message):
    if isinstance(content, bytes):
        (tmp_path / "x.pth").write_bytes(content)
    else:
        torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=message):
        load_model(f"{own}:told", weights=tmp_path / "x.pth")


@pytest.mark.parametrize(
    "tag", ["test_resnet", "deit_tiny_distilled_patch16_224", "torchvision:squeezenet1_1", "torchvision:resnet18"]
)
def test_a_fine_tuned_model_has_the_classes_of_its_file(tmp_path, tag):
    if tag.startswith("torchvision:"):
        tuned = pytest.importorskip("torchvision").models.get_model(tag.partition(":")[2], num_classes=7)
    else:
        tuned = timm.create_model(tag, num_classes=7)
    torch.save({"model": tuned.state_dict()}, tmp_path / "tuned.pth")
    net = load_model(tag, weights=tmp_path / "tuned.pth")
    assert net.classes == tuple(f"class {i}" for i in range(7))
    assert net.weights_sha256 == state_sha256(tuned)
    assert net.note == f"Model: {tag}, weights file tuned.pth, entry model"


# torchvision and the hub


def test_torchvision_with_random_weights_and_with_its_own(tmp_path):
    models = pytest.importorskip("torchvision").models
    net = load_model("torchvision:resnet18", weights="random")
    assert net.preprocessing == _models.Preprocessing(
        (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), (224, 224), 0.875, "bilinear"
    )
    assert net.classes[281] == "tabby"
    assert "RANDOM" in net.note
    torch.save(net.model.state_dict(), tmp_path / "resnet18.pth")
    (tmp_path / "resnet18.pth").rename(tmp_path / "resnet18-f37072fd.pth")
    with pytest.raises(ValueError, match="its sha256 starts with .*, not f37072fd"):
        load_model("torchvision:resnet18", weights_dir=tmp_path)
    entry = models.ResNet50_Weights.IMAGENET1K_V2
    with pytest.raises(FileNotFoundError, match=f"(?s)torchvision:resnet50.IMAGENET1K_V2 .*curl .*{entry.url}"):
        load_model("torchvision:resnet50")


def test_torchvision_loads_the_weights_that_it_names(tmp_path, monkeypatch):
    pytest.importorskip("torchvision")
    monkeypatch.setattr("methods._weights.check_hash", lambda _: None)  # the real file cannot be had here
    net = load_model("torchvision:resnet18", weights="random", seed=3)
    torch.save(net.model.state_dict(), tmp_path / "resnet18-f37072fd.pth")
    again = load_model("torchvision:resnet18.IMAGENET1K_V1", weights_dir=tmp_path)
    assert again.weights_sha256 == net.weights_sha256
    assert again.tag == "torchvision:resnet18.IMAGENET1K_V1"
    assert again.weights_source == "torchvision IMAGENET1K_V1, resnet18-f37072fd.pth"


@pytest.mark.parametrize(
    ("tag", "message"),
    [
        ("torchvision:resnet5", "^model: torchvision has no classifier 'resnet5'; close names: .*resnet50"),
        ("torchvision:fasterrcnn_resnet50_fpn", "^model: torchvision has no classifier"),
        ("torchvision:resnet50.V3", "^model: resnet50 has no weights 'V3'; there are: IMAGENET1K_V1, IMAGENET1K_V2"),
    ],
)
def test_what_torchvision_does_not_have(tag, message):
    pytest.importorskip("torchvision")
    with pytest.raises(ValueError, match=message):
        load_model(tag)


def test_torchvision_is_optional(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ValueError, match="^model: torchvision:resnet50 needs torchvision; run: pip install"):
        load_model("torchvision:resnet50")


def test_a_model_of_the_hub(monkeypatch, tmp_path):
    """From a cache laid out as the hub's own; nothing is fetched."""
    commit = "0" * 40
    folder = tmp_path / "models--me--cats/snapshots" / commit
    folder.mkdir(parents=True)
    (tmp_path / "models--me--cats/refs").mkdir()
    (tmp_path / "models--me--cats/refs/main").write_text(commit)
    tuned = timm.create_model("test_resnet", num_classes=3)
    save_file(tuned.state_dict(), folder / "model.safetensors")
    cfg = {"mean": [0.5] * 3, "std": [0.5] * 3, "input_size": [3, 96, 96], "label_names": ["tom", "garfield", "felix"]}
    facts = {"architecture": "test_resnet", "num_classes": 3, "pretrained_cfg": cfg | {"num_classes": 3}}
    (folder / "config.json").write_text(json.dumps(facts | {"label_names": cfg["label_names"]}))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    find = _timm.try_to_load_from_cache
    monkeypatch.setattr(_timm, "try_to_load_from_cache", lambda *a, **k: find(*a, cache_dir=tmp_path, **k))
    monkeypatch.setattr("timm.models._hub.hf_hub_download", cached(tmp_path))
    net = load_model("hf-hub:me/cats")
    assert net.weights_sha256 == state_sha256(tuned)
    assert net.classes == ("tom", "garfield", "felix")
    assert net.preprocessing.size == (96, 96)
    assert net.weights_source == "Hugging Face hub me/cats"
    with pytest.raises(FileNotFoundError, match=r"^model: hf-hub:me/dogs is not on this machine and the hub is"):
        load_model("hf-hub:me/dogs")


def cached(folder):
    from huggingface_hub import hf_hub_download

    return lambda *a, **k: hf_hub_download(*a, **(k | {"cache_dir": folder, "local_files_only": True}))


def test_a_model_of_the_hub_that_is_not_timms(monkeypatch):
    monkeypatch.setattr(_timm, "try_to_load_from_cache", lambda *_, **__: "config.json")
    with pytest.raises(ValueError, match="^model: hf-hub:me/cats cannot be loaded as a timm model of the hub"):
        load_model("hf-hub:me/cats")


@pytest.mark.parametrize("tag", ["hf-hub:", "hf-hub:a/b/c"])
def test_a_name_that_the_hub_cannot_have(tag):
    with pytest.raises(ValueError, match=r"^model: .* must be hf-hub:owner/name"):
        load_model(tag)


# the options


def test_the_options_reach_the_model(own, trained, tmp_path):
    torch.save(trained.state_dict(), tmp_path / "best.pth")
    (tmp_path / "names.txt").write_text("a\nb\nc\nd")
    parser = argparse.ArgumentParser()
    _options.add(parser)
    words = f"--model {own}:bare --weights {tmp_path}/best.pth --classes {tmp_path}/names.txt --mean 0.1,0.2,0.3 "
    net = _options.load(parser.parse_args((words + "--std 1,1,1 --size 12,16 --crop-pct 0.9").split()))
    assert net.preprocessing == _models.Preprocessing((0.1, 0.2, 0.3), (1.0, 1.0, 1.0), (12, 16), 0.9, "bilinear")
    assert net.classes == ("a", "b", "c", "d")
    assert net.weights_sha256 == state_sha256(trained)
    assert {o for a in parser._actions for o in a.option_strings} == {"-h", "--help", *_options.NAMES}


@pytest.mark.parametrize(("words", "message"), [("--mean red", "invalid numbers"), ("--size 1.5", "invalid pixels")])
def test_options_that_are_no_numbers(words, message, capsys):
    parser = argparse.ArgumentParser()
    _options.add(parser)
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(words.split())
    assert message in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_commands_keep_the_memory_that_they_free():
    """In a process of its own: a tensor of 256 MiB is freed; are its pages still there?"""
    program = """
import sys, torch
from methods import _options
resident = lambda: int(open("/proc/self/statm").read().split()[1])  # pages
if sys.argv[1:]:
    _options.use_device("cpu")
y = torch.ones(2**26)
full = resident()
del y
print((full - resident()) * 4096 / 2**28)
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    run = partial(subprocess.run, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    returned, kept = (float(run([sys.executable, "-c", program, *words]).stdout) for words in ([], ["keep"]))
    assert kept < 0.1
    assert returned > 0.9


def test_commands_run_stock_models_in_channels_last_and_own_files_as_they_are(tmp_path):
    """On a CPU it takes less time; a network of the user's may call `view` after a convolution."""
    own = tmp_path / "mine.py"
    own.write_text(
        "import torch\n\n\ndef make():\n    conv = torch.nn.Conv2d(3, 4, 3)\n"
        "    pool = torch.nn.AdaptiveAvgPool2d(1)\n"
        "    model = torch.nn.Sequential(conv, pool, torch.nn.Flatten(), torch.nn.Linear(4, 2))\n"
        "    return model, {'mean': (0.5,) * 3, 'std': (0.5,) * 3, 'size': 16}\n"
    )

    def layouts(*words):
        parser = argparse.ArgumentParser()
        _options.add(parser)
        loaded = _options.load(parser.parse_args(["--model", *words]))
        convs = [m.weight for m in loaded.model.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size != (1, 1)]
        return {w.is_contiguous(memory_format=torch.channels_last) and not w.is_contiguous() for w in convs}

    assert layouts("resnet10t", "--weights", "random") == {True}
    assert layouts("torchvision:squeezenet1_1", "--weights", "random") == {True}
    assert layouts(f"{own}:make") == {False}
