"""Opti-CAM: Optimizing saliency maps for interpretability.

Zhang, Torres, Sicre, Avrithis, Ayache. Computer Vision and Image Understanding 2024. arXiv:2301.07002

    S(u)  = sum_k  softmax(u)_k  ReLU( A^k )              (a map; the ReLU: authors' code)
    F(u)  = f( x * n( Up( S(u) ) ) ),  n(.) = min-max     (the score of the image seen through it)
    u*    = argmax_u  F(u)                                (by T steps of Adam from a constant u)
    L     = S(u*)                                         (the map)

f          score of the explained class                  score
A^k        k-th feature map                              A[:, k]
S          the map that u makes                          combine
u          one number per channel, for each image        u: B K
T          number of steps                               steps
m, v       Adam's means of g = dF/du and of g^2          m, v

Differs from the paper: T = 50 and the learning rate 0.1 are those of the authors' demo; the loop never stops early.
Differs from other code: the authors' code (hanwei0912/OptiCAM@78339fa, util.py) rescales L to [0, 1] on the image's
grid, has T = 100 and lr = 0.01 as the defaults of its class, and stops when the loss of the whole batch has grown over
T / 10 steps, so that a map depends on the other images. Its loss "norm" is objective="norm",
F(u) = -| f(x) - f( x * ... ) |.
Good to know: u is a variable of this call; nothing is trained, and no module is added. Not differentiable: Adam does
not reach the argmax u*, and its first steps are the sign of g, which jumps where an entry of g changes sign. For the
same reason the last digits of g, which depend on batch size and device, can change the map visibly.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from methods._calls import run
from methods._cost import Formula
from methods._registry import method
from methods._torch import Target, activation, adam, at_least_float32, derivatives, minmax, score, upsample


@method(
    title="Opti-CAM",
    cite="zhang2024opticam",
    family="cam",
    forward=Formula("1 + steps", lambda s: 1 + s.steps),
    backward="steps",
    signed=False,
    verified=("literal", "authors"),
    differentiable=False,
)
def opti_cam(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Target,
    *,
    layer: str,
    steps: int = 50,
    lr: float = 0.1,
    objective: str = "plain",
) -> Float[Tensor, "B 1 h w"]:
    """The convex combination of feature maps through which the image scores highest.

    Raises:
        ValueError: steps is below 1, lr is not positive, or objective is unknown.
    """
    if steps < 1 or lr <= 0:
        raise ValueError(f"steps, lr: need at least one step and a positive learning rate, got {steps} and {lr}")
    if objective not in ("plain", "norm"):
        raise ValueError(f"objective: must be 'plain' (a high score) or 'norm' (the image's score), got {objective!r}")
    x = x.detach()
    with torch.no_grad():
        output, A = activation(model, x, layer)  # .., B K h w
        f_x, A = at_least_float32(score(output, target)), at_least_float32(A).relu()  # B, B K h w

    def combine(u: Float[Tensor, "B K"]) -> Float[Tensor, "B 1 h w"]:
        return (u.softmax(dim=1)[:, :, None, None] * A).sum(dim=1, keepdim=True)

    u = torch.full(A.shape[:2], 0.5, dtype=A.dtype, device=x.device)  # B K
    m, v = torch.zeros_like(u), torch.zeros_like(u)  # B K, B K
    for t in range(1, steps + 1):
        with torch.enable_grad():
            u.requires_grad_()
            seen = x * minmax(upsample(combine(u), x)).to(x.dtype)  # B C H W
            f = at_least_float32(score(run(model, seen), target))  # B
            F = f if objective == "plain" else -(f_x - f).abs()  # B
            (g,) = derivatives(F, [u])  # B K
        step, m, v = adam(g, m, v, t)  # B K, B K, B K
        u = u.detach() + lr * step  # B K
    return combine(u)  # B 1 h w
