"""Integrated gradients: the gap of completeness by the number of steps and the quadrature rule, and why it is there.

Sundararajan, Taly, Yan. Axiomatic Attribution for Deep Networks. ICML 2017. arXiv:1703.01365, section 5 (20 to 300
steps bring the sum within 5 %), and the score along the path.

The reader should see: how many steps each rule needs. Most of the score arises on a short part of the path, and the
derivative along the path is rough, as the network is made of linear pieces. So the gap does not fall evenly.

Settings that differ from the paper: another network and photographs. The paper has one rule, the right end of each
step, and gives no curve.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor, nn

import _plot
import _run  # puts the repository on the path
from methods import _display, _images
from methods._torch import gradients, scores
from sanity_checks._statistics import of_images
from sanity_checks._torch import explain

RULES = {"left": ":", "right": "-", "middle": "--", "gauss_legendre": "-."}
STEPS = (5, 10, 20, 50, 100, 200)
POINTS = 101  # along the path
ENOUGH = 0.05  # the paper's limit
PHOTOS = "chelsea,coffee,motorcycle,flower"


def main() -> None:
    """Draw figures/fig_ig_completeness.png."""
    run = _run.start(__file__, __doc__, photos=PHOTOS, quick_photos="chelsea,coffee")
    loaded = _run.load(run)
    rows = _run.subjects(run, loaded)
    x = _images.tensor([r.photo for r in rows], loaded)
    target = torch.tensor([r.target for r in rows], device=x.device)
    steps, points = (STEPS[:2], 11) if run.args.quick else (STEPS, POINTS)
    run.bar.reset(total=len(RULES) * len(steps) + 1)

    gaps: dict[str, dict[str, Any]] = {rule: {} for rule in RULES}
    for m in steps:
        for rule in RULES:
            run.bar.set_postfix_str(f"{rule}, {m} steps")
            of = _run.bind(run, "integrated_gradients", loaded.model, x, rule=rule, steps=m)
            a = explain(of, loaded.model, x, target)
            gaps[rule][str(m)] = of_images(_run.check(run, "completeness", loaded.model, x, target, a).values)
            run.bar.update()
    score, slope = along(loaded.model, x, target, points)
    run.bar.update()
    run.numbers |= {
        "photographs": [r.photo.name for r in rows],
        "gaps": gaps,
        "alpha": np.linspace(0, 1, points),
        "score": score.T,
        "slope": slope.T,
    }
    caption = (
        f"{loaded.note}; {len(rows)} photographs, explained for their top class; the baseline is the mean colour. "
        "Left: |sum of the map - change of the logit| / |change of the logit|, mean over the photographs with its 95 % "
        "bootstrap interval; rules are the points of each step at which the gradient is taken. Dashed line: 5 %. "
        "Middle: the logit along the straight path, as a share of its change. Right: its derivative at "
        f"{points} points."
    )
    _run.save(run, draw(run.numbers, headline(gaps), caption, _run.banner(run)), caption)


def along(
    model: nn.Module, x: Float[Tensor, "B C H W"], target: Tensor, points: int
) -> tuple[Float[Tensor, "m B"], Float[Tensor, "m B"]]:
    """On the straight path from 0 to x: the score, as a share of its change, and its derivative."""
    f, slope = [], []
    for alpha in torch.linspace(0, 1, points).to(x):
        at = (alpha * x)[None]  # 1 B C H W
        f.append(scores(model, at, target)[0])
        slope.append((gradients(model, at, target)[0] * x).sum(dim=(1, 2, 3)))
    score = torch.stack(f)  # m B
    change = score[-1] - score[0]
    return (score - score[0]) / change, torch.stack(slope) / change


def enough(gaps: dict[str, dict[str, float]]) -> int | None:
    """The fewest steps from which on the mean gap is below 5 %; None if there are none."""
    found = None
    for m, gap in reversed(gaps.items()):
        if gap["mean"] >= ENOUGH:
            break
        found = int(m)
    return found


def headline(gaps: dict[str, dict[str, dict[str, float]]]) -> str:
    """The steps that the best rule and that of the paper need."""
    most = max(int(m) for m in gaps["right"])
    need = {rule: enough(by) or most + 1 for rule, by in gaps.items()}
    best = min(need, key=need.__getitem__)
    steps = {rule: f"{n} steps" if n <= most else f"more than {most} steps" for rule, n in need.items()}
    return f"A gap below 5 % takes {steps[best]} with {best.replace('_', '-')}, {steps['right']} with the paper's rule"


def draw(found: dict[str, Any], head: str, caption: str, banner: str) -> Figure:
    """The gap by steps, the score along the path, its derivative."""
    with _display.style():
        figure, axes = _plot.chart(1, 3, caption, height=2.1, banner=banner, title=head)
        left, middle, right = axes[0]
        for colour, (rule, line) in zip(_plot.LINES, RULES.items(), strict=False):
            by = found["gaps"][rule]
            at = [int(m) for m in by]
            left.plot(at, [v["mean"] for v in by.values()], line, color=colour, label=rule.replace("_", "-"))
            left.fill_between(
                at, [v["low"] for v in by.values()], [v["high"] for v in by.values()], color=colour, alpha=0.1
            )
        left.axhline(ENOUGH, color="black", lw=0.6, ls="--")
        left.set(xscale="log", yscale="log", xlabel="steps", ylabel="gap, share of the change", ylim=(1e-3, None))
        left.set_xticks([int(m) for m in found["gaps"]["right"]], list(found["gaps"]["right"]))
        left.minorticks_off()
        left.legend(loc="lower left", handlelength=1.8)
        for k, name in enumerate(found["photographs"]):
            look = {"color": _plot.LINES[k % len(_plot.LINES)], "ls": ("-", "--", "-.", ":")[k % 4]}
            middle.plot(found["alpha"], found["score"][k].cpu(), **look, label=name)
            right.plot(found["alpha"], found["slope"][k].cpu(), **look, lw=0.8)
        middle.set(xlabel="position on the path", ylabel="logit, share of its change")
        middle.legend(loc="lower right", handlelength=1.8)
        right.set(xlabel="position on the path", ylabel="derivative of this share")
    return figure


if __name__ == "__main__":
    main()
