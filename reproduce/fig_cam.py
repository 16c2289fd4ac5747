"""Class activation maps on photographs: the last layer, the stage before, and one picture for two classes."""

import _plot
import _run  # puts the repository on the path
import models
from methods import METHODS
from methods._layers import default_layer

ORDER = [
    "cam",
    "grad_cam",
    "grad_cam_plus_plus",
    "xgrad_cam",
    "hires_cam",
    "layer_cam",
    "eigen_cam",
    "eigen_grad_cam",
    "bag_cam",
    "score_cam",
    "ablation_cam",
]
NOT_EARLIER = {"cam"}  # defined at the last layer only
NOT_QUICK = {"score_cam"}  # at the last layer: a forward pass of the whole network per channel


def main() -> None:
    """Draw figures/fig_cam.png."""
    run = _run.start(__file__, __doc__, photos="rocket,chelsea_coffee", quick_photos="coffee")
    loaded = _run.load(run)
    rows = _run.subjects(run, loaded)
    names = ORDER + [name for name, m in METHODS.items() if m.family == "cam" and name not in ORDER]
    last, earlier = default_layer(loaded.model), models.earlier_layer(loaded)
    left_out = {last: NOT_QUICK if run.args.quick else set(), earlier: NOT_EARLIER}
    run.bar.reset(total=2 * len(names) - sum(map(len, left_out.values())))

    parts = {last: rows, earlier: rows[-2:]}
    maps = {
        layer: [
            [None] * len(part) if name in left_out[layer] else _run.explain(run, loaded, name, part, layer=layer)
            for name in names
        ]
        for layer, part in parts.items()
    }
    blocks = [
        _plot.Block(
            header=["Photograph", *("" if name in left_out[layer] else METHODS[name].title for name in names)],
            rows=list(zip(_run.photographs(part), *maps[layer], strict=True)),
            labels=_run.labels(part),
            title=f"{'The last layer' if layer == last else 'The end of the stage before'} ({layer})",
        )
        for layer, part in parts.items()
    ]
    caption = (
        f"{loaded.note}. Below each photograph: its top class and probability. That class is explained; the composite "
        f"is explained for the top class of each of its two photographs, named at the left. {_plot.SCALE} "
        "The maps are on the layer's grid, resized bilinearly over the photograph. CAM is of the last layer only."
        + _run.refusals(run, "cell left empty")
    )
    _run.save(run, _plot.grid(blocks, caption, _run.banner(run)), caption)


if __name__ == "__main__":
    main()
