"""Methods that change the input or a layer and measure the score: occlusion, feature maps as masks, ablation."""

import _run  # puts the repository on the path
from methods import METHODS, _display

WINDOWS = [(15, 8), (32, 16), (32, 32), (64, 16)]  # size, stride in pixels
TITLE = "The map of Occlusion depends on the size of its window"


def main() -> None:
    """Draw figures/fig_perturbation.png."""
    run = _run.start(__file__, __doc__, photos="chelsea_coffee", quick_photos="coffee")
    loaded = _run.load(run)
    rows = _run.subjects(run, loaded)
    windows = WINDOWS[1:] if run.args.quick else WINDOWS
    names = ["ablation_cam"] if run.args.quick else ["score_cam", "ablation_cam"]
    run.bar.reset(total=len(windows) + len(names))

    columns = [_run.explain(run, loaded, "occlusion", rows, size=size, stride=stride) for size, stride in windows]
    columns += [_run.explain(run, loaded, name, rows) for name in names]
    header = [
        "Photograph",
        *(f"Occlusion\n{size} px, stride {stride}" for size, stride in windows),
        *(METHODS[name].title for name in names),
    ]
    block = _display.Block(header, list(zip(_run.photographs(rows), *columns, strict=True)), _run.labels(rows))
    caption = (
        f"{loaded.note}. Below each photograph: its top class and probability. This class is explained. The composite "
        f"is explained for the top class of each of its two photographs, named at the left. {_display.SCALE} "
        "Occlusion fills the window with the mean colour." + _run.refusals(run, "cell left empty")
    )
    _run.save(run, _display.grid([block], caption, _run.banner(run), title=TITLE), caption)


if __name__ == "__main__":
    main()
