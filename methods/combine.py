"""Any gradient map x any CAM: the idea of Guided Grad-CAM, for every pair.

Selvaraju, Cogswell, Das, Vedantam, Parikh, Batra. ICCV 2017. arXiv:1610.02391, section 3.2

    S = M(x) * upsample( L(x) )                          (section 3.2, with other maps in place of its two)

M       a map on the image's grid                        of
L       a map on a layer's grid                          cam, called with `layer`; resized bilinearly

Differs from the paper: any two maps are possible; of=guided_backprop, cam=grad_cam is Guided Grad-CAM.
Differs from other code: riverback's CombinedWrapper rescales both maps to [0, 1] first and so loses their signs.
Good to know: the product is large only where both maps are large; it inherits the failures of both.
"""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from methods._cost import Passes
from methods._registry import method
from methods._torch import Attribution, Target, upsample
from methods.grad_cam import grad_cam
from methods.gradient import gradient


@method(
    title="Gradient map x CAM",
    cite="selvaraju2017gradcam",
    family="combinator",
    forward=2,
    backward=Passes(2, before=1),
    signed=True,
    verified=("literal",),
)
def combine(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Target,
    *,
    layer: str,
    of: Attribution = gradient,
    cam: Callable[..., Tensor] = grad_cam,
) -> Float[Tensor, "B K H W"]:
    """The map `of`, gated by the map `cam` of `layer`."""
    L = cam(model, x, target, layer=layer)  # B 1 h w
    return upsample(of(model, x, target), x) * upsample(L, x)  # B K H W   section 3.2
