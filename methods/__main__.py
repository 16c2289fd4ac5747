"""From photographs to heat maps, one picture for each photograph, with every method next to it.

python -m methods grad_cam cat.jpg dog.jpg
python -m methods grad_cam,smooth_grad photos/ --model resnet50 --target "tabby cat" --layer layer3 --out maps/
python -m methods --list

First the METHODs, then the IMAGEs: names of methods, with commas or spaces between them; from the first other word on,
everything is an image: a file, a folder, or the name of a packaged photograph (chelsea). A file that is called like a
method is ./NAME. A method that refuses says why, and the others are drawn.
Exit status: 0 finished, 1 a method drew nothing, 2 wrong input, 3 the program failed.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from methods import METHODS, _images, _options
from methods._front_door import closest
from methods._images import Item
from methods._maps import Picture, class_index, draw
from methods._references import citation
from methods._registry import FAMILIES


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    args = _parser().parse_intermixed_args(argv)
    if args.list:
        for family, title in FAMILIES.items():
            print(title)
            for m in (m for m in METHODS.values() if m.family == family):
                print(f"  {m.name:26} {m.title}, {citation(m.paper)}")
        return 0
    try:
        return _run(args)
    except Exception as error:
        return _options.ended("methods", error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m methods", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("words", metavar="METHOD ... IMAGE ...", nargs="*", help="names of methods, then images")
    add("--target", metavar="CLASS", help="index, name, or part of one name of a class (default: the top class)")
    add("--layer", metavar="NAME", help="for methods that look at a layer (default: the last with the final features)")
    add("--chunk", type=int, metavar="N", help="images per forward pass, for methods that run many")
    add("--out", metavar="FOLDER", default="maps", help="default: %(default)s/")
    add("--npy", action="store_true", help="write each map as METHOD returns it, too: K h w, unscaled")
    add("--list", action="store_true", help="list the methods and exit")
    _options.add(parser, images=False)
    return parser


def _run(args: argparse.Namespace) -> int:
    names, words = _split(args.words)
    params = {key: getattr(args, key) for key in ("layer", "chunk") if getattr(args, key) is not None}
    for key in params:
        if not any(key in METHODS[name].params for name in names):
            raise ValueError(f"--{key}: {' and '.join(names)} {'have' if names[1:] else 'has'} no {key}; leave it out")
    items, left_out = _find(words)
    out = Path(args.out).expanduser()
    files = _files(items, out)
    _options.use_device(args.device)
    loaded = _options.load(args)
    if args.layer is not None and args.layer not in (modules := dict(loaded.model.named_modules())):
        raise ValueError(f"--layer: {loaded.tag} has no {args.layer!r}{closest(args.layer, modules)}")
    target = None if args.target is None else class_index(loaded, args.target)
    drawn: set[str] = set()
    said: set[tuple[str, str]] = set()
    for item, file in zip(items, files, strict=True):
        try:
            photo = _images.read(item, loaded.preprocessing)
        except ValueError as error:
            left_out[item.name] = str(error)
            continue
        picture = draw(loaded, photo, names, target, {"seed": args.seed, **params})
        for name, why in picture.refused.items() - said:
            print(f"{name}: {why}", file=sys.stderr)
        said |= picture.refused.items()
        drawn |= picture.maps.keys()
        if picture.maps:
            _write(picture, file, npy=args.npy)
    if left_out:
        print(_images.in_words(left_out), file=sys.stderr)
    if not drawn and not said:
        raise ValueError("IMAGE: none can be read")
    return int(bool(set(names) - drawn))


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The methods at the start, and the images after them."""
    names: list[str] = []
    for k, word in enumerate(words):
        parts = word.split(",")
        known = [p for p in parts if p in METHODS]
        if not known and names:
            return list(dict.fromkeys(names)), list(words[k:])
        if len(known) < len(parts):
            wrong = next(p for p in parts if p not in METHODS)
            raise ValueError(f"METHOD: no method is called {wrong!r}{closest(wrong, METHODS)}; methods come first")
        names += parts
    if not names:
        raise ValueError("METHOD: name at least one, such as grad_cam, then images; --list names all")
    raise ValueError("IMAGE: name at least one: a file, a folder or chelsea; a file called like a method is ./NAME")


def _find(words: Sequence[str]) -> tuple[list[Item], dict[str, str]]:
    """The images of all words, and what is left out, with the reasons."""
    items: list[Item] = []
    left_out: dict[str, str] = {}
    for word in words:
        try:
            found, bad = _images.find(word)
        except ValueError as error:
            hint = closest(word, METHODS)
            raise ValueError(f"{error}{hint and f'{hint}, but methods come first'}") from error
        names = {i.name for i in items} | left_out.keys()
        new = [i for i in found if i not in items]
        items += [i._replace(name=i.file) if i.name in names else i for i in new]  # the same name in two folders
        left_out |= {f"{word}/{name}" if name in names else name: why for name, why in bad.items()}
    return items, left_out


def _files(items: Sequence[Item], out: Path) -> list[Path]:
    """The picture of each image, by its name; a number is added where two would be the same.

    Raises:
        ValueError: the folder cannot be written, or a photograph would be overwritten.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise ValueError(f"--out: {out} cannot be written ({error.strerror})") from error
    files: list[Path] = []
    taken: set[str] = set()  # in lower case: some file systems make no difference
    for item in items:
        stem = name = Path(item.name).with_suffix("").as_posix().lstrip("./").replace("/", "_")
        number = 1
        while name.lower() in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.lower())
        files.append(out / f"{name}.png")
    photographs = {Path(item.file).resolve() for item in items if item.file}
    for file in files:
        if file.resolve() in photographs:
            raise ValueError(f"--out: {file} is one of the photographs; choose another folder")
    return files


def _write(picture: Picture, file: Path, *, npy: bool) -> None:
    picture.save(file)
    if npy:
        picture.save_maps(file.with_suffix(""))
    print(f"{file}: {picture.words}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
