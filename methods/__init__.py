"""Attribution methods for image classifiers, one file each. `ls methods/` is the list; `METHODS` is the same list.

`methods.attribute("grad_cam", model, x)` is any method in one call; `from methods.grad_cam import grad_cam` is the
plain function beside its paper.
"""

import importlib
import pkgutil

from methods._front_door import attribute
from methods._registry import METHODS, Method

for _file in sorted(pkgutil.iter_modules(__path__), key=lambda m: m.name):
    if not _file.name.startswith("_"):
        importlib.import_module(f"methods.{_file.name}")

__all__ = ["METHODS", "Method", "attribute"]
