"""Maps of several methods while the stages of a network are randomised, compared with maps of the trained network.

Adebayo, Gilmer, Muelly, Goodfellow, Hardt, Kim. NeurIPS 2018. arXiv:1810.03292. All methods use the same networks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from methods._calls import logits
from methods._torch import Attribution
from sanity_checks._randomize import Stage, alive, lost_stages, randomizations, stages
from sanity_checks._statistics import of_images, retained, verdict
from sanity_checks._torch import constant, explain
from sanity_checks.similarity import between_images, similarities, spearman

MEASURES = ("spearman", "signed", "ssim", "hog")


@dataclass(frozen=True)
class Cascade:
    """Similarities of maps while stages are randomised; the first step is a second run on the trained network."""

    labels: list[str]  # of the steps
    lost: list[list[str]]  # names of the stages lost at each step
    maps: dict[str, list[Float[Tensor, "K h w"]]]  # row: of the first image, first randomisation
    curves: dict[str, dict[str, Float[Tensor, "B steps"]]]  # row: measure: mean over the randomisations
    null: dict[str, dict[str, Float[Tensor, " B"]]]  # row: measure: between images, trained network
    flat: dict[str, list[float]]  # row: share of maps without a rank, because they are constant
    logits: Float[Tensor, "B steps"]  # Spearman of the logits
    variation: list[float]  # of the logits over images, as a share of the trained network's; first randomisation
    refused: dict[str, str]  # row: why it is not defined for this model


def cascade(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Int[Tensor, " B"],
    rows: Mapping[str, tuple[Attribution, int]],
    *,
    order: str = "top-down",
    points: int | None = None,
    measures: Sequence[str] = MEASURES,
    init: str = "permute",
    seed: int = 0,
    tick: Callable[[str], object] = lambda name: None,
) -> Cascade:
    """Randomise stages step by step and compare each row's maps with those of the trained network.

    Args:
        model: classifier; it is not changed.
        x: normalised images.
        target: classes to explain.
        rows: name -> (method, number of randomisations over which its similarities are averaged).
        order: "top-down", "bottom-up" or "independent", as in model_randomization.
        points: steps, evenly spread over the stages; None: all stages.
        measures: of similarity.py.
        init: see `_randomize.randomized`.
        seed: of the first randomisation.
        tick: called with the row's name after each run of a method.

    Raises:
        ValueError: unknown init, or a network that is dead after so many stages are randomised.
    """
    L = stages(model, x)
    steps = [frozenset(), *lost_stages(order, len(L), points)]
    ref, refused = {}, {}
    for name, (of, _) in rows.items():
        try:
            ref[name] = explain(of, model, x, target)  # B K h w
        except ValueError as error:
            refused[name] = str(error)
        tick(name)
    y = logits(model, x)  # B N
    found: dict[str, list[list[dict[str, Tensor]]]] = {name: [[] for _ in steps] for name in [*ref, "logits"]}
    maps: dict[str, list[Tensor]] = {name: [] for name in ref}
    variation = []
    seeds = range(seed, seed + max(n for _, n in rows.values()))
    for seed_k, lost, f in randomizations(model, L, steps, init=init, seeds=seeds):
        k, i = seed_k - seed, steps.index(lost)
        found["logits"][i].append({"spearman": spearman(y, logits(f, x))})
        if k == 0:
            variation.append(alive(f, model, x, init)["variation"])
        for name in ref:
            of, n = rows[name]
            if k < n and (k == 0 or lost):  # the trained network is the same for every seed
                a = explain(of, f, x, target)  # B K h w
                s = similarities(ref[name], a, x, measures)
                found[name][i].append(s | {"flat": constant(a.abs().sum(dim=1)).double()})
                if k == 0:
                    maps[name].append(a[0].cpu())
                tick(name)

    def mean(name: str, measure: str) -> Float[Tensor, "B steps"]:
        return torch.stack(
            [torch.stack([s[measure] for s in step]).nanmean(dim=0) for step in found[name]], dim=1
        ).cpu()

    return Cascade(
        labels=["trained", *(_label(L, lost, order) for lost in steps[1:])],
        lost=[[L[j].name for j in sorted(lost)] for lost in steps],
        maps=maps,
        curves={name: {m: mean(name, m) for m in measures} for name in ref},
        null={name: {m: v.cpu() for m, v in between_images(a, x, measures).items()} for name, a in ref.items()},
        flat={name: mean(name, "flat").mean(dim=0).tolist() for name in ref},
        logits=mean("logits", "spearman"),
        variation=variation,
        refused=refused,
    )


def summary(found: Cascade, measures: Sequence[str] = MEASURES) -> dict[str, Any]:
    """Means over images with 95 % intervals, for the sidecar and the picture.

    `retained` and `verdict` are of the first measure, at the first and at the last step, as in the report of a method.
    """
    rows = {}
    for name, curves in found.curves.items():
        s, null = curves[measures[0]].numpy(), found.null[name][measures[0]].numpy()
        ends = {"first": (s[:, 1], null, s[:, 0]), "last": (s[:, -1], null, s[:, 0])}
        rows[name] = {
            "curves": {m: [of_images(v) for v in curves[m].T] for m in measures},
            "null": {m: of_images(found.null[name][m]) for m in measures},
            "retained": {end: asdict(retained(*numbers)) for end, numbers in ends.items()},
            "verdict": {end: verdict(*numbers) for end, numbers in ends.items()},
            "flat": found.flat[name],
        }
    return {
        "labels": found.labels,
        "lost": found.lost,
        "rows": rows,
        "logits": [of_images(v) for v in found.logits.T],
        "variation": found.variation,
    }


def passes(rows: Mapping[str, tuple[Attribution, int]], points: int) -> int:
    """The total number of runs of a method in `cascade`."""
    return sum(2 + n * points for _, n in rows.values())


def randomized_head(
    model: nn.Module, x: Float[Tensor, "B C H W"], target: Int[Tensor, " B"], of: Attribution, seeds: Sequence[int]
) -> Float[Tensor, " B"]:
    """Mean rank correlation of |a| with the maps of networks whose last layer is randomised."""
    L = stages(model, x)
    reference = explain(of, model, x, target)
    found = [
        similarities(reference, explain(of, f, x, target), x, ("spearman",))["spearman"]
        for *_, f in randomizations(model, L[-1:], seeds=seeds)
    ]
    return torch.stack(found).mean(dim=0)


def _label(L: Sequence[Stage], lost: frozenset[int], order: str) -> str:
    return L[max(lost) if order == "bottom-up" else min(lost)].name
