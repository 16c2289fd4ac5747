"""Maps of two networks trained on true labels, and of a network that memorised permuted labels.

Adebayo, Gilmer, Muelly, Goodfellow, Hardt, Kim, NeurIPS 2018, arXiv:1810.03292: form of figure 6.
The reader should see: the gradient's maps change more with the labels than between two networks with the same labels.
|input x gradient| seems not to change, until black pixels are left out or the sign is kept.
Differs from the paper: scikit-learn's digits of 8 x 8 pixels instead of MNIST; they are too small for SSIM. A second
network with true labels shows how similar maps can be at best. Correlations at pixels with ink and controls are added.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

import _plot
import _run  # puts the repository on the path
from _dots import controls, dots, legend, rgb, title
from methods import METHODS, _display
from sanity_checks import Result, _nets
from sanity_checks._small import digits
from sanity_checks._statistics import of_images, paired, retained, verdict
from sanity_checks._torch import explain
from sanity_checks.label_randomization import LabelNets

SHOWN = (
    "gradient",
    "smooth_grad",
    "input_x_gradient",
    "integrated_gradients",
    "guided_backprop",
    "grad_cam",
    "guided_grad_cam",
)
DRAWN = (4, 9)  # digits in the grid: the first test image of each
NOT_DRAWN = ("smooth_noise", "centred_gaussian")  # in the grid
MEASURES = {  # of the check: heading and the endings of its columns
    "spearman": ("|a|, all pixels", ""),
    "nonzero": ("|a|, pixels with ink only", "_nonzero"),
    "signed": ("a, with its sign, all pixels", "_signed"),
}
MARKS: dict[str, dict[str, Any]] = {  # the marks of each row
    "null": {"marker": "x", "label": "different images, one network"},
    "ceiling": {"marker": "D", "markerfacecolor": "white", "label": "true labels, two networks"},
    "s": {"marker": "o", "label": "true and permuted labels"},
}


def main() -> None:
    """Draw figures/fig_sanity_labels.png."""
    run = _run.start(__file__, __doc__, photos=None)
    data = digits()
    n = 60 if run.args.quick else len(data.x_test)
    names = ("digits_true", "digits_again", "digits_permuted")
    accuracy = {name: _nets.recorded(name)["accuracy"] for name in names}
    true, again, permuted = (_run.net(run, name) for name in names)
    nets = LabelNets(true, again, permuted, accuracy["digits_permuted"]["train"])
    x = data.x_test[:n].to(run.args.device)
    rows = {name: _run.bind(run, name, nets.A, x) for name in SHOWN} | controls(run.args.seed)
    run.bar.reset(total=len(rows))

    found, maps = {}, {}
    drawn = [int((data.y_test == k).nonzero()[0]) for k in DRAWN]
    with torch.no_grad():
        target = nets.A(data.x_test[drawn].to(x)).argmax(dim=1)
    for name, of in rows.items():
        run.bar.set_postfix_str(name)
        found[name] = summary(_run.check(run, "label_randomization", nets, x, of))
        if name not in NOT_DRAWN:
            maps[name] = [explain(of, f, data.x_test[drawn].to(x), target).sum(dim=1).cpu() for f in nets[:3]]  # B h w
        run.bar.update()
    run.numbers = {"images": n, "accuracy": accuracy, "rows": found}

    test, memory = accuracy["digits_true"]["test"], accuracy["digits_permuted"]
    caption = (
        f"Networks: SmallCNN on scikit-learn's digits of 8 x 8 pixels, trained on true labels ({test:.1%} of the test "
        f"images correct), on true labels with another seed ({accuracy['digits_again']['test']:.1%}), and on permuted "
        f"labels until it memorised them ({memory['train']:.1%} of the training images, {memory['test']:.1%} of "
        "the test images). Explained: the first network's top class. "
        f"Dots: Spearman correlation of two maps of the same image, mean over {n} test images with its 95 % bootstrap "
        "interval. A circle to the left of its diamond means that the map depends on the learnt labels. Crosses: maps "
        "of different images, the chance level. Grey: maps that do not use the network. One network each; the first "
        f"and the third start from the same random weights, the second from others.{flat(found)}"
    )
    grid = _display.grid(blocks(data.x_test[drawn], maps), _display.SCALE, title=headline(found))
    _run.save(run, [grid, draw(found, caption)], f"{_display.SCALE} {caption}")


def summary(found: Result) -> dict[str, Any]:
    """For each measure: means with 95 % intervals of s, ceiling, null and ceiling - s, and the verdict."""
    c = {k: v.double().cpu().numpy() for k, v in {"spearman": found.values, **found.columns}.items()}
    out = {}
    for measure, (_, end) in MEASURES.items():
        s, ceiling, null = c[measure], c[f"ceiling{end}"], c[f"null{end}"]
        kept = (s, null, ceiling)
        out[measure] = {
            "s": of_images(s),
            "ceiling": of_images(ceiling),
            "null": of_images(null),
            "below": of_images(ceiling - s),
            "retained": asdict(retained(*kept)),
            "verdict": verdict(*kept),
        } | paired(s, ceiling)
    return out


def headline(found: Mapping[str, Mapping[str, Any]]) -> str:
    """How many methods respond to the labels, with and without the sign."""
    methods = [row for name, row in found.items() if name in METHODS]
    by = {k: sum(row[k]["verdict"] == "responds" for row in methods) for k in ("spearman", "signed")}
    return (
        f"Of {len(methods)} methods {by['spearman']} respond to the labels in the ranks of |a|, "
        f"{by['signed']} with the sign"
    )


def draw(found: Mapping[str, Mapping[str, Any]], caption: str) -> Any:  # noqa: ANN401 matplotlib's figure
    """Circle, diamond and cross for each row, in one panel for each measure."""
    with _display.style():
        figure, axes = _plot.chart(1, len(MEASURES), caption, height=0.16 * len(found) + 0.75, sharey=True, sharex=True)
        for ax, (measure, (heading, _)) in zip(axes[0], MEASURES.items(), strict=True):
            ax.axvline(0, color="black", linewidth=0.4)
            for mark, look in MARKS.items():
                dots(ax, {name: row[measure][mark] for name, row in found.items()}, **look)
            ax.set_title(heading)
        axes[0, 1].set_xlabel("Spearman correlation of two maps")
        legend(figure, axes[0, 0])
        return figure


def blocks(x: Tensor, maps: Mapping[str, Sequence[Tensor]]) -> list[_display.Block]:
    """For each digit, one row per network: the digit and its maps."""
    header = ["Digit", *(title(name).replace("Backpropagation", "Backprop") for name in maps)]
    labels = ["true labels", "true labels, again", "permuted labels"]
    out = []
    for i, picture in enumerate(x):
        panels = [
            [_display.Panel(rgb(picture)), *(_display.Panel(rgb(picture), maps[name][k][i]) for name in maps)]
            for k in range(len(labels))
        ]
        out.append(_display.Block(header if i == 0 else [""] * len(header), panels, labels))
    return out


def flat(found: Mapping[str, Mapping[str, Any]]) -> str:
    """For the caption: the rows with maps that have no rank correlation, because one map of a pair is constant."""
    missing = {title(name): row["spearman"]["s"]["missing"] for name, row in found.items()}
    named = [f"{name} {k}" for name, k in missing.items() if k]
    return f" Images left out because a map is all zero: {', '.join(named)}." if named else ""


if __name__ == "__main__":
    main()
