"""How tests/reference calls the other libraries: raw maps, before their own clipping, resizing and rescaling."""

import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from helpers import not_in_place

CNN = {"relu", "relu_module", "relu_functional", "relu_tensor", "relu6", "elu", "silu_se", "gelu_ln"}


def grid(out):
    """The helper that a user of pytorch-grad-cam writes: tokens of 32 px / 8 or NHWC -> B K h w."""
    if out.ndim == 3:
        return out[:, -16:].transpose(1, 2).reshape(len(out), -1, 4, 4)
    return out.permute(0, 3, 1, 2) if out.shape[1] == out.shape[2] != out.shape[3] else out


def grad_cam_package(cls, model, x, target, layer, **options):
    """The map of a pytorch-grad-cam class as its get_cam_image returns it: B 1 h w."""
    model = not_in_place(model)
    cam = cls(model, [model.get_submodule(layer)], reshape_transform=grid, **options)
    targets = [ClassifierOutputTarget(int(t)) for t in target]
    cam.outputs = cam.activations_and_grads(x)
    sum(t(y) for t, y in zip(targets, cam.outputs, strict=True)).backward()
    A, g = (v[0].numpy() for v in (cam.activations_and_grads.activations, cam.activations_and_grads.gradients))
    raw = cam.get_cam_image(x, model.get_submodule(layer), targets, A, g, False)
    return torch.as_tensor(raw)[:, None]


def torchcam_package(cls, model, x, target, layer, **options):
    """The un-normalised map of a torchcam class: B 1 h w."""
    model = not_in_place(model)
    with cls(model, layer, input_shape=x.shape[1:], **options) as extractor:
        return extractor(target.tolist(), model(x), normalized=False)[0].detach()[:, None]


def on(*nets, **tolerance):
    """Marks a reference: the nets it can run on, and a tolerance if it is not the usual one."""

    def mark(fn):
        if nets:
            fn.only = set(nets)
        if tolerance:
            fn.tolerance = tolerance
        return fn

    return mark


def at(model, x, target, layer):
    """Literal activation and gradient: [(A, g) as K h w tensors, one per image], by hooks on copies of one image."""
    kept, pairs = {}, []

    def keep(_module, _args, out):
        kept["out"] = out
        return out.clone()  # the block's `x += shortcut` would overwrite it

    handle = model.get_submodule(layer).register_forward_hook(keep)
    for b in range(len(x)):
        y = model(x[b : b + 1])[0, target[b]]
        (g,) = torch.autograd.grad(y, kept["out"])
        pairs.append((grid(kept["out"])[0].detach(), grid(g)[0], float(y)))
    handle.remove()
    return pairs
