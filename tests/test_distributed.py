"""torchrun with two processes on the CPU: killed and started again, it gives what one process gives."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import skimage.data
import torch
from PIL import Image

import table_faithfulness
from sanity_checks import __main__
from sanity_checks._parallel import World, ahead

ROOT = Path(__file__).resolve().parent.parent
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
MODEL = ["--model", "test_resnet", "--weights", "random"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
TABLE = [
    "--methods",
    "gradient,grad_cam",
    "--checks",
    "insertion_deletion,sparseness",
    "--shard",
    "2",
    "--workers",
    "1",
    "--digits",
    "0",
]


def photographs(path, *names):
    """Readable images in two folders, and one that is not."""
    (path / "more").mkdir()
    for i, name in enumerate(names):
        Image.fromarray(getattr(skimage.data, name)()).resize((200, 180)).save(
            path / ("more" if i % 2 else "") / f"{name}.png"
        )
    (path / "broken.png").write_text("no image")
    return path


@pytest.fixture
def folder(tmp_path_factory):
    names = ("chelsea", "coffee", "rocket", "astronaut", "brick", "grass", "coins")
    return photographs(tmp_path_factory.mktemp("images"), *names)


def start(*words):
    return subprocess.Popen(
        list(map(str, words)), cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
    )  # fmt: skip


def finish(process):
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    return output


def wait_for_parts(out, n, process):
    deadline = time.monotonic() + 200
    while len(list(out.glob(".parts/**/[0-9]*.json"))) < n:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ranks(process):
    """The processes that torchrun started."""
    found = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(process.pid)], capture_output=True, text=True)
    return [int(line.split()[0]) for line in found.stdout.splitlines() if "table_faithfulness" in line]


@pytest.mark.exhaustive  # nearly a minute; a killed report is in test_sanity_command.py
@pytest.mark.usefixtures("as_a_process")
def test_killed_twice_the_table_is_that_of_one_process(folder, tmp_path, monkeypatch):
    script = ["reproduce/table_faithfulness.py", *MODEL, "--images", folder, *TABLE]
    out, one = tmp_path / "two", tmp_path / "one"

    process = start(*TORCHRUN, *script, "--out", out)
    wait_for_parts(out, 3, process)
    os.kill(ranks(process)[1], signal.SIGKILL)  # one rank; torchrun ends the other
    process.communicate(timeout=120)
    assert process.returncode != 0
    assert not (out / "table_faithfulness.md").exists()
    before = {f: f.stat().st_mtime_ns for f in out.glob(".parts/**/[0-9]*.json")}
    assert len(before) >= 3

    process = start(*TORCHRUN, *script, "--out", out)
    wait_for_parts(out, len(before) + 3, process)
    children = ranks(process)  # while their parent lives: later they cannot be found
    os.killpg(process.pid, signal.SIGKILL)  # all
    for rank in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(rank, signal.SIGKILL)
    process.communicate(timeout=120)
    assert not (out / "table_faithfulness.md").exists()

    printed = finish(start(*TORCHRUN, *script, "--out", out))
    assert printed.count("left out 1:\n  broken.png: cannot be read") == 1
    assert {f: f.stat().st_mtime_ns for f in before} == before  # what was there was not done again
    monkeypatch.setattr(sys, "argv", [str(word) for word in (*script, "--out", one)])
    table_faithfulness.main()
    numbers = [json.loads((path / "table_faithfulness.json").read_text())["numbers"] for path in (out, one)]
    assert numbers[0] == numbers[1]
    assert (out / "table_faithfulness.md").read_text() == (one / "table_faithfulness.md").read_text()
    assert numbers[0]["n"] == 7
    assert list(numbers[0]["unreadable"]) == ["broken.png"]
    (table,) = numbers[0]["tables"].values()
    assert table["cells"]["grad_cam"]["insertion"]["n"] == 7
    parts = [sorted(f.relative_to(path) for f in path.glob(".parts/**/*.json")) for path in (out, one)]
    assert parts[0] == parts[1]
    for part in parts[0]:
        assert (out / part).read_bytes() == (one / part).read_bytes()


@pytest.mark.exhaustive
@pytest.mark.usefixtures("as_a_process")
def test_the_report_of_two_processes_is_that_of_one(tmp_path, tmp_path_factory, capsys):
    folder = photographs(tmp_path_factory.mktemp("images"), "chelsea", "coffee", "rocket")
    words = ["gradient", *MODEL, "--images", folder, "--checks", "sparseness,random_logit", "--shard", "2"]
    two, one = (tmp_path / name / "report" for name in ("two", "one"))
    printed = finish(start(*TORCHRUN, "-m", "sanity_checks", *words, "--out", two))
    assert printed.count("left out 1:\n  broken.png: cannot be read") == 1
    assert __main__.main([str(word) for word in (*words, "--out", one)]) == 0
    assert capsys.readouterr().err.count("left out 1:\n  broken.png: cannot be read") == 1
    assert (two / "report.json").read_bytes() == (one / "report.json").read_bytes()


def test_ranks_share_everything_once():
    for n in range(20):
        for size in range(1, 6):
            parts = [World(rank, size).share(range(n)) for rank in range(size)]
            assert [i for part in parts for i in part] == list(range(n))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


def square(item):
    return torch.tensor(item) ** 2, os.getpid()


def test_workers_read_ahead_in_order():
    found = list(ahead(square, [3, 1, 2], workers=2))
    assert [int(v) for v, _ in found] == [9, 1, 4]
    assert os.getpid() not in {pid for _, pid in found}
    assert [int(v) for v, _ in ahead(square, [3, 1, 2], workers=0)] == [9, 1, 4]
    assert list(ahead(square, [], workers=2)) == []
