"""Attribution methods for image classifiers, one file each. `ls methods/` is the list; `METHODS` is the same list.

`methods.attribute("grad_cam", model, x)` runs any method in one call. `from methods.grad_cam import grad_cam` gives the
plain function, to read with its paper. `load_model` and `load_image` load the inputs; `overlay` draws a map.
"""

import importlib
import pkgutil

from methods._display import overlay
from methods._front_door import attribute
from methods._images import load_image
from methods._models import load as load_model
from methods._registry import METHODS, Method

for _file in pkgutil.iter_modules(__path__):
    if not _file.name.startswith("_"):
        importlib.import_module(f"methods.{_file.name}")
_sorted = sorted(METHODS.values(), key=lambda m: m.order)
METHODS.clear()
METHODS.update((m.name, m) for m in _sorted)

__all__ = ["METHODS", "Method", "attribute", "load_image", "load_model", "overlay"]
