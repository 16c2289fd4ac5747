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

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor, nn

import _plot
import _run  # puts the repository on the path
from methods import _display
from sanity_checks import _ground_truth, _nets
from sanity_checks._controls import CONTROLS
from sanity_checks._statistics import interval
from sanity_checks._torch import explain, path, pixels, probability
from sanity_checks.road import random_ties

PERCENTAGES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)
BASES = {"integrated_gradients": ("IG", {"steps": 16}), "guided_backprop": ("GB", {})}
NOISY = {"smooth_grad": "SG", "smooth_grad_squared": "SG-SQ", "var_grad": "Var"}
MORE = {"gradient": "gradient", "input_x_gradient": "input x grad", "grad_cam": "Grad-CAM", "layer_cam": "LayerCAM"}
NULLS = ("white_noise", "smooth_noise", "sobel_edges", "input_magnitude")
SAMPLES = 10
RESAMPLES = 1000
FILLS = {"fixed": "fixed value (mean)", "linear": "noisy linear imputation"}
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


@torch.no_grad()
def fixed_value(model: nn.Module, x: Tensor, y: Tensor, maps: Tensor, seed: int) -> dict[str, Float[np.ndarray, "n p"]]:
    """Probability and accuracy as in the check `road`, for the same pixels, but filled with the mean colour, 0."""
    a = pixels(maps, x)
    r = torch.rand(a[0].numel(), generator=torch.Generator().manual_seed(seed)).view_as(a[0]).to(a).expand_as(a)
    counts = torch.tensor([int(a[0].numel() * p) for p in PERCENTAGES])
    found = {}
    for name, rank in (("morf", random_ties(a, r)), ("lerf", random_ties(-a, r))):
        for end, score in (("", probability(y)), ("_accuracy", correct(y))):
            found[name + end] = path(model, x, torch.zeros_like(x), rank, counts, score, 200).T.cpu().double().numpy()
    return found


def correct(y: Tensor) -> Callable[[Tensor], Tensor]:
    """A score of logits: 1 where the top class is y."""
    return lambda logits: (logits.argmax(dim=1) == y).to(logits.dtype)


def consistency(
    curves: Sequence[dict[str, tuple[Float[np.ndarray, "n p"], Float[np.ndarray, "n p"]]]],
    truth: Float[np.ndarray, "m n"],
    order: np.ndarray,
) -> dict[str, Any]:
    """Rank correlations of methods, averaged over the shares removed, with 95 % bootstrap intervals over images.

    Args:
        curves: for each method: fill -> (MoRF, LeRF), of each image at each share.
        truth: of each method and image, high is good.
        order: draws of images, one row per resample.
    """
    draws = [np.arange(order.shape[1]), *order]  # the first is the sample itself
    found: dict[str, list[float]] = {}
    for draw in draws:
        true = truth[:, draw].mean(axis=1)  # m
        for f in FILLS:
            morf, lerf = (np.stack([c[f][k][draw].mean(axis=0) for c in curves]) for k in (0, 1))  # m p
            for name, a, b in (
                (f"{f}: MoRF, LeRF", -morf, lerf),
                (f"{f}: MoRF, truth", -morf, true),
                (f"{f}: LeRF, truth", lerf, true),
            ):
                found.setdefault(name, []).append(spearman(a, b))
        for k in ("MoRF, LeRF", "MoRF, truth", "LeRF, truth"):
            found.setdefault(f"linear - fixed: {k}", []).append(found[f"linear: {k}"][-1] - found[f"fixed: {k}"][-1])
    numbers: dict[str, Any] = {
        k: {"mean": v[0], "low": np.percentile(v[1:], 2.5), "high": np.percentile(v[1:], 97.5)}
        for k, v in found.items()
    }
    for f in FILLS:
        morf, lerf = (np.stack([c[f][k].mean(axis=0) for c in curves]) for k in (0, 1))
        taus = [float(np.asarray(stats.kendalltau(-a, b))[0]) for a, b in zip(morf.T, lerf.T, strict=True)]
        numbers[f"{f}: MoRF, LeRF, Kendall"] = float(np.mean(taus))
    return numbers


def spearman(a: Float[np.ndarray, "m p"], b: np.ndarray) -> float:
    """Spearman's correlation over the m methods, mean over p; b is m x p or m. Ties get their mean rank."""
    a, b = (stats.rankdata(v.reshape(len(v), -1), axis=0) for v in (a, b))
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    norms = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return float(np.mean((a * b).sum(axis=0) / np.where(norms == 0, 1, norms)))


def draw(run: _run.Run, sets: dict[str, list[str]]) -> Any:  # noqa: ANN401
    """Curves of both orders for both fill values, then the correlations."""
    names = sets["all"]
    colours = {k: _plot.LINES[i % 4 if i < 8 else i - 4] for i, k in enumerate(names[:12])}
    look = {k: (_plot.CONTROL, (":", (0, (1, 3)), "-.", "-")[i]) for i, k in enumerate(names[12:])}
    look = {k: (colours[k], "--" if k.startswith("GB") else "-") for k in names[:12]} | look
    with _display.style():
        top, axes = _plot.chart(2, 2, "", height=1.5, sharex=True, sharey=True)
        for row, (fill, title) in zip(axes, FILLS.items(), strict=True):
            for ax, (key, what) in zip(
                row, {"morf": "most relevant first (MoRF)", "lerf": "least relevant first (LeRF)"}.items(), strict=True
            ):
                for k in names:
                    c = run.numbers["curves"][k][fill][f"{key}_accuracy"]
                    colour, dashes = look[k]
                    ax.plot([100 * p for p in PERCENTAGES], c, color=colour, linestyle=dashes, label=k)
                ax.set_title(f"{title}: {what}")
                ax.set(ylim=(0, 1))
            row[0].set_ylabel("accuracy")
        for ax in axes[1]:
            ax.set_xlabel("pixels removed, %")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        top.legend(handles, labels, loc="outside right center", handlelength=3.0)

        bottom, axes = _plot.chart(1, 2, caption(run), height=1.7, sharey=True)
        pairs = ("MoRF, LeRF", "MoRF, truth", "LeRF, truth")
        for ax, (which, members) in zip(axes[0], sets.items(), strict=True):
            found = run.numbers["consistency"][which]["probability"]
            for j, fill in enumerate(FILLS):
                v = [found[f"{fill}: {p}"] for p in pairs]
                mean, low, high = (np.array([u[key] for u in v]) for key in ("mean", "low", "high"))
                at = np.arange(len(pairs)) + 0.36 * (j - 0.5)
                ax.bar(at, mean, 0.34, color=_plot.LINES[j], label=FILLS[fill])
                error = [(mean - low).clip(0), (high - mean).clip(0)]
                ax.errorbar(at, mean, error, fmt="none", ecolor="black", elinewidth=0.6)
            if which == "paper":
                ax.scatter([-0.18, 0.18], PUBLISHED.values(), marker="D", s=10, color="black", zorder=3)
            ax.axhline(0, color="black", linewidth=0.4)
            ax.set_xticks(range(len(pairs)), ["MoRF with LeRF", "MoRF with truth", "LeRF with truth"])
            ax.set_title(
                "the paper's eight methods" if which == "paper" else f"all {len(members)}, controls too", pad=14
            )
            ax.legend(loc="lower center", bbox_to_anchor=(0.5, 0.98), ncols=2)
            ax.set_ylim(top=1.05)
        axes[0, 0].set_ylabel("Spearman between rankings")
    return [top, bottom]


def caption(run: _run.Run) -> str:
    """What the figure contains, what was found, and how to read it."""
    found = run.numbers["consistency"]["paper"]["probability"]

    def shown(key: str) -> str:
        return f"{found[key]['mean']:.2f} [{found[key]['low']:.2f}, {found[key]['high']:.2f}]"

    return (
        f"Network: {_nets.NETS['digit_cnn'].title}; {run.numbers['n']} test images, seed {run.args.seed}. "
        "Top: accuracy when a share of the pixels is removed. Grey: maps that do not use the network. Bottom: "
        "Spearman's correlation between two rankings of the methods. The rankings are by the mean probability of the "
        "digit at one removed share; the correlation is averaged over the seven shares; 95 % bootstrap intervals over "
        "images. Truth: the ranking by the share of the positive map inside the digit. Diamonds: the authors' notebook "
        "(another network, CIFAR-10; absolute values). MoRF with LeRF, "
        f"the paper's eight: linear {shown('linear: MoRF, LeRF')}, fixed {shown('fixed: MoRF, LeRF')}, "
        f"difference {shown('linear - fixed: MoRF, LeRF')}. Two orders can agree without agreeing with the truth. "
        "IG: integrated gradients (16 steps); GB: guided backprop; SG, SG-SQ, Var: mean, mean square and variance over "
        f"{SAMPLES} noisy copies."
    )


if __name__ == "__main__":
    main()
