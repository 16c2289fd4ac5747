"""Gradient maps x class activation maps: each cell is the product of its row and its column."""

from functools import partial
from typing import Any

import _run  # puts the repository on the path
from methods import METHODS, _display

OF = ["gradient", "smooth_grad_squared", "integrated_gradients", "guided_backprop"]  # rows
CAMS = ["grad_cam", "grad_cam_plus_plus", "hires_cam", "layer_cam", "ablation_cam"]  # columns
TITLE = "A product has the detail of its row and the place of its column"


def main() -> None:
    """Draw figures/fig_combined.png, for the last photograph and class of --images."""
    run = _run.start(__file__, __doc__, photos="chelsea_coffee", quick_photos="coffee")
    loaded = _run.load(run)
    rows = _run.subjects(run, loaded)[-1:]
    of, cams = (OF[::3], CAMS[:2]) if run.args.quick else (OF, CAMS)
    run.bar.reset(total=(1 + len(of)) * (1 + len(cams)))

    (photograph,) = _run.photographs(rows)
    grid = [[photograph, *(_run.explain(run, loaded, cam, rows)[0] for cam in cams)]]
    for name in of:
        m = METHODS[name]
        options: dict[str, Any] = {k: v for k, v in _run.QUICK.items() if k in m.params} if run.args.quick else {}
        options |= {"seed": run.args.seed} if "seed" in m.params else {}
        line = _run.explain(run, loaded, name, rows, **options)
        for cam in cams:
            if (name, cam) == ("guided_backprop", "grad_cam"):
                line += _run.explain(run, loaded, "guided_grad_cam", rows)
            else:
                product = {"of": partial(m.fn, **options), "cam": METHODS[cam].fn}
                line += _run.explain(run, loaded, "combine", rows, **product)
        grid.append(line)

    header = ["Photograph", *(METHODS[cam].title for cam in cams)]
    block = _display.Block(header, grid, [rows[0].target_name, *(METHODS[name].title for name in of)])
    caption = (
        f"{loaded.note}. Explained: {rows[0].target_name}. First row: class activation maps at the last layer, drawn "
        "over the photograph. First column: pixel maps, on white. Every other cell is the product of its row and its "
        "column (combine); guided backpropagation x Grad-CAM is Guided Grad-CAM. Below the photograph: its top class "
        f"and probability. {_display.SCALE} Pixel maps are summed over the colour channels."
        + _run.refusals(run, "cell left empty")
    )
    _run.save(run, _display.grid([block], caption, _run.banner(run), title=TITLE), caption)


if __name__ == "__main__":
    main()
