"""Maps of a small network for digits while its four layers are randomised, compared with the authors' own numbers.

Adebayo, Gilmer, Muelly, Goodfellow, Hardt, Kim, NeurIPS 2018, arXiv:1810.03292: form of figure 5 (a CNN for MNIST); the
dots are the outputs of the notebook in the authors' repository (adebayoj/sanity_checks_saliency).
The reader should see: integrated gradients and gradient x input keep the ranks of |a| (above 0.8) whichever layers are
randomised, as the authors found. Guided backpropagation keeps most of them. The gradient falls to the level of other
digits.
Differs from the paper: another network and other digits (8 x 8, scikit-learn's), so the dots are for orientation only.
360 test images and five randomisations instead of ten images and one. Weights are permuted within each tensor, not
drawn again. The class remains the trained network's top class.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

import _plot
import _run  # puts the repository on the path
from _curves import INIT, area, band, bound, flat, tick
from _dots import title
from methods import _display
from sanity_checks import _nets
from sanity_checks._cascade import Cascade, cascade, passes, summary
from sanity_checks._small import digits

# Absolute Spearman correlation, mean over ten digits, when these are randomised: softmax_linear, fc1, hidden2, hidden1.
AUTHORS = {
    "gradient": (0.601, 0.396, 0.106, 0.082),
    "smooth_grad": (0.536, 0.330, 0.180, 0.213),
    "input_x_gradient": (0.993, 0.993, 0.993, 0.992),
    "integrated_gradients": (0.994, 0.993, 0.993, 0.992),
    "guided_backprop": (0.888, 0.773, 0.628, 0.444),
    "grad_cam": (0.556, 0.344, 0.290, 0.299),
    "guided_grad_cam": (0.555, 0.359, 0.329, 0.282),
}
CONTROLS = ("white_noise", "sobel_edges", "input_magnitude")
MEASURES = {
    "spearman": ("|a|", "-"),
    "nonzero": ("|a|, pixels with ink only", "--"),
    "signed": ("a, with its sign", ":"),
}
NET = "digits_true"
KEPT = 0.8  # rank correlation of |a| above which a map is said to keep its ranks


def main() -> None:
    """Draw figures/fig_sanity_cascade_small.png."""
    run = _run.start(__file__, __doc__, photos=None, options=INIT)
    n, seeds = (24, 2) if run.args.quick else (360, 5)
    model = _run.net(run, NET)
    x = digits().x_test[:n].to(run.args.device)
    with torch.no_grad():
        target = model(x).argmax(dim=1)
    rows = bound(run, model, x, tuple(AUTHORS), CONTROLS, lambda name: seeds, {})
    run.bar.reset(total=passes(rows, 4))
    found = cascade(
        model,
        x,
        target,
        rows,
        measures=tuple(MEASURES),
        init=run.args.init,
        seed=run.args.seed,
        tick=partial(tick, run),
    )
    _run.refuse(run, found.refused)
    numbers = summary(found, tuple(MEASURES))
    run.numbers = {
        "images": n,
        "seeds": seeds,
        "init": run.args.init,
        "authors": AUTHORS,
        "top-down": numbers,
    }
    net = _nets.NETS[NET].title
    above = (
        f"{net}. One test digit: a row of maps for each step; the randomised layers are named at the "
        f"left. {_display.SCALE}"
    )
    caption = (
        f"Means over {n} test digits with 95 % bootstrap intervals (mostly narrower than the lines). Weights are "
        f"randomised {seeds} times (init {run.args.init}, first seed {run.args.seed}), from the last layer down. First "
        "step: a second run on the trained network. |a|, a: Spearman's correlation with the trained network's map. "
        "Grey area: the same for the logits. Horizontal line: |a| of different digits, trained network. Black dots: "
        "the authors' MNIST network, with other layers and ten other digits, for orientation. Where there is no ink, x "
        "is 0, so gradient x input is 0 for any weights. On ink alone much less is left, and nothing of the sign."
        + flat(found)
    )
    grid = _display.grid([maps(found, x[0])], above, title=headline(numbers["rows"]))
    _run.save(run, [grid, curves(numbers, caption)], f"{above} {caption}")


def headline(rows: Mapping[str, Any]) -> str:
    """Which methods keep most of the ranks of |a| when all weights are random."""
    kept = [title(name) for name in AUTHORS if rows[name]["curves"]["spearman"][-1]["low"] > KEPT]
    return f"With random weights {len(kept)} of {len(AUTHORS)} methods keep the ranks of |a|: {', '.join(kept)}"


def maps(found: Cascade, x: Float[Tensor, "1 h w"]) -> _display.Block:
    """A column for each row of the cascade, a row for each step; ink is dark."""
    side = 20  # of a pixel of the digit
    ink = (255 * (1 - x[0].cpu().numpy())).round().astype(np.uint8)  # h w
    rgb = np.kron(ink, np.ones((side, side), np.uint8))[..., None].repeat(3, axis=2)  # H W 3

    def panel(a: Float[Tensor, "K h w"]) -> _display.Panel:
        return _display.Panel(rgb, a.sum(dim=0), overlay=a.shape[1] < x.shape[1])

    steps = [[panel(a[i]) for a in found.maps.values()] for i in range(len(found.labels))]
    return _display.Block(
        ["Digit", *(title(name).replace("Backpropagation", "Backprop") for name in found.maps)],  # as wide as a map
        [[None if i else _display.Panel(rgb), *line] for i, line in enumerate(steps)],
        labels=[found.labels[0], *(f"{'down to ' if i else ''}{name}" for i, name in enumerate(found.labels[1:]))],
    )


def curves(numbers: Mapping[str, Any], caption: str) -> Figure:
    """One axes per method, and the last one for the controls."""
    methods = [name for name in numbers["rows"] if name in AUTHORS]
    with _display.style():
        figure, axes = _plot.chart(2, 4, caption, height=1.65, sharex=True, sharey=True)
        at = range(len(numbers["labels"]))
        for ax, name in zip(axes.flat, [*methods, None], strict=False):
            area(ax, numbers)
            if name is None:
                _controls(ax, numbers, at)
                continue
            row, colour = numbers["rows"][name], _plot.LINES[methods.index(name)]
            for measure, (label, line) in MEASURES.items():
                v = row["curves"][measure]
                ax.plot(at, [p["mean"] for p in v], line, color=colour, label=label)
                band(ax, v, colour)
            ax.axhline(row["null"]["spearman"]["mean"], color=colour, linewidth=0.6, label="|a|, of another digit")
            ax.plot(at[1:], AUTHORS[name], "o", color="black", markersize=3, label="|a|, authors' MNIST network")
            ax.set_title(title(name))
        for ax in axes[1]:
            ax.set_xticks(at, numbers["labels"], rotation=45)
        for ax in axes[:, 0]:
            ax.set_ylabel("rank correlation")
        axes[0, 0].set_ylim(-0.25, 1.05)
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
        return figure


def _controls(ax: Any, numbers: Mapping[str, Any], at: range) -> None:  # noqa: ANN401
    ax.set_title("Controls, |a|")
    for name, line in zip(CONTROLS, (":", "-.", "-"), strict=True):
        mean = [p["mean"] for p in numbers["rows"][name]["curves"]["spearman"]]
        ax.plot(at, mean, line, color=_plot.CONTROL)
    ax.text(at[-1], 0.93, "Sobel edges and |x|", ha="right", va="top")
    ax.text(at[-1], 0.07, "white noise", ha="right")


if __name__ == "__main__":
    main()
