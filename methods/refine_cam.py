"""How to Evaluate and Refine your CAM (RefineCAM).

Domeniconi, Stramiglio, Lombardi, Salti. 2026. arXiv:2605.14641

    M_l = N( U( L_l ) ),  N = min-max to [0, 1]                       (the map of one layer, on the image's grid)
    M   = prod_l  M_l                                                 (all layers must agree)
    L_l = ReLU( sum_k  w_k A^k ),  w_k = sum_ij  alpha_ij ReLU(g_ij)  (Grad-CAM++ at layer l: `plus_plus`)

A, g    output of layer l, gradient of the score there   A, g
L_l     a CAM of layer l                                 of(A, g)
U       bilinear resize                                  upsample
l       from the image to the deepest one                layers, layer

Differs from the paper: its text was not available. The order of steps, the base CAM and the layers follow the authors'
code (liuktc/RefineCAM@40c2603). A constant map of a layer, which that code refuses, is 0.
Differs from other code: the authors rescale the product to [0, 1] again. Their base CAM has 1e-6 in the denominator of
alpha, 2 g^2 + ..., which is of=partial(plus_plus, eps=1e-6): M changes by up to 0.0014 on tests/golden, and by more
where gradients are small. The default is Grad-CAM++ without it, as in its paper. torchcam rescales before it resizes,
so that its factors need not reach 0 and 1, and its Grad-CAM++ is different (see grad_cam_plus_plus). pytorch-grad-cam
adds 1e-7 to each range and runs the network once for each layer; its step to put the maps in [0, 1] does nothing, since
they already are.
Good to know: all layers share one forward and one backward pass. The default layers are the last stage on each finer
grid, and `layer`: layer1 to layer4 of a resnet50. If all blocks have one grid (ViT), it is `layer` alone; the authors
name norm1 of the last four blocks. The map is as sharp as the finest one, and 0 wherever one layer is at its minimum.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch
from jaxtyping import Float
from torch import Tensor, nn

from methods import _grids, _layers
from methods._calls import run
from methods._cost import Passes
from methods._registry import method
from methods._torch import (
    Target,
    at_least_float32,
    double_backward,
    layer_hook,
    minmax,
    ratio,
    require_gradient,
    score,
    upsample,
)


def modules_before(model: nn.Module, layer: str, image: _layers.Image) -> list[str]:
    """The last stage on each grid finer than that of `layer`, if it is made of modules; so without the stem."""
    finer = _layers.finer_layers(model, layer, image)
    return [name for name in finer if any(True for _ in model.get_submodule(name).children())]


def plus_plus(
    A: Float[Tensor, "B K h w"], g: Float[Tensor, "B K h w"], *, eps: float = 0.0
) -> Float[Tensor, "B 1 h w"]:
    """Grad-CAM++ of one layer; `eps` is added to the denominator of alpha = g^2 / ( 2 g^2 + sum A g^3 + eps )."""
    more = ratio(torch.full_like(g, eps), g.square()) if eps else 0.0  # B K h w
    alpha = ratio(torch.ones_like(g), 2 + A.sum(dim=(2, 3), keepdim=True) * g + more)  # B K h w
    w = (alpha * g.relu()).sum(dim=(2, 3), keepdim=True)  # B K 1 1
    return (w * A).sum(dim=1, keepdim=True).relu()  # B 1 h w


@torch.enable_grad()
def activations_and_gradients(
    model: nn.Module, x: Float[Tensor, "B C H W"], target: Target, layer: str, layers: Sequence[str] | None
) -> list[tuple[Float[Tensor, "B K h w"], Float[Tensor, "B K h w"]]]:
    """(A, dy/dA) of `layers` and of `layer`, in one pass each way; None: `modules_before` it."""
    kept: dict[str, Tensor] = {}  # in execution order

    def read(name: str) -> Callable[[Tensor], Tensor]:
        at = _layers.layout(model, name, x)

        def replace(out: Tensor) -> Tensor:
            torch.set_grad_enabled(True)  # from the first layer on; the block below restores the mode
            A = _grids.to_grid(out, at)
            kept[name] = A if A.requires_grad else A.detach().requires_grad_()
            return _grids.from_grid(kept[name].clone(), out, at)  # in-place operations follow

        return replace

    layers = modules_before(model, layer, x) if layers is None else layers
    with ExitStack() as stack:
        for name in {layer, *layers}:
            stack.enter_context(layer_hook(model, name, read(name)))
        stack.enter_context(torch.set_grad_enabled(x.requires_grad))
        stack.enter_context(double_backward(x.requires_grad))
        y = score(run(model, x), target)  # B
    A = [*kept.values()]
    g = torch.autograd.grad(y.sum(), A, create_graph=x.requires_grad, allow_unused=True)
    g = [require_gradient(model, x, name, g_l) for name, g_l in zip(kept, g, strict=True)]
    A = A if x.requires_grad else [A_l.detach() for A_l in A]
    return [(at_least_float32(A_l), at_least_float32(g_l)) for A_l, g_l in zip(A, g, strict=True)]


@method(
    title="RefineCAM",
    cite="domeniconi2026refinecam",
    family="cam",
    forward=1,
    backward=Passes(1, before=0),
    signed=False,
    source="authors' code",
    verified=("literal", "grad_cam", "torchcam", "authors"),
    fails={"random_logit": "positive gradients alone: hardly another map for another class, on small networks"},
)
def refine_cam(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Target,
    *,
    layer: str,
    layers: Sequence[str] | None = None,
    of: Callable[[Tensor, Tensor], Tensor] = plus_plus,
) -> Float[Tensor, "B 1 H W"]:
    """Where CAMs of all depths agree: as selective as `layer`, as fine as the first of `layers`."""
    M = torch.ones_like(x[:, :1], dtype=at_least_float32(x).dtype)  # B 1 H W
    for A, g in activations_and_gradients(model, x, target, layer, layers):  # B K h w each
        M = M * minmax(upsample(of(A, g), x))  # B 1 H W   M_l
    return M
