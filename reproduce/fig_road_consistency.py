"""Does a ranking of methods depend on the order of removal? Most or least relevant pixels first, with two fill values.

Rong, Leemann, Borisov, Kasneci, Kasneci: A Consistent and Efficient Evaluation Strategy for Attribution Methods (ROAD).
ICML 2022. arXiv:2202.00449 (form of Fig. 1 and of its tables of rank correlations, without retraining).
The reader should see: pixels are removed most relevant first (MoRF) or least relevant first (LeRF). With noisy linear
imputation the two orders agree about which of the paper's methods are good; with a fixed value they do not. This is
consistency, not truth: the ranking by linear imputation is not closer to the ranking by the masks.

Differs from the paper: a small CNN for digits on textures instead of a network for CIFAR-10. So the truth is known, and
the rankings are also compared with it (share of the positive map inside the digit). Methods are ranked by the mean
probability of the class, which has fewer ties than the accuracy. The accuracy is drawn; its correlations are in the
sidecar. The paper's eight methods are integrated gradients and guided backprop, each without noise and in three ways
with noise (10 samples). A second panel ranks four more methods and four controls with them. Correlations are computed
at each share of removed pixels, then averaged. Their sign is such that 1 is agreement (MoRF: low is good; LeRF: high is
good).
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from scipy import stats
from torch import Tensor, nn

import _plot
import _run  # puts the repository on the path
from _dots import dots
from _road import FILLS, PERCENTAGES, consistency, fixed_value
from methods import _display
from sanity_checks import _ground_truth, _nets
from sanity_checks._controls import CONTROLS
from sanity_checks._statistics import interval
from sanity_checks._torch import explain

BASES = {"integrated_gradients": ("IG", {"steps": 16}), "guided_backprop": ("GB", {})}
NOISY = {"smooth_grad": "SG", "smooth_grad_squared": "SG-SQ", "var_grad": "Var"}
MORE = {"gradient": "gradient", "input_x_gradient": "input x grad", "grad_cam": "Grad-CAM", "layer_cam": "LayerCAM"}
NULLS = ("white_noise", "smooth_noise", "sobel_edges", "input_magnitude")
SAMPLES = 10
RESAMPLES = 1000
LOOK = {
    "fixed": {"colour": _plot.LINES[1], "marker": "s", "label": "fixed value", "shift": -0.15},
    "linear": {"colour": _plot.LINES[0], "marker": "o", "label": "noisy linear", "shift": 0.15},
}
PAIRS = {"MoRF, LeRF": "MoRF with LeRF", "MoRF, truth": "MoRF with truth", "LeRF, truth": "LeRF with truth"}
GROUPS = {  # four rows each, in the order of the numbers
    "IG, 4 ways": {"color": _plot.LINES[0], "linestyle": "-"},
    "GB, 4 ways": {"color": _plot.LINES[1], "linestyle": "--"},
    "4 other methods": {"color": "black", "linestyle": "-.", "linewidth": 0.8},
    "4 controls": {"color": _plot.CONTROL, "linestyle": ":"},
}
PUBLISHED = {
    "fixed": 0.01,
    "linear": 0.53,
}  # |Spearman| of MoRF and LeRF in the authors' notebook, CIFAR-10, no retraining


def main(argv: Sequence[str] | None = None) -> None:
    """Draw figures/fig_road_consistency.png."""
    run = _run.start(__file__, __doc__, photos=None, argv=argv)
    n, resamples = (12, 100) if run.args.quick else (200, RESAMPLES)
    model = _run.net(run, "digit_cnn")
    data = _ground_truth.digits_on_textures(n, 7 + run.args.seed)
    x, y, mask = (v.to(run.args.device) for v in (data.x, data.digit, data.mask))
    rows = methods(run, model, x) | {CONTROLS[k][0]: CONTROLS[k][1](run.args.seed) for k in NULLS}
    run.bar.unit = "map"
    run.bar.reset(total=len(rows))

    truth, curves = [], {}  # name -> fill -> order -> images x percentages
    for name, of in rows.items():
        run.bar.set_postfix_str(name)
        maps = torch.cat([explain(of, model, *part) for part in zip(x.split(50), y.split(50), strict=True)])  # n K h w
        truth.append(_run.check(run, "energy_pointing_game", maps, mask).values.cpu().numpy())
        found = _run.check(
            run, "road", model, x, y, maps, percentages=PERCENTAGES, std=(_ground_truth.STD,) * 3, seed=run.args.seed
        )
        curves[name] = {
            "fixed": fixed_value(model, x, y, maps, run.args.seed),
            "linear": {k: v.cpu().double().numpy() for k, v in found.curves.items()},
        }
        run.bar.update()

    names = list(rows)
    sets = {"paper": names[:8], "all": names}
    order = np.random.default_rng(run.args.seed).integers(n, size=(resamples, n))  # draws of images
    run.numbers |= {
        "n": n,
        "truth": {k: asdict(interval(t)) for k, t in zip(names, truth, strict=True)},
        "curves": {
            k: {f: {o: v.mean(axis=0) for o, v in by.items()} for f, by in c.items()} for k, c in curves.items()
        },
        "consistency": {
            which: {
                kind: consistency(
                    [{f: (curves[k][f]["morf" + end], curves[k][f]["lerf" + end]) for f in FILLS} for k in members],
                    np.stack([truth[names.index(k)] for k in members]),
                    order,
                )
                for kind, end in (("probability", ""), ("accuracy", "_accuracy"))
            }
            for which, members in sets.items()
        },
        "published": PUBLISHED,
    }
    _run.save(run, draw(run, sets), caption(run))


def methods(run: _run.Run, model: nn.Module, x: Tensor) -> dict[str, Any]:
    """Label -> Attribution: the paper's eight, then four more."""
    found = {}
    for base, (short, keywords) in BASES.items():
        found[short] = _run.bind(run, base, model, x, **({} if run.args.quick else keywords))
        for name, label in NOISY.items():
            few = {} if run.args.quick else {"samples": SAMPLES}
            found[f"{short} {label}"] = _run.bind(run, name, model, x, of=found[short], chunk=200, **few)
    return found | {label: _run.bind(run, name, model, x) for name, label in MORE.items()}


def draw(run: _run.Run, sets: dict[str, list[str]]) -> list[Figure]:
    """Accuracies; the paper's methods in the order of MoRF and in that of LeRF; the correlations."""
    better = run.numbers["consistency"]["paper"]["probability"]["linear - fixed: MoRF, LeRF"]["low"] > 0
    title = (
        "With noisy linear imputation, MoRF and LeRF agree more about which of the paper's methods are good"
        if better
        else "Rankings of methods by the removal orders MoRF and LeRF"
    )
    top = accuracies(run, sets["all"], title)
    with _display.style():
        middle, axes = _plot.chart(1, 2, "", height=1.75)
        for ax, fill in zip(axes[0], FILLS, strict=True):
            ranks(ax, run, sets["paper"], fill)

        bottom, axes = _plot.chart(1, 2, caption(run), height=1.25, sharey=True, sharex=True)
        for ax, (which, members) in zip(axes[0], sets.items(), strict=True):
            found = run.numbers["consistency"][which]["probability"]
            for fill, look in LOOK.items():
                dots(ax, {pair: found[f"{fill}: {pair}"] for pair in PAIRS}, names=PAIRS, **look)
            ax.axvline(0, color="black", linewidth=0.5, zorder=0)
            ax.set(xlim=(-0.6, 1), xlabel="Spearman's correlation of two rankings")
            ax.set_title("the paper's eight methods" if which == "paper" else f"all {len(members)}, controls too")
        for fill, value in PUBLISHED.items():
            axes[0, 0].plot(value, LOOK[fill]["shift"], "D", color="black", ms=6, fillstyle="none", mew=0.7)
        axes[0, 1].legend(loc="lower left", handlelength=1, borderpad=0)
    return [top, middle, bottom]


def accuracies(run: _run.Run, names: Sequence[str], title: str) -> Figure:
    """A panel for each fill and order; the methods in four groups, each with a look of its own."""
    orders = {"morf": "MoRF: most relevant first", "lerf": "LeRF: least relevant first"}
    with _display.style():
        figure, axes = _plot.chart(1, 4, "", height=1.95, title=title, sharex=True, sharey=True)
        panels = [(fill, key) for fill in FILLS for key in orders]
        for ax, (fill, key) in zip(axes[0], panels, strict=True):
            for i, k in enumerate(names):
                group = i // 4
                y = run.numbers["curves"][k][fill][f"{key}_accuracy"]
                label = list(GROUPS)[group] if i % 4 == 0 else None
                ax.plot([100 * p for p in PERCENTAGES], y, label=label, **list(GROUPS.values())[group])
            ax.set_title(f"{FILLS[fill]}\n{orders[key]}", pad=17)
            ax.set(ylim=(0, 1.02), xticks=(10, 50, 90), xlabel="pixels removed, %")
        axes[0, 0].set_ylabel("accuracy")
        across = axes[0, 0].legend(loc="lower left", bbox_to_anchor=(0.3, 0.98), ncols=len(GROUPS))
        across.set_in_layout(False)  # it is wider than its axes
    return figure


def ranks(ax: Any, run: _run.Run, names: Sequence[str], fill: str) -> None:  # noqa: ANN401
    """A line for each method from its place by MoRF to its place by LeRF; 1 is the best."""
    places = [place(np.stack([run.numbers["curves"][k][fill][o] for k in names]), o) for o in ("morf", "lerf")]
    for k, left, right in zip(names, *places, strict=True):
        look = GROUPS["IG, 4 ways" if k.startswith("IG") else "GB, 4 ways"]
        ax.plot([0, 1], [left, right], marker="o", markersize=3, **look)
        ax.text(-0.04, left, k, ha="right", va="center")
        ax.text(1.04, right, k, ha="left", va="center")
    mean = run.numbers["consistency"]["paper"]["probability"][f"{fill}: MoRF, LeRF"]["mean"]
    ax.set_title(f"{FILLS[fill]}: mean correlation {mean:.2f}")
    ax.set(xlim=(-0.45, 1.45), ylim=(len(names) + 0.5, 0.5), yticks=(1, len(names)))
    ax.set_xticks([0, 1], ["order by MoRF", "order by LeRF"])
    ax.set_yticklabels(["best", "worst"])
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.tick_params(length=0)


def place(curves: Float[np.ndarray, "m p"], order: str) -> Float[np.ndarray, " m"]:
    """Places of the methods by their mean rank over the shares; MoRF: low is good, LeRF: high is good."""
    return stats.rankdata(stats.rankdata(curves if order == "morf" else -curves, axis=0).mean(axis=1), method="ordinal")


def caption(run: _run.Run) -> str:
    """What the figure contains, what was found, and how to read it."""
    found = run.numbers["consistency"]["paper"]["probability"]

    def shown(key: str) -> str:
        return f"{found[key]['mean']:.2f} [{found[key]['low']:.2f}, {found[key]['high']:.2f}]"

    return (
        "After Fig. 1 and the rank correlations of the ROAD paper (Rong et al. 2022), without retraining. Network: "
        f"{_nets.NETS['digit_cnn'].title} instead of CIFAR-10; {run.numbers['n']} test images, seed {run.args.seed}. "
        "MoRF, LeRF: most, least relevant pixels removed first. Top: the other methods are gradient, "
        "Gradient x Input, Grad-CAM and LayerCAM; controls are maps that do not use the network. "
        "Middle: the paper's eight methods, ordered by the mean probability of the digit (mean rank over seven removed "
        "shares; MoRF: low is good). Bottom: correlation of two rankings at one share, averaged over the shares, with "
        "95 % bootstrap intervals over images. Truth: ranking by the share of the positive map inside the digit. "
        "Diamonds: the authors' notebook (CIFAR-10; absolute values). MoRF with LeRF, the paper's eight: linear "
        f"{shown('linear: MoRF, LeRF')}, fixed {shown('fixed: MoRF, LeRF')}, "
        f"difference {shown('linear - fixed: MoRF, LeRF')}. Two orders can agree without agreeing with the truth. "
        "IG: integrated gradients (16 steps); GB: guided backprop; SG, SG-SQ, Var: mean, mean square and variance over "
        f"{SAMPLES} noisy copies."
    )


if __name__ == "__main__":
    main()
