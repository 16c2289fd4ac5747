"""RefineCAM, written out literally for the nets of the tests, and by pytorch-grad-cam and torchcam."""

import numpy as np
import pytorch_grad_cam.refine_cam as package
import torch
from pytorch_grad_cam import GradCAMPlusPlus
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch.nn import functional as F
from torchcam import methods as _torchcam

from helpers import not_in_place
from methods._torch import minmax, score
from methods.refine_cam import plus_plus, refine_cam
from peers import at, grid, on

FINER = {  # by hand: the last block of each grid that is finer
    "layer2": ["layer1"],
    "layer3": ["layer1"],
    "layer4": ["layer1", "layer3"],
    "layer4.bn2": ["layer1", "layer3"],
    "norm": ["patch_embed"],
}


def _up(L, x):
    return F.interpolate(L, size=x.shape[2:], mode="bilinear", align_corners=False)


def literal(model, x, target, *, layer):
    M = torch.ones_like(x[:, :1])
    for name in [*FINER.get(layer, []), layer]:
        for b, (A, g, _) in enumerate(at(model, x, target, name)):
            L = torch.zeros_like(A[0])
            for k in range(len(A)):
                total, w = float(A[k].sum()), 0.0
                for d in g[k].flatten().tolist():
                    w += max(d, 0.0) * d**2 / (2 * d**2 + total * d**3) if d != 0 else 0.0
                L += w * A[k]
            L = _up(L.clamp(min=0)[None, None], x)[0]
            M[b] *= (L - L.min()) / (L.max() - L.min()) if L.max() > L.min() else 0.0
    return M


def _layer_cam(A, g):
    return (g.relu() * A).sum(dim=1, keepdim=True).relu()


def _released(A, g):
    """The base that the authors released: pytorch-grad-cam's Grad-CAM++."""
    return plus_plus(A, g, eps=1e-6)


LAYERS = ("layer1", "layer2")


@on("relu", "silu_se", "gelu_ln", rtol=1e-4, atol=1e-5)  # float32 resizing, and its 1e-7 beside max - min
def grad_cam(model, x, target, *, layer):
    """Before it rescales the product."""
    model = not_in_place(model)
    layers = [model.get_submodule(name) for name in dict.fromkeys([*LAYERS, layer])]
    cam = package.RefineCAM(model, layers, reshape_transform=grid, base_method=GradCAMPlusPlus)
    scale, package.scale_cam_image = package.scale_cam_image, lambda product: product
    try:
        return torch.as_tensor(np.asarray(cam(x, [ClassifierOutputTarget(int(t)) for t in target])))[:, None]
    finally:
        package.scale_cam_image = scale


@on("relu", "silu_se", "gelu_ln")
def torchcam(model, x, target, *, layer):
    """It rescales before it resizes: hand it resized maps, a million times as large, to drown its 1e-8."""
    model = not_in_place(model)
    layers = [*dict.fromkeys([*LAYERS, layer])]
    with _torchcam.LayerCAM(model, layers, input_shape=x.shape[1:]) as extractor:
        maps = [m.detach() for m in extractor(target.tolist(), model(x), normalized=False)]
    maps = [1e6 * _up(m.relu()[:, None], x)[:, 0] for m in maps]
    return _torchcam.RefineCAM.fuse_cams(maps, tuple(x.shape[2:]), normalized=False)[:, None]


grad_cam.keywords = {"layers": LAYERS, "of": _released}
torchcam.keywords = {"layers": LAYERS, "of": _layer_cam}  # its Grad-CAM++ is another


def authors(net, x, target, golden):
    """Their base has 1e-6 in a denominator; the product is rescaled once more."""

    def theirs(y):
        return minmax(refine_cam(net, x, y, layer="layer4", layers=["layer1", "layer2", "layer3"], of=_released))

    return {"map": theirs(target), "map_head_times_1000": theirs(lambda z: 1000 * score(z, target))}
