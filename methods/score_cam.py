"""Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks.

Wang, Wang, Du, Yang, Zhang, Ding, Mardziel, Hu. CVPR workshop 2020. arXiv:1910.01279

    H_l^k    = s( Up( A_l^k ) ),  s(.) = min-max to [0, 1]              (activation as a mask)
    C(A_l^k) = f( X * H_l^k ) - f( X_b )                                 (channel-wise increase of confidence)
    alpha_k  = exp( C(A_l^k) ) / sum_k exp( C(A_l^k) )                   (softmax over the channels)
    L        = ReLU( sum_k  alpha_k A_l^k )                              (the map)

f       score of the explained class                     scores
A_l^k   k-th feature map of layer l                      A[:, k]
X_b     baseline image                                   cancels in the softmax, so it is not run

Differs from the paper: where a channel is constant, H is 0.
Differs from other code: the authors' code (haofanwang/Score-CAM@d312f14) uses the softmax probability of the class as
the weight itself (weights="raw" with a probability as target) and skips constant channels. It resizes the sum to the
image before the ReLU, which differs where sums are negative (not after a ReLU), and rescales to [0, 1]. torchcam
rescales masks before resizing them; pytorch-grad-cam and riverback resize them with align_corners=True and build all K
masked images at once (1.2 GB per image for layer4 of resnet50).
Good to know: masks multiply the normalised image, so hidden pixels get the data set's mean colour.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from methods._cost import Formula
from methods._registry import method
from methods._torch import Target, activation, at_least_float32, chunks, minmax, scores, upsample


@method(
    title="Score-CAM",
    cite="wang2020scorecam",
    family="cam",
    forward=Formula("1 + K", lambda s: 1 + s.K),
    backward=0,
    signed=False,
    verified=("literal", "torchcam", "authors"),
)
def score_cam(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Target,
    *,
    layer: str,
    weights: str = "softmax",
    chunk: int = 8,
) -> Float[Tensor, "B 1 h w"]:
    """Feature maps weighted by the score of the image seen through each of them.

    Raises:
        ValueError: weights is unknown.
    """
    if weights not in ("softmax", "raw"):
        raise ValueError(f"weights: must be 'softmax' (the paper) or 'raw' (the authors' code), got {weights!r}")
    with torch.set_grad_enabled(x.requires_grad):
        _, A = activation(model, x, layer)  # B K h w
        A = at_least_float32(A)
        C = []
        for k in chunks(A.shape[1], chunk, len(x)):
            H = minmax(upsample(A[:, k], x)).transpose(0, 1)[:, :, None]  # k B 1 H W
            C.append(scores(model, x * H, target, like=x))  # k B
        alpha = torch.cat(C).T[:, :, None, None]  # B K 1 1
        alpha = alpha.softmax(dim=1) if weights == "softmax" else alpha
        return (alpha * A).sum(dim=1, keepdim=True).relu()  # B 1 h w
