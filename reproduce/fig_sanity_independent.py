"""Maps while one stage of the network at a time is randomised and all other stages keep their weights.

Adebayo, Gilmer, Muelly, Goodfellow, Hardt, Kim, NeurIPS 2018, arXiv:1810.03292: form of figure 3.
The reader should see: the logits are nearly random without any one of the stages. Guided backpropagation changes most
with the lower stages and very little with the upper ones. The gradient and Grad-CAM change with every stage. (LayerCAM,
too, changes very little with the classifier.)
Differs from the paper: another network, four photographs that it recognises instead of ImageNet's, seven of its stages.
Weights are permuted within each tensor, not drawn again (which leaves some networks dead). The class remains the
trained network's top class. SmoothGrad and Integrated Gradients take 16 evaluations and one randomisation, the others
two.
"""

from functools import partial

import _plot
import _run  # puts the repository on the path
from _curves import INIT, MEASURES, above, below, draw, maps, one_scale, setting, tick
from methods import _display
from sanity_checks._cascade import cascade, passes, summary


def main() -> None:
    """Draw figures/fig_sanity_independent.png."""
    run = _run.start(
        __file__, __doc__, photos="chelsea,coffee,rocket,motorcycle", quick_photos="chelsea,coffee", options=INIT
    )
    seeds, points = (1, 2) if run.args.quick else (2, 7)
    it = setting(run, seeds)
    run.bar.reset(total=passes(it.rows, points))
    found = cascade(
        it.loaded.model,
        it.x,
        it.target,
        it.rows,
        order="independent",
        points=points,
        init=run.args.init,
        seed=run.args.seed,
        tick=partial(tick, run),
    )
    _run.refuse(run, found.refused)
    numbers = summary(found)
    counts = {name: n for name, (_, n) in it.rows.items()}
    run.numbers = {"images": len(it.x), "seeds": counts, "init": run.args.init, "independent": numbers}

    captions = above(it.loaded, it.subjects[0]), below(run, found, it.rows, len(it.x))
    header = ["trained", *(f"only {name}" for name in found.labels[1:])]
    block = maps(found, it.subjects[0].photo, header, "Weights of one stage at a time randomised")
    grid = _display.grid([block], captions[0], _run.banner(run))
    with _display.style():
        figure, axes = _plot.chart(2, 2, captions[1], height=1.9)
        for ax, (measure, heading) in zip(axes.flat, MEASURES.items(), strict=True):
            draw(ax, numbers, measure, heading)
        one_scale(axes.flat)
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    _run.save(run, [grid, figure], " ".join(captions))


if __name__ == "__main__":
    main()
