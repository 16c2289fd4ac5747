"""FullGrad: how a score is divided among the image and the biases of each resolution, and the map of each part.

Srinivas, Fleuret. Full-Gradient Representation for Neural Network Visualization. NeurIPS 2019. arXiv:1905.00780, form
of figures 2 and 3 (maps of the biases by layer).

The reader should see: input x gradient is only one of many parts. The biases carry a large part of the score, and the
deeper the layer, the more its map is about the object and the less about edges.

Settings that differ from the paper: another network and photographs. Layers are grouped by the size of their maps.
Shares of the score are added. They sum to 1 for networks of ReLUs. Where a ReLU6 is cut off at 6, they do not; what is
missing is given as the rest.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

import _run  # puts the repository on the path
from methods import METHODS, _display, _images
from methods._torch import scores
from methods.full_grad import full_gradients, psi

IMAGE = METHODS["input_x_gradient"].title


def main() -> None:
    """Draw figures/fig_fullgrad.png."""
    run = _run.start(__file__, __doc__, photos="chelsea,coffee,motorcycle", quick_photos="coffee")
    loaded = _run.load(run)
    rows = _run.subjects(run, loaded)
    x = _images.tensor([r.photo for r in rows], loaded)
    target = torch.tensor([r.target for r in rows], device=x.device)
    run.bar.reset(total=2)

    panels = {IMAGE: _run.explain(run, loaded, "input_x_gradient", rows)}
    whole = _run.explain(run, loaded, "full_grad", rows)
    at_x, at_biases = full_gradients(loaded.model, x, target)
    f = scores(loaded.model, x[None], target)[0]  # B
    shares = {IMAGE: at_x.sum(dim=(1, 2, 3)) / f}
    for title, terms in by_size(at_biases).items():
        shares[title] = torch.stack([t.flatten(1).sum(dim=1) for t in terms]).sum(dim=0) / f  # B
        if terms[0].ndim == 4:
            maps = torch.stack([psi(t, (x.shape[2], x.shape[3])) for t in terms]).sum(dim=0)  # B 1 H W
            panels[title] = [_display.Panel(r.photo.rgb, a[0], overlay=True) for r, a in zip(rows, maps, strict=True)]
    rest = 1 - torch.stack([*shares.values()]).sum(dim=0)  # B
    run.numbers |= {"photographs": [r.photo.name for r in rows], "scores": f, "shares": shares, "rest": rest}

    lines = []
    for i, photograph in enumerate(_run.photographs(rows)):
        parts = [
            (panel := column[i]) and replace(panel, below=f"{round(float(shares[title][i]), 2) + 0.0:+.0%}")
            for title, column in panels.items()
        ]
        lines.append([photograph, *parts, whole[i]])
    header = ["Photograph", *panels, METHODS["full_grad"].title]
    by_photograph = {**{title: v for title, v in shares.items() if title not in panels}, "rest": rest}
    others = [
        f"{title} {'/'.join(f'{round(s, 2) + 0.0:.0%}' for s in v.tolist())}" for title, v in by_photograph.items()
    ]
    caption = (
        f"{loaded.note}; the top class of each photograph is named below it and explained. Biases: the layers whose "
        "maps have this many cells, their maps made positive and scaled as in FullGrad; FullGrad is the sum of "
        "all. Below: "
        "the share of the logit, with its sign. Without a map, photograph by photograph: "
        f"{', '.join(others)} (what ReLU6 cuts off, for one). {_display.SCALE}" + _run.refusals(run, "cell left empty")
    )
    _run.save(
        run,
        _display.grid([_display.Block(header, lines)], caption, _run.banner(run), title=headline(shares, rest)),
        caption,
    )


def by_size(at_biases: list[Float[Tensor, "B ..."]]) -> dict[str, list[Tensor]]:
    """Terms of biases grouped by the size of their maps, finest first; those without a map last."""
    found: dict[str, list[Tensor]] = {}
    for t in sorted(at_biases, key=lambda t: -t[0, 0].numel() if t.ndim == 4 else 0):
        found.setdefault("biases\n{} x {}".format(*t.shape[2:]) if t.ndim == 4 else "bias of the head", []).append(t)
    return found


def headline(shares: dict[str, Tensor], rest: Tensor) -> str:
    """What the image, the biases and the rest contribute to the score, on average."""
    means = {name: float(v.mean()) for name, v in shares.items()}
    image = means.pop(IMAGE)
    others = f", what is cut off {float(rest.mean()):.0%}" if rest.abs().max() > 0.01 else ""
    return f"Of the logit the image itself makes {image:.0%}, the biases {sum(means.values()):.0%}{others}"


if __name__ == "__main__":
    main()
