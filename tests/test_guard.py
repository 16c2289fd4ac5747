"""A user's function that misbehaves: it is refused with the reason, and what it did reaches nobody else."""

import copy
import json
import random
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from helpers import hooks, images
from methods.gradient import gradient
from nets import net
from sanity_checks import __main__
from sanity_checks._guard import _restored, guarded

NAMES = ("cat", "dog", "cup")
TARGET = torch.tensor([1, 4, 7])


def scale(model, x):
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(0.9)


def buffer(model, x):
    next(model.buffers()).add_(1)


def train(model, x):
    model.train()


def freeze(model, x):
    model.requires_grad_(False)


def fill_grad(model, x):
    model(x).sum().backward()


def hook(model, x):
    next(model.children()).register_forward_hook(lambda m, i, o: o * 0)


def hook_everywhere(model, x):
    nn.modules.module.register_module_forward_hook(lambda m, i, o: o * 0)


def swap(model, x):
    name, child = next(model.named_children())
    setattr(model, name, copy.deepcopy(child))


def add(model, x):
    model.probe = nn.Linear(2, 2)


def half(model, x):
    model.half()


def darken(model, x):
    x.mul_(0.5)


def no_grad(model, x):
    torch.set_grad_enabled(False)


def default_dtype(model, x):
    torch.set_default_dtype(torch.float16)


def relaxed(model, x):
    torch.use_deterministic_algorithms(not torch.are_deterministic_algorithms_enabled())


def threads(model, x):
    torch.set_num_threads(torch.get_num_threads() + 1)


def cudnn(model, x):
    torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark


OFFENCES = [
    (scale, r"the values of conv1\.weight and \d+ more"),
    (buffer, r"the values of \S+running_mean"),
    (train, r"the training mode of the model and \d+ more"),
    (freeze, r"requires_grad of conv1\.weight and \d+ more"),
    (fill_grad, r"\.grad of conv1\.weight and \d+ more"),
    (hook, r"the hooks of conv1"),
    (hook_everywhere, r"hooks of all modules"),
    (swap, r"the module conv1"),
    (add, r"the module probe, the tensor probe\.weight and 1 more"),
    (half, r"the tensor conv1\.weight and \d+ more"),
    (darken, r"the images"),
    (no_grad, r"the grad mode"),
    (default_dtype, r"the default dtype"),
    (relaxed, r"deterministic algorithms"),
    (threads, r"the number of threads"),
    (cudnn, r"torch\.backends\.cudnn\.benchmark"),
]


@pytest.mark.parametrize(("offence", "named"), OFFENCES, ids=[f.__name__ for f, _ in OFFENCES])
def test_what_a_function_changes_is_named_and_undone(offence, named):
    model, x = net("relu"), images(3)
    state, x0, logits = copy.deepcopy(model.state_dict()), x.clone(), model(x)

    def function(model, x, target):
        a = gradient(model, x, target)
        offence(model, x)
        return a

    with pytest.raises(ValueError, match=f"^changed {named}, on images cat, dog, cup; leave everything as it was$"):
        guarded(function, NAMES, 0)(model, x, TARGET)
    assert torch.equal(x, x0)
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in state.items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert hooks(model) == 0
    assert not any(m.training for m in model.modules())
    assert torch.is_grad_enabled()
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.equal(model(x), logits)


class Quits(BaseException):
    pass


@pytest.mark.parametrize("error", [KeyError("k"), AssertionError("a"), SystemExit(3), RecursionError("r"), Quits("q")])
def test_whatever_a_function_raises_is_a_refusal(error):
    model, x = net("relu"), images(3)

    def function(model, x, target):
        scale(model, x)
        torch.set_grad_enabled(False)
        raise error

    words = rf"^failed on images cat, dog, cup: {type(error).__name__}: "
    with pytest.raises(ValueError, match=words):
        guarded(function, NAMES, 0)(model, x, TARGET)
    assert torch.is_grad_enabled()
    assert torch.equal(model(x), net("relu")(x))


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, torch.OutOfMemoryError])
def test_an_interruption_or_a_lack_of_memory_is_no_fault_of_the_function(error):
    def function(model, x, target):
        raise error

    with pytest.raises(error):
        guarded(function, NAMES, 0)(net("relu"), images(3), TARGET)


def one_nan(model, x, target):
    a = torch.ones(len(x), 1, 4, 4)
    a[1, 0, 2, 2] = torch.nan
    return a


ANSWERS = [
    (lambda model, x, target: x.tolist(), r"must return a torch.Tensor B K h w, got list \(on images cat, dog, cup\)"),
    (lambda model, x, target: x[:1], r"must return B K h w with B = 3, got \(1, 3, 32, 32\)"),
    (lambda model, x, target: x[:, 0], r"must return B K h w with B = 3, got \(3, 32, 32\)"),
    (lambda model, x, target: x[:, :0], r"must return B K h w with B = 3, got \(3, 0, 32, 32\)"),
    (lambda model, x, target: x.long(), r"must return floating point numbers, got torch.int64"),
    (lambda model, x, target: x.to("meta"), r"must return maps on cpu, got meta"),
    (one_nan, r"must return finite numbers, got NaN or infinity on image dog$"),
    (lambda model, x, target: x / 0, r"must return finite numbers, got NaN or infinity on images cat, dog, cup$"),
]


@pytest.mark.parametrize(("function", "message"), ANSWERS)
def test_an_answer_that_is_no_map_is_a_refusal(function, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        guarded(function, NAMES, 0)(net("relu"), images(3), TARGET)


def test_images_that_a_check_made_are_counted():
    with pytest.raises(ValueError, match="NaN or infinity on 1 image.s. made from a, b, c and 2 more"):
        guarded(one_nan, "abcde", 0)(net("relu"), images(3), TARGET)


def draws(model, x, target):
    """Three generators, none of them seeded here."""
    a = torch.randn(len(x), 1, 4, 4) + torch.from_numpy(np.random.randn(4, 4)).float()
    return a + random.random()


def test_global_random_numbers_are_the_same_in_each_run():
    model, x = net("relu"), images(3)
    first, again, other = guarded(draws, NAMES, 0), guarded(draws, NAMES, 0), guarded(draws, NAMES, 1)
    a, b = first(model, x, TARGET), first(model, x, TARGET)
    torch.rand(7)
    assert torch.equal(again(model, x, TARGET), a)
    assert torch.equal(again(model, x, TARGET), b)
    assert not torch.equal(a, b)  # two calls differ, as they would without a seed
    assert not torch.equal(other(model, x, TARGET), a)


def test_the_state_of_the_global_random_numbers_is_kept():
    found = []
    for inside in (0, 3):
        torch.manual_seed(5), np.random.seed(5), random.seed(5)
        with _restored(torch.device("cpu")):
            for _ in range(inside):
                draws(None, torch.zeros(2), None)
        found.append((torch.randn(1).item(), np.random.randn(), random.random()))
    assert found[0] == found[1]


def test_a_good_function_is_what_it_was():
    model, x = net("relu"), images(3)
    of = guarded(partial(gradient), NAMES, 0)
    assert torch.equal(of(model, x, TARGET), gradient(model, x, TARGET))
    assert not of(model, x, TARGET).requires_grad


NEIGHBOURS = """
import torch

def good(model, x, target):
    return torch.rand_like(x) + model(x)[:, :1, None, None].detach()

def scales(model, x, target):
    for p in model.parameters():
        p.data.mul_(0.9)
    return x

def later(model, x, target):
    if len(x) > 1:
        model.train()
    return x * 2

def one_nan(model, x, target):
    a = x.clone()
    a[1:2] = float("nan")
    return a

def exits(model, x, target):
    raise SystemExit("enough")
"""


@pytest.mark.usefixtures("coarse")
def test_a_bad_neighbour_changes_no_other_row(tmp_path, capsys):
    file = tmp_path / "mine.py"
    file.write_text(NEIGHBOURS)
    words = ["--model", "test_resnet", "--weights", "random", "--images", "chelsea,coffee"]
    words += ["--checks", "sparseness,random_logit", "--seed", "3"]

    def rows(*functions):
        out = str(tmp_path / str(len(functions)))
        assert __main__.main(["gradient", *(f"{file}:{f}" for f in functions), *words, "--out", out]) == 0
        return json.loads((tmp_path / str(len(functions)) / "report.json").read_text())

    report, alone = rows("scales", "good", "later", "exits", "one_nan"), rows("good")
    for name in alone["rows"]:
        assert report["rows"][name] == alone["rows"][name], name
    assert report["complete"]
    assert report["rows"]["scales"]["refused"].startswith("changed the values of ")
    assert report["rows"]["exits"]["refused"] == "failed on image chelsea: SystemExit: enough"
    for check in ("sparseness", "random_logit"):
        assert "changed the training mode" in report["rows"]["later"]["checks"][check]["refused"]
        assert "NaN or infinity on image coffee" in report["rows"]["one_nan"]["checks"][check]["refused"]
    page, printed = (tmp_path / "5/report.html").read_text(), capsys.readouterr().out
    for words in ("scales is refused: changed the values of", "one_nan sparseness: must return finite numbers"):
        assert words in page
    for words in ("scales: refused: changed the values", "later: refused: changed the training mode"):
        assert words in printed
