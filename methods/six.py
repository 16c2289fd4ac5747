"""Stochastic Integrated Explanations for Vision Models.

Barkan, Elisha, Weill, Asher, Eshel, Koenigstein. ICDM 2023. https://github.com/six-icdm/six

    r    = sqrt( p ) A + ( 1 - p ) e,  e ~ N(0, I)       (a random baseline: the activation, noised as in diffusion)
    p    = prod_0^T ( 1 - b_t ),  b_t from 1e-4 to 0.02  (the share of the signal left after T steps)
    v(a) = r + a (A - r)                                 (the straight way from the baseline to the activation)
    H    = int_0^1  sum_k  ds/dv_k * v_k  da             (the map of one layer and one baseline)

A       output of the layer                              A
e, r    noise, baseline                                  e, r
T, p    diffusion steps, signal left                     diffusion, p
v       the layer's output along the way                 V
s       score of the explained class                     edited_gradients
a       position on the way, at `steps` points           a, with weights w by `rule`

Differs from the paper: its text was not available; the equations and defaults are the authors' code. The paper draws
many baselines and keeps the map that scores best on an evaluation metric: such a choice is made by the yardstick that
judges it. Here the maps of `samples` baselines are averaged; 1 is a single draw, as in the authors' code.
Differs from other code: form="released" is the "SIX1" of six-icdm/six@7cac052, for CNNs. It differs in four points:
each channel of r becomes ( r - min r ) / max r * ( max r - min r ) + min r (it divides by the maximum, not the range);
the points, `steps` in all, include both ends; they are summed; its network has one more ReLU before the pooling, so
that at the last layer v is ReLU( v ). `rule` does nothing there. The default's correlation with it on two images is
0.90 and 0.81 at the last layer, 0.32 and 0.46 one stage earlier. `fuse_as_released` names one earlier layer, for its
"SIX2": the sum of H2 H1 + H1 over the channels of two such maps, resized as in dix.py. Where it has 1 - p before the
noise, diffusion models have sqrt(1 - p): 0.994 and 0.997 at T = 500. Its version for a ViT, on attention maps and with
a rollout, is not this one: here every model's layers are read as grids of features.
Good to know: one draw of e is shared by the batch. At T = 500 p is 0.006: r is noise of standard deviation 1, whatever
the scale of the layer.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from methods._cost import Formula, Passes
from methods._edits import edited_gradients, replay_before
from methods._layers import probe
from methods._registry import method
from methods._torch import Target, at_least_float32, chunks
from methods.dix import LAYERS, released_fusion
from methods.integrated_gradients import quadrature

PASSES = Formula("layers · samples · steps", lambda s: (1 + len(s.fuse_as_released)) * s.samples * s.steps)


@method(
    title="SIX",
    cite="barkan2023stochastic",
    family="cam",
    forward=Passes(PASSES, before=LAYERS),
    backward=Passes(PASSES, before=0),
    signed=True,
    source="authors' code",
    verified=("literal", "authors"),
)
def six(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Target,
    *,
    layer: str,
    form: str = "integral",
    fuse_as_released: Sequence[str] = (),
    samples: int = 1,
    diffusion: int = 500,
    steps: int = 4,
    rule: str = "right",
    seed: int = 0,
    chunk: int = 32,
) -> Float[Tensor, "B 1 h w"]:
    """Gradient times features at each position of `layer`, on the way from noise to the image's features."""
    if samples < 1 or diffusion < 0:
        raise ValueError(f"samples, diffusion: must be at least 1 and 0, got {samples} and {diffusion}")
    if form not in ("integral", "released"):
        raise ValueError(f"form: must be 'integral' or 'released', got {form!r}")
    if len(fuse_as_released) > 1:
        raise ValueError(f"fuse_as_released: the rule is for one more layer, got {len(fuse_as_released)}")
    points, dtype, released = quadrature(rule, steps), at_least_float32(x).dtype, False
    if form == "released" or fuse_as_released:
        points, released = (np.linspace(0, 1, steps), np.ones(steps)), True
    a, w = (torch.tensor(v, device=x.device, dtype=dtype).repeat(samples) for v in points)  # samples n
    draw = [i for i in range(samples) for _ in range(steps)]  # samples n   which noise belongs to a point
    p = float(np.prod(1 - np.linspace(1e-4, 0.02, diffusion + 1)))
    last = probe(model, x).layer if released else None  # before the pooling
    H = []
    for name in (layer, *fuse_as_released):
        total, before = x.new_zeros(()), replay_before(model, x, name)
        for part in chunks(len(a), chunk, len(x)):

            def way(A: Float[Tensor, "B K h w"], part: slice = part, name: str = name) -> Float[Tensor, "k B K h w"]:
                rng = torch.Generator(A.device).manual_seed(seed)
                new = {"generator": rng, "device": A.device, "dtype": A.dtype}
                e = torch.stack([torch.randn(A.shape[1:], **new) for _ in range(draw[part][-1] + 1)])[draw[part], None]
                r = p**0.5 * A + (1 - p) * e  # k B K h w
                if released:
                    low, high = r.amin(dim=(3, 4), keepdim=True), r.amax(dim=(3, 4), keepdim=True)  # k B K 1 1
                    r = (r - low) / high * (high - low) + low  # k B K h w
                v = r + a[part, None, None, None, None] * (A - r)  # k B K h w   v(a)
                return v.relu() if name == last else v

            _, V, ds_dV = edited_gradients(model, x, target, [(name, way, len(a[part]))], before)  # k B K h w
            total = total + torch.tensordot(w[part], ds_dV * V, dims=1) / samples  # B K h w
        H.append(total)
    return released_fusion(H) if fuse_as_released else H[0].sum(dim=1, keepdim=True)  # B 1 h w
