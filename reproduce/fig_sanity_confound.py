"""Maps must follow the task: two networks with different tasks on the same images, and a randomisation test.

Yona, Greenfeld, 2021, arXiv:2110.14297: form of its experiments on tasks with and without pixels in common.
The reader should see: maps of a method are on the digit if the network's task is the digit, and not if its task is the
texture around it. Noise has a low similarity under new weights, as the randomisation test wants of a method, but it
does not follow the task. Methods that multiply by the input stay similar under new weights, but follow the task.
Differs from the paper: digits on textures, where the object of one task is the background of the other, and small
networks.
"""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

import _plot
import _run  # puts the repository on the path
from _dots import controls, dots, legend, title
from methods import METHODS, _display
from methods._torch import Attribution
from sanity_checks import _ground_truth
from sanity_checks._confound import Task, contrast, networks
from sanity_checks._controls import CONTROLS

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
NOT_DRAWN = ("eigen_cam", "smooth_noise", "input_magnitude", "centred_gaussian")  # in the pictures
SHORT = {  # titles that are too wide for a picture
    "smooth_grad": "Smooth Grad",
    "input_x_gradient": "Gradient\nx Input",
    "guided_backprop": "Guided Back-prop",
    "generic_attention": "Generic Attention",
}
FEWER: dict[str, dict[str, Any]] = {
    "smooth_grad": {"samples": 16},
    "integrated_gradients": {"steps": 16, "rule": "middle"},
}
SEEDS = 3  # random networks
KINDS = {"cnn": "CNN", "vit": "ViT"}
TASKS: dict[str, dict[str, Any]] = {
    "texture": {"marker": "s", "markerfacecolor": "white", "label": "network for the texture"},
    "digit": {"marker": "o", "label": "network for the digit"},
}
WEIGHTS: dict[str, dict[str, Any]] = {
    "null": {"marker": "x", "label": "two different images"},
    "s": {"marker": "D", "label": "old and new weights"},
}
NONE: dict[str, float] = dict.fromkeys(("mean", "low", "high"), float("nan"))  # where a method is not defined


def main() -> None:
    """Draw figures/fig_sanity_confound.png."""
    run = _run.start(__file__, __doc__, photos=None)
    quick, seed, device = run.args.quick, run.args.seed, run.args.device
    n = 20 if quick else 200
    found = _ground_truth.digits_on_textures(n, seed)
    data = _ground_truth.DigitsOnTextures(*(v.to(device) for v in found))
    run.numbers = {"images": n, "seeds": SEEDS, "area": float(data.mask.double().mean())}

    kinds: dict[str, tuple[Task, dict[str, Attribution]]] = {}
    seeds = range(seed, seed + (1 if quick else SEEDS))
    for kind in KINDS:
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

    run.numbers["follow"] = follow(run.numbers)
    grid_caption = f"One image, explained for the class of the network's task. {_display.SCALE}"
    caption = (
        "A small CNN and a small ViT, each trained for the digit and for the texture of the same images; means over "
        f"{n} images with 95 % bootstrap intervals. Share of the map: of its positive part; dashed: the digit's share "
        f"of the area ({run.numbers['area']:.2f}). Similarity: Spearman correlation of |a| before and after all "
        f"weights of the digit network are permuted, mean over {len(seeds)} seeds; the randomisation test wants a low "
        "value. Grey: maps that do not use the network. Rows are empty where a method was not run on the network."
        f"{'' if quick else ' SmoothGrad and Integrated Gradients: 16 evaluations.'}{left_out(run.numbers)} "
        "Form of the experiments of Yona and Greenfeld (2021), here with digits on textures."
    )
    pictures = _display.grid(
        [block(kind, found.x[0], maps) for kind in kinds], grid_caption, title=headline(run.numbers)
    )
    _run.save(run, [pictures, draw(run.numbers, caption)], f"{grid_caption} {caption}")


def rows(run: _run.Run, model: nn.Module, x: Tensor) -> dict[str, Attribution]:
    """The methods that are defined for the model, then the controls."""
    kind = "vit" if hasattr(model, "blocks") else "cnn"
    names = [name for name in SHOWN if kind in METHODS[name].architectures]
    few = {} if run.args.quick else FEWER
    bound = {name: _run.bind(run, name, model, x, **few.get(name, {})) for name in names}
    return bound | controls(run.args.seed)


def follow(numbers: Mapping[str, Any]) -> dict[str, int]:
    """The rows of methods, and those with certainly (95 %) more on the digit when the task is the digit."""
    low = [row["contrast"]["low"] for kind in KINDS for name, row in numbers[kind].items() if name not in CONTROLS]
    return {"certain": sum(v > 0 for v in low), "rows": len(low)}


def headline(numbers: Mapping[str, Any]) -> str:
    """What the reader should see."""
    return (
        f"When the task needs the digit, the map moves to the digit: {numbers['follow']['certain']} of "
        f"{numbers['follow']['rows']} cases. Noise passes the randomisation test, but does not move."
    )


def block(kind: str, x: Float[Tensor, "3 H W"], maps: Mapping[tuple[str, str], list[Tensor]]) -> _display.Block:
    """A row for the network of each task: the image and its maps."""
    picture = (x * _ground_truth.STD + _ground_truth.MEAN).clamp(0, 1).permute(1, 2, 0).mul(255).byte().numpy()  # H W 3
    names = [name for k, name in maps if k == kind and name not in NOT_DRAWN]
    panels = [
        [_display.Panel(picture), *(_display.Panel(picture, maps[kind, name][k]) for name in names)] for k in range(2)
    ]
    header = ["Image", *(SHORT.get(name) or title(name) for name in names)]
    return _display.Block(
        header, panels, ["digit", "texture"], f"{KINDS[kind]} trained for the digit and for the texture"
    )


def left_out(numbers: Mapping[str, Any]) -> str:
    """For the caption: the rows with images that have no rank correlation, because a map is constant."""
    found = [
        f"{title(name)} {row['randomised']['s']['missing']} ({label})"
        for kind, label in KINDS.items()
        for name, row in numbers[kind].items()
        if row["randomised"]["s"]["missing"]
    ]
    return f" Similarity: images left out because a map is all zero: {', '.join(found)}." if found else ""


def draw(numbers: Mapping[str, Any], caption: str) -> Any:  # noqa: ANN401 matplotlib's figure
    """For each architecture, the mass on the digit by task; then the similarity under new weights."""
    names = [name for name in [*SHOWN, *CONTROLS] if any(name in numbers[kind] for kind in KINDS)]
    with _display.style():
        figure, axes = _plot.chart(1, 4, caption, height=0.145 * len(names) + 0.85, sharey=True)
        for k, (kind, label) in enumerate(KINDS.items()):
            mass, weights = axes[0, k], axes[0, k + 2]
            found = numbers[kind]
            for i, name in enumerate(names):
                if name in found:
                    mass.plot([found[name]["mass"][task]["mean"] for task in TASKS], [i, i], color="#bbbbbb")
            mass.axvline(numbers["area"], color="black", linewidth=0.6, linestyle="--")
            for task, look in TASKS.items():
                dots(mass, {n: found[n]["mass"][task] if n in found else NONE for n in names}, **look)
            mass.set(xlim=(0, 1), title=f"{label}: share of the\nmap on the digit")
            weights.axvline(0, color="black", linewidth=0.4)
            for mark, look in WEIGHTS.items():
                dots(weights, {n: found[n]["randomised"][mark] if n in found else NONE for n in names}, **look)
            weights.set(xlim=(-0.35, 1.08), title=f"{label}: similarity\nunder new weights")
            mass.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
            weights.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        legend(figure, axes[0, 0], axes[0, 2])
        return figure


if __name__ == "__main__":
    main()
