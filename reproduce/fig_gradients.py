"""Gradients, integrated paths and backward rules on photographs, for each photograph's top class."""

import _run  # puts the repository on the path
from methods import METHODS, _display

ORDER = [
    "gradient",
    "input_x_gradient",
    "smooth_grad",
    "smooth_grad_squared",
    "var_grad",
    "integrated_gradients",
    "blur_ig",
    "guided_ig",
    "xrai",
    "guided_backprop",
    "deconvnet",
    "full_grad",
]
FAMILIES = {"gradient", "path", "backprop-rule"}
COLUMNS = 6  # methods in one row; the others follow below


def main() -> None:
    """Draw figures/fig_gradients.png."""
    run = _run.start(__file__, __doc__, photos="chelsea,rocket", quick_photos="chelsea")
    loaded = _run.load(run)
    rows = _run.subjects(run, loaded)
    names = ORDER + [name for name, m in METHODS.items() if m.family in FAMILIES and name not in ORDER]
    run.bar.reset(total=len(names))
    maps = {name: _run.explain(run, loaded, name, rows) for name in names}

    blocks = [
        _display.Block(
            header=["Photograph", *(METHODS[name].title for name in bank)],
            rows=list(zip(_run.photographs(rows), *(maps[name] for name in bank), strict=True)),
            labels=_run.labels(rows),
        )
        for bank in (names[i : i + COLUMNS] for i in range(0, len(names), COLUMNS))
    ]
    caption = (
        f"{loaded.note}. Below each photograph: its top class and probability; this class is explained. "
        f"{_display.SCALE} Pixel maps are summed over the colour channels and drawn on white; other maps are drawn "
        "over the photograph." + _run.refusals(run, "cell left empty")
    )
    _run.save(run, _display.grid(blocks, caption, _run.banner(run)), caption)


if __name__ == "__main__":
    main()
