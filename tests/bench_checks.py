"""Time of the checks: insertion and deletion beside its own forward passes, and metrics beside Quantus, in one run.

    pytest tests/bench_checks.py -o addopts= --benchmark-only          # without the run-time shape checks of the tests

Not run by default, and nothing here asserts a time. Ratios are medians of the same run.
"""

import time
import warnings
from statistics import median

import pytest
import timm
import torch

from methods.gradient import gradient
from sanity_checks.complexity import complexity
from sanity_checks.faithfulness_correlation import faithfulness_correlation
from sanity_checks.insertion_deletion import insertion_deletion
from sanity_checks.local_lipschitz import local_lipschitz
from sanity_checks.max_sensitivity import max_sensitivity
from sanity_checks.pixel_flipping import pixel_flipping
from sanity_checks.sparseness import sparseness

pytestmark = pytest.mark.filterwarnings("ignore")
B = 4


@pytest.fixture(scope="module")
def case():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    model = timm.create_model("tf_efficientnet_lite0", num_classes=10).eval()
    x, target = torch.randn(B, 3, 224, 224), torch.tensor([1, 4, 7, 2])
    yield model, x, target, gradient(model, x, target).sum(dim=1, keepdim=True)
    torch.set_num_threads(threads)


def quantus_metric(name, model, x, target, maps, **keywords):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import quantus

    run = keywords.pop("run", {})
    metric = getattr(quantus, name)(
        normalise=False, abs=False, return_aggregate=False, disable_warnings=True, display_progressbar=False, **keywords
    )
    metric(model=model, x_batch=x.numpy(), y_batch=target.numpy(), a_batch=maps.numpy(), device="cpu", **run)


def summed(model, x, target):
    return gradient(model, x, target).sum(dim=1, keepdim=True)


def explained(model, inputs, targets, **_):
    return summed(model, torch.as_tensor(inputs, dtype=torch.float32), torch.as_tensor(targets)).numpy()


PAIRS = {  # the same work twice: ours, Quantus'
    "faithfulness correlation, 100 subsets of 224 pixels": (
        lambda m, x, t, a: faithfulness_correlation(m, x, t, a, size=224, samples=100),
        lambda m, x, t, a: quantus_metric(
            "FaithfulnessCorrelation", m, x, t, a, nr_runs=100, subset_size=224, perturb_baseline="black"
        ),
    ),
    "max-sensitivity, 10 draws": (
        lambda m, x, t, a: max_sensitivity(m, x, t, a, summed, samples=10),
        lambda m, x, t, a: quantus_metric(
            "MaxSensitivity", m, x, t, a, nr_samples=10, lower_bound=0.2, run={"explain_func": explained}
        ),
    ),
    "local Lipschitz, 10 draws": (
        lambda m, x, t, a: local_lipschitz(m, x, t, a, summed, samples=10),
        lambda m, x, t, a: quantus_metric(
            "LocalLipschitzEstimate", m, x, t, a, nr_samples=10, run={"explain_func": explained}
        ),
    ),
    "pixel flipping, 49 regions of 32 x 32 pixels (ours: both orders)": (
        lambda m, x, t, a: pixel_flipping(m, x, t, a, region=32, steps=49, repeats=1, fill="mean"),
        lambda m, x, t, a: quantus_metric(
            "RegionPerturbation", m, x, t, a, regions_evaluation=49, patch_size=32, perturb_baseline="black"
        ),
    ),
    "sparseness": (
        lambda m, x, t, a: sparseness(a),
        lambda m, x, t, a: quantus_metric("Sparseness", m, x, t, a.abs()),
    ),
    "complexity": (
        lambda m, x, t, a: complexity(a),
        lambda m, x, t, a: quantus_metric("Complexity", m, x, t, a.abs()),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_ratio_to_quantus(benchmark, record_ratio, case, name):
    ours, theirs = PAIRS[name]
    seconds = []

    def other():
        start = time.perf_counter()
        theirs(*case)
        seconds.append(time.perf_counter() - start)

    other()  # imports
    seconds.clear()
    ours(*case)
    benchmark.pedantic(ours, case, setup=other, rounds=3)
    if benchmark.stats:
        record_ratio(f"times faster than Quantus: {name}", median(seconds) / benchmark.stats.stats.median)


@torch.no_grad()
def test_insertion_and_deletion_against_its_forwards(benchmark, record_ratio, case):
    model, x, target, maps = (v[:1] if isinstance(v, torch.Tensor) else v for v in case)
    batch, seconds = x.repeat(8, 1, 1, 1), []

    def forwards():
        start = time.perf_counter()
        for n in ([8] * 28 + [1]) * 2:  # 2 x 225 images in batches of at most 8
            model(batch[:n])
        seconds.append(time.perf_counter() - start)

    forwards()
    seconds.clear()
    benchmark.pedantic(insertion_deletion, (model, x, target, maps), setup=forwards, rounds=3)
    if benchmark.stats:
        ratio = benchmark.stats.stats.median / median(seconds)
        record_ratio("insertion and deletion with 225 points / its 450 forward passes", ratio)
