"""BagCAM, by the formula of the authors' code, with guided ReLUs from captum."""

import torch
from captum.attr import GuidedBackprop

from helpers import not_in_place
from methods._torch import minmax, upsample
from methods.bag_cam import bag_cam


def literal(model, x, target, *, layer):
    """Forward and backward with captum's hooks on every ReLU; the formula position by position."""
    model = not_in_place(model)
    guided = GuidedBackprop(model)
    model.apply(guided._register_hooks)
    kept = {}
    handle = model.get_submodule(layer).register_forward_hook(lambda _m, _a, out: kept.__setitem__("A", out))
    logits = model(x)
    log_y = logits.gather(1, target[:, None]).abs().log()  # of -y where y < 0: the same gradient, dy / y
    (G,) = torch.autograd.grad(log_y.sum(), kept["A"])
    handle.remove()
    guided._remove_hooks()
    maps = []
    for A, g in zip(kept["A"].detach(), G, strict=True):
        L = torch.zeros_like(A[0])
        for k in range(len(A)):
            localizer = float((g[k] * A[k] + 1).mean())
            for i in range(A.shape[1]):
                for j in range(A.shape[2]):
                    L[i, j] += max(localizer * float(g[k, i, j] * A[k, i, j]), 0.0)
        maps.append(L[None])
    return torch.stack(maps)


def authors(net, x, target, golden):
    """They resize the map to the image and rescale it."""

    def theirs(layer, classes):
        return minmax(upsample(bag_cam(net, x, classes, layer=layer), x))

    negative = torch.as_tensor(golden["target_negative"])  # classes whose score is below 0
    return {
        "map": theirs("layer4", target),
        "map_layer3": theirs("layer3", target),
        "map_layer2": theirs("layer2", target),
        "map_layer3_negative": theirs("layer3", negative),
    }
