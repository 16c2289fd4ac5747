"""SS-CAM: Smoothed Score-CAM for Sharper Visual Feature Localization.

Wang, Naidu, Michael, Kundu. 2020. arXiv:2006.14255

    H^k      = s( Up( A^k ) ),  s(.) = min-max to [0, 1]                 (activation as a mask, as in Score-CAM)
    C_k      = 1/N sum_i  f( X * (H^k + delta_ik) ) - f( X_b )           (scores, smoothed; torchcam)
    alpha_k  = exp( C_k ) / sum_k exp( C_k )                             (softmax over the channels; torchcam)
    L        = ReLU( sum_k  alpha_k A^k )                                (the map)

f         score of the explained class                  scores
A^k       k-th feature map                              A[:, k]
N         number of noisy masks                         samples
delta_ik  noise of mask k, sample i: N(0, sigma^2)      delta, sigma = noise
X_b       baseline image                                cancels in the softmax, so it is not run

Differs from the paper: the lines marked torchcam are known from that package, not from the paper. The paper's second
variant, noise on the masked image (SSCAM2 in the authors' code), is not here. A constant channel has H = 0.
Differs from other code: the authors' file (r0cketr1kky/SS-CAM@198775f, cam/sscam.py) does not run: it reads names that
it does not define. As written, SSCAM1 neither rescales masks to [0, 1] nor takes a softmax over the channels: its noise
has the standard deviation (2 / range of the channel)^2, its weight is the mean probability of the class. torchcam
rescales masks before it resizes them, and keeps the noise of all channels in memory.
Good to know: it takes 1 + N K passes: 71681 for layer4 of resnet50. The default noise is twice the range of a mask. The
batch shares the noise of each channel and sample.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from methods._cost import Formula
from methods._registry import method
from methods._torch import Target, activation, at_least_float32, chunks, minmax, scores, upsample


@method(
    title="SS-CAM",
    cite="wang2020sscam",
    family="cam",
    forward=Formula("1 + samples · K", lambda s: 1 + s.samples * s.K),
    backward=0,
    signed=False,
    source="package",
    verified=("literal", "torchcam"),
)
def ss_cam(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Target,
    *,
    layer: str,
    samples: int = 35,
    noise: float = 2.0,
    seed: int = 0,
    chunk: int = 8,
) -> Float[Tensor, "B 1 h w"]:
    """Feature maps weighted by the score of the image seen through noisy copies of each of them.

    Raises:
        ValueError: samples is below 1, or noise is negative.
    """
    if samples < 1 or noise < 0:
        raise ValueError(f"samples, noise: need at least one sample and noise >= 0, got {samples} and {noise}")
    rng = torch.Generator(x.device).manual_seed(seed)
    with torch.set_grad_enabled(x.requires_grad):
        _, A = activation(model, x, layer)  # B K h w
        A, f = at_least_float32(A), []
        for part in chunks(A.shape[1] * samples, chunk, len(x)):  # channel by channel, all its samples
            k = torch.arange(part.start, part.stop, device=x.device) // samples  # n
            H = minmax(upsample(A[:, k], x)).transpose(0, 1)  # n B H W
            N = [torch.randn(x.shape[2:], generator=rng, device=x.device, dtype=A.dtype) for _ in range(len(k))]
            delta = noise * torch.stack(N)[:, None]  # n 1 H W
            f.append(scores(model, x * (H + delta)[:, :, None], target, like=x))  # n B
        C = torch.cat(f).unflatten(0, (-1, samples)).mean(dim=1)  # K B
        alpha = C.T.softmax(dim=1)[:, :, None, None]  # B K 1 1
        return (alpha * A).sum(dim=1, keepdim=True).relu()  # B 1 h w
