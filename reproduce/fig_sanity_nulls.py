"""Three randomisation tests of methods, and of maps that do not use the network at all.

Hedstrom, Weber, Lapuschkin, Hohne, 2023, arXiv:2401.06465 (smooth and efficient MPRT), and Binder, Weber, Lapuschkin,
Montavon, Muller, Samek, CVPR 2023, arXiv:2211.12486 (noise scores high): form of their comparisons of methods.
The reader should see: in MPRT and smooth MPRT low is good, and noise has the lowest similarity of all rows. So a low
number alone is no evidence. In efficient MPRT an edge detector gets exactly 0 and white noise nearly 0; this is about
as high as any method gets, or higher.
Differs from the papers: other networks. Four photographs, with ten noisy samples and three steps of the cascade.
Weights are permuted within each tensor, not drawn again. There are more controls than noise. Efficient MPRT expects
maps to become more complex under random weights. Here they do not, and gradients of photographs concentrate on a few
pixels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

import _plot
import _run  # puts the repository on the path
from _dots import controls, dots, title
from methods import _display, _images
from methods._torch import Attribution
from sanity_checks._controls import CONTROLS
from sanity_checks._small import digits
from sanity_checks._statistics import of_images

SHOWN = (
    "gradient",
    "input_x_gradient",
    "integrated_gradients",
    "guided_backprop",
    "full_grad",
    "grad_cam",
    "layer_cam",
)
SMALL_ONLY = ("integrated_gradients", "full_grad")  # too many evaluations for photographs
STEPS = {"integrated_gradients": {"steps": 8, "rule": "middle"}}
NET = "digits_true"
TESTS = {  # number: heading, what is better
    "mprt": ("MPRT: Spearman of |a|", "lower"),
    "smprt": ("smooth MPRT: Spearman of |a|", "lower"),
    "emprt": ("efficient MPRT: rise of entropy", "higher"),
}


def main() -> None:
    """Draw figures/fig_sanity_nulls.png."""
    run = _run.start(__file__, __doc__, photos="chelsea,coffee,rocket,motorcycle", quick_photos="chelsea,coffee")
    quick, seed = run.args.quick, run.args.seed
    net = _run.net(run, NET)
    x = digits().x_test[: 20 if quick else 100].to(run.args.device)
    with torch.no_grad():
        target = net(x).argmax(dim=1)
    loaded = _run.load(run)
    subjects = _run.subjects(run, loaded)
    photos = _images.tensor([s.photo for s in subjects], loaded)
    goal = torch.tensor([s.target for s in subjects], device=loaded.device)

    small = SHOWN[::5] if quick else SHOWN
    cases = {
        "digits": (net, x, target, small, {"samples": 4 if quick else 50, "points": None, "seeds": 1 if quick else 5}),
        "photographs": (
            loaded.model,
            photos,
            goal,
            SHOWN[:1] if quick else tuple(name for name in SHOWN if name not in SMALL_ONLY),
            {"samples": 2 if quick else 10, "points": 2 if quick else 3, "seeds": 1 if quick else 3},
        ),
    }
    shown = ("white_noise", "sobel_edges") if quick else tuple(CONTROLS)
    rows = {case: bound(run, case, model, x, names) for case, (model, x, _, names, _) in cases.items()}
    for of in rows.values():
        of |= controls(seed, shown)
    run.bar.reset(total=3 * sum(map(len, rows.values())))
    for case, (model, inputs, classes, _, sizes) in cases.items():
        tested = {}
        for name, of in rows[case].items():
            run.bar.set_postfix_str(f"{case} {name}")
            tested[name] = tests(run, model, inputs, classes, of, seed=seed, **sizes)
        run.numbers[case] = {"images": len(inputs), **sizes, "rows": tested, "best": best(tested)}

    few, many = (run.numbers[case] for case in ("photographs", "digits"))
    caption = (
        f"Top: SmallCNN on scikit-learn's digits of 8 x 8 pixels, {many['images']} test images, {many['samples']} "
        f"noisy samples, all four steps of the cascade, {many['seeds']} seeds. Bottom: {loaded.note}, "
        f"{few['images']} photographs, {few['samples']} noisy samples, {few['points']} steps, {few['seeds']} seeds. "
        "Explained: the top class. Means over images with 95 % bootstrap intervals. MPRT: similarity of the maps "
        "before and after the weights are permuted, lowest stage first, mean over the steps. Smooth MPRT (one seed): "
        "the same for maps averaged over noisy images. Crosses: maps of different images. Efficient MPRT: relative "
        "rise of the entropy of the map's histogram when all weights are permuted; -1 for a map that becomes all zero. "
        "Its axis is linear between -0.01 and 0.01 and logarithmic outside. Triangles: the same with each map clipped "
        "at its 0.5th and 99.5th percentiles. Arrows point to better values. Filled circles: the best row of a test. "
        f"Grey: maps that do not use the network.{left_out(run.numbers)}{_run.refusals(run)}"
    )
    _run.save(run, draw(run.numbers, caption, _run.banner(run)), caption)


def bound(run: _run.Run, on: str, model: nn.Module, x: Tensor, names: Sequence[str]) -> dict[str, Attribution]:
    """The methods that are defined for the model; refused methods are noted."""
    rows: dict[str, Attribution] = {}
    for name in names:
        with _run.attempt(run, name, on):
            rows[name] = _run.bind(run, name, model, x, **STEPS.get(name, {}))
    return rows


def tests(
    run: _run.Run,
    model: nn.Module,
    x: Float[Tensor, "B C H W"],
    target: Int[Tensor, " B"],
    of: Attribution,
    *,
    samples: int,
    points: int | None,
    seeds: int,
    seed: int,
) -> dict[str, Any]:
    """MPRT, smooth MPRT and efficient MPRT of one row; for the first two, the mean over the steps and the null."""
    order = "bottom-up"
    plain = _run.check(
        run, "model_randomization", model, x, target, of, orders=(order,), points=points, seeds=seeds, seed=seed
    )
    run.bar.update()
    smooth = _run.check(
        run, "smooth_model_randomization", model, x, target, of, samples=samples, points=points, seed=seed
    )
    run.bar.update()
    efficient = _run.check(run, "efficient_model_randomization", model, x, target, of, seeds=seeds, seed=seed)
    run.bar.update()
    return {
        "mprt": of_images(plain.curves[order].mean(dim=1)),
        "mprt null": of_images(plain.columns["null_spearman"]),
        "mprt full": of_images(plain.values),
        "smprt": of_images(smooth.values),
        "smprt null": of_images(smooth.columns["null"]),
        "smprt full": of_images(smooth.columns["full"]),
        "emprt": of_images(efficient.values),
        "emprt clipped": of_images(efficient.columns["clipped"]),
        "entropy": of_images(efficient.columns["entropy"]),
    }


def best(rows: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, str]:
    """For each test its best row, among the rows with a number for at least half of the images."""
    sign = {"lower": 1, "higher": -1}
    return {
        test: min(
            (name for name, row in rows.items() if row[test]["n"] >= row[test]["missing"]),
            key=lambda name: sign[way] * rows[name][test]["mean"],
        )
        for test, (_, way) in TESTS.items()
    }


def left_out(numbers: Mapping[str, Any]) -> str:
    """For the caption: the rows with images that have no number, because a map has no rank at some step."""
    found = [
        f"{title(name)} {row[test]['missing']} of {case['images']} ({what}, {key})"
        for key, case in numbers.items()
        for name, row in case["rows"].items()
        for test, what in (("mprt", "MPRT"), ("smprt", "smooth MPRT"))
        if row[test]["missing"]
    ]
    return f" Images left out because a map is all zero at some step: {', '.join(found)}." if found else ""


def draw(numbers: Mapping[str, Any], caption: str, banner: str) -> Any:  # noqa: ANN401 matplotlib's figure
    """A row of panels for each network, a panel for each test."""
    sizes, cases = [len(found["rows"]) for found in numbers.values()], list(numbers)
    heights = [0.14 * n + 0.5 for n in sizes]
    with _display.style():
        figure, axes = _plot.chart(
            len(cases), 3, caption, height=sum(heights) / len(cases), height_ratios=heights, banner=banner
        )
        for line, case in zip(axes, cases, strict=True):
            found = numbers[case]["rows"]
            for ax, (test, (heading, way)) in zip(line, TESTS.items(), strict=True):
                ax.axvline(0, color="black", linewidth=0.4)
                other, sign = ("emprt clipped", ">") if test == "emprt" else (f"{test} null", "x")
                dots(ax, {name: row[other] for name, row in found.items()}, marker=sign, markersize=3)
                dots(ax, {name: row[test] for name, row in found.items()}, marker="o", markerfacecolor="white")
                first = list(found).index(numbers[case]["best"][test])
                colour = _plot.CONTROL if numbers[case]["best"][test] in CONTROLS else _plot.LINES[0]
                ax.plot(found[numbers[case]["best"][test]][test]["mean"], first, "o", color=colour, markersize=5)
                if test == "emprt":
                    ax.set_xscale("symlog", linthresh=0.01)
                    ax.set_xticks([-1, -0.1, -0.01, 0, 0.01], ["-1", "-0.1", "-0.01", "0", "0.01"])
                    ax.set_xlim(-1.5, 0.15)
                    ax.minorticks_off()
                else:
                    ax.set_xlim(-0.22, 1.05)
                ax.set_title(f"{case}\n{heading} {'←' if way == 'lower' else '→'}")
                if ax is not line[0]:
                    ax.set_yticklabels([])
        return figure


if __name__ == "__main__":
    main()
