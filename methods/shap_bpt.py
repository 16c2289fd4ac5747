"""ShapBPT: Image Feature Attributions Using Data-Aware Binary Partition Trees.

Rashid, Amparore, Ferrari, Verda. AAAI 2026. arXiv:2602.07047

    the tree merges, again and again, the two neighbouring regions a, b of least

    ( dL^2 + da^2 + db^2 ) ( area_a + area_b ) sqrt( perimeter of the union ),    dL = max L - min L + 1 in the union

    Owen values: an item (AB | S, w) says that AB adds f(S + AB) - f(S), with weight w. The first is (image | {}, 1).
    It is split into (A | S, w/2), (B | S, w/2), (A | S + B, w/2), (B | S + A, w/2): largest w |f(S + AB) - f(S)| first.
    When the samples are spent, each item adds  w ( f(S + AB) - f(S) ) / area  to the pixels of AB.

f       score of the image with only these pixels        scores
AB      region of the tree, made of A and B              AB, trees[b]
S       regions that are seen already                    S
L,a,b   colours in Lab, as 8-bit numbers                 lab

Differs from the paper: f is the logit, which a callable target replaces.
Differs from other code: the authors' package shap-bpt 1.0.1 explains several classes together (the largest difference
of all decides what is split); here each row of the batch is its own. Where merges cost the same, it takes the one that
its heap finds; here that of the lowest numbers: with its tree the maps are equal. It splits 32 items `together`, which
changes the order. The colours are those of the image rescaled to [0, 255].
Good to know: the map sums to f(x) - f(nothing), for any number of samples; with few it is coarse.
"""

import heapq
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from methods._cost import Formula
from methods._partition import Tree, lab, merge_tree, order
from methods._regions import Fill, hiding
from methods._registry import method
from methods._torch import Target, at_least_float32, scores


@method(
    title="ShapBPT",
    cite="rashid2026shapbpt",
    family="perturbation",
    forward=Formula("2 + samples", lambda s: 2 + s.samples // 2 * 2),
    backward=0,
    signed=True,
    verified=("literal", "authors"),
    satisfies=("completeness",),
    differentiable=False,  # which region is split jumps
)
@torch.no_grad()
def shap_bpt(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Target,
    *,
    samples: int = 1000,
    trees: Sequence[Tree] | None = None,
    together: int = 4,
    fill: Fill = "zero",
) -> Float[Tensor, "B 1 H W"]:
    """Shapley values (Owen) of regions that follow the edges of the image, finer where the score changes more.

    Raises:
        ValueError: samples is below 2, together is below 1, there is not one tree for each image, or as `hiding`.
    """
    trees = [merge_tree(lab(image)) for image in x] if trees is None else trees
    if samples < 2 or together < 1 or len(trees) != len(x):
        given = f"{samples}, {together} and {len(trees)} for {len(x)}"
        raise ValueError(f"samples, together, trees: need 2, 1 and one for each image, got {given}")
    hide, a = hiding(x, fill), at_least_float32(x)

    def f(masks: Float[np.ndarray, "n B H W"]) -> Float[np.ndarray, "n B 1"]:
        return scores(model, hide(torch.from_numpy(masks).to(a)), target, like=x).double().cpu().numpy()[..., None]

    return torch.from_numpy(owen(f, trees, (x.shape[2], x.shape[3]), samples // 2, together)).to(a)  # B 1 H W


Values = Float[np.ndarray, " c"]  # c scores of an image
Scorer = Callable[[Float[np.ndarray, "n B H W"]], Float[np.ndarray, "n B c"]]


def owen(
    f: Scorer, trees: Sequence[Tree], size: tuple[int, int], splits: int, together: int
) -> Float[np.ndarray, "B c H W"]:
    """Owen values of c scores of each image; the largest difference of them decides what is split."""
    B, HW, number = len(trees), size[0] * size[1], itertools.count()
    pixels = [order(tree, HW) for tree in trees]
    nothing, whole = (f(np.full((1, B, *size), v))[0] for v in (0.0, 1.0))  # B c, B c
    phi = np.zeros((B, whole.shape[1], HW))

    def item(node: int, S: tuple[int, ...], f_S: Values, f_SAB: Values, w: float) -> tuple[Any, ...]:
        return -w * np.abs(f_SAB - f_S).max(), next(number), node, S, f_S, f_SAB, w

    def add(b: int, node: int, f_S: Values, f_SAB: Values, w: float) -> None:
        at = pixels[b](node)
        phi[b][:, at] += (w * (f_SAB - f_S) / len(at))[:, None]

    queues = [[item(2 * HW - 2, (), nothing[b], whole[b], 1.0)] for b in range(B)]
    left = [splits] * B
    while any(left):
        split: list[list[tuple[Any, ...]]] = [[] for _ in range(B)]
        masks = np.zeros((min(together, max(left)), 2, B, HW))  # of an image that has no region left: not read
        for b, queue in enumerate(queues):
            while queue and len(split[b]) < min(together, left[b]):
                _, _, AB, S, *rest = heapq.heappop(queue)
                if AB < HW:  # a pixel
                    add(b, AB, *rest)
                    continue
                for half, part in enumerate(trees[b][AB - HW].tolist()):
                    for node in (*S, part):
                        masks[len(split[b]), half, b, pixels[b](node)] = 1
                split[b].append((AB, S, *rest))
            left[b] -= len(split[b])
        if not (n := max(map(len, split))):
            break
        y = f(masks[:n].reshape(2 * n, B, *size)).reshape(n, 2, B, -1)
        for b, queue in enumerate(queues):
            for i, (AB, S, f_S, f_SAB, w) in enumerate(split[b]):
                (A, B_), (f_SA, f_SB) = trees[b][AB - HW].tolist(), y[i, :, b]
                parts = (A, S, f_S, f_SA), (B_, S, f_S, f_SB), (B_, (*S, A), f_SA, f_SAB), (A, (*S, B_), f_SB, f_SAB)
                for part in parts:
                    heapq.heappush(queue, item(*part, w / 2))
    for b, queue in enumerate(queues):
        for _, _, node, _, *rest in queue:
            add(b, node, *rest)
    return phi.reshape(B, -1, *size)
