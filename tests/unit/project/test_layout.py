"""The shape of the repository: what must stand where, how long a file may be, and that documents name only what exists."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from observability import logs

ROOT = Path(__file__).parents[3]
PACKAGES = ("headrace", "deployments", "doors", "service", "observability", "autoscaling", "model_core", "bench", "training")
FIXED = (
    "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", ".ci/run", "cluster.yaml",
    "mkdocs.yaml", "pyproject.toml", "serve.yaml", "requirements.txt", "requirements-cuda.txt", "requirements-dev.txt",
    "requirements-docs.txt", "requirements-neuron.txt", "requirements-quality.txt", "requirements-weights.txt",
    "autoscaling", "bench", "deployments", "headrace", "model_core", "observability", "tests", "training",
    "deploy/kuberay/rayservice.yaml", "docs/adr/README.md", "proto/headrace/v1/video.proto",
)  # fmt: skip
MAX_LINES = 400
MAX_COLUMNS = 120  # of a document
# Words and paths of the machines and people that wrote this; character classes keep this file from matching itself.
FOREIGN = re.compile(
    r"/w[o]rk/|/f[a]rm/|/opt/p[y]pi|/r[o]ot/|s[h]ared/design|\bc[o]-founder|\bc[l]aude\b|a[n]thropic|\bi[s]sue #?\d|\bb[r]ief\.md",
    re.IGNORECASE,
)


def tracked() -> list[Path]:
    """Every file that is, or is about to be, under version control."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],  # noqa: S607 - git is where the machine has it
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode != 0:
        pytest.skip("not a git checkout: there is no list of files to look at")
    return [path for name in sorted(set(listed.stdout.split("\0")) - {""}) if (path := ROOT / name).is_file()]


def sources() -> list[Path]:
    return [p for p in tracked() if p.suffix == ".py" and "_pb2" not in p.name]


def documents() -> list[Path]:
    return [p for p in tracked() if p.suffix == ".md"]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("entry", FIXED)
def test_the_fixed_entries_stand_where_everyone_looks(entry: str) -> None:
    assert (ROOT / entry).exists()


def test_no_source_file_is_too_long() -> None:
    lengths = {relative(p): len(p.read_text().splitlines()) for p in sources()}
    assert lengths, "the list of sources is not empty"
    assert {name: n for name, n in lengths.items() if n > MAX_LINES} == {}


def test_modules_say_what_they_are_for() -> None:
    modules = [p for p in sources() if relative(p).startswith(PACKAGES) and p.read_text().strip()]
    assert [relative(p) for p in modules if not ast.get_docstring(ast.parse(p.read_text()))] == []


def test_no_list_of_packages_has_forgotten_one() -> None:
    """A package that is missing logs to nobody, or warns without a failure."""
    assert set(logs.PACKAGES) == set(PACKAGES) - {"headrace", "bench", "training"}  # which no replica runs
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert {f"error:::{package}" for package in PACKAGES} <= set(ours["pytest"]["ini_options"]["filterwarnings"])
    assert set(PACKAGES) <= set(ours["mypy"]["files"])
    assert set(PACKAGES) == set(ours["importlinter"]["root_packages"])
    assert {f"{package}*" for package in PACKAGES} == set(ours["setuptools"]["packages"]["find"]["include"])


def test_proto_folder_is_no_python_package() -> None:
    assert list((ROOT / "proto").rglob("*.py")) == []  # `proto` is also the import name of a library that Ray brings


def test_model_core_packages_import_nothing_by_themselves() -> None:
    inits = sorted((ROOT / "model_core").rglob("__init__.py"))
    assert len(inits) > 3
    assert [relative(p) for p in inits if p.read_text()] == []  # so a plain-Python part can be used without torch


def test_no_file_speaks_of_the_place_it_was_written_in() -> None:
    found = []
    for path in tracked():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue  # weights, images
        found += [f"{relative(path)}: {match.group()!r}" for match in FOREIGN.finditer(text)]
    assert found == []


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt", "requirements-docs.txt", "requirements-weights.txt"])
def test_every_requirement_is_pinned(name: str) -> None:
    lines = [line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith("#")]
    assert lines
    assert [line for line in lines if "==" not in line] == []


def test_links_in_documents_lead_somewhere() -> None:
    links = [(d, target) for d in documents() for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", d.read_text())]
    local = [(d, target) for d, target in links if "://" not in target]
    assert local
    assert [f"{relative(d)} -> {target}" for d, target in local if not (d.parent / target).exists()] == []


def test_lines_of_documents_fit_a_screen() -> None:
    """Everything must fit: prose is wrapped, a table with long cells becomes a list, a long command gets backslashes."""
    wide = {
        relative(d): lines
        for d in documents()
        if (lines := [number for number, line in enumerate(d.read_text().splitlines(), 1) if len(line) > MAX_COLUMNS])
    }
    assert wide == {}


def test_headings_that_links_name_exist() -> None:
    missing = []
    for document in documents():
        for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", document.read_text()):
            page = (document.parent / target) if target else document
            if "://" not in target and page.suffix == ".md" and anchor not in headings(page):
                missing.append(f"{relative(document)} -> {target}#{anchor}")
    assert missing == []


def headings(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of `page`."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


# Names that stand for a file which the reader chooses or writes.
PLACEHOLDERS = {"findings/NAME.sh", "tests/FILE.py", "trn2.yaml"}


def test_paths_named_in_documents_exist() -> None:
    """A path in backticks is a claim. It starts at the top level or beside the document, or is the bare name of a tracked file."""
    tops = {p.relative_to(ROOT).parts[0] for p in tracked()}
    names = {p.name for p in tracked()}
    missing = []
    for document in documents():
        for quoted in re.findall(r"`([\w.-]+(?:/[\w.-]+)*/?)`", document.read_text()):
            path = Path(quoted)
            if quoted in PLACEHOLDERS or (ROOT / path).exists() or (document.parent / path).exists():
                continue
            if (len(path.parts) > 1 and path.parts[0] in tops) or (
                len(path.parts) == 1 and path.suffix in {".md", ".py", ".toml", ".txt", ".yaml"} and path.name not in names
            ):
                missing.append(f"{relative(document)}: {quoted}")
    assert missing == []


def test_the_glossary_names_what_the_code_has() -> None:
    """`path::Name` in the glossary is a claim: the file defines that name at its top level."""
    glossary = (ROOT / "ARCHITECTURE.md").read_text().partition("## Glossary")[2]
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", glossary)
    assert len(named) > 20
    missing = []
    for path, name in named:
        body = ast.parse((ROOT / path).read_text()).body
        names = {node.name for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
        names |= {target.id for node in body if isinstance(node, ast.Assign) for target in node.targets if isinstance(target, ast.Name)}
        missing += [] if name in names else [f"{path}::{name}"]
    assert missing == []


def test_files_and_modules_of_commands_in_documents_exist() -> None:
    """Also inside a longer command: `pytest tests/unit/NAME.py`, `python -m bench.costs.hops`."""
    tops = "|".join(re.escape(p.name) for p in ROOT.iterdir() if p.is_dir() and not p.name.startswith("."))
    file = re.compile(rf"(?<![\w./-])(?:{tops})(?:/[\w.-]+)*/[\w-]+\.(?:json|md|proto|py|sh|yaml)\b")
    module = re.compile(rf"python3? -m ((?:{tops})(?:\.\w+)*)")
    missing = []
    for document in documents():
        text = document.read_text()
        missing += [(relative(document), f) for f in file.findall(text) if f not in PLACEHOLDERS and not (ROOT / f).exists()]
        for name in module.findall(text):
            path = ROOT / name.replace(".", "/")
            if not path.with_suffix(".py").exists() and not (path / "__main__.py").exists():
                missing.append((relative(document), name))
    assert missing == []


def test_make_targets_named_in_documents_exist_and_are_explained() -> None:
    explained = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"install", "check", "test", "demo"} <= explained
    named = {(relative(d), t) for d in documents() for t in re.findall(r"(?:^|`)make ([a-z-]+)", d.read_text(), re.MULTILINE)}
    assert named
    assert {(document, target) for document, target in named if target not in explained} == set()


def test_commands_named_in_documents_and_makefile_exist() -> None:
    from headrace.cli import app

    commands = {info.name or getattr(info.callback, "__name__", "") for info in app.registered_commands}
    commands |= {group.name or "" for group in app.registered_groups}
    assert {"serve", "generate", "models"} <= commands
    texts = {relative(p): p.read_text() for p in [*documents(), ROOT / "Makefile"]}
    named = {(name, command) for name, text in texts.items() for command in re.findall(r"(?:bin|\(BIN\))/headrace ([a-z]+)", text)}
    assert {(name, command) for name, command in named if command not in commands} == set()
