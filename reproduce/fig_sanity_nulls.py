"""Three randomisation tests cannot rank methods: maps that know nothing of the network win them.

Hedstrom, Weber, Lapuschkin, Hohne, 2023, arXiv:2401.06465 (smooth and efficient MPRT), and Binder, Weber, Lapuschkin,
Montavon, Muller, Samek, CVPR 2023, arXiv:2211.12486 (noise scores high): form of their comparisons of methods.
The reader should see: noise, a map that knows nothing of the network, is first or second in all tests. In MPRT and
smooth MPRT low is good, and noise has the lowest similarity. In efficient MPRT high is good; smooth noise is second,
and the first is not certainly higher. So a good number alone is no evidence, and these tests cannot rank methods.
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

import _run  # puts the repository on the path
from _dots import controls, title
from _ranks import CASES, draw, order, places
from methods import _images
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
        run.numbers[case] = {
            "images": len(inputs),
            **sizes,
            "rows": tested,
            "best": {k: v[0] for k, v in order(tested).items()},
        }

    few, many = (run.numbers[case] for case in ("photographs", "digits"))
    run.numbers["places_of_noise"] = places(run.numbers)
    caption = (
        "Rows go from the best to the worst (left: by MPRT). MPRT: similarity (Spearman of |a|) of the maps before and "
        "after the weights are permuted, lowest stage first, mean over the steps; smooth MPRT: the same for maps "
        "averaged over noisy images. Efficient MPRT: relative rise of the entropy of the map's histogram when all "
        "weights are permuted; -1 for a map that becomes all zero; logarithmic outside of -0.01 to 0.01. Means over "
        "images with 95 % bootstrap intervals; explained: the top class. Bold: noise; grey: other maps that do not use "
        f"the network. Digits: SmallCNN on scikit-learn's digits of 8 x 8 pixels, {many['images']} test images, "
        f"{many['samples']} noisy samples, all four steps, {many['seeds']} seeds. Photographs: {loaded.note}, "
        f"{few['images']} images, {few['samples']} noisy samples, {few['points']} steps, {few['seeds']} seeds (smooth "
        "MPRT: one). Form of the comparisons of Hedstrom et al. (2023) and Binder et al. (2023), on other networks and "
        f"images.{left_out(run.numbers)}{_run.refusals(run)}"
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


def left_out(numbers: Mapping[str, Any]) -> str:
    """For the caption: the rows with images that have no number, because a map has no rank at some step."""
    found = [
        f"{title(name)} {row[test]['missing']} of {numbers[key]['images']} ({what}, {key})"
        for key in CASES
        for name, row in numbers[key]["rows"].items()
        for test, what in (("mprt", "MPRT"), ("smprt", "smooth MPRT"))
        if row[test]["missing"]
    ]
    words = " Images without a number because a map is all zero at some step (no mark if most of them)"
    return f"{words}: {', '.join(found)}." if found else ""


if __name__ == "__main__":
    main()
