"""Every class activation map on a picture of two things, explained for each; grouped by the passes that it takes.

The reader should see: which methods follow the class that is asked for, and which draw the same map for both.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import _run  # puts the repository on the path

# isort: split
import torch

from methods import METHODS, _calls, _display, _images
from methods._cost import Number
from methods._display import Block, Panel
from methods._registry import Method

ALSO = ("fuse",)  # of another family: it puts class activation maps of several layers together
GROUPS: dict[str, Callable[[Number, Number], bool]] = {  # title: of the declared passes; the first that fits
    "One pass forward, none backward": lambda forward, backward: (forward, backward) == (1, 0),
    "One pass forward, one backward": lambda forward, backward: (forward, backward) == (1, 1),
    "More passes forward, none backward": lambda forward, backward: backward == 0,
    "More passes forward and backward": lambda forward, backward: True,
}
WIDTH = 9  # panels on a line
TITLE = 3  # panels below the title of a group, at least
FEWER: dict[str, dict[str, Any]] = {  # of a thousand passes each
    "ss_cam": {"samples": 1},
    "is_cam": {"steps": 2},
    "poly_cam": {"variant": "+"},
}
SIZES = {"H": 224, "W": 224, "K": 1000, "h": 7, "w": 7, "depth": 5, "channels": 1000}  # of a usual CNN
QUICK_PASSES = 500  # under --quick nothing that takes more


def main() -> None:
    """Draw figures/fig_cam.png."""
    run = _run.start(__file__, __doc__, photos="chelsea_coffee", quick_photos="coffee")
    loaded = _run.load(run)
    rows = _run.subjects(run, loaded)
    found = groups(quick=run.args.quick)
    members = [m for group in found.values() for m in group]
    run.bar.reset(total=len(members))
    photographs = first_of_each([Panel(r.photo.rgb) for r in rows], [r.photo.name for r in rows])
    columns = [photographs, *(_run.explain(run, loaded, m.name, rows, **FEWER.get(m.name, {})) for m in members)]
    blocks = lines(found, columns, labels(loaded, rows))
    fewer = ", ".join(
        f"{METHODS[m].title} ({k} = {v})" for m, p in FEWER.items() if METHODS[m] in members for k, v in p.items()
    )
    composites = {r.photo.name: f"{r.predicted_name} {r.probability:.2g}" for r in rows if r.photo.parts}
    own = f" (its own: {'; '.join(composites.values())})" if composites else ""
    caption = (
        f"{loaded.note}. At the left: the class that is explained and its probability; of a composite, the top class "
        f"of each of its two photographs{own}. {_display.SCALE} Default layer and keywords"
        f"{f', but for {fewer}' if fewer else ''}; maps on the layer's grid are resized bilinearly."
        + _run.refusals(run, "cell left empty")
    )
    title = f"{len(members)} class activation maps{', explained for two things in one picture' if composites else ''}"
    _run.save(run, _display.grid(blocks, caption, _run.banner(run), title=title), caption)


def first_of_each(panels: Sequence[Panel], names: Sequence[str]) -> list[Panel | None]:
    """The panels, each photograph once."""
    return [None if name in names[:i] else panel for i, (panel, name) in enumerate(zip(panels, names, strict=True))]


@torch.no_grad()
def labels(loaded: _run.Loaded, rows: Sequence[_run.Subject]) -> list[str]:
    """The explained class of each row and its probability."""
    x = _images.tensor([r.photo for r in rows], loaded)
    p = _calls.probabilities(_calls.run(loaded.model, x))  # B N
    return [f"{r.target_name} {p_i[r.target]:.2g}" for r, p_i in zip(rows, p, strict=True)]


def lines(
    found: Mapping[str, Sequence[Method]], columns: Sequence[Sequence[Panel | None]], labels: Sequence[str]
) -> list[Block]:
    """Blocks of WIDTH columns: the photographs, then the maps group by group, each with its title above its first.

    Args:
        found: the groups.
        columns: the panels of the photographs, then those of each method; one for each row.
        labels: of the rows.
    """
    blocks, left = [], iter(columns)
    header, titles = ["Photograph"], {}
    panels = [next(left)]

    def end() -> None:
        blocks.append(Block(header, [*zip(*panels, strict=True)], labels, titles))

    for title, group in found.items():
        for i, m in enumerate(group):
            at = len(header)
            no_room = i == 0 and (at > WIDTH - TITLE or any(at - start < TITLE for start in titles))
            if at == WIDTH or no_room:
                end()
                header, titles, panels, at = [], {}, [], 0
            titles |= {at: title} if i == 0 else {}
            header.append(f"{m.title}\n{m.paper['year']}")
            panels.append(next(left))
    end()
    return blocks


def groups(*, quick: bool = False) -> dict[str, list[Method]]:
    """The class activation maps of the registry and ALSO, in its order, by the passes that they declare."""
    found: dict[str, list[Method]] = {title: [] for title in GROUPS}
    for m in METHODS.values():
        if (m.family == "cam" or m.name in ALSO) and not (quick and passes(m) > QUICK_PASSES):
            found[next(title for title, fits in GROUPS.items() if fits(m.forward.total, m.backward.total))].append(m)
    return {title: members for title, members in found.items() if members}


def passes(m: Method) -> int:
    """Forward and backward, with the keywords of a quick run."""
    fewer = {k: v for k, v in _run.QUICK.items() if k in m.params}
    return sum(m.cost(**SIZES, **fewer | FEWER.get(m.name, {})).total)


if __name__ == "__main__":
    main()
