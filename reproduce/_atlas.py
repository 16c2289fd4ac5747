"""One model of the table of models: how it is built, what its probe finds, and what every method does with it."""

import importlib
import inspect
import re
import time
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from methods import METHODS, _layers, attribute
from methods._calls import copy_of, first_tensor, logits, run
from methods._registry import Method

SIZES = (64, 96, 112, 128, 160, 192)  # methods run at the first that the model takes, else at its own size
FEWER = {  # where a method has them
    "samples": 2, "steps": 3, "size": 32, "stride": 32, "groups": 16, "max_sigma": 4.0,
    "segments": 3, "designs": 2, "k": 2,
}  # fmt: skip
MANY = 40  # passes; a method that needs more takes the candidate layer with the fewest channels
LIMIT = 10.0  # seconds that a call may be expected to take
NAMED = re.compile(r"(model|layer|layers|x|target): ")  # a refusal names the argument
EQUAL = 1e-2  # of the largest value of a map; if float32 differs by more, float64 must not

# The smallest classifier (parameters x pixels) of every module of timm that has one.
TIMM = (
    "beit_base_patch16_224", "halonet_h1", "mobileone_s1", "cait_xxs24_224", "coat_tiny", "convit_tiny",
    "convmixer_768_32", "convnext_zepto_rms", "cpubone_nano", "crossvit_tiny_240", "csatv2", "cs3darknet_focus_s",
    "cspnext_tiny", "davit_tiny", "deit_tiny_patch16_224", "densenet121", "dla46x_c", "dpn48b", "edgenext_xx_small",
    "efficientformer_l1", "efficientformerv2_s0", "tinynet_e", "efficientvim_m1", "efficientvit_b0",
    "efficientvit_m0", "eva02_tiny_patch14_336", "fasternet_t0", "fastvit_t8", "focalnet_tiny_srf", "gcvit_xxtiny",
    "ghostnet_050", "hardcorenas_b", "hgnetv2_b0", "hiera_tiny_224", "hieradet_small", "hrnet_w18_small", "iformer_t",
    "inception_next_atto", "inception_resnet_v2", "inception_v3", "inception_v4", "lcnetv2_small", "levit_128s",
    "lowformer_b0", "mambaout_femto", "maxvit_pico_rw_256", "poolformerv2_s12", "gmlp_ti16_224",
    "mobilenetv3_small_050", "mobilenetv5_base", "mobilevit_xxs", "mvitv2_tiny", "naflexvit_base_patch16_parfac_gap",
    "nasnetalarge", "nest_tiny", "nextvit_small", "nf_regnet_b0", "pit_ti_224", "pnasnet5large", "pvt_v2_b0",
    "rdnet_tiny", "regnetx_002", "repghostnet_050", "repvit_m1", "res2next50", "resnest14d", "resnet10t",
    "resnetv2_18", "rexnet_100", "selecsls42", "legacy_seresnet18", "sequencer2d_s", "shvit_s1", "skresnet18",
    "starnet_s050", "swiftformer_xs", "swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256", "swinv2_cr_tiny_224",
    "tiny_vit_5m_224", "tnt_s_legacy_patch16_224", "tresnet_m", "twins_svt_small", "vgg11", "visformer_tiny",
    "vit_tiny_patch16_224", "vit_tiny_r_s16_p8_224", "vit_srelpos_small_patch16_224", "samvit_base_patch16_224",
    "vitamin_small_224", "volo_d1_224", "ese_vovnet19b_slim_dw", "legacy_xception", "xception41p",
    "xcit_nano_12_p8_224",
)  # fmt: skip
TORCHVISION = (
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet", "inception_v3",
    "maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_y_400mf", "resnet18", "resnext50_32x4d",
    "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "swin_v2_t", "vgg11", "vit_b_32", "wide_resnet50_2",
)  # fmt: skip
SMALL = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96}
TRANSFORMERS: dict[str, dict[str, Any]] = {  # class -> its config; the image has 224 x 224 pixels
    "ViTForImageClassification": SMALL,
    "DeiTForImageClassification": SMALL,
    "DeiTForImageClassificationWithTeacher": SMALL,
    "BeitForImageClassification": SMALL,
    "Dinov2ForImageClassification": {k: v for k, v in SMALL.items() if k != "intermediate_size"},
    "SiglipForImageClassification": {"vision_config": SMALL | {"image_size": 224, "patch_size": 16}},
    "SwinForImageClassification": {"embed_dim": 24, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 4, 8]},
    "ConvNextForImageClassification": {"hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 2, 1]},
    "ResNetForImageClassification": {
        "embedding_size": 16,
        "hidden_sizes": [16, 24, 32, 48],
        "depths": [1, 1, 1, 1],
        "layer_type": "basic",
    },
    "MobileViTForImageClassification": {"image_size": 256},
}


class Member(NamedTuple):
    """A model of the table."""

    source: str  # timm, torchvision or transformers
    family: str
    name: str


def members() -> Iterator[Member]:
    """Every model of the table, in its order."""
    for name in TIMM:
        yield Member("timm", timm.models.model_entrypoint(name).__module__.rpartition(".")[2], name)
    for name in TORCHVISION:
        yield Member("torchvision", torchvision.models.get_model_builder(name).__module__.rpartition(".")[2], name)
    for name in TRANSFORMERS:
        yield Member("transformers", name.partition("For")[0].lower(), name)


def build(member: Member, size: int | None = None) -> tuple[nn.Module, tuple[int, int, int]]:
    """The model with random weights, and the C H W that it declares, or `size` squared.

    What is zero after initialisation (a head, the last norm of a block) gets small random weights: it would hide what
    comes before it. Statistics of batch norms are those of noise: else activations vanish or grow from layer to layer.

    Args:
        member: one of `members`.
        size: also of what the model is built for, where it can be.
    """
    torch.manual_seed(0)
    model: Any
    shape: Any
    if member.source == "timm":
        own: dict[str, Any] = {} if size is None else {"img_size": size}
        model = timm.create_model(member.name, pretrained=False, **own)
        shape = tuple(model.pretrained_cfg["input_size"])
    elif member.source == "torchvision":
        keywords = {"init_weights": True} if member.name in ("googlenet", "inception_v3") else {}
        model = torchvision.models.get_model(member.name, weights=None, **keywords)
        shape = (3, 299, 299) if member.name == "inception_v3" else (3, 224, 224)
    else:
        kind = getattr(importlib.import_module("transformers"), member.name)
        facts = {"image_size": 224} | TRANSFORMERS[member.name]
        known = inspect.signature(kind.config_class).parameters
        facts = {k: v for k, v in facts.items() if k in known}
        model = kind(kind.config_class(**facts, num_labels=10))
        shape = (3, *[TRANSFORMERS[member.name].get("image_size", 224)] * 2)
    shape = (shape[0], size or shape[1], size or shape[2])
    norms = [
        m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.running_mean is not None
    ]
    with torch.no_grad():
        for p in model.parameters():
            if p.is_floating_point() and not p.any():
                p.normal_(std=0.02)
        for norm in norms:
            norm.momentum = 1.0
        if norms:
            model.train()(torch.randn(4, *shape))
    return model.eval(), shape


def smaller(
    member: Member, model: nn.Module, shape: tuple[int, int, int], found: _layers.Probe
) -> tuple[nn.Module, tuple[int, int, int]]:
    """The model at the smallest size at which the probe finds the same as at its own size, on 3 x 3 cells or more."""
    enough = min(3, _coarsest(found))
    for size in (s for s in SIZES if s < min(shape[1:])):
        for given in (None, size):
            try:
                other = build(member, given)[0]
                there = _layers.probe(other, (shape[0], size, size))
            except Exception:  # it does not take this size
                continue
            same = (there.layer, there.architecture, there.tokens is None, there.attention) == (
                found.layer, found.architecture, found.tokens is None, found.attention,
            )  # fmt: skip
            if same and _coarsest(there) >= enough:
                return other, (shape[0], size, size)
    return model, shape


def _coarsest(found: _layers.Probe) -> int:
    """Rows or columns of the coarsest layer: not only of the default one, which may pool to a fixed size."""
    grids = [found.grids[name] for name in {*found.candidates, found.layer} if name]
    return min((min(at.h, at.w) for at in grids), default=3)


def examine(member: Member) -> dict[str, Any]:
    """What the probe finds in a model, and for every method `runs`, `refuses` or `fails`, with the reason."""
    warnings.simplefilter("ignore")
    started = time.perf_counter()
    model, shape = build(member)
    found = _layers.probe(model, shape)
    at = found.grids.get(found.layer or "")
    row: dict[str, Any] = {
        "source": member.source,
        "family": member.family,
        "name": member.name,
        "parameters": sum(p.numel() for p in model.parameters()),
        "size": shape,
        "kind": found.architecture,
        "layer": found.layer,
        "grid": at and (at.h, at.w),
    }
    model, shape = smaller(member, model, shape, found)
    noise = torch.randn(2, shape[0], 8, 8, generator=torch.Generator().manual_seed(0))
    x = F.interpolate(noise, shape[1:], mode="bilinear")
    with torch.no_grad():
        spread = logits(model, x).std()
        for name in found.head:  # logits of a usual size: random weights make some that saturate every softmax
            layer: Any = model.get_submodule(name)
            layer.weight.div_(spread)
            if layer.bias is not None:
                layer.bias.zero_()
        y = logits(model, x)
        clock = time.perf_counter()
        logits(model, x)
        pass_seconds = (time.perf_counter() - clock) / len(x)
    target = torch.stack([y[0].argmax(), y[1].argmin()])
    before = [t.clone() for t in [*model.parameters(), *model.buffers()]]
    widths = _widths(model, x)
    methods = {name: _one(m, model, x, target, widths, pass_seconds, before) for name, m in METHODS.items()}
    return row | {"methods at": shape, "methods": methods, "seconds": round(time.perf_counter() - started, 1)}


def _one(
    m: Method,
    model: nn.Module,
    x: Tensor,
    target: Tensor,
    widths: Mapping[str, int],
    pass_seconds: float,
    before: list[Tensor],
) -> dict[str, Any]:
    """The outcome of one method: runs, with what held; refuses, with its sentence; or fails, with the reason."""
    keywords = fewer(m)
    found = _layers.probe(model, x)
    try:
        passes = _passes(m, x, found, widths, keywords)
        if passes > MANY and "layer" in m.params and found.candidates:
            keywords["layer"] = min(found.candidates, key=widths.__getitem__)
            passes = _passes(m, x, found, widths, keywords)
        if passes * pass_seconds > LIMIT:
            return {"status": "not run", "why": f"{passes} passes"}
        together = attribute(m.name, model, x, target, resize=False, **keywords).detach()
        alone = passes * pass_seconds * 2 < LIMIT
        single = attribute(m.name, model, x[1:], target[1:], resize=False, **keywords).detach() if alone else None
    except Exception as error:
        if isinstance(error, ValueError | TypeError) and NAMED.match(str(error)):
            return {"status": "refuses", "why": str(error)}
        return {"status": "fails", "why": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
    wrong = []
    if together.ndim != 4 or len(together) != 2:
        wrong.append(f"returned {tuple(together.shape)}")
    if single is not None and not _equal(together[1:], single):
        exact = copy_of(model).double()  # is it rounding?
        call = partial(attribute, m.name, exact, resize=False, **keywords)
        if not _equal(call(x=x.double(), target=target)[1:], call(x=x[1:].double(), target=target[1:])):
            wrong.append("the map of an image depends on its batch")
    if not all(map(torch.equal, before, [*model.parameters(), *model.buffers()])) or any(
        k._forward_hooks or k._forward_pre_hooks or k.training for k in model.modules()
    ):
        wrong.append("the model was changed")
    if wrong:
        return {"status": "fails", "why": "; ".join(wrong)}
    alive = _varies(together)
    if not alive:  # a map of positive evidence may be empty for one class
        alive = _varies(attribute(m.name, model, x, target.flip(0), resize=False, **keywords).detach())
    return {"status": "runs", "alive": alive, "alone": single is not None} | (
        {"layer": keywords["layer"]} if "layer" in keywords else {}
    )


def fewer(m: Method) -> dict[str, Any]:
    """Its keywords in FEWER; XRAI's segments are masks."""
    return {k: v for k, v in FEWER.items() if k in m.params and (k, m.name) != ("segments", "xrai")}


def _varies(a: Tensor) -> bool:
    """Whether the map of an image is not the same everywhere."""
    flat = a.flatten(1)
    return bool((flat.amax(dim=1) > flat.amin(dim=1)).any())


def _equal(a: Tensor, b: Tensor) -> bool:
    return float((a - b).abs().max()) <= EQUAL * float(a.abs().max())


def _passes(m: Method, x: Tensor, found: _layers.Probe, widths: Mapping[str, int], keywords: Mapping[str, Any]) -> int:
    """Passes for each image, forward and twice the backward ones, at the keywords' layer or the default one."""
    layer = keywords.get("layer") or found.layer or ""
    at, width = found.grids.get(layer), widths.get(layer, 1)
    sizes = {"H": x.shape[2], "W": x.shape[3], "K": width, "h": at.h if at else 1, "w": at.w if at else 1}
    cost = m.cost(**sizes, depth=4, channels=2 * width, **keywords)
    return cost.forward.total + 2 * cost.backward.total


def _widths(model: nn.Module, x: Tensor) -> dict[str, int]:
    """The channels of every layer that has a grid."""
    grids, widths = _layers.probe(model, x).grids, {}

    def note(name: str, _module: nn.Module, _args: object, out: object) -> None:
        if (tensor := first_tensor(out)) is not None:
            widths[name] = tensor.shape[grids[name].channel]

    handles = [model.get_submodule(name).register_forward_hook(partial(note, name)) for name in grids]
    with torch.no_grad():
        run(model, x)
    for handle in handles:
        handle.remove()
    return widths
