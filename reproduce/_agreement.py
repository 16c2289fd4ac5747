"""Maps of ours and of an independent implementation, on the same images: how far apart they are.

The cases on small networks are those of tests/test_reference.py; `TESTS` must be on the path for them.
"""

import contextlib
import copy
import importlib
import importlib.metadata
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from scipy.stats import spearmanr
from torch import Tensor

import _run
from methods import METHODS, _models

TESTS = _run.ROOT / "tests"
LIBRARIES = {"captum": "captum", "grad_cam": "grad-cam", "lime": "lime", "saliency": "saliency", "torchcam": "torchcam"}
BY_HAND = {"literal": "the equations, in loops", "numpy": "the equations, in NumPy matrices"}
FEW = {"samples": 4, "steps": 8, "size": 64, "stride": 32, "chunk": 8}  # on photographs
TOO_LONG = ("ablation_cam", "guided_ig", "is_cam", "score_cam", "ss_cam", "xrai")  # on photographs: passes, or loops
OTHER_NETWORK = {  # their references name layers or regions of the small networks
    ("cam", "torchcam"),
    ("fuse", "grad_cam"),
    ("fuse", "torchcam"),
    ("kernel_shap", "captum"),
    ("lime", "lime"),
    ("refine_cam", "grad_cam"),
    ("refine_cam", "torchcam"),
}
# On photographs. A larger difference is judged again in float64, on one photograph: float32 moves points over the kinks
# of the ReLUs, where the gradient jumps (integrated_gradients: 2e-3), and lets differences of blurs cancel.
LARGEST, LOWEST = 1e-5, 0.999
REMARKS = {  # where a difference is not rounding alone: tests/reference gives the reasons with the tolerances
    ("ablation_cam", "grad_cam"): "its scores are float32",
    ("aug_smooth", "grad_cam"): "its mean is in float32",
    ("blur_ig", "saliency"): "in float32 its derivative, a difference of two blurs over 0.01, cancels",
    ("eigen_cam", "grad_cam"): "its map is float32; compared with center=True",
    ("eigen_cam", "literal"): "power iteration, not run to the end",
    ("eigen_grad_cam", "grad_cam"): "its map is float32; compared with center=True",
    ("eigen_grad_cam", "literal"): "power iteration, not run to the end",
    ("finer_cam", "grad_cam"): "its 1e-9 added to a sum",
    ("fuse", "grad_cam"): "its maps are float32",
    ("grad_cam_plus_plus", "grad_cam"): "its 1e-6 in the denominator",
    ("gradient", "literal"): "central differences",
    ("is_cam", "torchcam"): "its 1e-8 in the denominator",
    ("kernel_shap", "captum"): "it sums in float32",
    ("kpca_cam", "grad_cam"): "its map is float32",
    ("meaningful_perturbation", "literal"): "Adam's steps, from gradients in another order of sums",
    ("opti_cam", "literal"): "Adam's steps, from gradients in another order of sums",
    ("refine_cam", "grad_cam"): "it resizes in float32",
    ("refine_cam", "torchcam"): "its 1e-8 in the denominator",
    ("score_cam", "torchcam"): "its 1e-8 in the denominator",
    ("shapley_cam", "literal"): "a difference quotient",
    ("ss_cam", "torchcam"): "its 1e-8 in the denominator",
    ("xgrad_cam", "grad_cam"): "its 1e-7 in the denominator",
    ("xgrad_cam", "torchcam"): "its 1e-8 in the denominator",
}

Row = dict[str, Any]
Case = tuple[str, str, str, str | None]  # method, reference, network, layer


def agreement(a: Float[Tensor, "B K h w"], b: Float[Tensor, "B K h w"]) -> tuple[float, float]:
    """How far apart maps are: (largest difference, lowest rank correlation) over the images.

    The difference of an image is max |a - b| / max |a|, and max |b| where a is 0; constant maps have no ranks and do
    not count there.
    """
    differences, correlations = [], []
    for ours, theirs in zip(a.detach().double().flatten(1), b.detach().double().flatten(1), strict=True):
        size = float(ours.abs().max()) or float(theirs.abs().max()) or 1.0
        differences.append(float((ours - theirs).abs().max()) / size)
        if len(ours.unique()) > 1 and len(theirs.unique()) > 1:
            correlations.append(float(spearmanr(ours.numpy(), theirs.numpy())[0]))  # type: ignore[arg-type]
    return max(differences), min(correlations, default=math.nan)


def within(a: Tensor, b: Tensor, tolerance: Mapping[str, float]) -> bool:
    """Whether `torch.testing.assert_close` takes the maps for equal."""
    try:
        torch.testing.assert_close(a, b, rtol=tolerance["rtol"], atol=tolerance["atol"])
    except AssertionError:
        return False
    return True


def tests(module: str) -> Any:  # noqa: ANN401
    """A module of tests/."""
    return importlib.import_module(module)


def small_cases() -> Iterator[Case]:
    """The cases of tests/test_reference.py."""
    for m, name, layer, reference in tests("test_reference").cases():
        yield m.name, reference, name, layer


def on_small(method: str, reference: str, net: str, layer: str | None) -> tuple[Tensor, Tensor, dict[str, float]]:
    """One case on a small network in float64: our maps, theirs, and the tolerance of the tests.

    Raises:
        pytest.skip.Exception: the other code cannot do this one; its file says why.
    """
    nets, helpers = tests("nets"), tests("helpers")
    m, theirs = METHODS[method], helpers.references(method)[reference]
    variant = getattr(theirs, "keywords", {})  # ours set to what the other code does
    f = helpers.bound(m, nets.net(net), **({"layer": layer} if layer else {}), **variant)
    a = f(nets.net(net), helpers.images(), helpers.CLASSES)
    keywords = {k: v for k, v in f.keywords.items() if k not in variant}
    keywords |= helpers.masks_of(m, len(a))
    with contextlib.redirect_stderr(io.StringIO()):  # progress bars
        b = theirs(nets.net(net), helpers.images(), helpers.CLASSES, **keywords)
    return a, torch.as_tensor(b, dtype=a.dtype), getattr(theirs, "tolerance", {"rtol": 1e-7, "atol": 1e-10})


def photo_cases(kind: str) -> Iterator[tuple[str, str]]:
    """(method, library) for every library that can run on a network with ReLU6, as the embedded one is."""
    for name, m in METHODS.items():
        fits = kind in m.architectures and m.needs != "relu" and name not in TOO_LONG
        for reference, function in tests("helpers").references(name).items() if fits else ():
            runs = "relu6" in getattr(function, "only", {"relu6"}) and (name, reference) not in OTHER_NETWORK
            if runs and reference in LIBRARIES:
                yield name, reference


def on_photographs(
    run: _run.Run, method: str, reference: str, loaded: _models.Loaded, x: Float[Tensor, "B C H W"], target: Tensor
) -> tuple[Tensor, Tensor]:
    """One case with ImageNet weights, in the number type of x: our maps and theirs."""
    m, theirs = METHODS[method], tests("helpers").references(method)[reference]
    variant = getattr(theirs, "keywords", {})
    few = {k: v for k, v in FEW.items() if k in m.params}
    f = _run.bind(run, method, loaded.model, x, **few, **variant)
    assert isinstance(f, partial)
    model = copy.deepcopy(loaded.model).to(x.dtype)
    a = f(model, x, target)
    keywords = {k: v for k, v in f.keywords.items() if k not in variant}
    b = theirs(model, x, target, **keywords)  # last: some switch in-place operations off
    return a, torch.as_tensor(b, dtype=a.dtype)


def row(method: str, reference: str, part: str, found: Sequence[tuple[float, float]], **facts: Any) -> Row:  # noqa: ANN401
    """One line of the table from the agreements of its cases."""
    library = LIBRARIES.get(reference)
    return {
        "method": method,
        "reference": reference,
        "with": library or BY_HAND.get(reference, reference),
        "version": importlib.metadata.version(library) if library else "",
        "part": part,
        "difference": max(d for d, _ in found),
        "spearman": min((s for _, s in found if not math.isnan(s)), default=math.nan),
        "remark": REMARKS.get((method, reference), ""),
        **facts,
    }


def small_rows(run: _run.Run, names: Sequence[str]) -> list[Row]:
    """The first part: every reference on the small networks."""
    nets, skipped = tests("nets"), tests("pytest").skip.Exception
    run.bar.set_postfix_str("small networks")
    cases = [c for c in small_cases() if c[0] in names]
    if run.args.quick:
        cases = [c for c in cases if c[2] in ("relu", "vit") and c[3] != "layer4.bn2"]
    run.bar.reset(total=len(cases))
    groups: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        groups.setdefault(case[:2], []).append(case)
    rows = []
    for (method, reference), group in groups.items():
        found, close, ran, count = [], [], [], 0
        for case in group:
            run.bar.set_postfix_str(f"{method}, {reference}, {case[2]}")
            try:
                a, b, tolerance = on_small(*case)
            except skipped:
                continue
            finally:
                run.bar.update()
            found.append(agreement(a, b))
            close.append(within(a, b, tolerance))
            ran.append(case[2])
            count += len(a)
        if found:
            facts = {"networks": list(dict.fromkeys(ran)), "cases": count, "within": all(close), "dtype": "float64"}
            rows.append(row(method, reference, "small", found, **facts))
    for name in dict.fromkeys(r["method"] for r in rows):  # noted for the sidecar
        net = nets.net("vit" if "cnn" not in METHODS[name].architectures else "relu")
        _run.bind(run, name, net, torch.zeros(1, 3, 32, 32, dtype=torch.float64))
    return rows


def photo_rows(run: _run.Run, names: Sequence[str], loaded: _models.Loaded, x: Tensor, target: Tensor) -> list[Row]:
    """The second part: the libraries with ImageNet weights."""
    rows = []
    cases = [(n, r) for n, r in photo_cases("cnn") if n in names]
    run.bar.reset(total=len(cases))
    for method, reference in cases:
        run.bar.set_postfix_str(f"{method}, {reference}, {loaded.tag}")
        difference, rho = agreement(*on_photographs(run, method, reference, loaded, x, target))
        facts: Row = {"networks": [loaded.tag], "cases": len(x), "within": rho >= LOWEST, "dtype": "float32"}
        rows.append(row(method, reference, "float32", [(difference, rho)], **facts))
        if difference > LARGEST:  # rounding, if it is gone in float64
            exact = agreement(*on_photographs(run, method, reference, loaded, x[:1].double(), target[:1]))
            facts |= {"cases": 1, "within": exact[0] <= LARGEST and exact[1] >= LOWEST, "dtype": "float64"}
            rows.append(row(method, reference, "float64", [exact], **facts))
        run.bar.update()
    return rows
