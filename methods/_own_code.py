"""A user's own Python files: importing one, and the hash of everything that it imports of the user's."""

import ast
import contextlib
import hashlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

PACKAGE = Path(__file__).resolve().parent
OURS = (PACKAGE, PACKAGE.parent / "sanity_checks")
STANDARD = Path(sysconfig.get_path("stdlib")).resolve()


def import_file(path: Path, argument: str) -> ModuleType:
    """The module in a Python file of the user's own, which may import from its own folder, also later.

    Raises:
        ValueError: there is no such file, or it fails; the message starts with `argument`.
    """
    if not path.is_file():
        raise ValueError(f"{argument}: there is no file {path}")
    spec = importlib.util.spec_from_file_location(f"own_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{argument}: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look
    with importing_from(path.parent):
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            raise ValueError(f"{argument}: {path} cannot be imported: {type(error).__name__}: {error}") from error
    return module


@contextlib.contextmanager
def importing_from(folder: Path) -> Iterator[None]:
    """Imports look into the folder first, as in a program that lies there; after the block they look there last."""
    place = str(folder.resolve())
    before, sys.path = sys.path, [place, *sys.path]
    try:
        yield
    finally:
        sys.path = before if place in before else [*before, place]


def code_sha256(module: ModuleType) -> str:
    """Hash of a module's file and of the user's files that it imports, directly or not, at any place in them.

    The standard library, installed packages and this library do not count, except the package of the module itself.
    Files that it reads otherwise are not seen. "" for a module without a file.
    """
    if not module.__file__:
        return ""
    file = Path(module.__file__).resolve()
    package = getattr(sys.modules.get(module.__name__.partition(".")[0]), "__path__", None)
    root = Path(next(iter(package))).resolve() if package else None
    near = root or file.parent
    loaded = {Path(f).resolve() for m in [*sys.modules.values()] if isinstance(f := getattr(m, "__file__", None), str)}
    todo = [file, *(path for path in loaded if path.is_relative_to(near))]  # the latter also by import_module
    found: set[Path] = set()
    with importing_from(file.parent):
        while todo:
            path = todo.pop()
            if path in found or not path.is_file() or not _users(path, root):
                continue
            found.add(path)
            todo += _imported(path) if path.suffix == ".py" else []
    digest = hashlib.sha256()
    for path in sorted(found):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _imported(path: Path) -> Iterator[Path]:
    """The files of what a Python file imports, wherever the statement stands; of `from a import b` also a.b."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield from _files(name.name)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            for name in node.names:
                yield from _files(f"{node.module}.{name.name}")
        elif isinstance(node, ast.ImportFrom):  # from .a import b
            place = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            for stem in (place, *(place / name.name for name in node.names)):
                yield from (stem.with_suffix(".py"), stem / "__init__.py")


def _files(name: str) -> Iterator[Path]:
    """The files of a.b.c, a.b and a, as far as they are modules with a file."""
    for k in range(name.count(".") + 1):
        part = ".".join(name.split(".")[: k + 1])
        try:
            spec = sys.modules[part].__spec__ if part in sys.modules else importlib.util.find_spec(part)
        except (ImportError, ValueError, AttributeError):
            return
        if spec is None or (spec.origin and not _users(Path(spec.origin).resolve(), None)):
            return
        if spec.origin:
            yield Path(spec.origin).resolve()


def _users(path: Path, root: Path | None) -> bool:
    if root is not None and path.is_relative_to(root):
        return True
    installed = {"site-packages", "dist-packages"} & {*path.parts} or path.is_relative_to(STANDARD)
    return not installed and not any(path.is_relative_to(ours) for ours in OURS)
