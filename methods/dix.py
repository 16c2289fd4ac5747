"""Deep Integrated Explanations.

Barkan, Elisha, Weill, Asher, Eshel, Koenigstein. CIKM 2023. doi:10.1145/3583780.3614836

    v(a) = r + a (A - r)                                 (the straight way from a reference to the activation)
    H    = int_0^1  sum_k  ReLU( ds/dv_k * v_k )  da     (the map of one layer)

A       output of the layer                              A
r       reference: in each channel, its minimum          r, by `starting_point`
v       the layer's output along the way                 V
s       score of the explained class                     edited_gradients
a       position on the way, at `steps` points           a, with weights w by `rule`

Differs from the paper: its text was not at hand. The integrand and 4 steps are the authors' code; the reference is the
one that this code is written for, and that the same authors' IIA defines. On a ViT the authors integrate over attention
maps, from 0, and combine them by a rollout; here every model's layers are read as grids of features.
Differs from other code: the authors' code for CNNs takes the minimum over an axis of length 1, so that r is A and the
way is one point: its "DIX1" is 5 sum_k ReLU( g * A ), an element-wise Grad-CAM (reference="activation"). Its sum runs
over both ends of the steps. It fuses layers, deepest first, as H2 H1 + H1 ("DIX2") or ( H2 H3 H1 + H1 ) H1 ("DIX3"),
channel by channel after a trilinear resize that mixes channels too; `fuse_as_released` names the earlier layers for
that rule, applied to the H above (in that code the H of each layer has another integrand).
Good to know: H need not sum to a difference of scores: the ReLU is inside, and v stands where A - r would have to.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from methods._cost import Formula, Passes
from methods._edits import edited_gradients, replay_before
from methods._registry import method
from methods._torch import Target, at_least_float32, chunks
from methods.integrated_gradients import quadrature

LAYERS = Formula("layers", lambda s: 1 + len(s.fuse_as_released))
PASSES = Formula("layers · steps", lambda s: (1 + len(s.fuse_as_released)) * s.steps)


@method(
    title="DIX",
    cite="barkan2023deep",
    family="cam",
    forward=Passes(PASSES, before=LAYERS),
    backward=Passes(PASSES, before=0),
    signed=False,
    source="authors' code",
    verified=("literal",),
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
    dtype = at_least_float32(x).dtype
    a, w = (torch.tensor(v, device=x.device, dtype=dtype) for v in quadrature(rule, steps))  # n, n
    origin, H = starting_point(reference), []
    for name in (layer, *fuse_as_released):
        total, before = torch.zeros(()), replay_before(model, name)
        for part in chunks(steps, chunk, len(x)):

            def way(A: Float[Tensor, "B K h w"], a: Tensor = a[part]) -> Float[Tensor, "k B K h w"]:
                r = origin(A)  # B K h w
                return r + a[:, None, None, None, None] * (A - r)  # k B K h w   v(a)

            _, V, ds_dV = edited_gradients(model, x, target, [(name, way, len(a[part]))], before)  # k B K h w
            total = total + torch.tensordot(w[part], (ds_dV * V).relu(), dims=1)  # B K h w
        H.append(total)
    return released_fusion(H)  # B 1 h w


def starting_point(reference: str) -> Callable[[Float[Tensor, "B K h w"]], Float[Tensor, "B K h w"]]:
    """A -> r: the features that stand for nothing; "activation" is that of the released code, see the top of dix.py.

    Raises:
        ValueError: no such reference.
    """
    if reference == "minimum":
        return lambda A: A.amin(dim=(2, 3), keepdim=True).expand_as(A)
    if reference not in ("zero", "activation"):
        raise ValueError(f"reference: must be 'minimum', 'zero' or 'activation', got {reference!r}")
    return torch.zeros_like if reference == "zero" else lambda A: A


def released_fusion(H: Sequence[Float[Tensor, "B _ _ _"]]) -> Float[Tensor, "B 1 h w"]:
    """The maps H1, H2, H3 of one, two or three layers, deepest first, fused as in the authors' code.

    Raises:
        ValueError: more layers than the rule knows.
    """
    if len(H) > 3:
        raise ValueError(f"fuse_as_released: the rule is for one or two more layers, got {len(H) - 1}")
    if len(H) > 1:  # channels of the second, positions of the finest: 1024 x 28 x 28 for the three of a ResNet
        size = (H[1].shape[1], *max((h.shape[2:] for h in H), key=lambda grid: grid.numel()))
        H = [F.interpolate(h[:, None], size=size, mode="trilinear", align_corners=False)[:, 0] for h in H]
        product = H[1] * (H[2] if len(H) == 3 else 1) * H[0] + H[0]  # B K h w
        H = [product * H[0] if len(H) == 3 else product]
    return H[0].sum(dim=1, keepdim=True)  # B 1 h w
