"""Time in forward passes: resnet50, one 224 px image, layer4, beside the other libraries in the same run.

    pytest tests/bench_cost.py -o addopts= --benchmark-only          # without the run-time shape checks of the tests

Not run by default, and nothing here asserts a time: machines differ, and share. Every round also times one forward pass
without gradients, F; the summary gives each method's median as a ratio to it.
"""

import time
from functools import partial
from statistics import median

import pytest
import timm
import torch
from captum.attr import IntegratedGradients, LayerGradCam
from pytorch_grad_cam import EigenCAM, FullGrad, GradCAM, GradCAMPlusPlus
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from methods import METHODS

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("two_threads")]
TARGET = torch.tensor([3])


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


def ours(name, **keywords):
    return lambda model, x: METHODS[name].fn(model, x, TARGET, **keywords)


def captum_ig(model, x):
    IntegratedGradients(model).attribute(x, target=TARGET, n_steps=32, internal_batch_size=8, method="riemann_right")


def captum_grad_cam(model, x):
    LayerGradCam(model, model.layer4).attribute(x, TARGET, relu_attributions=True)


def peer(cls, model, x):
    with cls(model, [model.layer4]) as cam:
        cam(x, [ClassifierOutputTarget(3)])


CASES = {
    "gradient": (ours("gradient"), 7),
    "grad_cam": (ours("grad_cam", layer="layer4"), 9),
    "grad_cam, captum": (captum_grad_cam, 9),
    "grad_cam, pytorch-grad-cam": (partial(peer, GradCAM), 7),
    "grad_cam_plus_plus": (ours("grad_cam_plus_plus", layer="layer4"), 9),
    "grad_cam_plus_plus, pytorch-grad-cam": (partial(peer, GradCAMPlusPlus), 5),
    "hires_cam": (ours("hires_cam", layer="layer4"), 9),
    "layer_cam": (ours("layer_cam", layer="layer4"), 9),
    "xgrad_cam": (ours("xgrad_cam", layer="layer4"), 9),
    "bag_cam": (ours("bag_cam", layer="layer4"), 9),
    "cam": (ours("cam", layer="layer4"), 9),
    "eigen_cam": (ours("eigen_cam", layer="layer4"), 9),
    "eigen_cam, pytorch-grad-cam": (partial(peer, EigenCAM), 5),
    "eigen_grad_cam": (ours("eigen_grad_cam", layer="layer4"), 9),
    "full_grad": (ours("full_grad"), 7),
    "full_grad, pytorch-grad-cam": (partial(peer, FullGrad), 1),
    "guided_backprop": (ours("guided_backprop"), 7),
    "ablation_cam": (ours("ablation_cam", layer="layer4"), 3),
    "integrated_gradients, 32 steps": (ours("integrated_gradients", steps=32), 5),
    "integrated_gradients, 32 steps, captum": (captum_ig, 5),
    "score_cam, 2049 passes": (ours("score_cam", layer="layer4"), 1),
}


@pytest.mark.parametrize("case", CASES)
def test_cost(benchmark, record_ratio, model, x, case):
    run, rounds = CASES[case]
    forwards = []

    def forward():
        start = time.perf_counter()
        with torch.no_grad():
            model(x)
        forwards.append(time.perf_counter() - start)

    if rounds > 1:
        run(model, x)  # warm up
    forward()
    forwards.clear()
    benchmark.pedantic(run, (model, x), setup=forward, rounds=rounds)
    for _ in range(3):
        forward()
    if benchmark.stats:
        F = median(forwards)
        benchmark.extra_info["forwards"] = record_ratio(case, benchmark.stats.stats.median / F)
