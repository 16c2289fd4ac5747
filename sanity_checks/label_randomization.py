"""Sanity Checks for Saliency Maps (data randomisation test).

Adebayo, Gilmer, Muelly, Goodfellow, Hardt, Kim. NeurIPS 2018. arXiv:1810.03292

    s        =  sim( M(A, x, c),  M(B, x, c) )       A: trained on true labels, B: on permuted ones     (section 3.2)
    ceiling  =  sim( M(A, x, c),  M(A', x, c) )      A': true labels, another seed

M       the method                                   of
x       test images                                  x
c       A's top class, for all three networks
sim     Spearman of |a|                              similarity.py; signed and non-zero pixels are columns

B has memorised the training labels and learnt nothing that holds for test images. A map that explains what a network
has learnt must differ between A and B more than between two networks that learnt the same. Retained similarity is
R = (s - null) / (ceiling - null), null: between different images, as in model_randomization.

Differs from the paper: it has no ceiling A'. Without the ceiling, a method whose maps differ between any two
networks looks good. Networks are those of `sanity_checks._small`; the paper's MNIST network has the same form.
Differs from other code: none known.
Good to know: on sparse images absolute rank correlation is mostly ties at zero: see `nonzero` and `signed`.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from methods._torch import Attribution
from sanity_checks._registry import Result, check
from sanity_checks._small import Data, accuracy, small_cnn, train
from sanity_checks._torch import explain
from sanity_checks.similarity import between_images, similarities

MEASURES = ("spearman", "signed", "nonzero")


class LabelNets(NamedTuple):
    """Three networks of one architecture; `memorised` is B's accuracy on its own training labels, 0 to 1."""

    A: nn.Module
    again: nn.Module
    B: nn.Module
    memorised: float


@check(
    title="Label randomisation",
    cite="adebayo2018sanity",
    kind="randomization",
    protocol=(
        "Small networks are trained on real and on permuted labels of digits; the number is the rank correlation of "
        "their absolute maps of the same test image."
    ),
    higher_is_better=False,
    forward=1,
    runs=3,
    verified=("literal", "closed form"),
)
@torch.no_grad()
def label_randomization(nets: LabelNets, x: Float[Tensor, "B C H W"], of: Attribution) -> Result:
    """Whether a network that memorised permuted labels gives other maps than one that learnt the true ones.

    The similarity of the maps of the two.

    Args:
        nets: from `train_nets`, or loaded.
        x: test images.
        of: the method; if it has a bound layer, the networks must have that layer.

    Returns:
        Columns: `signed`, `nonzero`, and `null`, `ceiling` with the same endings; `size` and `null_size` of |rho|.

    Raises:
        ValueError: B has not memorised its labels (accuracy below 95 %): the result would have no meaning.
    """
    if nets.memorised < 0.95:
        raise ValueError(
            f"nets: the network with permuted labels knows only {nets.memorised:.1%} of its training labels; "
            "train it longer, until 95 % at least"
        )
    c = nets.A(x).argmax(dim=1)
    a, again, b = (explain(of, f, x, c) for f in (nets.A, nets.again, nets.B))
    s, ceiling, null = (
        similarities(a, b, x, MEASURES),
        similarities(a, again, x, MEASURES),
        between_images(a, x, MEASURES),
    )
    columns = {m: s[m] for m in MEASURES[1:]} | {"size": s["spearman"].abs(), "null_size": null["spearman_size"]}
    for name, found in (("null", null), ("ceiling", ceiling)):
        columns |= {name if m == "spearman" else f"{name}_{m}": found[m] for m in MEASURES}
    return Result(values=s["spearman"], columns=columns, facts={"memorised": nets.memorised})


def train_nets(data: Data, *, epochs: int = 15, epochs_permuted: int = 120, seed: int = 0) -> LabelNets:
    """Train A, A' and B on the data; about half a minute on one core for scikit-learn's digits."""
    A, again, B = (small_cnn(data, seed + k) for k in range(3))
    train(A, data.x_train, data.y_train, epochs=epochs, seed=seed)
    train(again, data.x_train, data.y_train, epochs=epochs, seed=seed + 1)
    order = torch.randperm(len(data.y_train), generator=torch.Generator().manual_seed(seed))
    y = data.y_train[order]
    train(B, data.x_train, y, epochs=epochs_permuted, seed=seed + 2, until=0.999)
    return LabelNets(A, again, B, accuracy(B, data.x_train, y))
