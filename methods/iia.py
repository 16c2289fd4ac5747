"""Visual Explanations via Iterated Integrated Attributions.

Barkan, Elisha, Asher, Eshel, Koenigstein. ICCV 2023, pages 2073-2084.

    v^l = r^l + a_l (u^l - r^l)                          (the image and chosen layers move on straight ways)
    q   = v^L * df / dv^L                                (the integrand)
    m   = int_0^1 ... int_0^1  sum_k  (u^L - r^L) * [ int_0^1 q da_L ]  ...  da_0        (the map)

u^l     output of layer l, given v of those before it    A; for the image x
r^l     reference: in each channel, its minimum          by `starting_point`; for the image `baseline`, x_
v^l     the point on the way                             V; for the image X
a_l     position on the way, `steps` points each         a, with weights w by `rule`
f       score of the explained class                     edited_gradients
L       the layer that is explained                      layer

Differs from the paper: the default follows the paper's equation, not the authors' code. One more layer between image
and L (the paper's IIA3) is integrated over where `earlier` names it; without it the map is IIA2. The image's reference
is 0, the authors' code. On a ViT the paper integrates over attention maps from 0, with a rollout in q; here every
model's layers are read as grids of features.
Differs from other code: form="released" is iia-iccv23/iia@c3809e6, for CNNs. Each way has steps + 1 points, with both
ends; they are summed; there is no factor u - r; `rule` and `reference` do nothing. The default's correlation with its
maps of two images is 0.93 and 0.92 for IIA2, 0.69 and 0.72 for IIA3:

    IIA2 = sum  sum_k  ReLU( u^L ) df/du^L               (over images: r is u, a minimum over an axis of length 1)
    IIA3 = sum  sum_k  ReLU( ReLU( v^L ) df/dv^L )       (r, at both layers: the minimum over images)

Good to know: n steps cost n^2 scores, n^3 with `earlier`; the network up to a layer runs once on what enters it. The
released forms cost n + 1 and (n + 1)^3; in the second all n + 1 points between baseline and image enter together.
With one linear layer after average pooling q is linear in a_L: half of u^2 - r^2, weighted as in CAM.
"""

from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from methods._cost import Formula, Passes
from methods._edits import edited_gradients, replay_before
from methods._registry import method
from methods._torch import Target, at_least_float32, chunks, tile
from methods.dix import starting_point
from methods.integrated_gradients import quadrature, start

PASSES = Formula(
    "steps², with `earlier` steps³",
    lambda s: (s.steps + 1) ** (3 if s.earlier else 1) if s.form == "released" else s.steps ** (3 if s.earlier else 2),
)
IMAGES = Formula("steps", lambda s: s.steps + (s.form == "released"))


@method(
    title="IIA",
    cite="barkan2023visual",
    family="cam",
    forward=Passes(PASSES, before=IMAGES),
    backward=Passes(PASSES, before=0),
    signed=True,
    verified=("literal", "authors"),
)
def iia(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Target,
    *,
    layer: str,
    form: str = "integral",
    earlier: str | None = None,
    baseline: Float[Tensor, "..."] | None = None,
    reference: str = "minimum",
    steps: int = 10,
    rule: str = "right",
    chunk: int = 64,
) -> Float[Tensor, "B 1 h w"]:
    """Evidence for the target at each position of `layer`, integrated over the image and over that layer."""
    if form not in ("integral", "released"):
        raise ValueError(f"form: must be 'integral' or 'released', got {form!r}")
    points, B, released, origin = at_least_float32(x), len(x), form == "released", starting_point(reference)
    x_ = start(points, baseline)  # B C H W   r^0
    line, only = quadrature(rule, steps), ([1.0], [1.0])  # a way; the layer's own output
    if released:
        line, origin = (np.linspace(0, 1, steps + 1), np.ones(steps + 1)), starting_point("activation")
    ways = line, line if earlier else only, only if released and not earlier else line  # image, earlier layer, L
    (a_0, w_0), (a_1, w_1), (a, w) = ([torch.tensor(p, device=x.device, dtype=points.dtype) for p in ps] for ps in ways)

    def least(A: Float[Tensor, "m K h w"]) -> Float[Tensor, "m K h w"]:
        each = A.unflatten(0, (-1, len(a_0), B))  # n images B K h w
        return each.amin(dim=1, keepdim=True).expand_as(each).flatten(0, 2)  # m K h w

    def way(a: Float[Tensor, " k"], A: Float[Tensor, "m K h w"]) -> Float[Tensor, "k m K h w"]:
        r = origin(A)  # m K h w
        return r + a[:, None, None, None, None] * (A - r)  # k m K h w   v^l

    def integrand(V: Float[Tensor, "l m K h w"], df_dV: Float[Tensor, "l m K h w"]) -> Float[Tensor, "l m K h w"]:
        q = V.relu() * df_dV if released else V * df_dV
        return q.relu() if released and earlier else q

    m, images = x.new_zeros(()), chunks(len(a_0), chunk, B * len(a_1) * len(a))
    if released and earlier:
        images, origin = iter([slice(0, len(a_0))]), least  # which needs all of them
    for i in images:
        X = x_ + a_0[i, None, None, None, None] * (points - x_)  # k B C H W   v^0
        X, goal = X.to(x.dtype).flatten(0, 1), tile(target, len(X))  # kB C H W
        before = replay_before(model, x, earlier or layer)
        for j in chunks(len(a_1), chunk, len(X) * len(a)):
            for l in chunks(len(a), chunk, len(X) * len(a_1[j])):
                edits = [(earlier, partial(way, a_1[j]), len(a_1[j]))] if earlier else []
                edits += [(layer, partial(way, a[l]), len(a[l]))]
                A, V, df_dV = edited_gradients(model, X, goal, edits, before)  # jkB K h w, l jkB K h w, l jkB K h w
                q = torch.tensordot(w[l], integrand(V, df_dV), dims=1)  # jkB K h w
                part = (q if released else (A - origin(A)) * q).sum(dim=1)  # jkB h w
                m = m + torch.einsum("j,i,jibhw->bhw", w_1[j], w_0[i], part.unflatten(0, (-1, len(w_0[i]), B)))  # B h w
    return m[:, None]  # B 1 h w
