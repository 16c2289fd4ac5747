"""The same work in other libraries (captum, pytorch-grad-cam, saliency, torchcam), called as their users call them.

Imported only when called, so that a library that is not installed is only missing. One image at a time.
"""

import contextlib
import importlib.metadata
import importlib.util
import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from _clock import Job
from methods import METHODS
from methods._layers import default_layer
from methods.refine_cam import modules_before

SAME = {"samples": 16, "steps": 16, "size": 48, "stride": 24, "chunk": 8}  # for both sides: fewer passes than defaults
EARLY = {"score_cam", "ablation_cam"}  # a pass per channel: compared at the end of the first stage, which has few
EARLIEST = {"ss_cam", "is_cam", "poly_cam"}  # many a channel: at the stem
OWN: dict[str, dict[str, Any]] = {  # in place of SAME
    "cameras": {"steps": 3},
    "is_cam": {"steps": 4},
    "poly_cam": {"layers": ()},
    "ss_cam": {"samples": 4},
}
MODULES = {"captum": "captum", "grad-cam": "pytorch_grad_cam", "saliency": "saliency", "torchcam": "torchcam"}


def same(name: str, model: nn.Module, x: Float[Tensor, "B C H W"]) -> dict[str, Any]:
    """Keywords of our method for the comparison with other libraries; the other side is set to the same."""
    params = METHODS[name].params
    keywords: dict[str, Any] = {k: v for k, v in SAME.items() if k in params}
    if "layer" in params:
        ends = [f["module"] for f in getattr(model, "feature_info", []) if "module" in f]
        stem = ends[0] if ends else None
        first = next((s for s in ends if s.startswith("layer")), stem)
        early = first if name in EARLY else stem if name in EARLIEST else None
        keywords["layer"] = early or default_layer(model, tuple(x.shape[1:]))
    return keywords | OWN.get(name, {})


def _captum(cls: str, model: nn.Module, x: Tensor, target: Tensor, layer: str = "", **options: Any) -> None:  # noqa: ANN401
    """An attribution class of captum; modules, not functions, so ReLUs may not work in place."""
    from captum import attr

    inside = [m for m in model.modules() if getattr(m, "inplace", False)] if cls.startswith(("Gui", "Dec")) else []
    for m in inside:
        m.inplace = False  # type: ignore[assignment]
    arguments = (model, model.get_submodule(layer)) if layer else (model,)
    try:
        getattr(attr, cls)(*arguments).attribute(x, target=target, **options)
    finally:
        for m in inside:
            m.inplace = True  # type: ignore[assignment]


def _tunnel(kind: str, model: nn.Module, x: Tensor, target: Tensor) -> None:
    from captum.attr import NoiseTunnel, Saliency

    draws = {"nt_samples": SAME["samples"], "nt_samples_batch_size": SAME["chunk"], "stdevs": 0.5}
    NoiseTunnel(Saliency(model)).attribute(x, nt_type=kind, target=target, abs=False, **draws)


def _grad_cam(cls: str, model: nn.Module, x: Tensor, target: Tensor, layer: str = "", **options: Any) -> None:  # noqa: ANN401
    """A class of pytorch-grad-cam; its call also rescales and resizes the map."""
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    with getattr(pytorch_grad_cam, cls)(model, [model.get_submodule(layer)] if layer else [], **options) as cam:
        cam.batch_size = SAME["chunk"]
        cam(x, [ClassifierOutputTarget(int(t)) for t in target])


def _grad_cam_over(cls: str, model: nn.Module, x: Tensor, target: Tensor, layer: str) -> None:
    """A class of pytorch-grad-cam that wraps another, at the layers that ours takes."""
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    if cls == "FinerCAM":
        pytorch_grad_cam.FinerCAM(model, [model.get_submodule(layer)])(x, target_idx=int(target[0]))
    else:
        names = [*modules_before(model, layer, tuple(x.shape[1:])), layer]
        layers = [model.get_submodule(name) for name in names]
        pytorch_grad_cam.RefineCAM(model, layers)(x, [ClassifierOutputTarget(int(t)) for t in target])


def _ablation(model: nn.Module, x: Tensor, target: Tensor, layer: str) -> None:
    from pytorch_grad_cam.ablation_layer import AblationLayer

    _grad_cam("AblationCAM", model, x, target, layer, ablation_layer=AblationLayer())


def _torchcam(cls: str, model: nn.Module, x: Tensor, target: Tensor, layer: str, **options: Any) -> None:  # noqa: ANN401
    from torchcam import methods as theirs

    if cls == "CAM":
        head = model.get_classifier()  # type: ignore[operator]
        options["fc_layer"] = next(n for n, m in model.named_modules() if m is head)
    with getattr(theirs, cls)(model, layer, input_shape=tuple(x.shape[1:]), **options) as cam:
        cam(target.tolist(), model(x))


def _saliency(cls: str, model: nn.Module, x: Tensor, target: Tensor, mask: str = "GetMask", **options: Any) -> None:  # noqa: ANN401
    """A class of PAIR's saliency: NumPy images H W C, and a function that returns their gradients."""
    from saliency import core

    c = int(target[0])

    def call(image: np.ndarray, call_model_args: object = None, expected_keys: object = None) -> dict[str, np.ndarray]:
        batch = torch.as_tensor(image).to(x).movedim(-1, 1).requires_grad_()
        (g,) = torch.autograd.grad(model(batch)[:, c].sum(), batch)
        return {core.INPUT_OUTPUT_GRADIENTS: g.movedim(1, -1).cpu().numpy()}

    quantile = np.quantile

    def old_quantile(a: np.ndarray, q: float, interpolation: Any) -> Any:  # noqa: ANN401 the name before NumPy 2.4
        return quantile(a, q, method=interpolation)

    options |= {"extra_parameters": core.XRAIParameters(steps=SAME["steps"])} if cls == "XRAI" else {}
    with mock.patch.object(np, "quantile", old_quantile):
        getattr(getattr(core, cls)(), mask)(x[0].movedim(0, -1).cpu().numpy(), call, **options)


_eight = {"batch_size": SAME["chunk"]}
PEERS: dict[tuple[str, str], Callable[..., None]] = {
    ("gradient", "captum"): partial(_captum, "Saliency", abs=False),
    ("gradient", "saliency"): partial(_saliency, "GradientSaliency"),
    ("input_x_gradient", "captum"): partial(_captum, "InputXGradient"),
    ("smooth_grad", "captum"): partial(_tunnel, "smoothgrad"),
    ("smooth_grad", "saliency"): partial(
        _saliency, "GradientSaliency", mask="GetSmoothedMask", nsamples=SAME["samples"], magnitude=False
    ),
    ("smooth_grad_squared", "captum"): partial(_tunnel, "smoothgrad_sq"),
    ("var_grad", "captum"): partial(_tunnel, "vargrad"),
    ("integrated_gradients", "captum"): partial(
        _captum, "IntegratedGradients", n_steps=SAME["steps"], internal_batch_size=SAME["chunk"], method="riemann_right"
    ),
    ("integrated_gradients", "saliency"): partial(_saliency, "IntegratedGradients", x_steps=SAME["steps"], **_eight),
    ("blur_ig", "saliency"): partial(_saliency, "BlurIG", steps=SAME["steps"], **_eight),
    ("guided_ig", "saliency"): partial(_saliency, "GuidedIG", x_steps=SAME["steps"]),
    ("xrai", "saliency"): partial(_saliency, "XRAI", **_eight),
    ("guided_backprop", "captum"): partial(_captum, "GuidedBackprop"),
    ("deconvnet", "captum"): partial(_captum, "Deconvolution"),
    ("guided_grad_cam", "captum"): partial(_captum, "GuidedGradCam", interpolate_mode="bilinear"),
    ("full_grad", "grad-cam"): partial(_grad_cam, "FullGrad"),
    ("occlusion", "captum"): partial(
        _captum,
        "Occlusion",
        sliding_window_shapes=(3, SAME["size"], SAME["size"]),
        strides=(3, SAME["stride"], SAME["stride"]),
        perturbations_per_eval=SAME["chunk"],
    ),
    ("cam", "torchcam"): partial(_torchcam, "CAM"),
    ("grad_cam", "captum"): partial(_captum, "LayerGradCam", relu_attributions=True),
    ("grad_cam", "grad-cam"): partial(_grad_cam, "GradCAM"),
    ("grad_cam", "torchcam"): partial(_torchcam, "GradCAM"),
    ("grad_cam_plus_plus", "grad-cam"): partial(_grad_cam, "GradCAMPlusPlus"),
    ("grad_cam_plus_plus", "torchcam"): partial(_torchcam, "GradCAMpp"),
    ("xgrad_cam", "grad-cam"): partial(_grad_cam, "XGradCAM"),
    ("xgrad_cam", "torchcam"): partial(_torchcam, "XGradCAM"),
    ("hires_cam", "captum"): partial(_captum, "LayerGradientXActivation"),
    ("hires_cam", "grad-cam"): partial(_grad_cam, "HiResCAM"),
    ("layer_cam", "grad-cam"): partial(_grad_cam, "LayerCAM"),
    ("layer_cam", "torchcam"): partial(_torchcam, "LayerCAM"),
    ("eigen_cam", "grad-cam"): partial(_grad_cam, "EigenCAM"),
    ("eigen_grad_cam", "grad-cam"): partial(_grad_cam, "EigenGradCAM"),
    ("score_cam", "grad-cam"): partial(_grad_cam, "ScoreCAM"),
    ("score_cam", "torchcam"): partial(_torchcam, "ScoreCAM", **_eight),
    ("ablation_cam", "grad-cam"): _ablation,
    ("grad_cam_elementwise", "grad-cam"): partial(_grad_cam, "GradCAMElementWise"),
    ("random_cam", "grad-cam"): partial(_grad_cam, "RandomCAM"),
    ("fem", "grad-cam"): partial(_grad_cam, "FEM"),
    ("kpca_cam", "grad-cam"): partial(_grad_cam, "KPCA_CAM"),
    ("shapley_cam", "grad-cam"): partial(_grad_cam, "ShapleyCAM"),
    ("finer_cam", "grad-cam"): partial(_grad_cam_over, "FinerCAM"),
    ("finer_cam", "torchcam"): partial(_torchcam, "FinerCAM"),
    ("refine_cam", "grad-cam"): partial(_grad_cam_over, "RefineCAM"),
    ("smooth_grad_cam_plus_plus", "torchcam"): partial(_torchcam, "SmoothGradCAMpp", num_samples=SAME["samples"]),
    ("ss_cam", "torchcam"): partial(_torchcam, "SSCAM", num_samples=OWN["ss_cam"]["samples"], **_eight),
    ("is_cam", "torchcam"): partial(_torchcam, "ISCAM", num_samples=OWN["is_cam"]["steps"], **_eight),
}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No warnings, progress bars or prints of other libraries."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


def version(package: str) -> str | None:
    """Of an installed library; None: it is not installed."""
    return importlib.metadata.version(package) if importlib.util.find_spec(MODULES[package]) else None


def job_of(call: Callable[..., Any], keywords: Mapping[str, Any], *inputs: Any) -> Job:  # noqa: ANN401
    """A call of another library on (model, x, target); of our keywords it takes the layer, the rest is bound."""
    return partial(call, *inputs, **{k: v for k, v in keywords.items() if k == "layer"})
