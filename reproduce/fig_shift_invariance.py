"""Maps of a network, and of a second network that computes the same function of an image shifted by a constant.

Kindermans, Hooker, Adebayo, Alber, Schutt, Dahne, Erhan, Kim, 2017, arXiv:1711.00867: form of figures 1 and 2.
The reader should see: the maps are equal to the last digits if a method depends on the gradient alone or has a baseline
that moves with the image. They differ by as much as the map itself if a method multiplies by the input or has a fixed
baseline of zeros.
Differs from the paper: a small CNN for scikit-learn's digits instead of a network for MNIST. The second network
subtracts the shift before its first layer and does not fold it into the first bias; this is the same function, and it
is also exact with zero padding. PatternNet, PatternAttribution and Deep Taylor Decomposition are not in the repository.
"""

import copy
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

import _plot
import _run  # puts the repository on the path
from _dots import controls, dots, rgb, title
from methods import _display
from methods._torch import Attribution, Target
from sanity_checks._small import digits
from sanity_checks._statistics import of_images
from sanity_checks._torch import explain
from sanity_checks.similarity import similarities

ALIKE = ("gradient", "smooth_grad", "guided_backprop", "deconvnet", "grad_cam")
BLACK, ZERO = "integrated_gradients, black", "integrated_gradients, zeros"
NAMES = {BLACK: "Integrated Gradients, from black", ZERO: "Integrated Gradients, from zeros"}
CONTROLS = ("sobel_edges", "input_magnitude")
DRAWN = (0, 2, 3, 4, 7)  # digits in the grid: the first test image of each
NOT_DRAWN = ("deconvnet", "sobel_edges")  # in the grid
NET = "digits_true"
PASSES = 1e-4  # of the check: below it, a map counts as unchanged
ZERO_AT = 1e-17  # where 0 is drawn on the logarithmic axis
SHIFT = {"--shift": {"type": float, "default": -1.0, "help": "added to images in [0, 1] (default: %(default)s)"}}


def main() -> None:
    """Draw figures/fig_shift_invariance.png."""
    run = _run.start(__file__, __doc__, photos=None, options=SHIFT)
    data, model, m = digits(), _run.net(run, NET), run.args.shift
    n = 40 if run.args.quick else len(data.x_test)
    x = data.x_test[:n].to(run.args.device)
    f1, f2 = shifted(model, m)
    with torch.no_grad():
        y1, y2 = f1(x.double()), f2(x.double() + m)
    target = y1.argmax(dim=1)

    bound = {name: _run.bind(run, name, model, x) for name in (*ALIKE, "integrated_gradients", "input_x_gradient")}
    ig = bound.pop("integrated_gradients")
    rows = {name: bound[name] for name in ALIKE} | {BLACK: partial(from_black, ig), ZERO: ig}
    rows |= {"input_x_gradient": bound["input_x_gradient"]} | controls(run.args.seed, CONTROLS)
    run.bar.reset(total=len(rows))
    drawn = [int((data.y_test == k).nonzero()[0]) for k in DRAWN]
    pictures = data.x_test[drawn].to(x.device).double()
    with torch.no_grad():
        goal = f1(pictures).argmax(dim=1)
    found, maps = {}, {}
    for name, of in rows.items():
        run.bar.set_postfix_str(name)
        result = _run.check(run, "input_shift", model, x, target, of, shift=m)
        a, b = explain(of, f1, x.double(), target), explain(of, f2, x.double() + m, target)
        found[name] = {
            "change": of_images(result.values),
            "largest": float(result.values.max()),
            "passes": float(result.columns["passes"].mean()),
            "spearman": of_images(similarities(a, b, x, ("signed",))["signed"]),
        }
        if name not in NOT_DRAWN:
            pair = explain(of, f1, pictures, goal), explain(of, f2, pictures + m, goal)
            maps[name] = [v.sum(dim=1).float().cpu() for v in pair]  # 2: B h w
        run.bar.update()
    logits = float((y1 - y2).abs().max() / y1.abs().max())
    run.numbers = {"images": n, "shift": m, "logits": logits, "rows": found}

    caption = (
        f"Network f1: SmallCNN for scikit-learn's digits of 8 x 8 pixels in [0, 1]; f2 gets the digit plus {m:g} and "
        f"subtracts {m:g} first. The logits of the two differ by {logits:.1g} of the largest: they are one function. "
        "Top: maps of the top class, f1 at the left and f2 at the right of each pair. Bottom: largest difference of "
        f"the two maps as a share of the largest value, mean over {n} test images with its 95 % bootstrap interval, in "
        f"float64; 0 is drawn at the left end. Left of the dashed line ({PASSES:g}) a map counts as unchanged. Numbers "
        "at the right: the share of unchanged images (rounding can switch a ReLU somewhere on a path). "
        "From black: the baseline is each image's darkest value, so it moves with the image. From zeros: the baseline "
        f"is black for f1; for f2 it is the value {-m:g} of f1. Grey: maps that do not use the network."
    )
    blocks = [block(pictures, m, maps)]
    pictures_above = _display.grid(blocks, _display.SCALE, title=headline(found))
    _run.save(run, [pictures_above, draw(found, caption)], f"{_display.SCALE} {caption}")


def headline(found: Mapping[str, Mapping[str, Any]]) -> str:
    """What the input or a fixed baseline does to a map."""
    fixed = (ZERO, "input_x_gradient")
    apart = all(found[name]["passes"] < 0.05 for name in fixed)
    same = all(row["passes"] > 0.95 for name, row in found.items() if name in (*ALIKE, BLACK))
    if apart and same:
        return "One function, two inputs: maps with the input or a fixed baseline as a factor differ"
    return "Maps of one function with a shifted input"


def shifted(model: nn.Module, m: float) -> tuple[nn.Module, nn.Module]:
    """The model as f1, and f2 with f2(x + m) = f1(x); copies in float64."""
    f1 = copy.deepcopy(model).double()
    f2 = copy.deepcopy(f1)
    f2.register_forward_pre_hook(lambda _module, args: (args[0] - m, *args[1:]))
    return f1, f2


def from_black(
    of: Attribution, model: nn.Module, x: Float[Tensor, "B C H W"], target: Target
) -> Float[Tensor, "B K h w"]:
    """A method with a baseline: each image's smallest value."""
    return of(model, x, target, baseline=x.detach().amin(dim=(1, 2, 3), keepdim=True))  # type: ignore[call-arg]


def block(x: Float[Tensor, "B 1 H W"], m: float, maps: Mapping[str, list[Tensor]]) -> _display.Block:
    """A row for each method: the maps of both networks, digit after digit."""
    panels = []
    for pair in [None, *maps.values()]:
        panels.append([_display.Panel(rgb(x[i]), pair and pair[k][i]) for i in range(len(x)) for k in range(2)])
    header = ["f1 at x", f"f2 at x {'-' if m < 0 else '+'} {abs(m):g}"] * len(x)
    short = {BLACK: "IG, black", ZERO: "IG, zeros", "input_x_gradient": "Gradient x Input"}
    names = [short.get(name) or title(name).replace("Backpropagation", "Backprop") for name in maps]
    return _display.Block(header, panels, ["Digit", *names])


def draw(found: Mapping[str, Mapping[str, Any]], caption: str) -> Any:  # noqa: ANN401 matplotlib's figure
    """How much each row's maps change, on a logarithmic axis."""
    with _display.style():
        figure, axes = _plot.chart(1, 1, caption, height=0.16 * len(found) + 0.5)
        ax = axes[0, 0]
        ax.set_xscale("log")
        ax.set_xlim(ZERO_AT / 3, 30)
        ax.axvline(PASSES, color="black", linewidth=0.6, linestyle="--")
        change = {name: {k: max(v, ZERO_AT) for k, v in row["change"].items()} for name, row in found.items()}
        dots(ax, change, names=NAMES, marker="o")
        powers = range(-15, 2, 3)
        ax.set_xticks([ZERO_AT, *(10.0**k for k in powers)], ["0", *(f"$10^{{{k}}}$" for k in powers)])
        for i, row in enumerate(found.values()):
            ax.text(1.01, i, f"{row['passes']:.1%}", transform=ax.get_yaxis_transform(), va="center")
        ax.text(1.01, -1, "unchanged", transform=ax.get_yaxis_transform(), va="center")
        ax.minorticks_off()
        ax.set_xlabel("max |A1 - A2| / max |A1|")
        return figure


if __name__ == "__main__":
    main()
