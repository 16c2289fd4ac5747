"""Which metrics measure the same: how far faithfulness and localisation scores agree on the order of the methods.

Form of the agreement matrix of Tomsett et al. 2020 (Sanity Checks for Saliency Metrics, arXiv:1912.01451), on a network
whose evidence is known.
The reader should see: even scores of the same known evidence (bold) fall into two groups, those that add up the mass of
the map (energy, earth mover) and those that read its order (ROC-AUC, relevance rank); metrics that change the image
follow one group or the other. So two tables that order the same methods by two metrics need not agree, and neither is
wrong.

The number is Spearman's correlation, over methods and controls, of the mean scores of two metrics, with the sign that
makes higher better. Its 95 % interval resamples the images.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform
from scipy.stats import rankdata

import _plot
import _run  # puts the repository on the path
from _table import LONG, OPTIONS, SIZED, Column, digits, for_digits, measure, rows
from methods import METHODS, _display
from sanity_checks import CHECKS
from sanity_checks._parallel import World

TRUTH = {  # on the mask of the digit
    "energy on the object": Column("energy on the object", "energy_pointing_game"),
    "relevance rank": Column("relevance rank", "relevance_rank"),
    "ROC-AUC": Column("ROC-AUC", "roc_auc"),
    "earth mover": Column("earth mover", "earth_mover"),
}
METRICS = {
    c.header: c
    for c in (
        Column("insertion", "insertion_deletion", "insertion"),
        Column("deletion", "insertion_deletion", "deletion", higher=False),
        Column("MAS", "mas"),
        Column("SIC", "sic_aic"),
        Column("keep - remove", "keep_remove"),
        Column("average drop", "average_drop", higher=False),
        Column("ROAD", "road"),
        Column("SRG", "srg"),
        Column("pixel flipping", "pixel_flipping"),
        Column("IROF", "irof"),
        Column("SaCo", "saco"),
        Column("single deletion", "single_deletion"),
        Column("sensitivity-n", "sensitivity_n"),
        Column("faithfulness corr.", "faithfulness_correlation"),
        Column("monotonicity corr.", "monotonicity_correlation"),
        Column("infidelity", "infidelity", higher=False),
    )
} | TRUTH
IMAGES = 48  # in shards of 8, as the tables
RESAMPLES = 1000
QUICK_METRICS = ("insertion", "deletion", "ROAD", "energy on the object", "ROC-AUC")
QUICK = ("gradient", "grad_cam", "integrated_gradients", "input_x_gradient")


def main() -> None:
    """Draw figures/fig_metrics_agree.png."""
    run = _run.start(__file__, __doc__, photos=None, options=OPTIONS)
    quick = run.args.quick
    names = QUICK if quick else [m for m in METHODS if m not in LONG and "cnn" in METHODS[m].architectures]
    bench = digits(run, "digit_cnn", 12 if quick else IMAGES)
    columns = [METRICS[name] for name in (QUICK_METRICS if quick else METRICS)]
    checks = {c: {**CHECKS[c].quick, **SIZED.get(c, {})} for c in dict.fromkeys(c.check for c in columns)}
    checks = {c: {k: v for k, v in words.items() if k in CHECKS[c].params} for c, words in checks.items()}
    scores: dict[str, dict[str, Float[np.ndarray, " B"]]] = {}
    subjects = [for_digits(row) for row in rows(None, list(names), quick=False)]
    for (row, check), part in measure(run, World(), subjects, checks, bench):
        if part.result is None:
            run.refused.setdefault(f"{row}, {bench.name}", part.refused)
            continue
        for c in columns:
            if c.check == check:
                scores.setdefault(row, {})[c.header] = (1 if c.higher else -1) * part.result.column(c.value)
    scores = {row: found for row, found in scores.items() if len(found) == len(columns)}
    found = agreement(scores, [c.header for c in columns], run.args.seed)
    run.numbers |= {"images": len(bench.names), "rows": list(scores), "refused": dict(run.refused)} | found
    caption = (
        f"{bench.note}; {len(scores)} methods and controls. Spearman's correlation over them of the mean scores of two "
        f"metrics (higher is better in all); grey: its 95 % interval over images ({RESAMPLES:,} draws) contains 0. "
        "Metrics in bold compare the map with the mask of the digit; the others change the image. Order: average "
        f"linkage. Slow methods have fewer steps; settings: sidecar. Seed {run.args.seed}."
    )
    _run.save(run, draw(run.numbers, caption, _run.banner(run)), caption)


def agreement(
    scores: Mapping[str, Mapping[str, Float[np.ndarray, " B"]]], names: Sequence[str], seed: int
) -> dict[str, Any]:
    """Spearman's correlation of metrics over rows with its interval, in the order of a clustering.

    Args:
        scores: row -> metric -> number of each image, NaN where there is none.
        names: of the metrics.
        seed: of the resampling.
    """
    v = np.array([[found[name] for name in names] for found in scores.values()])  # rows metrics B
    rng, n = np.random.default_rng(seed), v.shape[2]
    rho = _correlations(np.nanmean(v, axis=2))
    tries = np.array([_correlations(np.nanmean(v[:, :, rng.integers(n, size=n)], axis=2)) for _ in range(RESAMPLES)])
    low, high = np.percentile(tries, [2.5, 97.5], axis=0)
    order = leaves_list(linkage(squareform(1 - rho, checks=False), "average")).tolist()
    at = np.ix_(order, order)
    return {"metrics": [names[k] for k in order], "rho": rho[at], "low": low[at], "high": high[at]}


def _correlations(means: Float[np.ndarray, "rows metrics"]) -> Float[np.ndarray, "metrics metrics"]:
    return np.corrcoef(rankdata(means, axis=0), rowvar=False)


def headline(n: Mapping[str, Any]) -> str:
    """What the reader should see, from the numbers."""
    names, rho = list(n["metrics"]), np.array(n["rho"])
    truth = [k for k, name in enumerate(names) if name in TRUTH]
    others = [k for k in range(len(names)) if k not in truth]
    a, b = min(((a, b) for a in truth for b in truth if a < b), key=lambda pair: rho[pair])
    to_truth = {names[k]: float(np.mean([rho[k, t] for t in truth])) for k in others}
    best, worst = max(to_truth, key=to_truth.__getitem__), min(to_truth, key=to_truth.__getitem__)
    return (
        f"Even scores of the same known evidence (bold) need not agree: {names[a]} and {names[b]} correlate by "
        f"{rho[a, b]:.2f}. Of the metrics that change the image, {best} agrees most with the four "
        f"({to_truth[best]:.2f}), {worst} least ({to_truth[worst]:.2f})."
    )


def draw(n: Mapping[str, Any], caption: str, banner: str = "") -> Figure:
    """A matrix of correlations with its numbers."""
    names, rho = list(n["metrics"]), np.array(n["rho"])
    unsure = (np.array(n["low"]) <= 0) & (np.array(n["high"]) >= 0)
    with _display.style():
        figure, axes = _plot.chart(1, 1, caption, height=5.6, banner=banner, title=headline(n))
        ax = axes[0, 0]
        shown = ax.imshow(rho, cmap="RdBu", vmin=-1, vmax=1, interpolation="nearest")
        for i, j in np.ndindex(*rho.shape):
            if i != j:
                colour = "#777777" if unsure[i, j] else "white" if abs(rho[i, j]) > 0.6 else "black"
                text = f"{rho[i, j]:.2f}".replace("0.", ".").replace("-", "\N{MINUS SIGN}")
                ax.text(j, i, text, ha="center", va="center", fontsize=6, color=colour)
        ax.set_xticks(range(len(names)), names, rotation=90)
        ax.set_yticks(range(len(names)), names)
        for label in (*ax.get_xticklabels(), *ax.get_yticklabels()):
            if label.get_text() in TRUTH:
                label.set_fontweight("bold")
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        figure.colorbar(shown, ax=ax, ticks=[-1, -0.5, 0, 0.5, 1], aspect=30, pad=0.01, label="Spearman's correlation")
        return figure


if __name__ == "__main__":
    main()
