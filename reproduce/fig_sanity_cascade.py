"""Maps while the weights are randomised from the head down, and their similarity to maps of the trained network.

Adebayo, Gilmer, Muelly, Goodfellow, Hardt, Kim, NeurIPS 2018, arXiv:1810.03292: form of figures 2 (maps) and 4
(curves); last panel, from the image up: after Binder et al., CVPR 2023, arXiv:2211.12486.
The reader should see: guided backpropagation keeps its ranks while the upper stages are randomised (0.95 with six of
nineteen randomised, although the logits are random after the first step). So do the image's edges, which do not depend
on the network. The gradient and Grad-CAM change with the head. (Guided backpropagation does change when all stages are
randomised, as the erratum in the authors' repository says. LayerCAM, too, changes very little with the classifier.
Noise passes at every step.)
Differs from the paper: another network, six photographs that it recognises instead of ImageNet's, eight of its stages.
Weights are permuted within each tensor, not drawn again (which leaves some networks dead). The class remains the
trained network's top class. SmoothGrad and Integrated Gradients take 16 evaluations and one randomisation, the others
three.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from matplotlib.figure import Figure

import _plot
import _run  # puts the repository on the path
from _curves import EXPENSIVE, INIT, MEASURES, above, below, draw, maps, one_scale, setting, tick
from methods import _display
from sanity_checks._cascade import cascade, passes, summary
from sanity_checks._controls import CONTROLS


def main() -> None:
    """Draw figures/fig_sanity_cascade.png."""
    run = _run.start(
        __file__,
        __doc__,
        photos="chelsea,coffee,rocket,motorcycle,china,flower",
        quick_photos="chelsea,coffee",
        options=INIT,
    )
    seeds, points, fewer = (1, 2, 2) if run.args.quick else (3, 8, 5)
    it = setting(run, seeds)
    cheap = {name: row for name, row in it.rows.items() if name not in EXPENSIVE and name not in CONTROLS}
    run.bar.reset(total=passes(it.rows, points) + passes(cheap, fewer))
    more: dict[str, Any] = {"init": run.args.init, "seed": run.args.seed, "tick": partial(tick, run)}
    down = cascade(it.loaded.model, it.x, it.target, it.rows, points=points, **more)
    _run.refuse(run, down.refused)
    cheap = {name: row for name, row in cheap.items() if name not in down.refused}
    more |= {"order": "bottom-up", "points": fewer, "measures": ("spearman",)}
    up = cascade(it.loaded.model, it.x, it.target, cheap, **more)
    found = {"top-down": summary(down), "bottom-up": summary(up, ("spearman",))}
    counts = {name: n for name, (_, n) in it.rows.items()}
    run.numbers = {"images": len(it.x), "seeds": counts, "init": run.args.init} | found

    captions = above(it.loaded, it.subjects[0]), below(run, down, it.rows, len(it.x))
    header = ["trained", *(f"{'down to ' if i else ''}{name}" for i, name in enumerate(down.labels[1:]))]
    block = maps(down, it.subjects[0].photo, header, "Weights randomised from the head down")
    grid = _display.grid([block], captions[0], _run.banner(run))
    _run.save(run, [grid, curves(found, captions[1])], " ".join(captions))


def curves(found: Mapping[str, Mapping[str, Any]], caption: str) -> Figure:
    """The four measures from the head down, and the first of them from the image up."""
    with _display.style():
        figure, axes = _plot.chart(2, 3, caption, height=2.1)
        for ax, (measure, heading) in zip(axes.flat, MEASURES.items(), strict=False):
            draw(ax, found["top-down"], measure, f"{heading}, from the head down")
        one_scale(axes.flat[: len(MEASURES)])
        draw(axes[1, 1], found["bottom-up"], "spearman", f"{MEASURES['spearman']}, from the image up")
        axes[1, 2].axis("off")
        axes[1, 2].legend(*axes[0, 0].get_legend_handles_labels(), loc="center left")
        return figure


if __name__ == "__main__":
    main()
