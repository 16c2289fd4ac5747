"""What is written down and what is there are the same: references, README, docstrings, layout."""

import ast
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from methods import METHODS
from sanity_checks import CHECKS

ROOT = Path(__file__).resolve().parent.parent
BIB = (ROOT / "methods/references.bib").read_text()
KEYS = re.findall(r"^@\w+\{(\w+),", BIB, re.M)
FILES = sorted(p for p in (ROOT / "methods").glob("[a-z]*.py"))


def test_a_file_is_a_function_is_a_registry_key():
    assert [p.stem for p in FILES] == sorted(METHODS)
    for name, m in METHODS.items():
        assert m.fn.__name__ == m.name == name
        assert m.fn.__doc__


def test_every_citation_resolves_and_every_entry_is_used():
    text = "\n".join(p.read_text() for folder in ("methods", "sanity_checks") for p in (ROOT / folder).glob("*.py"))
    assert len(KEYS) == len(set(KEYS))
    assert sorted(KEYS) == KEYS
    assert {m.cite for m in [*METHODS.values(), *CHECKS.values()]} <= set(KEYS)
    assert not [k for k in KEYS if k not in text]
    for entry in BIB.strip().splitlines():
        assert re.search(r"title=\{.*author=\{.*year=\{\d{4}\}.*(eprint|doi|url)=\{", entry), entry


def imported(path):
    """First and full names of the modules that a file imports."""
    tree = ast.walk(ast.parse(path.read_text()))
    names = [a.name for n in tree if isinstance(n, ast.Import) for a in n.names]
    tree = ast.walk(ast.parse(path.read_text()))
    return {n.partition(".")[0] for n in names + [n.module for n in tree if isinstance(n, ast.ImportFrom) and n.module]}


def test_imports_go_downward_from_reproduce_to_sanity_checks_to_methods():
    """Inside the two packages import-linter looks (pyproject.toml); the scripts are no package."""
    scripts = {p.stem: imported(p) for p in (ROOT / "reproduce").glob("*.py")}
    entry = {name for name in scripts if not name.startswith("_")}  # run by a user, imported by nobody
    for name, found in scripts.items():
        assert not found & entry, name
    for package in ("methods", "sanity_checks"):
        for path in (ROOT / package).glob("*.py"):
            assert not imported(path) & {*scripts, "reproduce", "tests"}, path


def found_first(path, scripts):
    """Which of these a script imports first, itself or through its harness: _run, methods, sanity_checks."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            module = node.names[0].name if isinstance(node, ast.Import) else node.module
            name = module.partition(".")[0]
            if name in ("_run", "methods", "sanity_checks"):
                return name
            if name in scripts and (found := found_first(scripts[name], scripts)):
                return found
    return None


def test_every_script_finds_the_repository_before_it_imports_from_it():
    """Without an installation `_run` has to come first: it puts the repository on the path."""
    scripts = {p.stem: p for p in (ROOT / "reproduce").glob("*.py")}
    for name in {name for name in scripts if not name.startswith("_")} - {"readme_table"}:  # that one does so itself
        assert found_first(scripts[name], scripts) == "_run", name


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_a_method_file_says_what_a_reader_needs(path):
    doc = path.read_text().split('"""')[1]
    for heading in ("Differs from the paper:", "Differs from other code:", "Good to know:"):
        assert f"\n{heading}" in doc, heading
    m = METHODS[path.stem]
    year = re.search(rf"^@\w+\{{{m.cite}, .*year=\{{(\d+)\}}(?:.*eprint=\{{([\d.]+)\}})?", BIB, re.M)
    assert year[1] in doc
    if year[2]:
        assert f"arXiv:{year[2]}" in doc
    assert "=" in doc  # an equation
    assert len(path.read_text().splitlines()) <= 130


@pytest.mark.parametrize(("readme", "name"), [("README.md", "picture"), ("methods/README.md", "loss")])
def test_the_examples_run(readme, name):
    torch.manual_seed(0)
    scope = {}
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / readme).read_text(), re.S)
    assert len(blocks) >= 2
    for block in blocks:
        exec(block, scope)
    assert name in scope


@pytest.mark.parametrize("readme", ["README.md", "methods/README.md", "sanity_checks/README.md", "figures/README.md"])
def test_links_lead_to_files_and_headings(readme):
    text = (ROOT / readme).read_text()
    for link in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text):
        if not link.startswith("http"):
            file, _, heading = link.partition("#")
            assert (ROOT / readme).parent.joinpath(file).exists(), link
            if heading:
                found = re.findall(
                    r"^#+ (.*)$", text if not file else (ROOT / readme).parent.joinpath(file).read_text(), re.M
                )
                assert heading in [h.lower().replace(" ", "-") for h in found], link


def test_the_method_table_is_current():
    command = [sys.executable, ROOT / "reproduce/readme_table.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_two_commands_are_in_the_readme():
    text = (ROOT / "README.md").read_text()
    assert "\npip install -r requirements.txt && python reproduce/fig_cam.py\n" in text
    assert "\npip install -r requirements.txt -r tests/requirements.txt && pytest\n" in text


def test_requirements_are_pinned_to_what_runs():
    from importlib.metadata import version

    for file in ("requirements.txt", "tests/requirements.txt"):
        for name, pin in re.findall(r"^([\w-]+)(?:\[\w+\])?==(\S+)", (ROOT / file).read_text(), re.M):
            assert version(name).split("+")[0] == pin, name


def test_the_version_stands_in_one_place():
    found = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.M)[1]
    newest = re.search(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)[1]
    assert newest in (found, "Unreleased")
    assert "version:" not in (ROOT / "CITATION.cff").read_text().replace("cff-version:", "")


def test_the_report_in_the_readme_is_what_its_sidecar_says():
    png = ROOT / "figures/sanity_report.png"
    facts = json.loads(png.with_suffix(".json").read_text())
    assert facts["output_sha256"] == hashlib.sha256(png.read_bytes()).hexdigest()
    assert facts["command"].startswith("python -m sanity_checks gradient grad_cam")
    assert not facts["commit"].endswith("-dirty")
    assert facts["rows"]["sobel_edges"]["conditions"]["weights"] == "insensitive"
    assert facts["rows"]["grad_cam"]["verdict"] == "responds"
    assert f"](../figures/{png.name})" in (ROOT / "sanity_checks/README.md").read_text()
