"""Guided Grad-CAM, from: Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization.

Selvaraju, Cogswell, Das, Vedantam, Parikh, Batra. ICCV 2017. arXiv:1610.02391, section 3.2

    L^c_Guided = R^0 * upsample( L^c )                   (section 3.2, element-wise product)

R^0     guided backpropagation at the image              guided_backprop
L^c     Grad-CAM                                         L, resized bilinearly

Differs from the paper: no.
Differs from other code: captum upsamples with nearest neighbours by default.
Good to know: the fine detail comes from guided backprop. To the eye it stays when higher layers are randomised (Adebayo
et al. 2018, figure 2). By rank correlation it follows the weights as Grad-CAM does, also in the authors' numbers.
"""

from jaxtyping import Float
from torch import Tensor, nn

from methods._cost import Passes
from methods._registry import method
from methods._torch import Target, upsample
from methods.grad_cam import grad_cam
from methods.guided_backprop import guided_backprop


@method(
    title="Guided Grad-CAM",
    cite="selvaraju2017gradcam",
    family="combinator",
    forward=2,
    backward=Passes(2, before=1),
    signed=True,
    needs="relu",
    architectures=("cnn",),
    verified=("captum", "literal"),
)
def guided_grad_cam(
    model: nn.Module, x: Float[Tensor, "B C H W"], target: Target, *, layer: str
) -> Float[Tensor, "B C H W"]:
    """Fine detail from guided backprop, gated by where Grad-CAM looks."""
    L = grad_cam(model, x, target, layer=layer)  # B 1 h w
    return guided_backprop(model, x, target) * upsample(L, x)  # B C H W   section 3.2
