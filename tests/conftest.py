import inspect
import os
import sys
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy: threads make its many small systems thirty times slower

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
torch.use_deterministic_algorithms(True)
torch.set_num_threads(1)  # tiny networks: threads cost more than they bring

RATIOS: dict[str, float] = {}


@pytest.fixture
def as_a_process(monkeypatch):
    """For programs that are called here instead of started: what this file sets is off, as in a process of its own.

    And the file of a function is its own, not that of the tests' run-time shape checks around it.
    """
    find = inspect.getsourcefile
    monkeypatch.setattr(inspect, "getsourcefile", lambda f: find(inspect.unwrap(f)))
    torch.use_deterministic_algorithms(False)
    yield
    torch.use_deterministic_algorithms(True)


@pytest.fixture
def coarse(monkeypatch):
    """A report in few dots and few networks, for tests that look at neither: they take as long as all else."""
    from helpers import few_networks
    from sanity_checks import __main__

    few_networks(monkeypatch)
    write = __main__.write_png

    def few_dots(figure, *arguments, **options):
        figure.set_dpi(20)
        write(figure, *arguments, **options)

    monkeypatch.setattr(__main__, "write_png", few_dots)


@pytest.fixture
def record_ratio():
    """Keeps a cost in forward passes for the summary below."""

    def record(name, ratio):
        RATIOS[name] = round(ratio, 2)
        return RATIOS[name]

    return record


def pytest_terminal_summary(terminalreporter):
    if RATIOS:
        terminalreporter.section("ratios of median times in the same run; F is a forward pass")
        for name, ratio in RATIOS.items():
            terminalreporter.write_line(f"{ratio:9.2f}  {name}")
