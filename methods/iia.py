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

Differs from the paper: one more layer between image and L (the paper's IIA3) is integrated over where `earlier` names
it; without it the map is IIA2. The image's reference is 0, the authors' code. On a ViT the paper integrates over
attention maps from 0, with a rollout in q; here every model's layers are read as grids of features.
Differs from other code: the authors' code for CNNs takes the minimum over an axis of length 1, so that r is u. It
leaves out the factor u - r, which would then be 0, and subtracts the first point on the way, now equal to all others,
from them. What is left is the sum of ReLU( u ) * df/du over the images on their way, whatever the steps at layer L.
Good to know: n steps cost n^2 scores, n^3 with `earlier`; the network up to a layer runs once on what enters it.
With one linear layer after average pooling q is linear in a_L: half of u^2 - r^2, weighted as in CAM.
"""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from methods._cost import Formula, Passes
from methods._edits import edited_gradients, replay_before
from methods._registry import method
from methods._torch import Target, at_least_float32, chunks, tile
from methods.dix import starting_point
from methods.integrated_gradients import quadrature, start

PASSES = Formula("steps², with `earlier` steps³", lambda s: s.steps ** (2 if s.earlier is None else 3))


@method(
    title="IIA",
    cite="barkan2023visual",
    family="cam",
    forward=Passes(PASSES, before="steps"),
    backward=Passes(PASSES, before=0),
    signed=True,
    verified=("literal",),
)
def iia(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Target,
    *,
    layer: str,
    earlier: str | None = None,
    baseline: Float[Tensor, "..."] | None = None,
    reference: str = "minimum",
    steps: int = 10,
    rule: str = "right",
    chunk: int = 64,
) -> Float[Tensor, "B 1 h w"]:
    """Evidence for the target at each position of `layer`, integrated over the image and over that layer."""
    points, B, origin = at_least_float32(x), len(x), starting_point(reference)
    x_ = start(points, baseline)  # B C H W   r^0
    a, w = (torch.tensor(v, device=x.device, dtype=points.dtype) for v in quadrature(rule, steps))  # n, n
    n = 1 if earlier is None else steps  # points at the earlier layer; at 1, the layer's own output
    a_1, w_1 = (a, w) if earlier else (torch.ones_like(a[:1]), torch.ones_like(a[:1]))  # n, n

    def way(a: Float[Tensor, " k"], A: Float[Tensor, "m K h w"]) -> Float[Tensor, "k m K h w"]:
        r = origin(A)  # m K h w
        return r + a[:, None, None, None, None] * (A - r)  # k m K h w   v^l

    m = torch.zeros(())
    for i in chunks(steps, chunk, B * n * steps):
        X = x_ + a[i, None, None, None, None] * (points - x_)  # k B C H W   v^0
        X, goal = X.to(x.dtype).flatten(0, 1), tile(target, len(X))  # kB C H W
        before = replay_before(model, earlier or layer)
        for j in chunks(n, chunk, len(X) * steps):
            for l in chunks(steps, chunk, len(X) * len(a_1[j])):
                edits = [(earlier, partial(way, a_1[j]), len(a_1[j]))] if earlier else []
                edits += [(layer, partial(way, a[l]), len(a[l]))]
                A, V, df_dV = edited_gradients(model, X, goal, edits, before)  # jkB K h w, l jkB K h w, l jkB K h w
                q = torch.tensordot(w[l], V * df_dV, dims=1)  # jkB K h w
                part = ((A - origin(A)) * q).sum(dim=1)  # jkB h w
                m = m + torch.einsum("j,i,jibhw->bhw", w_1[j], w[i], part.unflatten(0, (-1, len(w[i]), B)))  # B h w
    return m[:, None]  # B 1 h w
