"""ShapleyCAM, with the Hessian's product as a difference of gradients, and by pytorch-grad-cam."""

import torch
from pytorch_grad_cam import ShapleyCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from helpers import not_in_place
from methods.shapley_cam import rest, shapley_cam
from peers import CNN, at, grid, on


def _gradient_at(model, image, c, layer, scale):
    """Gradient at the layer with its grid, and only that, multiplied by `scale`."""
    kept = {}

    def change(_module, _args, out):
        out = out.detach().clone()
        if out.ndim == 3:
            out[:, -16:] *= scale  # not the class and register tokens
        else:
            out *= scale
        kept["A"] = out.requires_grad_()
        return out.clone()

    handle = model.get_submodule(layer).register_forward_hook(change)
    (g,) = torch.autograd.grad(model(image[None])[0, c], kept["A"])
    handle.remove()
    return grid(g)[0]


def literal(model, x, target, *, layer):
    maps, step = [], 1e-5
    for b, (A, g, _) in enumerate(at(model, x, target, layer)):
        up, down = (_gradient_at(model, x[b], target[b], layer, 1 + s) for s in (step, -step))
        HA = (up - down) / (2 * step)
        L = torch.zeros_like(A[0])
        for k in range(len(A)):
            L += float((g[k] - HA[k] / 2).sum() / A[k].numel()) * A[k]
        maps.append(L.clamp(min=0)[None])
    return torch.stack(maps)


literal.tolerance = {"rtol": 1e-5, "atol": 1e-8}  # a difference quotient


@on(*CNN, "swin")  # its product counts class tokens as features, and its sum raises on tokens
def grad_cam(model, x, target, *, layer):
    model = not_in_place(model)
    cam = ShapleyCAM(model, [model.get_submodule(layer)], reshape_transform=grid)
    x = x.clone().requires_grad_()
    targets = [ClassifierOutputTarget(int(t)) for t in target]
    outputs = cam.activations_and_grads(x)
    total = sum(t(y) for t, y in zip(targets, outputs, strict=True))
    torch.autograd.grad(total, x, retain_graph=True, create_graph=True)
    (A,), (g,) = cam.activations_and_grads.activations, cam.activations_and_grads.gradients
    w = torch.as_tensor(cam.get_cam_weights(x, None, targets, A, g))
    return (w[:, :, None, None] * grid(A).detach()).sum(dim=1, keepdim=True).relu()


def authors(net, x, target, golden):
    """Their repository has the elementwise form; literal and grad_cam above are the default."""

    def theirs(layer, utility):
        return shapley_cam(net, x, utility, layer=layer, weights="elementwise")

    return {
        "map": theirs("layer4", rest(target)),
        "map_logit": theirs("layer4", target),
        "map_layer2_rest": theirs("layer2", rest(target)),
        "map_layer2_logit": theirs("layer2", target),
    }
