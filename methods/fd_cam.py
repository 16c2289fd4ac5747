"""FD-CAM: Improving Faithfulness and Discriminability of Visual Explanation for CNNs.

Li, Li, Ma, Wu. ICPR 2022. arXiv:2206.08792

    G_k = { j : cos( A^k, A^j ) > quantile_theta of the row }            (channels switched together)
    s_k = f( A on G_k ) + f( A ) - f( A off G_k )                        (score alone, and score lost without)
    g_k = GAP( df / dA^k )                                               (gradient weight)
    w_k = exp( N(s)_k ) N(g)_k - 0.5,  N(.) = min-max over the channels  (both weights combined)
    L   = ReLU( sum_k  w_k A^k )                                         (the map)

f       score of the explained class                     logits[:, c]
A^k     k-th feature map                                 A[:, k]
on, off  all channels outside, or inside, G_k are 0      keep
theta   quantile of similarity                           theta

Differs from the paper: the formulas are those of the authors' code (crishhh1998/FD-CAM@7f2c544, src/fdcam.py), and
theta = 0.95 is that of its demo. cos is 0 where a feature map is all 0, and N is 0 where all channels agree.
Differs from other code: the authors' code runs one image through VGG's classifier; here any network can come after
`layer`. Their code resizes L to the image and rescales it to [0, 1]. An earlier file of theirs (switch_cam.py) combines
s and g by a series.
Good to know: the channel with the lowest gradient gets -0.5: the map compares channels, it does not count evidence.
The part after `layer` runs 2 K times: this costs 7 forward passes at layer4 of resnet50, but about 300 at layer3.
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from methods._cost import Formula, Passes
from methods._edits import edited_scores, record_before
from methods._registry import method
from methods._torch import Target, activation_and_gradient, at_least_float32, ratio


def similar(A: Float[Tensor, "B K h w"], k: Int[Tensor, " k"], theta: float) -> Bool[Tensor, "B k K"]:
    """G: whether channel j belongs to the group of channel k; by linear interpolation between similarities."""
    K = A.shape[1]
    unit = ratio(A.flatten(2), A.flatten(2).norm(dim=2, keepdim=True))  # B K hw
    cos = unit[:, k] @ unit.transpose(1, 2)  # B k K
    below = int(theta * (K - 1))  # the quantile lies between the values number `below` and `below + 1`
    top = cos.topk(K - below, dim=2).values  # B k K-below   descending
    lo, hi = top[..., -1:], top[..., -2:-1] if K - below > 1 else top[..., -1:]
    return cos > lo + (theta * (K - 1) - below) * (hi - lo)  # B k K


def spread(a: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
    """N: min-max over the channels."""
    lo, hi = a.amin(dim=1, keepdim=True), a.amax(dim=1, keepdim=True)
    return ratio(a - lo, hi - lo)


@method(
    title="FD-CAM",
    cite="li2022fdcam",
    family="cam",
    forward=Passes(Formula("1 + 2 · K", lambda s: 1 + 2 * s.K), before=1),
    backward=Passes(1, before=0),
    signed=False,
    source="authors' code",
    verified=("literal", "authors"),
)
def fd_cam(
    model: nn.Module, x: Float[Tensor, "B C H W"], target: Target, *, layer: str, theta: float = 0.95, chunk: int = 64
) -> Float[Tensor, "B 1 h w"]:
    """Feature maps weighted by the effect of groups of similar channels on the score, times the gradient.

    Raises:
        ValueError: theta is outside [0, 1].
    """
    if not 0 <= theta <= 1:
        raise ValueError(f"theta: must be a quantile in [0, 1], got {theta}")
    with record_before(model, x, layer) as before:
        f, A, df_dA = activation_and_gradient(model, x, target, layer)  # B, B K h w, B K h w
    K = A.shape[1]

    def switch(A: Float[Tensor, "B K h w"], k: Int[Tensor, " k"]) -> Float[Tensor, "k B K h w"]:
        G = similar(at_least_float32(A).detach(), k % K, theta).transpose(0, 1)  # k B K
        keep = (k < K)[:, None, None] == G  # k B K   on, then off
        return keep[..., None, None].to(A.dtype) * A

    on, off = edited_scores(model, x, target, layer, switch, 2 * K, chunk, before).chunk(2)  # K B
    s = (on + f - off).T  # B K
    g = df_dA.mean(dim=(2, 3))  # B K
    w = spread(s).exp() * spread(g) - 0.5  # B K
    return (w[:, :, None, None] * A).sum(dim=1, keepdim=True).relu()  # B 1 h w
