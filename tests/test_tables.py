"""The tables of time and of other implementations: what they say, and how they count."""

import math
from functools import partial

import pytest
import torch
from torch.overrides import TorchFunctionMode

import _agreement
import _cells
import _prices
import _several
import _timing as timing
import _timing_page as page
import table_peers
from _clock import LONG, measure, seconds
from _passes import Pass, count, counting
from _prices import Price
from figure_numbers import LATER, numbers
from helpers import CLASSES, bound, images, last_layer, references
from methods import METHODS, _layers
from methods._cost import Cost, Images
from nets import net

MEASURED = "measured"


class Convolutions(TorchFunctionMode):
    """Counts convolutions, and the images in them."""

    ran = images = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.ran += func is torch.conv2d
        self.images += len(args[0]) if func is torch.conv2d else 0
        return func(*args, **(kwargs or {}))


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
    assert {c["method"] for c in cells} == set(METHODS) - LATER
    for c in cells:
        assert c["passes"] == c["promised"], c["method"]
        assert c.get("before") == c.get("promised_before"), c["method"]  # an old table has neither
        assert "before" not in c or c["overhead"] > 0.5, c["method"]  # nothing is priced at much more than it costs
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
        # Sobol divides by the variance of four scores, which can be nearly the same; orders of regions are float32.
        coarse = r["method"] in ("sobol_attribution", "moxi", "smdl")
        assert r["difference"] < (1e-4 if r["remark"] else 1e-7 if coarse else 1e-10), r
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
    with counting(model, x) as passes:
        model(x)
        model(x.requires_grad_())[:, 0].sum().backward()
    assert [p[:3] for p in passes] == [("forward", 2, 2), ("forward", 2, 2), ("backward", 2, 2)]
    assert count(passes, 2).passes == count(passes, 2).before == (2, 1)
    assert not model._forward_pre_hooks


def test_passes_of_the_tail_are_told_apart():
    m, model, x = METHODS["ablation_cam"], net("relu"), images(1)
    with counting(model, x) as passes:
        m.fn(model, x, CLASSES[:1], layer="layer4")
    assert passes == [Pass("forward", 1, 1), Pass("forward", 0, 16)]  # the second does not enter: it is replayed
    cost = m.cost(K=16)
    assert count(passes, 1).passes == cost.total == (17, 0)
    assert count(passes, 1).before == (cost.forward.before, cost.backward.before) == (1, 0)


def test_a_gradient_that_ends_at_the_layer_is_of_the_tail():
    model, x = net("relu"), images(2)
    with counting(model, x) as passes:
        METHODS["guided_grad_cam"].fn(model, x, CLASSES[:2], layer="layer4")
    assert sorted(passes) == [("backward", 0, 2, None), ("backward", 2, 2, None), *[("forward", 2, 2, None)] * 2]


@pytest.mark.parametrize("name", ["cam", "cameras", "combine", "dix", "fd_cam", "iia", "lift_cam", "score_cam", "xrai"])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_table_counts_what_is_declared(name, batch):
    m, model, x = METHODS[name], net("relu"), images(batch)
    f = bound(m, model)
    cost = m.cost(**_prices.sizes(model, x, f.keywords.get("layer")) | f.keywords)
    with counting(model, x) as passes:
        f(model, x, CLASSES[:batch])
    found = count(passes, batch)
    assert list(zip(found.passes, found.before, strict=True)) == list(cost)


def test_the_price_of_passes():
    prices = {Price("forward", 1): 2.0, Price("forward", 8): 8.0, Price("gradient", 8): 24.0}
    prices |= {Price("forward", 16, tail=True): 0.5, Price("backward", 8, tail=True): 0.25}
    passes = [("forward", 1, 1), ("forward", 8, 8), ("backward", 8, 8), ("forward", 0, 16), ("backward", 0, 8)]
    passes = [Pass(*p) for p in passes]
    assert _prices.cost_of(passes, prices) == 2 + 8 + 16 + 0.5 + 0.25
    assert _prices.cost_of([Pass("forward", 8, 24)], prices) == 8 + 0.5  # 8 images entered, 24 left
    assert set(_prices.needed(passes, 8)) == set(prices)


def test_what_is_declared_in_batches():
    """1 + K passes of which one is whole: the others in chunks, which hold whole batches."""
    cost = METHODS["ablation_cam"].cost(K=16)
    tail = [Pass("forward", 0, n) for n in (8, 8, 8, 8)]
    assert _prices.expected_passes(cost, batch=2, chunk=9) == [Pass("forward", 2, 2), *tail]
    cost = Cost(Images(1, 1), Images(5, 0))
    assert _prices.expected_passes(cost, 1, 3) == [
        Pass("forward", 1, 1),
        Pass("backward", 0, 3),
        Pass("backward", 0, 2),
    ]


@pytest.mark.parametrize("kind", ["forward", "backward"])
@pytest.mark.parametrize(("layer", "batch"), [("layer4", 2), ("layer4.bn2", 2), ("layer4", 1)])
def test_a_pass_of_the_tail_starts_at_the_layer(kind, layer, batch):
    """On a clock that modules move: those that n images run through count; fewer run through the others."""
    time, model, x, ran = Time(), net("relu"), images(batch), []
    for name, module in model.named_modules():
        if not [*module.children()]:
            module.register_forward_hook(
                lambda _m, _a, out, name=name: (ran.append((name, len(out))), time.job(1)())[0]
            )
    took = _prices.tail_pass(model, x, 6, layer, kind, time)
    last = ran[max(i for i, (name, _) in enumerate(ran) if name == "conv1") :]
    after = [name for name, rows in last if rows == 6]
    assert last[0] == ("conv1", batch)
    assert last[-1] == ("fc", 6)
    assert took == (len(after) if kind == "forward" else 0)  # of a gradient, no module runs
    assert ("layer4.conv1" in after) == (layer == "layer4.bn2")  # a branch around it: the whole block ran on 6
    assert "layer3.conv1" not in after
    assert not [m for m in model.modules() if m._forward_pre_hooks]
    assert torch.is_grad_enabled()


def test_several_layers_share_the_passes_of_the_tail():
    model, x = net("relu"), images(1)
    assert _prices.tail_layers("grad_cam", model, x, {"layer": "layer4"}) == ("layer4",)
    assert _prices.tail_layers("generic_attention", net("vit"), x, {}) == ()
    assert _prices.tail_layers("fuse", model, x, {"layer": "layer4", "layers": ("layer2",)}) == ("layer2", "layer4")
    assert _prices.tail_layers("refine_cam", model, x, {"layer": "layer4", "layers": ("layer2",)}) == ("layer2",)
    jobs = _prices.plain(model, x, [Price("forward", 2, tail=True)], ("layer2", "layer4"))
    (timed,) = jobs.values()
    assert timed(iter([0.0, 3.0, 10.0, 20.0]).__next__) == (3 + 10) / 2  # the clock is read at the layer and at the end


def test_passes_of_larger_images_are_priced_as_what_they_are():
    m, model, x = METHODS["cameras"], net("relu"), images(2, h=32, w=48)
    keywords = {"layer": "layer4", "steps": 2, "stride": 32}
    with counting(model, x) as passes:
        m.fn(model, x, CLASSES[:2], **keywords)
    assert [p.size for p in passes] == [None, None, (64, 96), (64, 96)]
    assert count(passes, 2).passes == m.cost(**keywords).total == (2, 2)
    large, tail = {"size": (64, 96)}, {"tail": True}
    wanted = _prices.needed(passes, 2)
    assert set(wanted) == {
        Price("forward", 2), Price("gradient", 2), Price("backward", 2, **tail), Price("forward", 2, **large),
        Price("backward", 2, **large, **tail),
    }  # fmt: skip
    assert all(timed(Time()) == 0 for timed in _prices.plain(model, x, wanted, ("layer4",)).values())
    prices = dict(zip(wanted, (1.0, 3.0, 0.5, 5.0, 2.0), strict=True))
    assert [p.size for p in wanted] == [None, None, None, (64, 96), (64, 96)]
    assert _prices.cost_of(passes, prices) == 1 + 0.5 + 5 + 2


@pytest.mark.parametrize("rounds", [1, 3])
def test_overhead_on_a_clock_that_jobs_move(monkeypatch, rounds):
    """A method of 5 gradients in one batch that adds 20 % to what they take by themselves."""
    time, model, x = Time(), net("relu"), images(1)
    cost = {"forward": 1.0, "gradient": 3.0}
    monkeypatch.setattr(
        timing, "plain", lambda _m, _x, wanted, _l: {p: lambda _, p=p: cost[p.kind] * p.images for p in wanted}
    )

    def method(model, x, target):
        METHODS["smooth_grad"].fn(model, x, target, samples=5, chunk=5)
        time.now += 1.2 * 5 * 3.0

    expected, promised = 1 if rounds > 1 else LONG + 1, Cost(Images(5, 5), Images(5, 5))
    cell = timing.time_method(method, model, x, CLASSES[:1], expected=expected, promised=promised, clock=time)
    assert cell["rounds"] == rounds
    assert cell["passes"] == cell["promised"] == cell["before"] == cell["promised_before"] == [5, 5]
    assert cell["overhead"] == pytest.approx(1.2)
    assert (cell["priced"], cell["seconds"]) == pytest.approx((15, 18))
    assert (cell["in_forwards"], cell["in_gradients"]) == pytest.approx((18, 6))
    assert timing.remark("smooth_grad", cell) == ""  # ten passes: not judged
    many = cell | {k: [10, 10] for k in ("passes", "promised", "before", "promised_before")}
    assert timing.remark("blur_ig", many) == "its own arithmetic takes 17% of the time: it blurs the image twice a step"
    assert timing.remark("smooth_grad", many) == "17% of the time is not in passes: not explained"
    assert "NOT AS PROMISED: 4 + 4" in timing.remark(
        "smooth_grad", many | {"promised": [4, 4], "promised_before": [4, 4]}
    )
    assert "NOT AS PROMISED: 10 + 10 (0)" in timing.remark("smooth_grad", many | {"promised_before": [10, 0]})


def test_overhead_of_passes_of_the_tail(monkeypatch):
    """17 passes, 16 of them of the tail, whose price is a hundredth: seconds of 1.2 passes, and no overhead."""
    time, model, x = Time(), net("relu"), images(1)
    each = {False: 1.0, True: 0.01}
    monkeypatch.setattr(
        timing, "plain", lambda _m, _x, wanted, _l: {p: lambda _, p=p: each[p.tail] * p.images for p in wanted}
    )

    def method(model, x, target):
        METHODS["ablation_cam"].fn(model, x, target, layer="layer4")
        time.now += 1.16

    promised = METHODS["ablation_cam"].cost(K=16)
    cell = timing.time_method(
        method, model, x, CLASSES[:1], expected=1, promised=promised, tail=("layer4",), clock=time
    )
    assert (cell["passes"], cell["before"]) == ([17, 0], [1, 0])
    assert cell["overhead"] == pytest.approx(1)
    assert timing.remark("ablation_cam", cell) == ""
    assert timing.passes_text(cell["passes"], cell["before"]) == "17 (1) + 0"


def test_noise_of_the_machine_cancels():
    """Everything becomes ten times slower from the second round on."""
    time, speed = Time(), iter([1, 1, 1, 10, 10, 10, 10])

    def job(cost):
        return lambda: setattr(time, "now", time.now + cost * next(speed))

    times, around = measure(job(4.0), {"forward": partial(seconds, job(2.0))}, 3, time)
    assert times == [4, 40, 40]
    assert [p["forward"] for p in around] == [2, 11, 20]


# ---- limits and plans


def test_a_cell_beyond_the_limit_is_not_run():
    cell = {"method": "score_cam", "model": "net", "dtype": "float32", "batch": 1, "promised": [2049, 0]}
    cell |= {"promised_before": [2049, 0]}
    cell |= {"status": "not run", "remark": "not run: about 110 s expected, limit 10 s", "expected": 110.0}
    text = page.tables([cell], [], [], [], ["saliency"], "")
    assert "\nNot run: `score_cam` about 110 s expected, limit 10 s." in text
    assert "| `score_cam`" not in text
    assert "Not installed: saliency." in text
    assert not _cells.wrong([cell])
    done = cell | {"status": MEASURED, "passes": [2049.0, 0.0], "before": [2049.0, 0.0]}
    assert not _cells.wrong([done])
    assert _cells.wrong([done | {"passes": [2048.0, 0.0]}])
    assert _cells.wrong([done | {"before": [1.0, 0.0]}])


def test_what_is_expected_is_what_the_declared_passes_cost():
    model, x = net("relu"), images(2)
    f = partial(METHODS["ablation_cam"].fn, layer="layer4", chunk=8)
    call = _cells.Call("ablation_cam", f, METHODS["ablation_cam"].cost(K=16), ("layer4",))
    rates = _cells.Rates(model, x)
    seconds = rates.expect(call)
    known = {price: value for (price, _), value in rates.known.items()}
    whole, tail = known[Price("forward", 2)], known[Price("forward", 8, tail=True)]
    assert seconds == pytest.approx(whole + 4 * tail)
    assert rates.expect(call) == seconds  # measured once


def test_a_plan_takes_the_fastest_cell_and_says_what_it_rests_on():
    base = {"method": "ablation_cam", "dtype": "float32", "status": MEASURED}
    cells = [base | {"batch": 1, "seconds": 2.0}, base | {"batch": 8, "seconds": 8.0, "dtype": "bfloat16"}]
    cells += [{"method": "grad_cam", "dtype": "float32", "batch": 4, "status": "not run", "expected": 40.0}]
    assert page.plan(cells, 3600) == [
        ("grad_cam", 10.0, "expected, float32, batch 4"),
        ("ablation_cam", 1.0, "measured, bfloat16, batch 8"),
    ]
    lines = [" ".join(line.split()) for line in page.plan_text(page.plan(cells, 3600), 3600).splitlines()]
    assert lines[1:] == [
        "10.000 h grad_cam expected, float32, batch 4 forward 1, backward 1 (0)",
        "1.000 h ablation_cam measured, bfloat16, batch 8 forward 1 + K (1), backward 0",
        "11.000 h in all",
    ]


def test_counting_does_not_change_what_runs():
    model, x = net("relu"), images()
    run = partial(METHODS["ablation_cam"].fn, model, x, CLASSES, layer="layer2", chunk=len(x))
    _layers.probe(model, x)
    with Convolutions() as alone:
        run()
    with Convolutions() as counted, counting(model, x) as passes:
        run()
    assert counted.ran == alone.ran < len(passes) * sum(isinstance(m, torch.nn.Conv2d) for m in model.modules())


def test_sizes_are_those_of_the_layers_that_are_named():
    at = partial(_prices.sizes, net("relu"), images(), "layer3")
    assert (at()["depth"], at()["channels"]) != (1, at()["K"])
    assert (at(())["depth"], at(())["channels"]) == (1, at()["K"])


def test_a_row_names_the_settings_that_are_not_the_default():
    cell = {"method": "fd_cam", "model": "net", "dtype": "float32", "batch": 1, "keywords": {"layer": "layer3"}}
    cell |= {"status": "not run", "promised": [2049, 1], "promised_before": [1, 0], "remark": "why"}
    assert page.rows([cell])[-1] == "| `fd_cam`, layer=layer3 | 2,049 (1) + 1 (0) promised | | | | | | why |"
    assert "## Other layers and settings" in page.tables([], [cell], [], [], [], "")


def test_the_table_is_in_the_order_of_what_is_promised():
    """Whole passes first: thousands of the tail may cost less than two of the network."""
    cells = [{"method": "ablation_cam", "promised": [2049, 0], "promised_before": [1, 0]}]
    cells += [{"method": "gradient", "promised": [1, 1], "promised_before": [1, 1]}]
    cells += [{"method": "cam", "promised": [1, 0], "promised_before": [1, 0]}]
    assert page.ordered(cells) == ["cam", "ablation_cam", "gradient"]


def test_the_reader_sees_what_the_table_leaves_open():
    others = {c["method"]: c for c in numbers("timing_cpu")["other_settings"]}
    assert list(others) == [name for name, _ in _cells.OTHER_SETTINGS if name not in LATER]
    for c in others.values():
        assert list(c["passes"]) == list(c["promised"])
        assert c["overhead"] <= timing.MOST or c["remark"], c["method"]


# ---- several classes


def test_the_gain_of_several_classes(monkeypatch):
    """The clock counts images through convolutions: what the classes share is seen once."""
    model, x = net("relu"), images(1)
    last_layer(model)
    monkeypatch.setitem(_several.METHODS, "score_cam", {"layer": "layer3"})
    with Convolutions() as counted:
        rows = _several.several(
            model, x, torch.arange(10).repeat(2), ["score_cam", "grad_cam", "cam"], clock=lambda: float(counted.images)
        )
    assert [(r["method"], r["classes"]) for r in rows] == [
        (m, n) for m in ("grad_cam", "score_cam") for n in (1, 5, 20)
    ]
    assert [r["passes"] for r in rows] == [[1, 1], [5, 5], [20, 20], *[[13, 0]] * 3]
    assert [r["gain"] for r in rows[3:]] == [1, 5, 20]
    text = "\n".join(_several.page(rows))
    assert "| `score_cam`, layer=layer3 |" in text
    assert "| 13 + 0 | 13 + 0 | 13 + 0 | 5.0 | 20.0 |" in text


def test_the_reader_sees_several_classes_for_the_passes_of_one():
    rows = numbers("timing_cpu")["classes"]
    one = {r["method"]: r["passes"] for r in rows if r["classes"] == 1}
    assert set(one) == set(_several.METHODS)
    for r in rows:
        if METHODS[r["method"]].backward.total == 0:
            assert r["passes"] == one[r["method"]], r["method"]


# ---- comparisons


def test_agreement_in_closed_form():
    a = torch.tensor([[[[1.0, 2.0, -4.0]]], [[[1.0, 2.0, 3.0]]]])
    b = torch.tensor([[[[1.0, 2.0, -3.0]]], [[[3.0, 2.0, 1.0]]]])
    assert _agreement.agreement(a[:1], b[:1]) == (0.25, 1.0)
    assert _agreement.agreement(a, b) == pytest.approx((2 / 3, -1.0))
    assert _agreement.agreement(a[:1] * 0, a[:1])[0] == 1  # not hidden where ours is zero
    assert math.isnan(_agreement.agreement(a * 0, a * 0)[1])


def test_a_comparison_is_the_one_of_the_tests():
    a, b, tolerance = _agreement.on_small("xgrad_cam", "torchcam", "relu", "layer3")
    f = bound(METHODS["xgrad_cam"], net("relu"), layer="layer3")
    assert torch.equal(a, f(net("relu"), images(), CLASSES))
    assert torch.equal(b, references("xgrad_cam")["torchcam"](net("relu"), images(), CLASSES, layer="layer3"))
    assert tolerance == {"rtol": 1e-4, "atol": 1e-6}
    assert _agreement.within(a, b, tolerance)
    assert not _agreement.within(a, b + 1e-3 * b.abs().max(), tolerance)


def test_a_claim_without_a_comparison_is_found():
    rows = [{"method": "grad_cam", "reference": claim, "part": "small"} for claim in ("literal", "captum", "torchcam")]
    assert table_peers.claims_without_row(rows, ["grad_cam"]) == ["grad_cam: grad_cam"]
