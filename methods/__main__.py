"""Attribution methods for image classifiers.

python -m methods --list
"""

import argparse
import sys
from collections.abc import Sequence

from methods import METHODS
from methods._references import citation
from methods._registry import FAMILIES


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m methods", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--list", action="store_true", required=True, help="list the methods and exit")
    parser.parse_args(argv)
    for family, title in FAMILIES.items():
        print(title)
        for m in (m for m in METHODS.values() if m.family == family):
            print(f"  {m.name:26} {m.title}, {citation(m.paper)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
