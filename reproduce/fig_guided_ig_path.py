"""Guided integrated gradients: the images on its path, and the score along it, compared with the straight path.

Kapishnikov, Venugopalan, Avci, Wedin, Terry, Bolukbasi. Guided Integrated Gradients. CVPR 2021. arXiv:2106.09788, form
of figures 1 to 3.

The reader should see: the free path first moves the pixels to which the score reacts least, so halfway the image is
there and what the network looks at is not. On it less is counted that cancels later: the sum of |a| over the change of
the score is smaller. The path of the default, at most 2 % away from the straight one, is between the two.

Settings that differ from the paper: another network and photographs. The number under the maps is added.
"""

from typing import Any

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor, nn

import _plot
import _run  # puts the repository on the path
from _inputs import black, picture
from methods import _display, _images
from sanity_checks._torch import explain

PATHS: dict[str, tuple[str, dict[str, Any]]] = {  # title: method, its keywords
    "straight": ("integrated_gradients", {"rule": "left", "chunk": 1}),
    "guided": ("guided_ig", {"max_dist": 0.02}),
    "guided, free": ("guided_ig", {"max_dist": 1.0}),
}
STEPS, QUICK_STEPS = 200, 8
SHOWN = (0.25, 0.5)  # positions on the path


class Recorder(nn.Module):
    """A model that remembers its images and outputs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.seen, self.outputs = model, [], []

    def forward(self, x: Tensor) -> Tensor:
        """The output of the model."""
        y = self.model(x)
        self.seen.append(x.detach())
        self.outputs.append(y.detach())
        return y


def main() -> None:
    """Draw figures/fig_guided_ig_path.png."""
    run = _run.start(__file__, __doc__, photos="chelsea,coffee", quick_photos="coffee")
    loaded = _run.load(run)
    rows = _run.subjects(run, loaded)
    steps = QUICK_STEPS if run.args.quick else STEPS
    run.bar.reset(total=len(rows) * len(PATHS))

    lines: list[list[_display.Panel | None]] = [[] for _ in PATHS]
    curves, cancelled = [], []
    for row, photograph in zip(rows, _run.photographs(rows), strict=True):
        x, by, ratios = _images.tensor([row.photo], loaded), {}, {}
        for line, (title, (name, keywords)) in zip(lines, PATHS.items(), strict=True):
            run.bar.set_postfix_str(title)
            keywords = {**keywords, "steps": steps, "baseline": black(loaded)}
            a, images, by[title] = follow(run, loaded.model, x, row.target, name, keywords)
            ratios[title] = float(a.abs().sum() / (by[title][-1] - by[title][0]).abs())
            path = [_display.Panel(picture(images[round(t * steps)], loaded)) for t in SHOWN]
            whole = _display.Panel(row.photo.rgb, a[0].sum(dim=0), below=f"{ratios[title]:.0f}")
            line += [None if line is not lines[0] else photograph, *path, whole]
            run.bar.update()
        curves.append(by)
        cancelled.append(ratios)
    run.numbers |= {
        "photographs": [r.photo.name for r in rows],
        "steps": steps,
        "logits": [dict(by) for by in curves],
        "cancelled": cancelled,
    }
    above = (
        f"{loaded.note}; the top class of each photograph is named below it and explained. Paths from black to the "
        f"photograph in {steps} steps: the straight one of Integrated Gradients, and two of Guided Integrated "
        "Gradients, at most 2 % (the default) and any distance from it. Number: sum of |a| over the change of "
        "the logit; what is "
        f"above 1 cancels. {_display.SCALE} Maps are summed over the colour channels."
    )
    below = "The logit along each path. Guided: at most 2 % from the straight path; free: at any distance."
    header = ["Photograph", *(f"{t:.0%} of the way" for t in SHOWN), "Map"] * len(rows)
    block = _display.Block(header, lines, list(PATHS))
    grid = _display.grid([block], above, _run.banner(run), title=headline(cancelled))
    _run.save(run, [grid, draw(run.numbers, below)], f"{above}\n{below}")


def follow(
    run: _run.Run,
    model: nn.Module,
    x: Float[Tensor, "1 C H W"],
    target: int,
    name: str,
    keywords: dict[str, Any],
) -> tuple[Float[Tensor, "1 C H W"], Float[Tensor, "n C H W"], Float[Tensor, " n"]]:
    """The map of one method, and the images and logits at the starts of its steps and at the end of its path."""
    recorder = Recorder(model)
    of = _run.bind(run, name, recorder, x, **keywords)
    recorder.seen.clear()
    recorder.outputs.clear()
    a = explain(of, recorder, x, torch.tensor([target], device=x.device))
    with torch.no_grad():
        recorder(x)
    return a, torch.cat(recorder.seen), torch.cat(recorder.outputs)[:, target]


def headline(cancelled: list[dict[str, float]]) -> str:
    """The sum of |a| over the change of the score, mean over the photographs."""
    straight, _, free = (sum(c[title] for c in cancelled) / len(cancelled) for title in PATHS)
    if free >= straight:
        return "The path of Guided Integrated Gradients, compared with the straight path"
    return f"Less cancels on a free guided path: |a| is {free:.0f} times the change of the logit, not {straight:.0f}"


def draw(found: dict[str, Any], caption: str) -> Figure:
    """The logit along the paths, an axis for each photograph."""
    with _display.style():
        figure, axes = _plot.chart(1, max(2, len(found["logits"])), caption, height=1.8)
        for ax in axes[0, len(found["logits"]) :]:
            ax.set_axis_off()
        for ax, name, by in zip(axes[0], found["photographs"], found["logits"], strict=False):
            for k, (title, logits) in enumerate(by.items()):
                at = [i / found["steps"] for i in range(len(logits))]
                ax.plot(at, logits.cpu(), ("-", "--", "-.")[k], color=_plot.LINES[k], label=title)
            ax.set(xlabel="position on the path (share of its steps)", ylabel="logit", title=name)
        axes[0, 0].legend(loc="center")
    return figure


if __name__ == "__main__":
    main()
