"""Make every figure and every table that is missing or out of date, and print what was made.

    python reproduce/all.py                      # into figures/; about an hour on two cores if nothing is there
    python reproduce/all.py --quick --jobs 2     # small versions into a temporary folder, a few minutes
    python reproduce/all.py --check              # only prints what is out of date; exits 1 if anything is
    python reproduce/all.py --only fig_cam,table_peers --force

An output is up to date if its sidecar lists the same code (of the script, the methods, the checks and their imports;
comments do not count), the same arguments, weights and versions of torch and timm, and the hashes of the present
files. Exits 1 if anything failed. Other arguments (--model, --images, --device, --seed ...) are passed to every script;
scripts with their own networks and images print that they do not use --model and --images.
"""

import argparse
import concurrent.futures
import functools
import hashlib
import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import _run  # puts the repository on the path
from _sources import sources
from methods import _models
from methods._front_door import closest
from methods._progress import progress
from sanity_checks import _nets
from sanity_checks._provenance import shortened

HERE = Path(__file__).resolve().parent
SCRIPTS = {file.stem: file for kind in ("table", "fig") for file in sorted(HERE.glob(f"{kind}_*.py"))}
ALONE = ("table_timing",)  # measures time: runs after all others
VERSIONS = ("torch", "timm")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    args, passed = _arguments(argv)
    names = args.only.split(",") if args.only else list(SCRIPTS)
    for name in names:
        if name not in SCRIPTS:
            print(f"all: --only: there is no {name}.py in reproduce/{closest(name, SCRIPTS)}", file=sys.stderr)
            return 2
    names.sort(key=lambda name: name in ALONE)
    out = Path(args.out) if args.out else _run.QUICK_OUT if args.quick else _run.FIGURES
    words = [*passed, *(["--quick"] if args.quick else []), *(["--out", args.out] if args.out else [])]
    why = {name: "--force" if args.force else stale(name, words, out) for name in names}
    if args.check:
        print("\n".join(f"{name:28} {reason or 'up to date'}" for name, reason in why.items()))
        return int(any(why.values()))
    missing = [name for name in names if why[name]]
    failed, stopped = make(missing, words, args.jobs)
    made = [name for name in missing if name not in failed and name not in stopped]
    print(f"made: {len(made)}; up to date: {len(names) - len(missing)}; failed: {len(failed)}")
    for name in made:
        print(f"  made         {name:28} {why[name]}")
    for name, reason in failed.items():
        print(f"  FAILED       {name:28} {reason}")
    for name in stopped:
        print(f"  interrupted  {name}")
    return 130 if stopped else int(bool(failed))


def stale(name: str, words: Sequence[str], out: Path) -> str:
    """The reason why a script must run with these arguments; "" if its outputs are already in `out`."""
    reasons = []
    for sidecar in sorted(out.glob("*.json")):
        try:
            facts = json.loads(sidecar.read_text())
        except ValueError:
            continue
        command = shlex.split(facts.get("command", ""))
        if command[1:2] == [f"reproduce/{name}.py"]:
            reasons.append(_differs(facts, command[2:], name, words, out))
    return min(reasons, default="not there", key=bool)


def make(names: Sequence[str], words: Sequence[str], jobs: int) -> tuple[dict[str, str], list[str]]:
    """Run scripts, `jobs` at once; scripts that measure time run last, one at a time.

    Returns:
        The failed scripts with the end of their output, and the interrupted scripts.
    """
    together = [name for name in names if name not in ALONE]
    failed: dict[str, str] = {}
    done: set[str] = set()
    running: dict[str, subprocess.Popen[str]] = {}
    stop = threading.Event()
    with progress("all", "script", len(names)) as bar:

        def one(name: str, jobs: int) -> None:
            if stop.is_set():
                return
            threads = os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
            running[name] = subprocess.Popen(
                [sys.executable, str(SCRIPTS[name]), *words],
                env=os.environ | {"OMP_NUM_THREADS": threads},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            bar.set_postfix_str(", ".join(running))
            printed = running[name].communicate()[0].strip()
            code = running.pop(name).returncode
            if stop.is_set():
                return
            done.add(name)
            if code:
                failed[name] = f"exit status {code}: {printed.splitlines()[-1] if printed else 'it printed nothing'}"
                bar.write(f"\n{name} failed:\n{printed[-3000:]}\n", file=sys.stderr)
            bar.update()

        try:
            with concurrent.futures.ThreadPoolExecutor(max(1, jobs)) as pool:
                try:
                    list(pool.map(functools.partial(one, jobs=max(1, jobs)), together))
                except BaseException:
                    _end(stop, running)
                    raise
            for name in (n for n in names if n in ALONE):
                one(name, 1)
        except KeyboardInterrupt:
            _end(stop, running)
    return failed, [name for name in names if name not in done]


def _end(stop: threading.Event, running: dict[str, Any]) -> None:
    stop.set()
    for process in list(running.values()):
        process.terminate()


def _differs(facts: dict[str, Any], then: list[str], name: str, words: Sequence[str], out: Path) -> str:
    """The first difference from the sidecar; "" if there is none."""
    for file, sha256 in facts.get("outputs", {"": ""}).items():
        path = out / file
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            return f"{file or 'an output'} is missing or was changed"
    if _without_out(then) != _without_out(shortened(words)):
        return "other arguments"
    now = sources(SCRIPTS[name], facts["methods"], facts["checks"])
    changed = sorted(k for k in now.keys() | facts["sources"].keys() if now.get(k) != facts["sources"].get(k))
    if changed:
        return f"the code of {changed[0]} changed" + (f" and of {len(changed) - 1} more" if changed[1:] else "")
    for package in VERSIONS:
        if facts["packages"][package] != version(package):
            return f"made with {package} {facts['packages'][package]}"
    for net, sha256 in facts["nets"].items():
        if _nets.recorded(net)["sha256"] != sha256:
            return f"the weights of {net} changed"
    options = argparse.ArgumentParser()
    for option in ("--weights", "--weights-dir"):
        options.add_argument(option)
    given = options.parse_known_args(list(words))[0]
    for model in facts["model"]:
        random = model["weights_source"].startswith("random")
        found = _weights(model["asked"], "random" if random else "pretrained", given.weights_dir, facts["seed"])
        if found != model["weights_sha256"]:
            return f"{model['tag']} had other weights"
    return ""


@functools.cache
def _weights(asked: str | None, weights: str, weights_dir: str | None, seed: int) -> str:
    """The hash of the weights that a script would load now."""
    try:
        return _models.load(asked, weights=weights, weights_dir=weights_dir, seed=seed).weights_sha256
    except (ValueError, FileNotFoundError):
        return "not there"


def _without_out(words: Sequence[str]) -> list[str]:
    """All arguments except --out."""
    kept = [w for w in words if not w.startswith("--out=")]
    if "--out" in kept:
        i = kept.index("--out")
        del kept[i : i + 2]
    return sorted(kept)


def _arguments(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--only", metavar="A,B", help="names of scripts; default: all")
    add("--force", action="store_true", help="make also what is up to date")
    add("--check", action="store_true", help="make nothing")
    add("--quick", action="store_true", help="small versions, for a test")
    add("--jobs", type=int, default=1, metavar="N", help="scripts at once (default: %(default)s)")
    add("--out", metavar="FOLDER", help="default: figures/ of the repository; under --quick a temporary folder")
    args, passed = parser.parse_known_args(argv)
    for word in passed:
        if word.startswith("--") and word.partition("=")[0] not in _run.COMMON:
            parser.error(f"{word}: no such argument; every script has {', '.join(_run.COMMON)}")
    return args, passed


if __name__ == "__main__":
    sys.exit(main())
