"""A Benchmark for Interpretability Methods in Deep Neural Networks (ROAR: remove and retrain).

Hooker, Erhan, Kindermans, Kim. NeurIPS 2019. arXiv:1806.10758

For each share t the highest pixels of every training and test image are replaced by the channel mean, and a new network
is trained on the result:

    A_t(order)  =  test accuracy of a network trained and tested with the first t of the order removed, over `seeds`
    value       =  mean over t > 0 of  A_t(random) - A_t(method)        image by image; positive: better than random
    KAR         =  the lowest pixels are removed instead (keep and retrain);  A_t(method) - A_t(random)

t       0 0.1 0.3 0.5 0.7 0.9                              percentages
        initialisations for each t                         seeds
        maps of the true class, from a network trained on full images

Differs from the paper: small images and a small network (Data; SmallCNN) instead of ResNet-50 on ImageNet. It draws
curves of accuracy; the difference to random removal, image by image, is ours.
Differs from other code: Quantus, captum and pytorch-grad-cam have no ROAR. Ties are broken by the random numbers of the
random removal, so a constant map scores exactly 0.
Good to know: the new networks may read the class from the shape of the removed part (ROAD's objection), so accuracy
need not fall. Blurry maps tend to score higher (arXiv:2304.13836).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from methods._torch import Attribution
from sanity_checks._registry import Result, check
from sanity_checks._small import Data, small_cnn, train
from sanity_checks._torch import explain, pixels
from sanity_checks.road import random_ties


@check(
    title="ROAR",
    cite="hooker2019benchmark",
    kind="faithfulness",
    protocol=(
        "The highest pixels are removed from training and test images and a new network is trained; "
        "the number is how much more often it is wrong than after removing random pixels."
    ),
    higher_is_better=True,
    forward=0,
    runs=1,  # once on each training and test image
    verified=("literal",),
    quick={"percentages": (0.0, 0.5, 0.9), "seeds": 1, "epochs": 4},
)
def roar(
    data: Data,
    of: Attribution,
    *,
    percentages: Sequence[float] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9),
    seeds: int = 5,
    epochs: int = 15,
    keep: bool = False,
    seed: int = 0,
    chunk: int = 64,
) -> Result:
    """Whether a network trained without the marked pixels is worse than one trained without random ones.

    Correct after random removal minus correct after removal by the map, for each test image.

    Args:
        data: training and test images.
        of: the method.
        percentages: shares of pixels removed, ascending.
        seeds: networks per share.
        epochs: of training.
        keep: KAR, remove the lowest pixels.
        seed: of the first network and of the random order.
        chunk: images per run of the method.

    Raises:
        ValueError: shares not ascending in [0, 1) or none above 0, or seeds, epochs or chunk below 1.
    """
    shares = torch.tensor(percentages, dtype=torch.float64)
    if not len(shares) or shares[0] < 0 or shares[-1] >= 1 or (shares.diff() <= 0).any() or shares[-1] == 0:
        raise ValueError(f"percentages: ascending shares from 0 to below 1, some above 0, got {tuple(percentages)}")
    if min(seeds, epochs, chunk) < 1:
        raise ValueError(f"seeds, epochs, chunk: each must be 1 or more, got {seeds}, {epochs} and {chunk}")

    def networks(x: Float[Tensor, "n C H W"]) -> list[nn.Module]:
        return [train(small_cnn(data, s), x, data.y_train, epochs=epochs, seed=s) for s in range(seed, seed + seeds)]

    full = networks(data.x_train)  # the first one is explained
    colour = data.x_train.mean(dim=(0, 2, 3), keepdim=True)  # 1 C 1 1
    rng = torch.Generator().manual_seed(seed)
    orders: dict[str, list[Int[Tensor, "_ H W"]]] = {"method": [], "random": []}  # training and test images
    for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
        r = torch.rand(len(x), *x.shape[2:], generator=rng).to(x)
        parts = zip(x.split(chunk), y.split(chunk), strict=True)
        a = torch.cat([pixels(explain(of, full[0], part, label), part) for part, label in parts])  # n H W
        orders["method"].append(random_ties(-a if keep else a, r))
        orders["random"].append(random_ties(torch.zeros_like(r), r))

    def correct(order: list[Int[Tensor, "_ H W"]], share: float) -> Float[Tensor, " m"]:
        k = int(share * order[0][0].numel())
        x_train, x_test = (
            torch.where((rank < k)[:, None], colour, x)
            for rank, x in zip(order, (data.x_train, data.x_test), strict=True)
        )
        nets = networks(x_train) if k else full
        return torch.stack([_right(net, x_test, data.y_test) for net in nets]).mean(dim=0)

    curves = {name: torch.stack([correct(order, t) for t in percentages], dim=1) for name, order in orders.items()}
    method, random = (curve[:, shares > 0].mean(dim=1) for curve in (curves["method"], curves["random"]))  # m
    return Result(
        values=method - random if keep else random - method,
        columns={"method": method, "random": random},
        curves=curves,
        at=tuple(shares.tolist()),
        facts={f"accuracy, {name}": curve.mean(dim=0).tolist() for name, curve in curves.items()},
    )


@torch.no_grad()
def _right(net: nn.Module, x: Float[Tensor, "m C H W"], y: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
    return torch.cat([net(part).argmax(dim=1) for part in x.split(512)]).eq(y).to(x.dtype)
