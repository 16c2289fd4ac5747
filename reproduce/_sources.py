"""Hashes of the code that made an output, so that `all.py` can check whether the output is up to date.

Comments, docstrings and the order of blank lines do not count. Standard library only.
"""

import ast
import functools
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACES = (ROOT, ROOT / "reproduce")  # where an import is looked for
PLUMBING = {
    "_run",
    "_sidecar",
    "_plot",
    "_display",
    "_provenance",
    "_references",
    "_sources",
    "_report",
    "_verdict",
    "_pictures",
    "__main__",
}


def sources(script: Path, methods: Iterable[str] = (), checks: Iterable[str] = ()) -> dict[str, str]:
    """Hashes of the script, of the methods and checks that it used, and of everything they import; by path.

    Args:
        script: a file of reproduce/.
        methods: names in methods/ that the script used through the registry.
        checks: names in sanity_checks/ that it used in the same way.

    Returns:
        Paths from the repository's root with the sha256 of the code; a missing file has the hash "". For a script that
        runs over all methods, "methods/*.py" has the hash of their names.
    """
    queue = [script, *(ROOT / f"methods/{m}.py" for m in methods), *(ROOT / f"sanity_checks/{c}.py" for c in checks)]
    found: dict[str, str] = {}
    while queue:
        file = queue.pop()
        name = file.relative_to(ROOT).as_posix()
        if name not in found and file.stem not in PLUMBING:
            found[name], imported = _read(file)
            queue += imported
    if re.search(r"METHODS\.(items|values)\(|list\(METHODS\)", script.read_text() if script.is_file() else ""):
        names = sorted(f.stem for f in (ROOT / "methods").glob("[a-z]*.py"))
        found["methods/*.py"] = hashlib.sha256(" ".join(names).encode()).hexdigest()
    return dict(sorted(found.items()))


@functools.cache
def _read(file: Path) -> tuple[str, list[Path]]:
    """A file's hash, and the files of this repository that it imports."""
    if not file.is_file():
        return "", []
    tree = ast.parse(file.read_text())
    imported = []
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                imported += [_file(alias.name) for alias in node.names]
            case ast.ImportFrom(module=str(module)):
                imported += [_file(f"{module}.{alias.name}") or _file(module) for alias in node.names]
            case ast.Module() | ast.ClassDef() | ast.FunctionDef() if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:] or [ast.Pass()]
    code = hashlib.sha256(ast.unparse(tree).encode()).hexdigest()
    return code, [f for f in imported if f]


def _file(module: str) -> Path | None:
    """The file of a module of this repository; packages are not followed, because they import every file in them."""
    files = (place / f"{module.replace('.', '/')}.py" for place in PLACES)
    return next((f for f in files if f.is_file()), None)
