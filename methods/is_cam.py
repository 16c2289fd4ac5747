"""IS-CAM: Integrated Score-CAM for axiomatic-based explanations.

Naidu, Ghosh, Maurya, Nayak K, Kundu. 2020. arXiv:2010.03023

    H^k      = s( Up( A^k ) ),  s(.) = min-max to [0, 1]                 (activation as a mask, as in Score-CAM)
    M_i      = sum_{j=1}^{i}  j/N  X * H^k                               (masked images, added up; torchcam)
    C_k      = 1/N sum_{i=1}^{N}  f( M_i ) - f( X_b )                    (scores, integrated; torchcam)
    alpha_k  = exp( C_k ) / sum_k exp( C_k )                             (softmax over the channels; torchcam)
    L        = ReLU( sum_k  alpha_k A^k )                                (the map)

f        score of the explained class                   scores
A^k      k-th feature map                               A[:, k]
N        number of points on the path                   steps
X_b      baseline image                                 cancels in the softmax, so it is not run

Differs from the paper: the lines marked torchcam are known from that package; its maintainer says that the paper's
first author checked them (frgfm/torch-cam, issue 154). In his quotation of the paper there, the sum in M_i ends at
j = i - 1, so that the last point, i = N, is one earlier. A constant channel has H = 0.
Differs from other code: the authors' first script (r0cketr1kky/ISS-CAM_resources@0d2da72, algo.py) holds two variants.
Neither adds up its masks. In both the weights are mean probabilities, without the softmax over the channels. ISS_CAM2
takes M_i = i/N X * H, which is path="linear"; ISS_CAM1 uses A^k itself in place of H. torchcam rescales masks before
it resizes them.
Good to know: the summed masks leave the line from black to the image: at N = 10 the last one is 5.5 X * H. With
path="linear" the last one is the masked image of Score-CAM.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from methods._cost import Formula
from methods._registry import method
from methods._torch import Target, activation, at_least_float32, chunks, minmax, scores, upsample


@method(
    title="IS-CAM",
    cite="naidu2020iscam",
    family="cam",
    forward=Formula("1 + steps · K", lambda s: 1 + s.steps * s.K),
    backward=0,
    signed=False,
    source="package",
    verified=("literal", "torchcam"),
)
def is_cam(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Target,
    *,
    layer: str,
    steps: int = 10,
    path: str = "sum",
    chunk: int = 8,
) -> Float[Tensor, "B 1 h w"]:
    """Feature maps weighted by the score of the image as each of them fades in.

    Raises:
        ValueError: steps is below 1, or path is unknown.
    """
    if steps < 1:
        raise ValueError(f"steps: must be 1 or more, got {steps}")
    if path not in ("sum", "linear"):
        raise ValueError(f"path: must be 'sum' (torchcam) or 'linear' (the authors' first script), got {path!r}")
    i = torch.arange(1, steps + 1, device=x.device, dtype=at_least_float32(x).dtype)  # N
    c = (i.cumsum(dim=0) if path == "sum" else i) / steps  # N   M_i = c_i X * H
    with torch.set_grad_enabled(x.requires_grad):
        _, A = activation(model, x, layer)  # B K h w
        A, f = at_least_float32(A), []
        for part in chunks(A.shape[1] * steps, chunk, len(x)):  # channel by channel, all its points
            p = torch.arange(part.start, part.stop, device=x.device)  # n
            H = minmax(upsample(A[:, p // steps], x)).transpose(0, 1)  # n B H W
            M = c[p % steps, None, None, None] * H  # n B H W
            f.append(scores(model, x * M[:, :, None], target, like=x))  # n B
        C = torch.cat(f).unflatten(0, (-1, steps)).mean(dim=1)  # K B
        alpha = C.T.softmax(dim=1)[:, :, None, None]  # B K 1 1
        return (alpha * A).sum(dim=1, keepdim=True).relu()  # B 1 h w
