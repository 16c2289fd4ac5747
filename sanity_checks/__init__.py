"""Sanity checks and metrics for attribution maps, one protocol per file. `ls sanity_checks/` and `CHECKS` list them.

`python -m sanity_checks grad_cam path/to/mine.py:my_method` runs them on any method and writes a report;
`from sanity_checks.insertion_deletion import insertion_deletion` is one protocol as a plain function.
"""

import importlib
import pkgutil

from sanity_checks._registry import CHECKS, Check, Result

for _file in sorted(pkgutil.iter_modules(__path__), key=lambda m: m.name):
    if not _file.name.startswith("_"):
        importlib.import_module(f"sanity_checks.{_file.name}")

__all__ = ["CHECKS", "Check", "Result"]
