"""Numbers that papers and repositories print, the command of this repository that repeats each, and what it gave.

The reader should see: what is printed, where, under which protocol, and how to run the same. "Here" is the same
protocol on the default network and the packaged photographs: another network and other images, so it is no comparison.
It shows that the command runs, and in which range the number lies.

    python reproduce/table_published.py
    torchrun --nproc-per-node=4 reproduce/table_published.py --protocol adcc --model resnet50.tv_in1k --images DIR \
        --device cuda --workers 4

With --protocol, --model and --images DIR the protocol runs on these images, at the layer of the printed number. If the
run was killed, start the same command again to continue it.
"""

import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

import _run  # puts the repository on the path
from _published import PROTOCOLS, Protocol
from _table import OPTIONS, chunk, measure
from methods import _images
from methods.shapley_cam import rest
from sanity_checks import _benches as benches
from sanity_checks._parallel import World, world
from sanity_checks._rows import Row, resolve
from sanity_checks._runner import Bench
from sanity_checks._statistics import of_images

QUICK = ("torchcam",)
PROTOCOL = {"--protocol": {"metavar": "NAME", "choices": list(PROTOCOLS), "help": f"one of {', '.join(PROTOCOLS)}"}}


@dataclass(frozen=True)
class Found:
    """What a run gave for one protocol: method -> column -> mean and interval; the network and its images."""

    cells: dict[str, dict[str, Any]]
    network: str
    images: str


def main() -> None:
    """Write figures/table_published.md and .json."""
    run = _run.start(
        __file__,
        __doc__,
        photos=",".join(_images.PACKAGED),
        quick_photos="coffee,rocket",
        options={k: v for k, v in OPTIONS.items() if k != "--methods"} | PROTOCOL,
    )
    with world() as here:
        run.args.device = here.device(run.args.device)
        try:
            table(run, here)
        except ValueError as error:
            sys.exit(f"{run.script}: {error}")


def table(run: _run.Run, here: World) -> None:
    """Measure with all ranks; the first rank writes the table."""
    args = run.args
    asked = [args.protocol] if args.protocol else list(QUICK) if args.quick else list(PROTOCOLS)
    loaded = _run.load(run)
    good, bad = benches.readable(args.images, loaded, workers=args.workers, world=here)
    if bad and here.rank == 0:
        run.bar.write(_images.in_words(bad), file=sys.stderr)
    bench = benches.photographs(loaded, good, chunk(run, loaded))
    found = {}
    for name in asked:
        protocol = PROTOCOLS[name]
        layer = protocol.layers.get(loaded.tag)  # of the printed number; otherwise the default layer
        cells = measured(run, here, protocol, replace(bench, name=name), layer, quick=args.quick)
        found[name] = Found(cells, loaded.tag, f"{len(good)} images")
    if here.rank > 0:
        return
    run.numbers = {
        "n": len(good),
        "unreadable": bad,
        "images": {item.name: sha for item, sha in good.items()} if len(good) <= 100 else {},
        "protocols": {name: f.cells for name, f in found.items()},
    }
    caption = (
        f"Here: {loaded.note}; {len(good)} images, each explained for its top class, seed {args.seed}; mean and 95 % "
        "bootstrap interval. Where the network or the images are not the printed ones, this is no comparison: it shows "
        "that the command runs."
    )
    lines = [line for name in asked for line in section(name, PROTOCOLS[name], found[name])]
    _run.save(run, None, caption, markdown="\n".join(["# Published numbers", "", caption, "", *lines]))


def measured(
    run: _run.Run, here: World, protocol: Protocol, bench: Bench, layer: str | None, *, quick: bool
) -> dict[str, dict[str, Any]]:
    """The protocol on a bench: method -> column -> its mean with interval, n; the first rank returns it."""
    rows = [row_of(name, protocol, layer, quick) for name in protocol.methods]
    checks: dict[str, dict[str, Any]] = {check: {} for check, _ in protocol.columns.values()}
    cells: dict[str, dict[str, Any]] = {}
    for (row, check), part in measure(run, here, rows, checks, bench):
        for header, (where, value) in protocol.columns.items():
            if where == check:
                result = part.result
                got = {"refused": part.refused} if result is None else of_images(result.column(value))
                cells.setdefault(row, {})[header] = got
    return cells


def row_of(name: str, protocol: Protocol, layer: str | None, quick: bool) -> Row:
    """A method with the layer and the target of the protocol."""
    row = resolve(name, quick)
    keywords = {**row.keywords, **({"layer": layer} if layer else {})}
    return replace(row, fn=with_rest(row.fn) if protocol.rest else row.fn, keywords=keywords)


def with_rest(of: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A method that explains z^c + log p^c instead of the logit."""

    @functools.wraps(of)
    def explained(model: nn.Module, x: Tensor, target: Tensor, **keywords: Any) -> Tensor:  # noqa: ANN401
        return of(model, x, rest(target), **keywords)

    return explained


def section(name: str, protocol: Protocol, found: Found) -> Iterator[str]:
    """Lines of Markdown: what is printed, the command, and what it gave here."""
    yield from (f"## {protocol.title}", "", f"{protocol.definition} {protocol.source}.", "")
    yield from ("```bash", command(name, protocol), "```", "", f"The command differs: {protocol.differs}", "")
    head, line = " | ".join(protocol.columns), " ---: |" * len(protocol.columns)
    yield from (f"| printed | method | {head} |", f"| --- | --- |{line}")
    for model, printed in protocol.printed.items():
        for method, values in printed.items():
            yield f"| {model} | {linked(method)} | {' | '.join(f'{v:g}' for v in values)} |"
    yield from ("", f"| here | method | {head} |", f"| --- | --- |{line}")
    for method, cells in found.cells.items():
        yield f"| {found.network}, {found.images} | {linked(method)} | {' | '.join(map(cell, cells.values()))} |"
    yield ""


def linked(method: str) -> str:
    """A method with a link to its file."""
    return f"[`{method}`](../methods/{method}.py)"


def command(name: str, protocol: Protocol) -> str:
    """What repeats the printed numbers."""
    return (
        f"torchrun --nproc-per-node=4 reproduce/table_published.py --protocol {name} --model {protocol.models[0]} "
        f"--images {protocol.images} --device cuda --workers 4"
    )


def cell(got: Mapping[str, Any]) -> str:
    """A mean with its interval, or a dash for a method that is not defined for the model."""
    return "—" if "refused" in got else f"{got['mean']:.3g} <sub>{got['low']:.3g} to {got['high']:.3g}</sub>"


if __name__ == "__main__":
    main()
