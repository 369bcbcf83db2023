"""The site's own part of its build: links that lead to pages, and the page of the contract. `make docs` builds the whole, strictly."""

from __future__ import annotations

import importlib.util
import re
from types import ModuleType

import pytest

from headrace.v1 import video_pb2 as pb
from tests.unit.project.test_layout import ROOT, documents, relative


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    """MkDocs loads the file by its path, too."""
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "site" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("source", "uri", "link", "leads_to"),
    [
        ("README.md", "index.md", "docs/adr/0004-resume.md", "adr/0004-resume.md"),
        ("README.md", "index.md", "ARCHITECTURE.md", "architecture.md"),
        ("README.md", "index.md", "serve.yaml", "files/serve.yaml.md"),
        ("README.md", "index.md", "proto/headrace/v1/video.proto", "reference/wire.md"),
        ("docs/adr/0004-resume.md", "adr/0004-resume.md", "../scaling.md#drain", "../scaling.md#drain"),
        ("docs/adr/README.md", "adr/README.md", "../../README.md", "../index.md"),
        ("examples/node/README.md", "examples/node.md", "../../docs/any-language.md", "../any-language.md"),
        ("docs/observe.md", "observe.md", "../observability/dashboards", "files/observability/dashboards/index.md"),
        ("docs/observe.md", "observe.md", "https://example.org/a.md", "https://example.org/a.md"),
        ("docs/observe.md", "observe.md", "no/such/file.md", "no/such/file.md"),  # left for the strict build to refuse
    ],
)
def test_a_link_leads_to_a_page_of_the_site(hooks: ModuleType, source: str, uri: str, link: str, leads_to: str) -> None:
    assert hooks.rewritten(f"see [it]({link}), there", source, uri) == f"see [it]({leads_to}), there"


def test_a_picture_in_html_leads_there_too(hooks: ModuleType) -> None:
    tag = '<img src="%s" alt="a star" width="256">'
    assert hooks.rewritten(tag % "docs/images/steer.gif", "README.md", "index.md") == tag % "images/steer.gif"
    pictures = [(d, source) for d in documents() for source in re.findall(r'src="([^"]+)"', d.read_text())]
    assert pictures
    assert [(relative(d), source) for d, source in pictures if not (d.parent / source).is_file()] == []


@pytest.mark.parametrize(
    ("html", "asks"),
    [
        ('<a href="https://example.org/">there</a> <link rel="canonical" href="https://example.org/">', 0),
        ('<script src="assets/bundle.js"></script><img alt="" src="images/pipeline.svg"><link rel="stylesheet" href="main.css">', 0),
        ('<script defer src="https://unpkg.com/mermaid/dist/mermaid.min.js"></script>', 1),
        ('<img alt="built" src="//example.org/badge.svg">', 1),
        ('<link href="https://fonts.example.org/css" rel="stylesheet"> <link rel="preconnect" href="https://example.org" crossorigin>', 2),
        ('<pre class="mermaid"><code>flowchart LR</code></pre>', 1),
    ],
)
def test_a_page_that_asks_other_hosts_for_something_is_seen(hooks: ModuleType, html: str, asks: int) -> None:
    assert len(hooks.foreign(html)) == asks


def test_no_document_has_a_diagram_or_a_picture_that_a_browser_fetches_elsewhere() -> None:
    """`make docs` looks at whole pages."""
    for document in documents():
        text = document.read_text()
        assert not re.search(r"^ *```mermaid", text, re.MULTILINE), relative(document)
        assert not re.search(r"!\[[^]]*\]\((?:https?:)?//", text), relative(document)


def test_the_menu_has_every_decision_and_runbook(hooks: ModuleType) -> None:
    menu = hooks.expanded([{"Home": "index.md"}, {"Decisions": ["adr/README.md", "adr/*.md"]}])
    listed = menu[1]["Decisions"]
    assert menu[0] == {"Home": "index.md"}
    assert listed[:2] == ["adr/README.md", "adr/0001-latents-are-the-log.md"]
    assert sorted(listed) == sorted(f"adr/{path.name}" for path in (ROOT / "docs" / "adr").glob("*.md"))


def test_a_link_in_a_block_is_left_alone(hooks: ModuleType) -> None:
    block = "```text\n[serve](serve.yaml)\n```\n"
    assert hooks.rewritten(block, "README.md", "index.md") == block


def test_markers_of_tests_are_not_shown(hooks: ModuleType) -> None:
    assert hooks.MARKER.sub("", "a\n\n<!-- untested: two\n     lines -->\n```sh\nls\n```\n") == "a\n\n```sh\nls\n```\n"


def test_lists_inside_lists_are_indented_as_the_site_reads_them(hooks: ModuleType) -> None:
    written = "1. a\n   more of a\n   - b\n     more of b\n\n   ```sh\n   ls\n   ```\n\n   and a\n2. d\n\ntext\n"
    read = "1. a\n    more of a\n    - b\n      more of b\n\n    ```sh\n    ls\n    ```\n\n    and a\n2. d\n\ntext\n"
    assert hooks.deeper(written) == read
    block = "```yaml\na:\n  - b\n```\n"
    assert hooks.deeper(block) == block


def test_the_page_of_the_contract_has_all_of_it(hooks: ModuleType) -> None:
    page = hooks.wire_page((ROOT / "proto" / "headrace" / "v1" / "video.proto").read_text())
    file = pb.DESCRIPTOR
    declared = {*file.services_by_name, *file.message_types_by_name, *file.enum_types_by_name}
    assert set(re.findall(r"^### (\w+)$", page, re.MULTILINE)) == declared


def test_every_document_has_a_page(hooks: ModuleType) -> None:
    outside = {relative(d) for d in documents()} - {relative(d) for d in documents() if relative(d).startswith("docs/")}
    assert outside == set(hooks.DOCUMENTS)
    menu = (ROOT / "mkdocs.yaml").read_text()
    assert [page for page in hooks.DOCUMENTS.values() if page not in menu] == []
