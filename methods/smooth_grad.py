"""SmoothGrad: removing noise by adding noise.

Smilkov, Thorat, Kim, Viegas, Wattenberg. ICML workshop 2017. arXiv:1706.03825

    M^_c(x) = 1/n  sum_1^n  M_c( x + N(0, sigma^2) )     (section 3)

M_c     any sensitivity map                              of
n       number of noisy samples                          samples
sigma   standard deviation of the noise                  noise * (x_max - x_min), per image

Differs from the paper: no.
Differs from other code: PAIR's GetSmoothedMask squares the maps by default (that is smooth_grad_squared) and draws 25;
captum's stdevs is absolute, not a fraction of the image's range.
Good to know: a noise tensor is drawn once per sample and shared by the batch.
"""

from jaxtyping import Float
from torch import Tensor, nn

from methods._registry import method
from methods._torch import Attribution, Target, map_over_copies, noisy
from methods.gradient import gradient


@method(
    title="SmoothGrad",
    cite="smilkov2017smoothgrad",
    family="gradient",
    forward="samples",
    backward="samples",
    signed=True,
    verified=("literal", "captum"),
)
def smooth_grad(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Target,
    *,
    of: Attribution = gradient,
    samples: int = 50,
    noise: float = 0.15,
    seed: int = 0,
    chunk: int = 8,
) -> Float[Tensor, "B K h w"]:
    """The map `of`, averaged over noisy copies of the image; `noise` is a fraction of its range, usually 0.1 to 0.2."""
    n, total = samples, x.new_zeros(())
    for X in noisy(x, n, noise, seed, chunk):  # k B C H W   x + N(0, sigma^2)
        M = map_over_copies(of, model, X, target)  # k B K h w
        total = total + M.sum(dim=0)  # B K h w
    return total / n  # B K h w   section 3
