"""LayerCAM: Exploring Hierarchical Class Activation Maps for Localization.

Jiang, Zhang, Hou, Cheng, Wei. IEEE Transactions on Image Processing 2021. doi:10.1109/TIP.2021.3089943

    w^kc_ij = ReLU( g^kc_ij ),  g^kc_ij = dy^c / dA^k_ij       (position-wise weights, section III)
    M^c     = ReLU( sum_k  w^kc_ij A^k_ij )                     (the map, section III)

y^c     score of class c before the softmax             y
A^k     k-th feature map                                 A[:, k]

Differs from the paper: returns the map of one layer; the paper scales the maps of shallow layers, tanh(2 M / max M),
and takes the maximum over layers (see `fuse`).
Differs from other code: the authors' code (PengtaoJiang/LayerCAM-jittor@d5d1086, cam/layercam.py) has no last ReLU,
which matters only where A is negative, and rescales to [0, 1], as pytorch-grad-cam and torchcam do. Here
the paper's ReLU stays.
Good to know: this CAM was made for early layers.
"""

from jaxtyping import Float
from torch import Tensor, nn

from methods._cost import Passes
from methods._registry import method
from methods._torch import Target, activation_and_gradient


@method(
    title="LayerCAM",
    cite="jiang2021layercam",
    family="cam",
    forward=1,
    backward=Passes(1, before=0),
    signed=False,
    verified=("literal", "grad_cam", "torchcam"),
)
def layer_cam(model: nn.Module, x: Float[Tensor, "B C H W"], target: Target, *, layer: str) -> Float[Tensor, "B 1 h w"]:
    """Positions of `layer` whose increase would raise the score, weighted by how active they are."""
    _, A, g = activation_and_gradient(model, x, target, layer)  # B, B K h w, B K h w
    w = g.relu()  # B K h w
    return (w * A).sum(dim=1, keepdim=True).relu()  # B 1 h w
