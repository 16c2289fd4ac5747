"""Sanity Checks for Saliency Maps (model parameter randomisation test).

Adebayo, Gilmer, Muelly, Goodfellow, Hardt, Kim. NeurIPS 2018. arXiv:1810.03292

    s_k   =  sim( M(f, x, c),  M(f_k, x, c) )        f_k: f with the weights of some stages randomised

    top-down      stages L, L-1, ... L-k are randomised      (cascading randomisation, section 3.1)
    independent   only stage k is randomised                 (independent randomisation, section 3.1)
    bottom-up     stages 1, 2, ... k are randomised          (Binder et al., CVPR 2023, arXiv:2211.12486)

M       the method                                       of
f, c    trained network and class                        model, target
sim     similarity of two maps                           similarity.py; `spearman` of |a| is the number reported
L       stages, in execution order                       stages

A map that explains the network must change when the network changes. The similarity that is left is compared with two
levels: `null`, the similarity of the maps of different images, and `ceiling`, the similarity of two runs on the same
network. Retained similarity R = (s - null) / (ceiling - null): 1 means that the map did not change, 0 is chance. For R,
take the sizes |s| and |null|: the same map upside down is no other map.

A map may follow only how sure the network is. So there is one network more, `refitted`: all weights are randomised, and
the last linear layer is fitted such that the images, and the images mirrored, have the logits of the trained network.

Differs from the paper: weights are permuted within each tensor by default, not drawn from the initialiser. PyTorch's
initialisers leave some networks dead (EfficientNet-Lite0's logits then vary by 1e-8 of their former variation). A test
with a dead network means nothing, so it is refused. The class remains the trained network's top class; the authors'
code takes the top class of the randomised network (repick=True). Spearman is computed at the map's own resolution.
Batch statistics are kept, as in the authors' code.
Differs from other code: Quantus 0.6 sets the seed again before every module, so layers of equal shape get the same
weights. It goes through modules in the order of registration, misses parameters outside layers (class token,
LayerScale), and includes the unchanged network's 1.0 in the mean score.
Good to know: noise passes this test. Compare a method with the controls and with a faithfulness score.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from methods._calls import logits
from methods._cost import Formula
from methods._torch import Attribution
from sanity_checks._randomize import ORDERS, alive, lost_stages, randomizations, refitted, stages
from sanity_checks._registry import Result, check
from sanity_checks._torch import explain
from sanity_checks.similarity import MEASURES, between_images, similarities, spearman, with_sizes


@check(
    title="Model randomisation",
    cite="adebayo2018sanity",
    kind="randomization",
    protocol=(
        "Weights are randomised stage by stage and the map is computed again. The number is the rank correlation of "
        "the absolute maps before and after all weights are randomised."
    ),
    higher_is_better=False,
    forward=Formula("2 + seeds · (2 · points + 1)", lambda s: 2 + s.seeds * (2 * min(s.points or s.S, s.S) + 1)),
    runs=Formula("2 + seeds · 2 · points", lambda s: 2 + s.seeds * 2 * min(s.points or s.S, s.S)),
    verified=("literal", "closed form"),
    quick={"seeds": 3, "points": 3},
)
@torch.no_grad()
def model_randomization(
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Int[Tensor, " B"],
    of: Attribution,
    *,
    orders: tuple[str, ...] = ("top-down", "bottom-up"),
    points: int | None = None,
    seeds: int = 5,
    seed: int = 0,
    init: str = "permute",
    repick: bool = False,
) -> Result:
    """Whether the map changes when the network's weights are discarded: its similarity before and after.

    To that of the fully randomised network; the cascades are curves.

    Args:
        model: classifier.
        x: normalised images; with one image there is no null.
        target: classes to explain.
        of: the method.
        orders: of ORDERS. The cost of "top-down" and "bottom-up" together is 2 L - 1 networks.
        points: networks per order, evenly spread over the stages, including the first and the last; None: all stages.
        seeds: number of randomisations in the mean.
        seed: of the first.
        init: see `_randomize.randomized`.
        repick: explain the randomised network's own top class (the authors' code).

    Returns:
        Columns `full_<measure>` and `null_<measure>` for every measure of similarity.py, `ceiling`, `head` and
        `bottom_up`: the first step of the two cascades, `refitted` (NaN where the network has not exactly one last
        linear layer), and the mean sizes of all but `ceiling` under names that end in `_size`. Curves: each order, and
        Spearman of the logits along it; this shows when the network itself has changed.

    Raises:
        ValueError: unknown order or init, points below 2, or a network that is dead when fully randomised.
    """
    if not orders or any(o not in ORDERS for o in orders):
        raise ValueError(f"orders: must be of {', '.join(ORDERS)}, got {orders}")
    if points is not None and points < 2:
        raise ValueError(f"points: at least 2 (the first stage, all stages), got {points}")
    L, X = stages(model, x), torch.cat([x, x.flip(3)])  # X 2B C H W: and mirrored
    Y = torch.cat([logits(model, x), logits(model, x.flip(3))])  # 2B N
    y = Y[: len(x)]  # B N
    plan = {order: list(lost_stages(order, len(L), points)) for order in orders}
    ref = explain(of, model, x, target)  # B K h w
    again = explain(of, model, x, target)
    null, ceiling = between_images(ref, x), similarities(ref, again, x, ("spearman",))["spearman"]
    every = frozenset(range(len(L)))
    steps = list(dict.fromkeys([every, *(lost for sets in plan.values() for lost in sets)]))
    drawn: dict[frozenset[int], dict[str, list[Tensor]]] = {}
    statistics, fitted = {}, 0
    for seed_k, lost, f_k in randomizations(model, L, steps, init=init, seeds=range(seed, seed + seeds)):
        y_k = logits(f_k, x)
        if lost == every and seed_k == seed:
            statistics = alive(f_k, model, x, init)
        c = y_k.argmax(dim=1) if repick else target
        s = with_sizes(similarities(ref, explain(of, f_k, x, c), x, MEASURES if lost == every else ("spearman",)))
        s["logits"] = spearman(y, y_k)
        if lost == every:
            sure = refitted(f_k, model, X, Y)
            fitted += sure is not None
            b = explain(of, sure, x, target) if sure else torch.zeros_like(ref)  # a constant map: NaN
            s |= with_sizes({"refitted": similarities(ref, b, x, ("spearman",))["spearman"]})
        for name, v in s.items():
            drawn.setdefault(lost, {}).setdefault(name, []).append(v.double())
    # of the seeds with a number: a network whose map is constant has none
    total = {lost: {n: torch.stack(v).nanmean(dim=0) for n, v in found.items()} for lost, found in drawn.items()}
    curves = {}
    for order, sets in plan.items():
        for name, kind in ((order, "spearman"), (f"{order} logits", "logits")):
            curves[name] = torch.stack([total[lost][kind] for lost in sets], dim=1)  # B points
    first = {"head": total.get(frozenset({len(L) - 1})), "bottom_up": total.get(frozenset({0}))}
    full = total[every]
    sure = {name: full.pop(name) for name in ("refitted", "refitted_size")}
    return Result(
        values=full["spearman"],
        columns={f"full_{k}": v for k, v in full.items()}
        | {f"null_{k}": v for k, v in null.items()}
        | {f"{name}{k}": s[f"spearman{k}"] for name, s in first.items() if s is not None for k in ("", "_size")}
        | sure
        | {"ceiling": ceiling},
        curves=curves,
        at=tuple(float(k + 1) for k in range(next(iter(curves.values())).shape[1])),
        facts={"init": init, "seeds": seeds, "stages": [s.name for s in L], "randomized_output": statistics}
        | {"refitted": fitted}
        | {f"steps_{order}": [[L[k].name for k in sorted(lost)] for lost in sets] for order, sets in plan.items()},
    )
