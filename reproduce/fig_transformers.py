"""Gradients, class activation maps and attention methods on a ViT and a Swin.

The repository contains no pretrained transformer. Without --model the weights are random, and the figure says so.
If weights are available: python reproduce/fig_transformers.py --model vit_base_patch16_224,swin_tiny_patch4_window7_224
"""

import _run  # puts the repository on the path
from methods import METHODS, _display

TAGS = "vit_tiny_patch16_224,swin_tiny_patch4_window7_224"
ORDER = [
    "gradient",
    "smooth_grad",
    "integrated_gradients",
    "grad_cam",
    "grad_cam_plus_plus",
    "hires_cam",
    "layer_cam",
    "eigen_cam",
]


def main() -> None:
    """Draw figures/fig_transformers.png."""
    run = _run.start(__file__, __doc__, photos="chelsea,coffee", quick_photos="coffee", weights="random")
    names = ORDER + [name for name, m in METHODS.items() if m.family == "attention"]
    tags = (run.args.model or TAGS).split(",")
    run.bar.reset(total=len(names) * len(tags))

    blocks, notes = [], []
    for tag in tags:
        loaded = _run.load(run, tag)
        rows = _run.subjects(run, loaded)
        maps = [_run.explain(run, loaded, name, rows) for name in names]
        blocks.append(
            _display.Block(
                header=["Photograph", *(METHODS[name].title for name in names)],
                rows=list(zip(_run.photographs(rows), *maps, strict=True)),
                labels=_run.labels(rows),
                title=loaded.note,
            )
        )
        notes.append(loaded.note)
    meaningless = " They show that the methods run, not what a trained network looks at." if _run.banner(run) else ""
    caption = (
        f"{'; '.join(notes)}.{meaningless} Below each photograph: its top class and probability; this class is "
        f"explained. {_display.SCALE} Pixel maps are summed over the colour channels and drawn on white; patch maps "
        "are drawn over the photograph." + _run.refusals(run, "cell left empty")
    )
    _run.save(run, _display.grid(blocks, caption, _run.banner(run)), caption)


if __name__ == "__main__":
    main()
