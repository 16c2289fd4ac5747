"""A randomisation test measures more than the method: also the input in the product, and the task of the network.

Yona, Greenfeld, 2021, arXiv:2110.14297: form of its experiments on tasks with and without pixels in common; first row:
Adebayo, Gilmer, Muelly, Goodfellow, Hardt, Kim, NeurIPS 2018, arXiv:1810.03292, form of figure 19.
The reader should see: one digit times two unrelated vectors gives two maps with a high rank correlation, only because
of the share of zeros. Noise changes with the weights, as a method should, but not with the task. Methods change with
both. Methods that multiply by the input stay similar under new weights, but point to the object only if the task needs
it.
Differs from the papers: digits on textures, where the object of one task is the background of the other, and small
networks. The closed form for black and white images is not in the papers.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

import _plot
import _run  # puts the repository on the path
from _dots import controls, dots, rgb, title
from methods import METHODS, _display
from methods._torch import Attribution
from sanity_checks import _ground_truth
from sanity_checks._confound import Task, closed_form, contrast, networks, products
from sanity_checks._small import digits
from sanity_checks._statistics import of_images
from sanity_checks.similarity import spearman

SHOWN = (
    "gradient",
    "smooth_grad",
    "input_x_gradient",
    "integrated_gradients",
    "guided_backprop",
    "full_grad",
    "grad_cam",
    "layer_cam",
    "eigen_cam",
    "attention_rollout",
    "generic_attention",
)
FEWER: dict[str, dict[str, Any]] = {
    "smooth_grad": {"samples": 16},
    "integrated_gradients": {"steps": 16, "rule": "middle"},
}
PRODUCTS = (3, 5)  # digits in the first row: the first test image of each
SEEDS = 3  # random networks
MNIST = 0.81  # share of zeros in its images
MARKS: dict[str, dict[str, Any]] = {
    "random": {"marker": "x", "label": "random network"},
    "texture": {"marker": "s", "markerfacecolor": "white", "label": "network for the texture"},
    "digit": {"marker": "o", "label": "network for the digit"},
}


def main() -> None:
    """Draw figures/fig_sanity_confound.png."""
    run = _run.start(__file__, __doc__, photos=None)
    quick, seed, device = run.args.quick, run.args.seed, run.args.device
    n = 20 if quick else 200
    found = _ground_truth.digits_on_textures(n, seed)
    data = _ground_truth.DigitsOnTextures(*(v.to(device) for v in found))

    product = products(digits().x_test[: 60 if quick else None], seed)
    run.numbers = {"products": {k: of_images(v) for k, v in product.items()}, "images": n, "seeds": SEEDS}
    run.numbers["products"]["points"] = product
    run.numbers["area"] = float(data.mask.double().mean())

    kinds: dict[str, tuple[Task, dict[str, Attribution]]] = {}
    seeds = range(seed, seed + (1 if quick else SEEDS))
    for kind in ("cnn", "vit"):
        nets = _run.net(run, f"digit_{kind}"), _run.net(run, f"texture_{kind}")
        kinds[kind] = networks(*nets, data.x, seeds), rows(run, nets[0], data.x)
    _run.note_check(run, "energy_pointing_game", {})
    run.bar.reset(total=sum(len(of) for _, of in kinds.values()))
    maps = {}
    for kind, (task, of) in kinds.items():
        run.numbers[kind] = {}
        for name, method in of.items():
            run.bar.set_postfix_str(f"{kind} {name}")
            run.numbers[kind][name], maps[kind, name] = contrast(method, task, data)
            run.bar.update()

    top = top_row(seed)
    blocks = [top, *(block(kind, found.x[0], maps) for kind in kinds)]
    zeros, grey, binary, ink, signed = (
        run.numbers["products"][k]["mean"] for k in ("zeros", "grey", "binary", "ink", "signed")
    )
    fewer = "" if quick else " SmoothGrad and Integrated Gradients take 16 evaluations."
    grid_caption = (
        "First row: a digit times two unrelated vectors u and v of normal random numbers, and the rank correlation of "
        "the products |x u| and |x v|. Below: maps of one image by networks for the digit, for the texture, and with "
        f"permuted weights; explained classes: the digit, the texture, the digit. {_display.SCALE}"
    )
    caption = (
        f"Top: this correlation for {product['zeros'].numel()} digits of 8 x 8 pixels, one u and v each, against "
        f"the share of zeros ({zeros:.0%} on average). It is {grey:.2f} for grey digits and {binary:.2f} for the same "
        "digits in black and white. Line: the expected value for black and white images, 0.98 for the 81 % zeros of "
        f"MNIST (cross). Where x is not zero it is {ink:.2f}, and {signed:.2f} for x u and x v with their signs, as "
        "for gradient x input of networks with true and permuted labels (fig_sanity_labels). "
        "Middle and bottom: a small CNN and a small ViT, each trained once for the digit and once for the texture of "
        f"the same images; means over {n} images with 95 % bootstrap intervals. Left: share of the map's positive part "
        "on the digit; dashed: the digit's share of the area. Centre: the share of the digit network minus the share "
        "of the texture network; 0 for a map that does not distinguish the tasks. Right: Spearman correlation of |a| "
        "before and after all weights of the digit network are permuted, mean over "
        f"{len(kinds['cnn'][0].random)} seeds; crosses: maps of different images. Grey: maps that do not use the "
        f"network; noise passes the test on the right and has no task contrast.{fewer}{left_out(run.numbers)}"
    )
    figures = [_display.grid(blocks, grid_caption), draw(run.numbers, caption)]
    _run.save(run, figures, f"{grid_caption} {caption}")


def rows(run: _run.Run, model: nn.Module, x: Tensor) -> dict[str, Attribution]:
    """The methods that are defined for the model, then the controls."""
    kind = "vit" if hasattr(model, "blocks") else "cnn"
    names = [name for name in SHOWN if kind in METHODS[name].architectures]
    few = {} if run.args.quick else FEWER
    bound = {name: _run.bind(run, name, model, x, **few.get(name, {})) for name in names}
    return bound | controls(run.args.seed)


def top_row(seed: int) -> _display.Block:
    """Digits, two vectors, and the products."""
    data = digits()
    panels, header = [], []
    for k in PRODUCTS:
        x = data.x_test[int((data.y_test == k).nonzero()[0])]  # 1 H W
        u, v = torch.randn(2, *x.shape, generator=torch.Generator().manual_seed(seed + k))
        rho = float(spearman((x * u).abs().flatten()[None], (x * v).abs().flatten()[None]))
        shown = [u, v, (x * u).abs(), (x * v).abs()]
        panels += [_display.Panel(rgb(x)), *(_display.Panel(rgb(x), a[0]) for a in shown)]
        panels[-1] = _display.Panel(rgb(x), shown[-1][0], below=f"rho = {rho:.2f}")
        header += ["x", "u", "v", "|x u|", "|x v|"]
    return _display.Block(header, [panels])


def block(kind: str, x: Float[Tensor, "3 H W"], maps: Mapping[tuple[str, str], list[Tensor]]) -> _display.Block:
    """A row for each network: the image and its maps."""
    picture = (x * _ground_truth.STD + _ground_truth.MEAN).clamp(0, 1).permute(1, 2, 0).mul(255).byte().numpy()  # H W 3
    names = [name for k, name in maps if k == kind and name not in ("smooth_noise", "centred_gaussian")]
    panels = [
        [_display.Panel(picture), *(_display.Panel(picture, maps[kind, name][k]) for name in names)] for k in range(3)
    ]
    header = ["Image", *(title(name).replace("Backprop", "Back-prop") for name in names)]
    return _display.Block(header, panels, ["digit", "texture", "random"], "CNN" if kind == "cnn" else "ViT")


def left_out(numbers: Mapping[str, Any]) -> str:
    """For the caption: the rows with images that have no rank correlation, because a map is constant."""
    found = [
        f"{title(name)} {row['randomised']['s']['missing']} ({kind})"
        for kind, network in (("CNN", "cnn"), ("ViT", "vit"))
        for name, row in numbers[network].items()
        if row["randomised"]["s"]["missing"]
    ]
    return f" Right: images left out because a map is all zero: {', '.join(found)}." if found else ""


def draw(numbers: Mapping[str, Any], caption: str) -> Any:  # noqa: ANN401 matplotlib's figure
    """Correlations of the products; then, per architecture: mass, task contrast and similarity under new weights."""
    height = 0.13 * max(len(numbers[kind]) for kind in ("cnn", "vit")) + 0.45
    with _display.style():
        ratios = [0.55, 1, 1]
        figure, axes = _plot.chart(3, 3, caption, height=height * sum(ratios) / 3, height_ratios=ratios)
        for ax in axes[0, :2]:
            ax.remove()
        draw_products(figure.add_subplot(axes[0, 0].get_gridspec()[0, :2]), numbers["products"]["points"])
        for (left, middle, right), kind in zip(axes[1:], ("cnn", "vit"), strict=True):
            found = numbers[kind]
            left.axvline(numbers["area"], color="black", linewidth=0.6, linestyle="--")
            for mark, look in MARKS.items():
                dots(left, {name: v["mass"][mark] for name, v in found.items()}, **look)
            left.set_title(f"{'CNN' if kind == 'cnn' else 'ViT'}: positive part on the digit")
            middle.axvline(0, color="black", linewidth=0.4)
            dots(middle, {name: v["contrast"] for name, v in found.items()}, marker="o")
            middle.set_title("task contrast")
            right.axvline(0, color="black", linewidth=0.4)
            for mark, sign in (("null", "x"), ("s", "o")):
                dots(right, {name: v["randomised"][mark] for name, v in found.items()}, marker=sign)
            right.set_title("similarity under new weights")
            left.set_xlim(0, 1)
            middle.set_xlim(-0.1, 0.8)
            right.set_xlim(-0.35, 1.05)
            for ax in (middle, right):
                ax.set_yticklabels([])
        axes[0, 2].axis("off")
        handles, labels = axes[1, 0].get_legend_handles_labels()
        axes[0, 2].legend(handles[::-1], labels[::-1], loc="lower left", title="left, middle and bottom:")
        return figure


def draw_products(ax: Any, points: Mapping[str, Tensor]) -> None:  # noqa: ANN401
    """Correlation against the share of zeros: every digit, and the closed form."""
    z = np.linspace(0, 1, 101)
    for j, (name, label) in enumerate((("grey", "digits in grey"), ("binary", "digits in black and white"))):
        ax.plot(points["zeros"], points[name], ".", color=_plot.LINES[j], markersize=2, label=label)
    ax.plot(z, closed_form(z), color="black", label="3 z / (1 + z + z²)")
    ax.plot(MNIST, closed_form(np.array(MNIST)), "x", color="black", markersize=4)
    ax.set_xlim(0, 1)
    ax.set_xlabel("z: share of zeros in x")
    ax.set_ylabel("rho of |x u|, |x v|")
    ax.legend(loc="lower right")
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(length=2, width=0.4)


if __name__ == "__main__":
    main()
