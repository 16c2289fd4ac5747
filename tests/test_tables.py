"""The tables of time and of other implementations: what they say, and how they count."""

import math
from functools import partial

import pytest
import torch
from torch.overrides import TorchFunctionMode

import table_peers
import table_timing as timing
from figure_numbers import numbers
from helpers import CLASSES, bound, images, references
from methods import METHODS
from nets import net

MEASURED = "measured"


class Time:
    """A clock that only jobs move."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def job(self, cost):
        return lambda: setattr(self, "now", self.now + cost)


# ---- what the committed tables say


def test_the_reader_sees_the_promised_passes_of_every_method():
    table = numbers("timing_cpu")
    cells = [c for c in table["cells"] + table.get("other_settings", []) if c["status"] == MEASURED]
    assert {c["method"] for c in cells} == set(METHODS)
    for c in cells:
        assert c["passes"] == c["promised"], c["method"]
    assert not [c for c in numbers("timing_cpu")["cells"] if c["status"] == "failed"]


def test_the_reader_sees_edited_activations_for_a_few_forward_passes():
    most = {"recipro_cam": 2.5, "lift_cam": 2.0, "ablation_cam": 12.0, "fd_cam": 12.0, "group_cam": 1.1 * 33}
    cells = {c["method"]: c for c in numbers("timing_cpu")["cells"] if (c["dtype"], c["batch"]) == ("float32", 1)}
    for name, passes in most.items():  # of the committed table: a ratio of times taken in turns
        assert cells[name]["in_forwards"] <= passes, name


def test_the_reader_sees_masked_images_for_the_price_of_their_passes():
    table = numbers("timing_cpu")
    cells = [c for c in table["cells"] + table["other_settings"] if c["status"] == MEASURED]
    cells = [c for c in cells if c["method"] in ("score_cam", "ss_cam", "is_cam", "poly_cam", "blur_ig")]
    assert {c["method"] for c in cells} == {"score_cam", "ss_cam", "is_cam", "poly_cam", "blur_ig"}
    for c in cells:
        assert c["overhead"] <= 1.1, c["method"]


def test_the_reader_sees_little_overhead_or_why():
    many = [c for c in numbers("timing_cpu")["cells"] if c["status"] == MEASURED and sum(c["promised"]) > timing.MANY]
    assert len({c["method"] for c in many}) >= 8
    for c in many:
        assert c["overhead"] <= timing.MOST or c["remark"], c["method"]


def test_the_reader_sees_a_row_for_every_claim():
    rows = numbers("table_peers")["rows"]
    small = {(r["method"], r["reference"]): r for r in rows if r["part"] == "small"}
    assert set(small) == {(m.name, claim) for m in METHODS.values() for claim in m.verified if claim != "authors"}
    assert all(r["within"] for r in rows)
    for r in small.values():  # where nothing is remarked, the maps are the same up to rounding
        assert r["difference"] < (1e-4 if r["remark"] else 1e-10), r
        assert r["spearman"] > 0.9999


def test_the_reader_sees_the_libraries_on_photographs():
    rows = numbers("table_peers")["rows"]
    real = [r for r in rows if r["part"] == "float32"]
    assert {r["with"] for r in real} == {"captum", "grad-cam", "saliency", "torchcam"}
    assert all(r["spearman"] >= 0.999 for r in real)
    exact = {(r["method"], r["reference"]) for r in rows if r["part"] == "float64" and r["difference"] < 1e-9}
    assert {(r["method"], r["reference"]) for r in real if r["difference"] > 1e-5} <= exact  # it was rounding


# ---- counting and the overhead, in closed form


def test_passes_are_counted_with_their_batches():
    model, x = net("relu"), images(2)
    with timing.counting(model, x.shape[2:]) as passes:
        model(x)
        model(x.requires_grad_())[:, 0].sum().backward()
    assert [p[:3] for p in passes] == [("forward", 2, 2), ("forward", 2, 2), ("backward", 2, 2)]
    assert timing.count(passes, 2) == (2, 1)
    assert not model._forward_pre_hooks


def test_passes_behind_an_edited_layer_are_told_apart():
    m, model, x = METHODS["ablation_cam"], net("relu"), images(1)
    with timing.counting(model, x.shape[2:]) as passes:
        m.fn(model, x, CLASSES[:1], layer="layer4")
    assert passes == [("forward", 1, 1, None), ("forward", 1, 16, None)]
    assert timing.count(passes, 1) == m.cost(K=16).total == (17, 0)


def test_the_price_of_passes():
    prices = {("forward", 1): 2.0, ("forward", 8): 8.0, ("gradient", 8): 24.0}
    passes = [("forward", 1, 1), ("forward", 8, 8), ("backward", 8, 8), ("forward", 1, 16)]
    passes = [timing.Pass(*p) for p in passes]
    assert timing.price(passes, prices) == 2 + 8 + 16 + 16 * 2
    assert timing.expect(passes[:3], 0.5, {("forward", 4): 4.0, ("gradient", 4): 12.0}, 4, (8, 8)) == 4 * (
        0.5 + 9 + 8 * 2
    )


def test_passes_of_larger_images_are_priced_as_what_they_are():
    m, model, x = METHODS["cameras"], net("relu"), images(2, h=32, w=48)
    keywords = {"layer": "layer4", "steps": 2, "stride": 32}
    with timing.counting(model, x.shape[2:]) as passes:
        m.fn(model, x, CLASSES[:2], **keywords)
    assert [p.size for p in passes] == [None, None, (64, 96), (64, 96)]
    assert timing.count(passes, 2) == m.cost(**keywords).total == (2, 2)
    jobs = timing.plain(model, x, passes)
    assert set(jobs) == {(kind, 2, *size) for kind in ("forward", "gradient") for size in ((), (64, 96))}
    prices = {("forward", 2): 1.0, ("gradient", 2): 3.0, ("forward", 2, 64, 96): 5.0, ("gradient", 2, 64, 96): 14.0}
    assert timing.price(passes, prices) == 3 + 14
    assert timing.expect(passes, 0, prices, 2, x.shape[2:]) == pytest.approx(2 * (3 + 4 * 3))  # by the pixels


@pytest.mark.parametrize("rounds", [1, 3])
def test_overhead_on_a_clock_that_jobs_move(monkeypatch, rounds):
    """A method of 5 gradients in one batch that adds 20 % to what they take by themselves."""
    time, model, x = Time(), net("relu"), images(1)
    plain = timing.plain
    cost = {"forward": 1.0, "gradient": 3.0}
    monkeypatch.setattr(timing, "plain", lambda *a: {k: time.job(cost[k[0]] * k[1]) for k in plain(*a)})

    def method(model, x, target):
        METHODS["smooth_grad"].fn(model, x, target, samples=5, chunk=5)
        time.now += 1.2 * 5 * 3.0

    expected = 1 if rounds > 1 else timing.LONG + 1
    cell = timing.time_method(
        method, model, x, CLASSES[:1], expected=expected, promised=(5, 5), rehearsed=((), 3.0), clock=time
    )
    assert cell["rounds"] == rounds
    assert cell["passes"] == cell["promised"] == [5, 5]
    assert cell["overhead"] == pytest.approx(1.2)
    assert (cell["priced"], cell["seconds"]) == pytest.approx((15, 18))
    assert (cell["in_forwards"], cell["in_gradients"]) == pytest.approx((18, 6))
    assert "its own arithmetic takes up to 17%" in timing.remark(
        "smooth_grad", cell | {"promised": [10, 10], "passes": [10, 10]}
    )
    assert "NOT AS PROMISED: 4 + 4" in timing.remark("smooth_grad", cell | {"promised": [4, 4]})
    assert "not explained" in timing.remark("smooth_grad", cell | {"overhead": 1.5, "seconds": 22.5, "passes": [9, 9]})


def test_noise_of_the_machine_cancels():
    """Everything becomes ten times slower from the second round on."""
    time, speed = Time(), iter([1, 1, 1, 10, 10, 10, 10])

    def job(cost):
        return lambda: setattr(time, "now", time.now + cost * next(speed))

    times, around = timing.measure(job(4.0), {("forward", 1): job(2.0)}, 3, time)
    assert times == [4, 40, 40]
    assert [p["forward", 1] for p in around] == [2, 11, 20]


def test_rehearsal_runs_the_same_passes():
    """On the network that costs nothing: the batches of every method are those on a real one."""
    model, x = net("relu"), images(1)
    room = timing.sizes(model, x, "layer4")
    for name in ("integrated_gradients", "score_cam", "ablation_cam", "occlusion", "guided_backprop", "cam", "cameras"):
        f = partial(METHODS[name].fn, **bound(METHODS[name], model).keywords)
        passes, own = timing.rehearse(f, x, room, 10)
        with timing.counting(model, x.shape[2:]) as real:
            f(model, x, CLASSES[:1])
        assert passes == real
        assert own > 0


# ---- limits and plans


def test_a_cell_beyond_the_limit_is_not_run():
    cell = {"method": "score_cam", "model": "net", "dtype": "float32", "batch": 1, "promised": [2049, 0]}
    cell |= {"status": "not run", "remark": "not run: about 110 s expected, limit 10 s", "expected": 110.0}
    page = timing.tables([cell], [], [], ["saliency"], "")
    assert "| `score_cam` | 2,049 + 0 promised | | | | | | not run: about 110 s expected, limit 10 s |" in page
    assert "Not installed: saliency." in page
    assert not timing.wrong([cell])
    assert timing.wrong([cell | {"status": MEASURED, "passes": [2048.0, 0.0]}])


def test_a_plan_takes_the_fastest_cell_and_says_what_it_rests_on():
    base = {"method": "a", "dtype": "float32", "status": MEASURED}
    cells = [base | {"batch": 1, "seconds": 2.0}, base | {"batch": 8, "seconds": 8.0, "dtype": "bfloat16"}]
    cells += [{"method": "b", "dtype": "float32", "batch": 4, "status": "not run", "expected": 40.0}]
    assert timing.plan(cells, 3600) == [
        ("b", 10.0, "expected, float32, batch 4"),
        ("a", 1.0, "measured, bfloat16, batch 8"),
    ]
    assert "11.000 h  in all" in timing.plan_text(timing.plan(cells, 3600), 3600)


def test_counting_does_not_change_what_runs():
    class Convolutions(TorchFunctionMode):
        ran = 0

        def __torch_function__(self, func, types, args=(), kwargs=None):
            self.ran += func is torch.conv2d
            return func(*args, **(kwargs or {}))

    model, x = net("relu"), images()
    run = partial(METHODS["ablation_cam"].fn, model, x, CLASSES, layer="layer2", chunk=len(x))
    with Convolutions() as alone:
        run()
    with Convolutions() as counted, timing.counting(model, x.shape[2:]) as passes:
        run()
    assert counted.ran == alone.ran < len(passes) * sum(isinstance(m, torch.nn.Conv2d) for m in model.modules())


def test_sizes_are_those_of_the_layers_that_are_named():
    at = partial(timing.sizes, net("relu"), images(), "layer3")
    assert (at()["depth"], at()["channels"]) != (1, at()["K"])
    assert (at(())["depth"], at(())["channels"]) == (1, at()["K"])


def test_a_row_names_the_settings_that_are_not_the_default():
    cell = {"method": "fd_cam", "model": "net", "dtype": "float32", "batch": 1, "keywords": {"layer": "layer3"}}
    cell |= {"status": "not run", "promised": [2049, 1], "remark": "why"}
    assert timing.rows([cell])[-1] == "| `fd_cam`, layer=layer3 | 2,049 + 1 promised | | | | | | why |"
    page = timing.tables([], [cell], [], [], "")
    assert "## Other layers and settings" in page


def test_the_reader_sees_what_the_table_leaves_open():
    others = {c["method"]: c for c in numbers("timing_cpu")["other_settings"]}
    assert list(others) == [name for name, _ in timing.OTHER_SETTINGS]
    for c in others.values():
        assert list(c["passes"]) == list(c["promised"])
        assert c["overhead"] <= timing.MOST or c["remark"], c["method"]


# ---- comparisons


def test_agreement_in_closed_form():
    a = torch.tensor([[[[1.0, 2.0, -4.0]]], [[[1.0, 2.0, 3.0]]]])
    b = torch.tensor([[[[1.0, 2.0, -3.0]]], [[[3.0, 2.0, 1.0]]]])
    assert table_peers.agreement(a[:1], b[:1]) == (0.25, 1.0)
    assert table_peers.agreement(a, b) == pytest.approx((2 / 3, -1.0))
    assert table_peers.agreement(a[:1] * 0, a[:1])[0] == 1  # not hidden where ours is zero
    assert math.isnan(table_peers.agreement(a * 0, a * 0)[1])


def test_a_comparison_is_the_one_of_the_tests():
    a, b, tolerance = table_peers.on_small("xgrad_cam", "torchcam", "relu", "layer3")
    f = bound(METHODS["xgrad_cam"], net("relu"), layer="layer3")
    assert torch.equal(a, f(net("relu"), images(), CLASSES))
    assert torch.equal(b, references("xgrad_cam")["torchcam"](net("relu"), images(), CLASSES, layer="layer3"))
    assert tolerance == {"rtol": 1e-4, "atol": 1e-6}
    assert table_peers.within(a, b, tolerance)
    assert not table_peers.within(a, b + 1e-3 * b.abs().max(), tolerance)


def test_a_claim_without_a_comparison_is_found():
    rows = [{"method": "grad_cam", "reference": claim, "part": "small"} for claim in ("literal", "captum", "torchcam")]
    assert table_peers.claims_without_row(rows, ["grad_cam"]) == ["grad_cam: grad_cam"]
