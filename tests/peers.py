"""How tests/reference calls the other libraries: raw maps, before their own clipping, resizing and rescaling."""

import numpy as np
import torch
from captum.attr import NoiseTunnel, Saliency
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

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


def draws(x, samples, noise, seed):
    """The noise of the noisy methods, B C H W a sample: one tensor shared by the batch, scaled for each image."""
    rng = torch.Generator().manual_seed(seed)
    sigma = torch.stack([noise * (image.max() - image.min()) for image in x])
    for _ in range(samples):
        n = torch.randn(x.shape[1:], generator=rng, dtype=x.dtype)
        yield torch.stack([s * n for s in sigma])


def noisy_gradients(model, x, target, samples, noise, seed):
    """The gradient at each noisy copy, image by image: B C H W a sample."""
    for eps in draws(x, samples, noise, seed):
        maps = []
        for image, e, t in zip(x, eps, target, strict=True):
            point = (image + e).requires_grad_()
            maps.append(torch.autograd.grad(model(point[None])[0, t], point)[0])
        yield torch.stack(maps)


def noise_tunnel(kind, model, x, target, samples, noise, seed):
    """captum's NoiseTunnel, fed with our noise: it draws one tensor for all, sample-major in each image."""
    eps = torch.stack(list(draws(x, samples, noise, seed)), dim=1).flatten(0, 1)
    normal, torch.normal = torch.normal, lambda mean, std: eps
    try:
        return NoiseTunnel(Saliency(model)).attribute(x, nt_type=kind, nt_samples=samples, target=target, abs=False)
    finally:
        torch.normal = normal


def principal(O):
    """O v_1 by power iteration on O^T O, positions x channels; sign by the summed activation."""
    O = O.numpy()
    unit = O / np.abs(O).max()
    v = np.ones(O.shape[1])
    for _ in range(20000):
        v = unit.T @ (unit @ v)
        v /= np.linalg.norm(v)
    L = O @ v
    return L if L @ O.sum(axis=1) >= 0 else -L


def gradient_with_relu_rule(model, x, target, rule):
    """The gradient with every nn.ReLU handing back rule(f, R), number by number: f its input, R what arrives."""

    class Ruled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, f):
            ctx.f = f
            return f.clamp(min=0)

        @staticmethod
        def backward(ctx, R):
            pairs = zip(ctx.f.flatten().tolist(), R.flatten().tolist(), strict=True)
            return torch.tensor([rule(f, r) for f, r in pairs], dtype=R.dtype).view_as(R)

    class Layer(nn.Module):
        def forward(self, x):
            return Ruled.apply(x)

    model = not_in_place(model)
    for m in list(model.modules()):
        for name, child in m.named_children():
            if isinstance(child, nn.ReLU):
                setattr(m, name, Layer())
    x = x.clone().requires_grad_()
    return torch.autograd.grad(model(x).gather(1, target[:, None]).sum(), x)[0]
