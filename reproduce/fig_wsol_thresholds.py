"""From a map to a box: the threshold decides how large it is.

Choe, Oh, Lee, Chun, Akata, Shim. CVPR 2020. arXiv:2001.07437, on the threshold; boxes on photographs as in Zhou,
Khosla, Lapedriza, Oliva, Torralba. CVPR 2016. arXiv:1512.04150.

The reader should see: with a higher threshold the box of the same map shrinks from the whole image to a few pixels. The
threshold that fits the object best is a different one for each of the methods. On photographs the largest box at 0.2
goes from less than 1 % of the area (SmoothGrad-Squared) to the whole image (Guided Backpropagation).

Differs from the papers: digits on textures with exact boxes and a small CNN for one image of 32 x 32 pixels. The
photographs have no true box here. How much the scores of methods depend on the threshold is in fig_wsol_boxes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import _run  # puts the repository on the path
from _box_pictures import LEVELS, NESTED, photographs, sweep
from _dots import title
from methods import _display
from methods._models import Loaded
from methods._torch import Attribution
from sanity_checks import _ground_truth, _nets
from sanity_checks._controls import CONTROLS
from sanity_checks._torch import explain

SWEPT = ("grad_cam", "full_grad", "smooth_grad_squared")
BATCH = 50  # images explained together; the first is drawn
CENTRE = "centred_gaussian"  # the last row of the sweep
ON_PHOTOGRAPHS: dict[str, dict[str, Any]] = {
    "grad_cam": {},
    "layer_cam": {},
    "guided_grad_cam": {},
    "full_grad": {},
    "occlusion": {"size": 48, "stride": 32},
    "smooth_grad_squared": {"samples": 10},
    "guided_backprop": {},
    "integrated_gradients": {"steps": 16},
}


def main() -> None:
    """Draw figures/fig_wsol_thresholds.png."""
    run = _run.start(__file__, __doc__, photos="coffee,rocket", quick_photos="coffee")
    model = _run.net(run, "digit_cnn")
    found = _ground_truth.digits_on_textures(16 if run.args.quick else 200, run.args.seed)  # as fig_wsol_boxes
    x, target = found.x[:BATCH].to(run.args.device), found.digit[:BATCH].to(run.args.device)
    swept = SWEPT[:1] if run.args.quick else SWEPT
    run.bar.reset(total=len(swept) + 1 + len(ON_PHOTOGRAPHS))
    of: dict[str, Attribution] = {name: _run.bind(run, name, model, x) for name in swept}
    of[CENTRE] = CONTROLS[CENTRE][1](run.args.seed)
    maps = {}
    for name, attribution in of.items():
        maps[name] = explain(attribution, model, x, target)
        run.bar.update()
    first, ious = sweep(found, maps)

    loaded = _run.load(run)
    rows = _run.subjects(run, loaded)
    panels = {name: _run.explain(run, loaded, name, rows, **_fewer(run, name)) for name in ON_PHOTOGRAPHS}
    second, areas = photographs(run, rows, panels)
    run.numbers = {"thresholds": LEVELS, "iou": ious, "photograph_thresholds": list(NESTED), "areas": areas}
    caption = _caption(run, loaded)
    _run.save(run, _display.grid([first, second], caption, _run.banner(run), title=headline(ious)), caption)


def _fewer(run: _run.Run, name: str) -> dict[str, Any]:
    return {} if run.args.quick and name != "occlusion" else ON_PHOTOGRAPHS[name]


def best(ious: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The threshold with the best box, by row."""
    return {name: LEVELS[max(range(len(LEVELS)), key=of.__getitem__)] for name, of in ious.items()}


def headline(ious: Mapping[str, Sequence[float]]) -> str:
    """What the reader should see."""
    found = ", ".join(f"{tau} for {title(name)}" for name, tau in best(ious).items() if name != CENTRE)
    return f"The threshold decides how large the box is. The one with the best box on this image: {found}"


def _caption(run: _run.Run, loaded: Loaded) -> str:
    return (
        f"First block: {_nets.NETS['digit_cnn'].title}, 32 x 32 pixels, explained for the digit; dark: below τ. "
        "Dashed yellow: the true box. Red: the best of the boxes around regions above τ, and its IoU. Thin grey: "
        "other boxes. Last row: a map that does not use the network. Photographs, as in Zhou et al. (2016): "
        f"{loaded.note}; explained for the top class; no true box. {_display.SCALE}"
        + _run.refusals(run, "cell left empty")
    )


if __name__ == "__main__":
    main()
