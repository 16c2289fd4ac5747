"""SmoothGrad-Squared, from: A Benchmark for Interpretability Methods in Deep Neural Networks (ROAR).

Hooker, Erhan, Kindermans, Kim. NeurIPS 2019. arXiv:1806.10758

    e(x) = 1/J  sum_1^J  g( x + eta_i )^2,  eta_i ~ N(0, sigma^2)     (section 4.1, SG-SQ)

g       any sensitivity map                              of
J       number of noisy samples                          samples
sigma   standard deviation of the noise                  noise * (x_max - x_min), per image

Differs from the paper: no.
Differs from other code: PAIR computes this when asked for SmoothGrad (magnitude=True).
Good to know: the map has no sign, and the unit of a squared gradient.
"""

from jaxtyping import Float
from torch import Tensor, nn

from methods._registry import method
from methods._torch import Attribution, Target, map_over_copies, noisy
from methods.gradient import gradient


@method(
    title="SmoothGrad-Squared",
    cite="hooker2019benchmark",
    family="gradient",
    forward="samples",
    backward="samples",
    signed=False,
    verified=("literal", "captum"),
)
def smooth_grad_squared(
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
    """The square of the map `of`, averaged over noisy copies of the image."""
    J, total = samples, x.new_zeros(())
    for X in noisy(x, J, noise, seed, chunk):  # k B C H W   x + eta
        g = map_over_copies(of, model, X, target)  # k B K h w
        total = total + g.square().sum(dim=0)  # B K h w
    return total / J  # B K h w   section 4.1
