"""Products x u of an image x are similar for any u; so is gradient x input of networks with true and permuted labels.

Adebayo, Gilmer, Muelly, Goodfellow, Hardt, Kim, NeurIPS 2018, arXiv:1810.03292, form of figure 19.
The reader should see: one digit times two unrelated vectors gives two maps with a high rank correlation of |x u| and
|x v|, mainly because of the share of zeros in the digit. Gradient x input of networks with true and permuted labels has
the same correlation. So it shows the input, not what the networks have in common. Where x is not zero, or with the
sign, the map does depend on the labels: two networks with true labels are more similar.
Differs from the paper: digits of 8 x 8 pixels, random vectors for all test digits, and the comparison with networks.
The closed form for black and white images is not in the paper.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

import _plot
import _run  # puts the repository on the path
from _dots import dots, rgb
from methods import _display
from sanity_checks import _nets
from sanity_checks._confound import closed_form, products
from sanity_checks._small import digits
from sanity_checks._statistics import of_images
from sanity_checks.label_randomization import LabelNets
from sanity_checks.similarity import spearman

DRAWN = (3, 5)  # digits in the first row: the first test image of each
MNIST = 0.81  # share of zeros in its images
WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # behind text on a line
METHOD = "input_x_gradient"
MEASURES = {  # of the products: heading; columns of label_randomization
    "grey": ("|a|, all\npixels", "spearman", "ceiling"),
    "ink": ("|a|, digit\nonly", "nonzero", "ceiling_nonzero"),
    "signed": ("a with\nits sign", "signed", "ceiling_signed"),
}
MARKS: dict[str, tuple[float, str, dict[str, Any]]] = {  # where in a row, words, look
    "random": (-0.25, "x u, x v: unrelated u and v", {"marker": "o", "colour": _plot.LINES[0]}),
    "permuted": (0.0, "gradient x input: true, permuted labels", {"marker": "s", "colour": _plot.LINES[1]}),
    "same": (
        0.25,
        "gradient x input: true labels twice",
        {"marker": "D", "markerfacecolor": "white", "colour": "black"},
    ),
}


def main() -> None:
    """Draw figures/fig_sanity_products.png."""
    run = _run.start(__file__, __doc__, photos=None)
    data = digits()
    x = data.x_test[: 60 if run.args.quick else None]
    run.bar.reset(total=1)
    points = products(x, run.args.seed)
    product = {k: of_images(v) for k, v in points.items()}
    run.numbers = {
        "images": len(x),
        "products": product | {"points": points},
        "networks": of_networks(run, x.to(run.args.device)),
    }
    run.bar.update()

    grey, binary, zeros = (product[k]["mean"] for k in ("grey", "binary", "zeros"))
    other = run.numbers["networks"]["grey"]["permuted"]["mean"]
    title = (
        f"A digit times two unrelated vectors: two maps with a rank correlation of {grey:.2f}, as for gradient x input "
        f"of networks with true and permuted labels ({other:.2f})"
    )
    grid_caption = (
        "A digit x, two vectors u and v of normal random numbers, and the products with their rank correlation rho. "
        f"{_display.SCALE}"
    )
    caption = (
        f"Left: this correlation for {len(x)} digits of 8 x 8 pixels, one u and v each, against the share of zeros "
        f"({zeros:.0%} on average). Its mean is {grey:.2f} for grey digits and {binary:.2f} for the same digits in "
        f"black and white. Line: the expected value for black and white images; cross: the share of zeros in MNIST "
        f"({MNIST:.0%}). Right: means over the digits with 95 % bootstrap intervals, most of them "
        "narrower than the mark. Gradient x input explains SmallCNNs: two trained on true labels with different seeds, "
        "and one that memorised permuted labels (other methods: fig_sanity_labels). For |a| of all pixels, true and "
        "permuted labels are nearly as similar as true labels twice. Where the digit is not zero, or with the sign, "
        "networks with true labels are more similar, so these measures show the labels. Form of figure 19 of Adebayo "
        "et al. (2018), here on scikit-learn's digits."
    )
    pictures = _display.grid([top_row(run.args.seed)], grid_caption, title=title)
    _run.save(run, [pictures, draw(run.numbers, caption)], f"{grid_caption} {caption}")


def of_networks(run: _run.Run, x: Tensor) -> dict[str, Any]:
    """Similarities of gradient x input: true and permuted labels, and two networks with true labels."""
    true, again, permuted = (_run.net(run, name) for name in ("digits_true", "digits_again", "digits_permuted"))
    nets = LabelNets(true, again, permuted, _nets.recorded("digits_permuted")["accuracy"]["train"])
    found = _run.check(run, "label_randomization", nets, x, _run.bind(run, METHOD, true, x))
    columns = {"spearman": found.values, **found.columns}
    return {
        measure: {"permuted": of_images(columns[s]), "same": of_images(columns[ceiling])}
        for measure, (_, s, ceiling) in MEASURES.items()
    }


def top_row(seed: int) -> _display.Block:
    """Digits, two vectors, and the products."""
    data = digits()
    panels, header = [], []
    for k in DRAWN:
        x = data.x_test[int((data.y_test == k).nonzero()[0])]  # 1 H W
        u, v = torch.randn(2, *x.shape, generator=torch.Generator().manual_seed(seed + k))
        rho = float(spearman((x * u).abs().flatten()[None], (x * v).abs().flatten()[None]))
        shown = [u, v, (x * u).abs(), (x * v).abs()]
        panels += [_display.Panel(rgb(x)), *(_display.Panel(rgb(x), a[0]) for a in shown)]
        panels[-1] = _display.Panel(rgb(x), shown[-1][0], below=f"rho = {rho:.2f}")
        header += ["x", "u", "v", "|x u|", "|x v|"]
    return _display.Block(header, [panels])


def draw(numbers: Mapping[str, Any], caption: str) -> Any:  # noqa: ANN401 matplotlib's figure
    """The correlation of the products against the share of zeros; the products and gradient x input by measure."""
    with _display.style():
        figure, axes = _plot.chart(1, 2, caption, height=2.5)
        left, right = axes[0]
        draw_products(left, numbers["products"]["points"])
        rows = {m: {"random": numbers["products"][m], **numbers["networks"][m]} for m in MEASURES}
        names = {m: heading for m, (heading, *_) in MEASURES.items()}
        right.axvline(0, color="black", linewidth=0.4)
        for mark, (shift, words, look) in MARKS.items():
            dots(right, {m: row[mark] for m, row in rows.items()}, shift=shift, names=names, **look)
            at = rows["grey"][mark]["mean"] - 0.05
            right.text(at, shift, words, ha="right", va="center", color=look["colour"], bbox=WHITE)
        right.set(xlim=(-0.25, 1.05), xlabel="rank correlation of two maps of a digit")
        return figure


def draw_products(ax: Any, points: Mapping[str, Tensor]) -> None:  # noqa: ANN401
    """Correlation against the share of zeros: every digit, and the closed form."""
    z = np.linspace(0, 1, 101)
    marks = (("grey", "o", 5, "digits in grey"), ("binary", "x", 1, "digits in black and white"))
    for name, marker, j, label in marks:
        ax.plot(points["zeros"], points[name], marker, color=_plot.LINES[j], markersize=2.5, label=label)
    ax.plot(z, closed_form(z), color="black", label="3 z / (1 + z + z²)")
    at = MNIST, closed_form(np.array(MNIST))
    ax.plot(*at, "X", color="black", markersize=6)
    ax.annotate("MNIST", at, xytext=(0, -12), textcoords="offset points", ha="center")
    ax.set(xlim=(0, 1), xlabel="z: share of zeros in x", ylabel="rho of |x u| and |x v|")
    ax.legend(loc="lower right")


if __name__ == "__main__":
    main()
