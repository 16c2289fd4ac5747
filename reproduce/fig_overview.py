"""Eight methods of five families on one picture, explained for the two things in it.

The reader should see: what maps of the families look like, and which follow the class that is asked for.
"""

from typing import Any

import _run  # puts the repository on the path
from methods import METHODS, _display
from methods._display import Panel

SHOWN: dict[str, dict[str, Any]] = {  # in the order of the families
    "smooth_grad": {},
    "integrated_gradients": {},
    "xrai": {},
    "guided_backprop": {},
    "grad_cam": {},
    "ablation_cam": {},
    "refine_cam": {},
    "occlusion": {"size": 48, "stride": 16},
}


def main() -> None:
    """Draw figures/fig_overview.png."""
    run = _run.start(__file__, __doc__, photos="chelsea_coffee", quick_photos="coffee")
    loaded = _run.load(run)
    rows = _run.subjects(run, loaded)
    run.bar.reset(total=len(SHOWN))
    maps = [_run.explain(run, loaded, name, rows, **keywords) for name, keywords in SHOWN.items()]
    names = [r.photo.name for r in rows]
    photographs = [None if r.photo.name in names[:i] else Panel(r.photo.rgb) for i, r in enumerate(rows)]
    header = ["Photograph", *(METHODS[name].title.replace("Backpropagation", "Backprop") for name in SHOWN)]
    block = _display.Block(header, [*zip(photographs, *maps, strict=True)], [r.target_name for r in rows])
    caption = (
        f"{loaded.note}. Each row is explained for the class at the left. {_display.SCALE} Default layer and keywords, "
        "but for Occlusion (squares of 48 pixels, every 16)." + _run.refusals(run, "cell left empty")
    )
    _run.save(run, _display.grid([block], caption, _run.banner(run)), caption)


if __name__ == "__main__":
    main()
