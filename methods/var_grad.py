"""VarGrad, from: Local Explanation Methods for Deep Neural Networks Lack Sensitivity to Parameter Values.

Adebayo, Gilmer, Goodfellow, Kim. ICLR workshop 2018. arXiv:1810.03307

    E_vg(x) = Var_i( E( x + g_i ) ),  g_i ~ N(0, sigma^2)      (section 2, VarGrad)

E       any sensitivity map                              of
g_i     noise                                            n samples, shared by the batch
sigma   standard deviation of the noise                  noise * (x_max - x_min), per image

Differs from the paper: no; the variance is that of the drawn samples (divided by n).
Differs from other code: no.
Good to know: the mean cancels, so the map shows where the explanation is unstable, not the explanation itself.
"""

from jaxtyping import Float
from torch import Tensor, nn

from methods._registry import method
from methods._torch import Attribution, Target, map_over_copies, noisy
from methods.gradient import gradient


@method(
    title="VarGrad",
    cite="adebayo2018local",
    family="gradient",
    forward="samples",
    backward="samples",
    signed=False,
    verified=("literal", "captum"),
)
def var_grad(
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
    """The variance of the map `of` over noisy copies of the image."""
    n, mean, spread = 0, x.new_zeros(()), x.new_zeros(())
    for X in noisy(x, samples, noise, seed, chunk):  # k B C H W   x + g_i
        for E in map_over_copies(of, model, X, target):  # B K h w
            n, old = n + 1, mean
            mean = old + (E - old) / n  # Welford: E[E^2] - E[E]^2 would cancel in float32
            spread = spread + (E - old) * (E - mean)
    return spread / n  # B K h w   section 2
