"""Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization.

Selvaraju, Cogswell, Das, Vedantam, Parikh, Batra. ICCV 2017. arXiv:1610.02391

    alpha_k^c = 1/Z  sum_ij  d y^c / d A^k_ij            (eq. 1)
    L^c       = ReLU( sum_k  alpha_k^c A^k )             (eq. 2)

y^c     score of class c before the softmax             logits[:, c]
A^k     k-th feature map of a convolutional layer       A[:, k]
Z       number of positions in the map                  h * w, taken by .mean
L^c     coarse map, on the grid of A                    returned; `upsample` it for display

Differs from the paper: no.
Differs from other code: captum's LayerGradCam omits the ReLU by default; pytorch-grad-cam rescales to [0, 1].
Good to know: with global average pooling and one linear layer after A (layer4 of a ResNet),
Grad-CAM equals ReLU(CAM) / Z and ReLU(HiResCAM). Compare them at layer3.
"""

from jaxtyping import Float
from torch import Tensor, nn

from methods._cost import Passes
from methods._registry import method
from methods._torch import Target, activation_and_gradient


@method(
    title="Grad-CAM",
    cite="selvaraju2017gradcam",
    family="cam",
    forward=1,
    backward=Passes(1, before=0),
    signed=False,
    verified=("literal", "captum", "grad_cam", "torchcam"),
)
def grad_cam(model: nn.Module, x: Float[Tensor, "B C H W"], target: Target, *, layer: str) -> Float[Tensor, "B 1 h w"]:
    """Where `layer` holds evidence for the target."""
    _, A, dy_dA = activation_and_gradient(model, x, target, layer)  # B, B K h w, B K h w
    alpha = dy_dA.mean(dim=(2, 3), keepdim=True)  # B K 1 1   eq. 1
    return (alpha * A).sum(dim=1, keepdim=True).relu()  # B 1 h w   eq. 2
