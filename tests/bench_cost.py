"""Time in forward passes: the cases of reproduce/table_timing.py, ours and the other libraries', one by one.

    pytest tests/bench_cost.py -o addopts= --benchmark-only          # without the run-time shape checks of the tests

resnet50 with random weights, one 224 px image, with the fewer steps, samples and windows that the table compares with.
Not run by default, and nothing here asserts a time: machines differ, and share. Every round also times one forward pass
without gradients, F; the summary gives each method's median as a ratio to it.
"""

from functools import partial
from statistics import median

import pytest
import timm
import torch

from _clock import rounds_for, seconds
from _peers import PEERS, job_of, quiet, same, version
from _prices import whole_pass
from methods import METHODS

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("two_threads")]
CASES = sorted([*((name, "ours") for name, m in METHODS.items() if "cnn" in m.architectures), *PEERS])


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return timm.create_model("resnet50", num_classes=1000).eval()


@pytest.fixture(scope="module")
def x():
    return torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def two_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("name", "who"), CASES, ids=[f"{name}, {who}" for name, who in CASES])
def test_cost(benchmark, record_ratio, model, x, name, who):
    if who != "ours" and not version(who):
        pytest.skip(f"{who} is not installed")
    keywords = same(name, model, x)
    if who == "ours":
        job = partial(METHODS[name].fn, model, x, torch.tensor([3]), **keywords)
    else:
        job = job_of(PEERS[name, who], keywords, model, x, torch.tensor([3]))
    forwards = []
    whole_pass(model, x, "forward")

    def another_forward():
        forwards.append(whole_pass(model, x, "forward"))

    with quiet():
        once = seconds(job)  # warms up
        benchmark.pedantic(job, setup=another_forward, rounds=rounds_for(once))
    another_forward()
    if benchmark.stats:
        ratio = benchmark.stats.stats.median / median(forwards)
        benchmark.extra_info["forwards"] = record_ratio(f"{name}, {who}", ratio)
