"""Evaluate with the Inverse: Efficient Approximation of Latent Explanation Quality Distribution: the quality gap, QGE.

Eiras-Franco, Hedström, Höhne. AAAI 2025. arXiv:2502.15403

    QGE  =  psi( e )  -  psi( e^inv )

psi     a quality measure, here another check            score
e       the map                                          maps
e^inv   the map whose ranking is that of e, turned round    inverse

A value of a measure says little alone: for some images every map has a high one. The inverse ranking stands for the
alternatives, at the price of one more evaluation; the gap orders maps of one image almost as their place among many
random maps does, the paper shows.

Differs from the paper: the inverse has the values of the map in the opposite order, so that measures that read the
values have it, too; the paper gives rankings alone.
Differs from other code: a map of several channels is one map first, and has the size of the image.
Good to know: 0 on average for noise, by symmetry, whatever the measure. The gap of a lower-is-better measure has its
sign turned, so higher is better always. For SRG and pixel flipping the gap is twice the number itself.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from methods._cost import Formula
from sanity_checks._registry import CHECKS, Result, check
from sanity_checks._torch import pixels


@check(
    title="Quality gap",
    cite="eirasfranco2025evaluate",
    kind="faithfulness",
    protocol=(
        "A measure (insertion minus deletion) is taken of the map and of the map with its ranking turned round; the "
        "number is the difference."
    ),
    higher_is_better=True,
    forward=Formula("twice that of the score", lambda s: 2 * _passes(s)),
    runs=0,
    verified=("literal", "closed form"),
    quick={"keywords": {"step": 1 / 28}},
)
def quality_gap(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Int[Tensor, " B"],
    maps: Float[Tensor, "B K h w"],
    *,
    score: str = "insertion_deletion",
    keywords: Mapping[str, Any] | None = None,
    chunk: int = 8,
) -> Result:
    """How much better a map is by some measure than the map with its ranking turned round.

    Args:
        model: classifier.
        x: normalised images.
        target: classes.
        maps: the maps to evaluate.
        score: the measure, a check of maps that needs no more than these inputs.
        keywords: of the measure.
        chunk: images per forward pass, if the measure has it.

    Returns:
        Columns: `score` of the map, and of the `inverse`.

    Raises:
        ValueError: there is no such measure, it needs other inputs, or neither direction of it is better.
    """
    c = CHECKS.get(score)
    if c is None or "maps" not in c.inputs or not set(c.inputs) <= {"model", "x", "target", "maps"}:
        raise ValueError(f"score: must be a check of model, x, target and maps, got {score!r}")
    if c.higher_is_better is None:
        raise ValueError(f"score: {score} has no better direction")
    given = {"model": model, "x": x, "target": target}
    more = ({"chunk": chunk} if "chunk" in c.params else {}) | dict(keywords or {})
    both = []
    for a in (maps, inverse(pixels(maps, x))[:, None]):
        both.append(c.fn(*((given | {"maps": a})[name] for name in c.inputs), **more).values.double())
    sign = 1 if c.higher_is_better else -1
    return Result(values=sign * (both[0] - both[1]), columns={"score": both[0], "inverse": both[1]})


def inverse(a: Float[Tensor, "B H W"]) -> Float[Tensor, "B H W"]:
    """The same values: the highest where the lowest was, and so on; equal values stay equal."""
    ordered = a.flatten(1).sort(dim=1).values.contiguous()  # B n
    flat = a.flatten(1).contiguous()
    below = torch.searchsorted(ordered, flat)  # elements that are smaller
    upto = torch.searchsorted(ordered, flat, right=True)
    n = ordered.shape[1]
    return (ordered.gather(1, n - upto) + ordered.gather(1, n - 1 - below)).div(2).view_as(a)


def _passes(s: Any) -> int:
    sizes = {k: v for k, v in vars(s).items() if k not in ("score", "keywords", "chunk")}
    return CHECKS[s.score].cost(**(sizes | dict(s.keywords or {})))[0]
