"""F-Fidelity: A Robust Framework for Faithfulness Evaluation of Explainable AI.

Zheng, Shirani, Chen, Lin, Cheng, Guo, Luo. ICLR 2025. arXiv:2410.02970

f_r is f, fine-tuned on images from which a random share beta of the pixels is gone, so such images are no news to it:

    FFid+  =  1[ f_r(x) = y ]  -  E 1[ f_r( x without a random part of the top s pixels ) = y ]
    FFid-  =  1[ f_r(x) = y ]  -  E 1[ f_r( x without a random part of the others ) = y ]
    part      min( alpha, beta n / size ) of the pixels, n in the image: never more than the share beta of it
    score  =  mean over the sizes s of  FFid+ - FFid-

f       a small network                                 net
y       the label                                       data.y_test
E       a mean over draws                               samples
alpha, beta   0.5, 0.1                                  alpha, beta

Retraining on images that a map has degraded (ROAR) leaks the map into the network; here every method is measured on one
network, which has seen random removal only.

Differs from the paper: its FFid+ and FFid- are columns, the number is their difference. Images are scikit-learn's
digits (or those of --data), the network a small CNN, so the numbers are not those of its tables.
Differs from other code: the authors' example (AslanDing/Finetune-Fidelity) draws the pixels that are removed once for
each channel; here a pixel goes as a whole.
Good to know: the accuracies before and after the fine-tuning are among the facts; the fine-tuned one must not be low.
Noise has 0 on average.
"""

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from methods._torch import Attribution
from sanity_checks._registry import Result, check
from sanity_checks._small import Data, accuracy, small_cnn, train
from sanity_checks._torch import explain, pixels, ranks


@check(
    title="F-Fidelity",
    cite="zheng2025ffidelity",
    kind="faithfulness",
    protocol=(
        "A small network is fine-tuned on images without random pixels; the number is how much more often it is wrong "
        "without a random part of the highest pixels than without one of the others."
    ),
    higher_is_better=True,
    forward=0,
    runs=1,  # once on each test image
    verified=("literal", "closed form"),
    quick={"sizes": (0.1, 0.3, 0.5), "samples": 10, "epochs": 4, "tuning": 4},
)
def f_fidelity(
    data: Data,
    of: Attribution,
    *,
    sizes: Sequence[float] = tuple(k / 20 for k in range(1, 20)),
    alpha: float = 0.5,
    beta: float = 0.1,
    samples: int = 50,
    epochs: int = 15,
    tuning: int = 15,
    seed: int = 0,
    chunk: int = 64,
) -> Result:
    """Whether a network used to missing pixels errs more without some of the highest pixels than without others.

    For each test image.

    Args:
        data: training and test images.
        of: the method; it explains the fine-tuned network.
        sizes: shares s of the pixels that count as highest, in (0, 1).
        alpha: share of them that is removed, at most.
        beta: share of the image that is removed, at most, here and in the fine-tuning.
        samples: draws.
        epochs: of training.
        tuning: epochs of fine-tuning.
        seed: of the network and of all draws.
        chunk: images per run of the method.

    Returns:
        Columns `plus` and `minus`: FFid+ and FFid-. Curves: both over the sizes.

    Raises:
        ValueError: a share outside (0, 1), or samples, epochs, tuning or chunk below 1.
    """
    if not sizes or not all(0 < s < 1 for s in (*sizes, alpha, beta)):
        raise ValueError(f"sizes, alpha, beta: shares above 0 and below 1, got {tuple(sizes)}, {alpha} and {beta}")
    if min(samples, epochs, tuning, chunk) < 1:
        raise ValueError(f"samples, epochs, tuning, chunk: 1 or more, got {samples}, {epochs}, {tuning}, {chunk}")
    colour = data.x_train.mean(dim=(0, 2, 3), keepdim=True)  # 1 C 1 1

    def without(x: Float[Tensor, "n C H W"], gone: Bool[Tensor, "n H W"]) -> Float[Tensor, "n C H W"]:
        return torch.where(gone[:, None], colour, x)

    def degrade(x: Tensor, y: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        return without(x, (torch.rand(len(x), *x.shape[2:], generator=rng) < beta).to(x.device)), y

    f = train(small_cnn(data, seed), data.x_train, data.y_train, epochs=epochs, seed=seed)
    net = train(copy.deepcopy(f), data.x_train, data.y_train, epochs=tuning, seed=seed + 1, augment=degrade)
    x, y = data.x_test, data.y_test
    parts = zip(x.split(chunk), y.split(chunk), strict=True)
    rank = ranks(torch.cat([pixels(explain(of, net, part, label), part) for part, label in parts]))  # m H W
    n, rng = rank[0].numel(), torch.Generator().manual_seed(seed)

    def right(x: Float[Tensor, "m C H W"]) -> Float[Tensor, " m"]:
        with torch.no_grad():
            return torch.cat([net(part).argmax(dim=1) for part in x.split(512)]).eq(y).double()

    whole, curves = right(x), {"plus": [], "minus": []}
    for s in sizes:
        k = max(1, min(n - 1, round(s * n)))
        for name, chosen, size in (("plus", rank < k, k), ("minus", rank >= k, n - k)):
            part, left = min(alpha, beta * n / size), torch.zeros_like(whole)
            for _ in range(samples):
                left += right(without(x, chosen & (torch.rand(rank.shape, generator=rng) < part).to(x.device)))
            curves[name].append(whole - left / samples)
    plus, minus = (torch.stack(curve, dim=1) for curve in curves.values())  # m sizes
    return Result(
        values=(plus - minus).mean(dim=1),
        columns={"plus": plus.mean(dim=1), "minus": minus.mean(dim=1)},
        curves={"plus": plus, "minus": minus},
        at=tuple(sizes),
        facts={f"accuracy, {name}": accuracy(g, x, y) for name, g in (("trained", f), ("fine-tuned", net))},
    )
