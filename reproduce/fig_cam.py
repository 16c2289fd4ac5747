"""Every class activation map on a picture of two things, explained for each; grouped by the passes that it takes.

The reader should see: which methods follow the class that is asked for, and which draw the same map for both.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import _run  # puts the repository on the path
from methods import METHODS, _display
from methods._cost import Number
from methods._registry import Method

ALSO = ("fuse",)  # of another family: it puts class activation maps of several layers together
GROUPS: dict[str, Callable[[Number, Number], bool]] = {  # title: of the declared passes; the first that fits
    "One pass forward, none backward": lambda forward, backward: (forward, backward) == (1, 0),
    "One pass forward, one backward": lambda forward, backward: (forward, backward) == (1, 1),
    "More passes forward, none backward": lambda forward, backward: backward == 0,
    "More passes forward and backward": lambda forward, backward: True,
}
WIDEST = 8  # maps on a line
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
    run.bar.reset(total=sum(map(len, found.values())))

    blocks = []
    for title, members in found.items():
        for line in lines(members):
            maps = [_run.explain(run, loaded, m.name, rows, **FEWER.get(m.name, {})) for m in line]
            blocks.append(
                _display.Block(
                    header=["Photograph", *(f"{m.title}\n{m.paper['year']}" for m in line)],
                    rows=list(zip(_run.photographs(rows), *maps, strict=True)),
                    labels=_run.labels(rows),
                    title=title if line[0] is members[0] else "",
                )
            )
    drawn = {m.name for members in found.values() for m in members}
    fewer = ", ".join(f"{METHODS[m].title} ({k} = {v})" for m, p in FEWER.items() if m in drawn for k, v in p.items())
    caption = (
        f"{loaded.note}. Below each photograph: its top class and probability; the composite is explained for the top "
        f"class of each of its two photographs, named at the left. {_display.SCALE} Default layer and keywords"
        f"{f', but for {fewer}' if fewer else ''}; maps on the layer's grid are resized bilinearly over the photograph."
        + _run.refusals(run, "cell left empty")
    )
    _run.save(run, _display.grid(blocks, caption, _run.banner(run)), caption)


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


def lines(members: Sequence[Method]) -> Iterator[Sequence[Method]]:
    """The members in lines of WIDEST."""
    return (members[k : k + WIDEST] for k in range(0, len(members), WIDEST))


if __name__ == "__main__":
    main()
