"""Every class activation map on a picture of two things, explained for each; grouped by what it is made from.

The reader should see: which methods follow the class that is asked for, and which draw the same map for both.
"""

from typing import Any

import _run  # puts the repository on the path
from methods import METHODS, _display
from methods._references import references

GROUPS = {
    "One weight for each channel: from the classifier's weights, or from gradients": [
        "cam",
        "grad_cam",
        "grad_cam_plus_plus",
        "smooth_grad_cam_plus_plus",
        "xgrad_cam",
        "relevance_cam",
        "lift_cam",
        "shapley_cam",
        "finer_cam",
    ],
    "From gradients, position by position": [
        "hires_cam",
        "layer_cam",
        "grad_cam_elementwise",
        "eigen_grad_cam",
        "bag_cam",
        "iia",
        "dix",
        "six",
    ],
    "From the scores of masked images, or of edited features": [
        "score_cam",
        "ss_cam",
        "is_cam",
        "ablation_cam",
        "group_cam",
        "fd_cam",
        "recipro_cam",
        "opti_cam",
    ],
    "From several layers, or several sizes of the image": ["cameras", "fuse", "poly_cam", "refine_cam"],
    "From the features alone, whatever the class": ["eigen_cam", "fem", "random_cam", "kpca_cam"],
}
FEWER: dict[str, dict[str, Any]] = {  # of a thousand passes each
    "ss_cam": {"samples": 1},
    "is_cam": {"steps": 2},
    "poly_cam": {"variant": "+"},
}
NOT_QUICK = {"score_cam", "ss_cam", "is_cam", "poly_cam", "opti_cam"}  # a thousand passes of the whole network


def main() -> None:
    """Draw figures/fig_cam.png."""
    run = _run.start(__file__, __doc__, photos="chelsea_coffee", quick_photos="coffee")
    loaded = _run.load(run)
    rows = _run.subjects(run, loaded)
    skip = NOT_QUICK if run.args.quick else set()
    year = {name: references()[METHODS[name].cite]["year"] for names in GROUPS.values() for name in names}
    run.bar.reset(total=len(year.keys() - skip))

    blocks = []
    for title, members in GROUPS.items():
        names = sorted((name for name in members if name not in skip), key=lambda name: year[name])
        maps = [_run.explain(run, loaded, name, rows, **FEWER.get(name, {})) for name in names]
        blocks.append(
            _display.Block(
                header=["Photograph", *(f"{METHODS[name].title}\n{year[name]}" for name in names)],
                rows=list(zip(_run.photographs(rows), *maps, strict=True)),
                labels=_run.labels(rows),
                title=title,
            )
        )
    fewer = ", ".join(
        f"{METHODS[m].title} ({k} = {v})" for m, p in FEWER.items() if m not in skip for k, v in p.items()
    )
    caption = (
        f"{loaded.note}. Below each photograph: its top class and probability; the composite is explained for the top "
        f"class of each of its two photographs, named at the left. {_display.SCALE} Default layer and keywords"
        f"{f', but for {fewer}' if fewer else ''}; maps on the layer's grid are resized bilinearly over the photograph."
        + _run.refusals(run, "cell left empty")
    )
    _run.save(run, _display.grid(blocks, caption, _run.banner(run)), caption)


if __name__ == "__main__":
    main()
