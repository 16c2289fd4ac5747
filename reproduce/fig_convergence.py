"""Black-box methods: the error of their maps by the number of passes, where the exact values are known.

Twelve regions of a photograph can be seen in 4096 ways. All of them run once, so that what each method tends to with
ever more passes is known exactly, and the methods run as they are on the recorded scores.

The reader should see: which method to use with few passes; and whether leverage sampling is closer to Shapley values
than sampling by the kernel (Musco and Witter, ICLR 2025, arXiv:2410.01917), and GLIME closer to its limit than LIME
(Tan, Tian, Li, NeurIPS 2023).

Settings that differ from the papers: another network and photographs; regions are cells of a grid. Regions are seen or
hidden: RISE's masks are cells that are not enlarged, and Sobol's numbers are rounded.
"""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from scipy.stats import spearmanr
from torch import Tensor, nn

import _plot
import _run  # puts the repository on the path
from methods import METHODS, _display, _images
from methods._regions import hiding, masked_scores, painted
from methods.lime import WIDTHS
from sanity_checks._statistics import of_images

ROWS, COLUMNS = 4, 3
R = ROWS * COLUMNS
PASSES = (30, 60, 125, 250, 500, 1000, 2000)
SEEDS = 10
PHOTOS = "chelsea,coffee,rocket,motorcycle,flower"
LABELS = {
    "leverage": "Kernel SHAP, leverage", "kernel": "Kernel SHAP, kernel", "lime": "LIME", "glime": "GLIME",
    "rise": "RISE", "sobol": "Sobol", "hsic": "HSIC",
}  # fmt: skip
LOOK = {"leverage": "-", "kernel": "--", "lime": "-", "glime": "--", "rise": "-", "sobol": "-.", "hsic": ":"}
Values = Float[np.ndarray, " R"]


def main() -> None:
    """Draw figures/fig_convergence.png."""
    run = _run.start(__file__, __doc__, photos=PHOTOS, quick_photos="coffee")
    loaded = _run.load(run)
    rows = _run.subjects(run, loaded)
    x = _images.tensor([r.photo for r in rows], loaded)
    target = torch.tensor([r.target for r in rows], device=x.device)
    passes, seeds = (PASSES[:3], 2) if run.args.quick else (PASSES, SEEDS)
    run.bar.reset(total=len(rows) * (1 + len(passes)))

    found: dict[str, dict[str, dict[int, list[float]]]] = {k: {"error": {}, "rank": {}} for k in LABELS}
    agree: dict[str, list[float]] = {k: [] for k in LABELS}
    for b, row in enumerate(rows):
        run.bar.set_postfix_str(f"{row.photo.name}, all coalitions")
        v = all_scores(loaded.model, x[b : b + 1], target[b : b + 1], run.args.quick)
        run.bar.update()
        exact = limits(v)
        for k, value in exact.items():
            size = np.abs(exact["leverage"]) if k in ("sobol", "hsic") else exact["leverage"]
            agree[k].append(float(np.asarray(spearmanr(value, size))[0]))
        for n in passes:
            run.bar.set_postfix_str(f"{row.photo.name}, {n} passes")
            for k, (at, estimates) in estimated(run, v, n, seeds).items():
                found[k]["error"].setdefault(at, []).append(float(np.median([error(e, exact[k]) for e in estimates])))
                ranks = [float(np.asarray(spearmanr(e, exact[k]))[0]) for e in estimates]
                found[k]["rank"].setdefault(at, []).append(float(np.nan_to_num(np.mean(ranks))))
            run.bar.update()
    run.numbers |= {
        "photographs": [r.photo.name for r in rows],
        "seeds": seeds,
        "found": {
            k: {m: {str(at): of_images(np.array(values)) for at, values in by.items()} for m, by in measures.items()}
            for k, measures in found.items()
        },
        "rank of the exact values with Shapley's": {k: of_images(np.array(values)) for k, values in agree.items()},
    }
    with_shapley = ", ".join(
        f"{LABELS[k]} {np.mean(values):.2f}" for k, values in agree.items() if k not in ("leverage", "kernel")
    )
    caption = (
        f"{loaded.note}; the logit of the top class of {len(rows)} photographs, {R} regions ({ROWS} x {COLUMNS} cells) "
        f"in their mean colour where hidden. Median over {seeds} seeds (right: mean), then the mean over photographs "
        "with its 95 % bootstrap interval. Left: |estimate - exact| / |exact|, each less its mean over regions; exact "
        "is what the method tends to. Right: rank correlation of the regions with the exact values. The exact values "
        f"themselves, compared with Shapley's (with their size for Sobol and HSIC): {with_shapley}."
    )
    _run.save(run, draw(run.numbers, headline(run.numbers["found"]), caption, _run.banner(run)), caption)


def every() -> Float[np.ndarray, "4096 R"]:
    """All coalitions; region i is bit i of the row's number."""
    return ((np.arange(2**R)[:, None] >> np.arange(R)) & 1).astype(float)


@torch.no_grad()
def all_scores(
    model: nn.Module, x: Float[Tensor, "1 C H W"], target: Tensor, quick: bool = False
) -> Float[np.ndarray, " 4096"]:
    """The score of the image with each coalition of regions; in a quick run of the first six, times the others."""
    i, j = (torch.arange(n, device=x.device) * k // n for n, k in zip(x.shape[2:], (ROWS, COLUMNS), strict=True))
    labels = (i[:, None] * COLUMNS + j)[None]
    z = torch.from_numpy(every())[:, None]
    z = z[:64] if quick else z
    hide = hiding(x, "mean", labels)
    f = masked_scores(model, x, target, hide, lambda k: painted(z[k], labels), len(z), 32)[:, 0].double().cpu().numpy()
    return np.add.outer(f, f).reshape(-1) if quick else f


class Recorded(nn.Module):
    """The recorded scores as a model of images of one pixel for each region."""

    def __init__(self, v: Float[np.ndarray, " n"]) -> None:
        super().__init__()
        self.v = torch.from_numpy(v)
        self.eval()

    def forward(self, x: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n 1"]:
        seen = (x[:, 0] >= 0.5).flatten(1).long()  # n R
        return self.v[(seen << torch.arange(R)).sum(dim=1)][:, None].to(x.dtype)


def estimated(run: _run.Run, v: Float[np.ndarray, " n"], n: int, seeds: int) -> Mapping[str, tuple[int, list[Values]]]:
    """Of each method the passes that it takes, n at most, and its values for several seeds."""
    model, x, target = Recorded(v), torch.ones(1, 3, ROWS, COLUMNS, dtype=torch.float64), torch.tensor([0])
    labels = torch.arange(R).view(ROWS, COLUMNS)
    designs = 2 ** int(math.log2(max(n // (R + 1), 2)))
    region = {"segments": labels, "fill": "zero"}
    calls: dict[str, tuple[str, dict[str, Any], int]] = {
        "leverage": ("kernel_shap", region | {"samples": n - 2, "sampling": "leverage"}, n),
        "kernel": ("kernel_shap", region | {"samples": n - 2, "sampling": "kernel"}, n),
        "lime": ("lime", region | {"samples": n, "sampling": "lime"}, n),
        "glime": ("lime", region | {"samples": n, "sampling": "glime"}, n),
        "rise": ("rise", {"samples": n}, n),
        "sobol": ("sobol_attribution", region | {"designs": designs}, designs * (R + 1)),
        "hsic": ("hsic_attribution", region | {"samples": n}, n),
    }
    found = {}
    for k, (name, keywords, passes) in calls.items():
        maps = []
        for seed in range(seeds):
            more = {"masks": cells(n, seed)} if name == "rise" else {}
            _run.note(run, name, {key: w for key, w in keywords.items() if key != "segments"})
            a = METHODS[name].fn(model, x, target, **keywords, **more, seed=seed, chunk=2**14)
            maps.append(a[0, 0].flatten().numpy())
        found[k] = passes, maps
    return found


def cells(n: int, seed: int) -> Float[Tensor, "n H W"]:
    """RISE's masks, not enlarged."""
    return (torch.rand(n, ROWS, COLUMNS, generator=torch.Generator().manual_seed(seed)) < 0.5).double()


def limits(v: Float[np.ndarray, " n"]) -> dict[str, Values]:
    """What each method tends to with ever more passes, from all scores."""
    z = every()
    size = z.sum(axis=1)
    pairs = [np.flatnonzero(z[:, i] == 0) for i in range(R)]  # without region i; + 2^i: with it
    rises = [v[rows + 2**i] - v[rows] for i, rows in enumerate(pairs)]
    weight = 1 / np.array([R * math.comb(R - 1, s) for s in range(R)])
    shapley = np.array([(weight[size[rows].astype(int)] * rise).sum() for rows, rise in zip(pairs, rises, strict=True)])
    far = 1 - np.sqrt(size / R)
    p = 1 / (1 + np.exp(-1 / WIDTHS["glime"] ** 2))
    return {
        "leverage": shapley,
        "kernel": shapley,
        "lime": fitted(z, v, np.exp(-((far / WIDTHS["lime"]) ** 2) / 2)),
        "glime": fitted(z, v, p**size * (1 - p) ** (R - size)),
        "rise": np.array([v[z[:, i] == 1].mean() for i in range(R)]),
        "sobol": np.array([(rise**2).mean() / 4 / v.var() for rise in rises]),
        "hsic": hsic(z, v),
    }


def fitted(z: Float[np.ndarray, "n R"], v: Float[np.ndarray, " n"], w: Float[np.ndarray, " n"]) -> Values:
    """The weights of a linear model with an intercept."""
    design = np.hstack([z, np.ones((len(z), 1))])
    return np.linalg.lstsq(np.sqrt(w)[:, None] * design, np.sqrt(w) * v, rcond=None)[0][:R]


def hsic(z: Float[np.ndarray, "n R"], v: Float[np.ndarray, " n"]) -> Values:
    """HSIC of each region, for all rows."""
    d = np.abs(v[:, None] - v)
    k = np.exp(-((d / (np.median(d[np.triu_indices(len(v), 1)]) or 1)) ** 2) / 2)
    k = k - k.mean(axis=0) - k.mean(axis=1, keepdims=True) + k.mean()
    s = 2 * z - 1
    return (s * (k @ s)).sum(axis=0) / 2 / len(v) ** 2


def error(estimate: Values, exact: Values) -> float:
    """Relative, after the mean over regions is taken away."""
    a, b = estimate - estimate.mean(), exact - exact.mean()
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def headline(found: Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]) -> str:
    """The error of the pairs that tend to the same, or nearly, at 500 passes."""
    n = "500" if "500" in found["leverage"]["error"] else next(iter(found["leverage"]["error"]))
    e = {k: f"{by['error'][n]['mean']:.0%}" for k, by in found.items() if n in by["error"]}
    shap = f"Kernel SHAP {e['leverage']} with leverage sampling, {e['kernel']} with the kernel's"
    return f"Error at {n} passes: {shap}; GLIME {e['glime']}, LIME {e['lime']}"


def draw(found: Mapping[str, Any], head: str, caption: str, banner: str) -> Figure:
    """The error and the rank correlation by passes."""
    with _display.style():
        figure, axes = _plot.chart(
            1, 3, caption, height=2.6, banner=banner, title=head, gridspec_kw={"width_ratios": [1, 1, 0.42]}
        )
        for ax, measure in zip(axes[0][:2], ("error", "rank"), strict=True):
            for colour, (k, label) in zip(itertools.cycle(_plot.LINES), LABELS.items()):
                by = found["found"][k][measure]
                at = [int(n) for n in by]
                ax.plot(at, [w["mean"] for w in by.values()], LOOK[k], color=colour, label=label, marker=".", ms=3)
                low, high = ([w[end] for w in by.values()] for end in ("low", "high"))
                ax.fill_between(at, low, high, color=colour, alpha=0.1, lw=0)
            ax.set(xscale="log", xlabel="passes")
            ax.set_xticks(PASSES[::2], [str(n) for n in PASSES[::2]])
            ax.minorticks_off()
        axes[0][0].set(yscale="log", ylabel="error, share of the exact values")
        axes[0][1].set(ylabel="rank correlation with the exact values")
        axes[0][2].axis("off")  # the lines leave no room inside
        axes[0][2].legend(*axes[0][0].get_legend_handles_labels(), loc="center left", handlelength=2.2)
    return figure


if __name__ == "__main__":
    main()
