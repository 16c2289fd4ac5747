"""Deep Integrated Explanations.

Barkan, Elisha, Weill, Asher, Eshel, Koenigstein. CIKM 2023. doi:10.1145/3583780.3614836

    v(a) = r + a (A - r)                                 (the straight way from a reference to the activation)
    H    = int_0^1  sum_k  ReLU( ds/dv_k * v_k )  da     (the map of one layer)

A       output of the layer                              A
r       reference: in each channel, its minimum          r, by `starting_point`
v       the layer's output along the way                 V
s       score of the explained class                     edited_gradients
a       position on the way, at `steps` points           a, with weights w by `rule`

Differs from the paper: its text was not available. The integrand and 4 steps are the authors' code; the reference is
that of the same authors' IIA. On a ViT the authors integrate over attention maps, from 0, and combine them by a
rollout; here every model's layers are read as grids of features.
Differs from other code: dix-cikm23/dix@fda6545 takes, for CNNs, the minimum over an axis of length 1. So r is A, all 5
points (steps + 1) are equal, and its "DIX1" is an element-wise Grad-CAM: 5 times reference="activation". Its "DIX2" and
"DIX3" are `fuse_as_released` with one and two earlier layers, deepest first; `reference` and `rule` do nothing there:

    H1      = 5 ReLU( g ) ReLU( A )                      (deepest layer; g = ds/dA, below ds/dv)
    H2, H3  = sum_v ReLU( g ReLU( v ) |v - r| / 4 )      (r: at each position, the minimum over channels)
    DIX2    = sum_k  H2 H1 + H1                          (each H is resized to 1024 x 28 x 28: channels mix)
    DIX3    = sum_k  ( H2 H3 H1 + H1 ) H1

Good to know: H need not sum to a difference of scores: the ReLU is inside, and v stands where A - r would have to.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from methods._cost import Formula, Passes
from methods._edits import edited_gradients, replay_before
from methods._registry import method
from methods._torch import Target, at_least_float32, chunks
from methods.integrated_gradients import quadrature

Origin = Callable[[Float[Tensor, "B K h w"]], Float[Tensor, "B K h w"]]  # A -> r
PASSES = Formula(
    "steps, fused 1 + layers · (steps + 1)",
    lambda s: 1 + (s.steps + 1) * len(s.fuse_as_released) if s.fuse_as_released else s.steps,
)
LAYERS = Formula("layers", lambda s: 1 + len(s.fuse_as_released))


@method(
    title="DIX",
    cite="barkan2023deep",
    family="cam",
    forward=Passes(PASSES, before=LAYERS),
    backward=Passes(PASSES, before=0),
    signed=False,
    source="authors' code",
    verified=("literal", "authors"),
)
def dix(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Target,
    *,
    layer: str,
    fuse_as_released: Sequence[str] = (),
    reference: str = "minimum",
    steps: int = 4,
    rule: str = "right",
    chunk: int = 32,
) -> Float[Tensor, "B 1 h w"]:
    """Evidence for the target at each position of `layer`, averaged while its features grow from their minimum."""
    n = steps

    def along(layer: str, points: Any, origin: Origin, f: Callable[..., Tensor]) -> Float[Tensor, "B K h w"]:
        """The sum of f(g, v, r), g = ds/dv, over `points`: positions and weights."""
        a, w = (torch.tensor(p, device=x.device, dtype=at_least_float32(x).dtype) for p in points)  # n, n
        total, before = x.new_zeros(()), replay_before(model, x, layer)
        for part in chunks(len(a), chunk, len(x)):

            def way(A: Float[Tensor, "B K h w"], a: Tensor = a[part]) -> Float[Tensor, "k B K h w"]:
                r = origin(A)  # B K h w
                return r + a[:, None, None, None, None] * (A - r)  # k B K h w   v(a)

            edits = [(layer, way, len(a[part]))]
            A, V, ds_dV = edited_gradients(model, x, target, edits, before)  # B K h w, k B K h w, k B K h w
            total = total + torch.tensordot(w[part], f(ds_dV, V, origin(A)), dims=1)  # B K h w
        return total

    if not fuse_as_released:
        H = along(layer, quadrature(rule, n), starting_point(reference), lambda g, v, r: (g * v).relu())  # B K h w
        return H.sum(dim=1, keepdim=True)  # B 1 h w

    def earlier(g: Tensor, v: Tensor, r: Tensor) -> Float[Tensor, "k B K h w"]:
        length = (v - r).flatten(2).norm(dim=2)[..., None, None, None]  # k B 1 1 1   of all K h w
        return (g * v.relu() * length / n).relu()

    H1 = along(layer, ([1.0], [n + 1.0]), starting_point("activation"), lambda g, v, r: g.relu() * v.relu())  # B K h w
    ends, lowest = (np.linspace(0, 1, n + 1), np.ones(n + 1)), starting_point("channels")
    return released_fusion([H1, *(along(name, ends, lowest, earlier) for name in fuse_as_released)])  # B 1 28 28


def starting_point(reference: str) -> Origin:
    """A -> r: the features that stand for nothing; "activation" is that of the released code, see the top of dix.py.

    Raises:
        ValueError: no such reference.
    """
    if reference in ("minimum", "channels"):  # of each channel; at each position (dix.py, released)
        return lambda A: A.amin(dim=(2, 3) if reference == "minimum" else 1, keepdim=True).expand_as(A)
    if reference not in ("zero", "activation"):
        raise ValueError(f"reference: must be 'minimum', 'zero' or 'activation', got {reference!r}")
    return torch.zeros_like if reference == "zero" else lambda A: A


def released_fusion(H: Sequence[Float[Tensor, "B _ _ _"]]) -> Float[Tensor, "B 1 28 28"]:
    """The maps H1, H2, H3 of two or three layers, deepest first, fused as in the authors' code.

    Raises:
        ValueError: more layers than the rule knows.
    """
    if len(H) > 3:
        raise ValueError(f"fuse_as_released: the rule is for one or two more layers, got {len(H) - 1}")
    H = [F.interpolate(h[:, None], size=(1024, 28, 28), mode="trilinear")[:, 0] for h in H]  # B 1024 28 28
    fused = H[1] * H[0] + H[0] if len(H) == 2 else (H[1] * H[2] * H[0] + H[0]) * H[0]
    return fused.sum(dim=1, keepdim=True)  # B 1 28 28
