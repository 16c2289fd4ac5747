"""Localisation by every method: does a map lie on the object that the network was trained to recognise?

Scores of Zhang et al. 2018 (pointing game), Wang et al. 2020 (energy), Arras et al. 2022 (relevance mass and rank
accuracy), of a map as a classifier of pixels (ROC-AUC, average precision), Chefer et al. 2021 (IoU above the mean) and
Choe et al. 2020 (MaxBoxAccV2). Each score has its 95 % bootstrap interval over images. The table also has controls that
do not use the network; one of them is a Gaussian in the middle.

The reader should see: the order of methods depends on the score. Maps that do not use the network reach a large part of
some scores. So a number is bold only if it is certainly better than that of noise as smooth as the map itself.

    python reproduce/table_localization.py
    torchrun --nproc-per-node=4 reproduce/table_localization.py --images DIR --boxes DIR --model resnet50 --device cuda

By default: digits on textures with exact masks, and the small CNN and the small ViT trained for the digits. With
--images and --boxes: ImageNet's validation images and their boxes (see `_annotations.py`) with the network of --model;
each image is explained for its own class. If the run was killed, start the same command again to continue it.
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

import _annotations
import _imagenet
import _run  # puts the repository on the path
from _table import ENOUGH, OPTIONS, Column, chunk, described, digits, fewer, for_digits, measure, numbers, rows
from methods import METHODS
from sanity_checks import CHECKS, Result, _ground_truth, _nets
from sanity_checks._parallel import World, world
from sanity_checks._runner import Bench, Part
from sanity_checks._statistics import interval
from sanity_checks._thresholds import hits_of, resampled
from sanity_checks.wsol import max_box_acc, px_ap

COLUMNS = (
    Column("pointing", "pointing_game"),
    Column("energy", "energy_pointing_game"),
    Column("mass", "relevance_mass"),
    Column("rank", "relevance_rank"),
    Column("ROC-AUC", "roc_auc"),
    Column("AP", "average_precision"),
    Column("IoU", "iou"),
    Column("MaxBoxAccV2", "wsol"),  # of all images together: see `of_all`
)
VIT = ["attention_rollout", "generic_attention", "gradient", "integrated_gradients", "grad_cam", "occlusion"]
FEW = ["gradient", "grad_cam"]  # of a quick run
BOX_OPTIONS = MappingProxyType(
    {
        "--boxes": {"metavar": "PLACE", "help": "ILSVRC2012_bbox_val_v3, folder or .tgz; needs --images"},
        "--crop": {"action": "store_true", "help": "crop ImageNet's images to the centre; default: resized as a whole"},
        "--limit": {"type": int, "metavar": "N", "help": "images; default: 80 digits, or all of --images"},
        "--full": {
            "action": "store_true",
            "help": "box scores at the paper's settings: thresholds 0.001 apart, 224 pixels",
        },
    }
)


def main() -> None:
    """Write figures/table_localization.md and .json."""
    run = _run.start(__file__, __doc__, photos="", options=OPTIONS | BOX_OPTIONS)
    args = run.args
    if bool(args.images) != bool(args.boxes):
        sys.exit(f"{run.script}: --images and --boxes belong together")
    if args.limit is not None and args.limit < 1:
        sys.exit(f"{run.script}: --limit: at least 1 image, got {args.limit}")
    with world() as here:
        args.device = here.device(args.device)
        try:
            if args.boxes:
                on_imagenet(run, here)
            else:
                on_digits(run, here)
        except ValueError as error:
            sys.exit(f"{run.script}: {error}")


def on_digits(run: _run.Run, here: World) -> None:
    """Both small networks on digits on textures, with all ranks; the first rank writes the table."""
    args, n = run.args, run.args.limit or (12 if run.args.quick else 80)
    boxes = {"interval": 0.001} if args.full else dict(CHECKS["wsol"].quick)
    checks = {c.check: boxes | {"size": _ground_truth.SIDE} if c.check == "wsol" else {} for c in COLUMNS}
    found = {}
    for kind, names in (("cnn", list(METHODS)), ("vit", VIT)):
        found[kind] = cells(run, here, digits(run, f"digit_{kind}", n), names, checks, small=True)
    if here.rank > 0:
        return
    settings = (
        f"{n} test images of 32 x 32 pixels, explained for the digit, seed {args.seed}. Masks are exact; the object "
        f"covers {found['cnn']['area']:.3f} of the pixels. "
    )
    note = f"Box scores at 32 pixels; no margin in the pointing game. Fewer steps than the default: {fewer()}."
    titles = {kind: _nets.NETS[f"digit_{kind}"].title for kind in found}
    write(run, {titles[kind]: f for kind, f in found.items()}, settings, note)


def on_imagenet(run: _run.Run, here: World) -> None:
    """The model on ImageNet's images with boxes, with all ranks; the first rank writes the table."""
    args = run.args
    items, left_out, cut = _annotations.find(args.images, args.boxes, args.limit or (4 if args.quick else None))
    loaded = _run.load(run)
    good, bad = _imagenet.readable(items, workers=args.workers, world=here)
    bench = _imagenet.bench(loaded, good, chunk(run, loaded), crop=args.crop)
    checks = {c.check: {} if args.full or c.check != "wsol" else dict(CHECKS["wsol"].quick) for c in COLUMNS}
    found = cells(run, here, bench, list(METHODS), checks, small=False)
    if here.rank > 0:
        return
    left_out |= bad
    found |= {"left_out": len(left_out), "why": dict(list(left_out.items())[:20]), "cut_boxes": cut}
    missing = f" ({len(left_out)} more left out, see the sidecar)" if left_out else ""
    beyond = f"; {cut} boxes reached outside their image and were clipped" if cut else ""
    settings = (
        f"{loaded.note}. {bench.note}{missing}, seed {args.seed}. The object is the union of its boxes and covers "
        f"{found['area']:.3f} of the pixels{beyond}. "
    )
    how = "0.001 apart at 224 pixels" if args.full else "0.02 apart at 64 pixels (--full: as in the paper)"
    note = f"Pointing game with a margin of 15 pixels of the input. Thresholds of the box scores {how}."
    write(run, {loaded.tag: found}, settings, note)


def cells(
    run: _run.Run,
    here: World,
    bench: Bench,
    names: Sequence[str],
    checks: Mapping[str, Mapping[str, Any]],
    *,
    small: bool,
) -> dict[str, Any]:
    """Every score of every row on one bench. The first rank returns the contents of the table, the others nothing.

    Args:
        run: the run.
        here: this rank.
        bench: network and images.
        names: of methods, if --methods is not given.
        checks: name -> keywords.
        small: images of 32 pixels: large batches and the reduced steps of FEWER.
    """
    all_rows = rows(run.args.methods, FEW if run.args.quick else names, quick=run.args.quick)
    if small:
        all_rows = [for_digits(row) for row in all_rows]
    found: dict[str, dict[str, Any]] = {}
    whole: dict[str, Any] = {}
    area = float("nan")
    for (row, check), part in measure(run, here, all_rows, checks, bench):
        (column,) = (c for c in COLUMNS if c.check == check)
        cell = of_all(part) if check == "wsol" else numbers(column, part)
        found.setdefault(row, {})[column.header] = cell
        if part.result is not None:
            if check == "wsol":
                whole[row] = max_box_acc(part.result.curves) | {"PxAP": px_ap(part.result.curves)}
                whole[row] |= {"hits at 0.2": dataclasses.asdict(interval(part.result.values.numpy()))}
            elif check == "energy_pointing_game":
                area = float(part.result.columns["area"].nanmean())
    if here.rank > 0:
        return {}
    return {"note": bench.note, "area": area, "boxes": whole, **described(run, bench, COLUMNS, all_rows, found)}


def write(run: _run.Run, found: Mapping[str, dict[str, Any]], settings: str, note: str) -> None:
    """Write the tables one after the other, one caption, and the sidecar."""
    refused = {title: ", ".join(f["refused"]) for title, f in found.items() if f["refused"]}
    caption = (
        f"{settings}Mean over images and 95 % bootstrap interval. MaxBoxAccV2 is one number of all images; its "
        "thresholds are chosen again in each resample. Higher is better. Chance: the object's share of the pixels "
        "(pointing, energy, mass, rank, AP), 0.5 (ROC-AUC). Bold: certainly (95 %) better than noise as smooth as the "
        f"map itself, on the same images, at least {ENOUGH}. By chance two or three of a hundred cells are bold. {note}"
        + ("" if min(f["n"] for f in found.values()) >= 50 else " With so few images this is a filter, not a ranking.")
        + "".join(f" Not defined for the {title}: {names}." for title, names in refused.items())
    )
    lines = ["# Localisation", ""]
    for title, f in found.items():
        lines += [f"## {title}", "", *f.pop("lines"), ""]
    run.numbers = {"settings": settings, "tables": dict(found)}
    _run.save(run, None, caption, markdown="\n".join([*lines, caption]))


def of_all(part: Part) -> dict[str, Any]:
    """The cell of MaxBoxAccV2 in the form of `_table.numbers`: one number for all images with an object."""
    if part.result is None:
        return {"refused": part.refused}
    mean, draws, n = _max_box_acc(part.result)
    found = {"mean": mean, **_ends(draws), "n": n, "missing": len(part.result.values) - n}
    if part.matched is not None:
        noise, of_noise, _ = _max_box_acc(part.matched)
        found |= {"noise": noise, "gain": {"mean": mean - noise, **_ends(draws - of_noise), "n": n}}
    return found


def _max_box_acc(result: Result) -> tuple[float, np.ndarray, int]:
    """MaxBoxAccV2, its values in resamples of the images, and the number of images."""
    there = ~result.curves["iou_any"].isnan().any(dim=1)
    n = int(there.sum())
    if n == 0:
        return float("nan"), np.full(1, np.nan), 0
    hits = hits_of({name: curve[there] for name, curve in result.curves.items()})
    return max_box_acc(result.curves)["MaxBoxAccV2"], resampled(hits)[0], n


def _ends(draws: np.ndarray) -> dict[str, float]:
    low, high = np.percentile(draws, [2.5, 97.5])
    return {"low": float(low), "high": float(high)}


if __name__ == "__main__":
    main()
