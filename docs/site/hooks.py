"""MkDocs hooks: the site's pages that stand outside `docs/`, and links from pages to files of the repository.

Documents are written to be read in the repository, with relative links to any file of it. The site has a page for each
document of `DOCUMENTS`, and one under `files/` for every other file or folder that a document links to. This module
knows nothing of what the documents say.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
# Documents outside docs/, and where their pages stand in the site.
DOCUMENTS = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "findings/README.md": "findings.md",
    "examples/node/README.md": "examples/node.md",
    "examples/go/README.md": "examples/go.md",
    "model_core/weights/millrace-64/README.md": "millrace-64.md",
}
WIRE = ("proto/headrace/v1/video.proto", "reference/wire.md")
# Shown as a page; every other file is copied as it is.
LANGUAGES = {
    ".go": "go", ".js": "js", ".proto": "proto", ".py": "python", ".sh": "sh", ".toml": "toml", ".txt": "text", ".yaml": "yaml",
    "LICENSE": "text",
}  # fmt: skip

FENCE = re.compile(r"^( *)(`{3,})[^\n]*\n.*?^\1\2$", re.MULTILINE | re.DOTALL)
# Material draws Mermaid's diagrams with a script from a host of others.
FOREIGN = re.compile(
    r'<(?:script|img|iframe|source|video|audio|embed)\b[^>]*\ssrc="?(?:https?:)?//[^>]*>'
    r'|<link\b(?=[^>]*\srel="?(?:stylesheet|preconnect|preload|icon|modulepreload)\b)[^>]*\shref="?(?:https?:)?//[^>]*>'
    r'|<\w+ class="mermaid">'
)
LINK = re.compile(r"(?:(?<=\]\()|(?<=src=\"))([^)#\s\"]+)")
# What a test reads of a code block, and a reader need not.
MARKER = re.compile(r"^ *<!-- (?:tested|untested): .*? -->\n", re.MULTILINE | re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Write out the patterns of the menu, so that a new decision or runbook needs no line there."""
    config.nav = expanded(config.nav)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for every document outside `docs/`, and for every other file that a document links to."""
    from mkdocs.structure.files import File  # noqa: PLC0415 - the tests import this module without MkDocs

    inside = [file.src_uri for file in files.documentation_pages()]
    for path, uri in DOCUMENTS.items():
        files.append(File.generated(config, uri, content=(ROOT / path).read_text(encoding="utf-8")))
    files.append(File.generated(config, WIRE[1], content=wire_page((ROOT / WIRE[0]).read_text(encoding="utf-8"))))
    for path in sorted(linked([*DOCUMENTS, *(f"docs/{uri}" for uri in inside)])):
        uri = site_uri(path)
        if files.get_file_from_path(uri) is None:
            content = file_page(path)
            shown = {"content": content} if content is not None else {"abs_src_path": str(ROOT / path)}
            files.append(File.generated(config, uri, **shown))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """The document with links that lead to pages of the site."""
    uri = page.file.src_uri
    source = next((path for path, at in DOCUMENTS.items() if at == uri), f"docs/{uri}")
    return MARKER.sub("", rewritten(deeper(markdown), source, uri))


def on_post_page(output: str, page: Page, **_: object) -> str:
    """Refuse a page that has its reader's browser ask another host for anything. Links that a reader may follow are none of that."""
    from mkdocs.exceptions import PluginError  # noqa: PLC0415 - the tests import this module without MkDocs

    if found := foreign(output):
        raise PluginError(f"{page.file.src_uri} must load nothing from other hosts; got {found[0][:200]}")
    return output


def foreign(html: str) -> list[str]:
    """What a browser that shows `html` asks other hosts for, as far as the tags say, and diagrams that the theme asks another host for."""
    return [found.group() for found in FOREIGN.finditer(html)]


def expanded(menu: Any) -> Any:
    """`menu` with each `FOLDER/*.md` as the pages of that folder, by name, without its README."""
    match menu:
        case dict():
            return {title: expanded(entry) for title, entry in menu.items()}
        case list():
            return [item for entry in menu for item in (pages(entry) if isinstance(entry, str) else [expanded(entry)])]
        case _:
            return menu


def pages(entry: str) -> list[str]:
    if not entry.endswith("/*.md"):
        return [entry]
    folder = ROOT / "docs" / posixpath.dirname(entry)
    return [f"{posixpath.dirname(entry)}/{path.name}" for path in sorted(folder.glob("*.md")) if path.name != "README.md"]


def linked(documents: Iterable[str]) -> set[str]:
    """Every path of the repository that one of `documents` links to, below or beside the documents themselves."""
    found: set[str] = set()
    for document in documents:
        for target in LINK.findall(FENCE.sub("", (ROOT / document).read_text(encoding="utf-8"))):
            path = resolved(document, target)
            if path is not None:
                found |= {path} | ({f"{path}/{child}" for child in children(path)} if (ROOT / path).is_dir() else set())
    return found


def children(folder: str) -> list[str]:
    return sorted(p.name for p in (ROOT / folder).iterdir() if p.is_file())


def resolved(document: str, target: str) -> str | None:
    """The path of the repository that `target` in `document` names; None for an address, or a path that leads out of it."""
    if "://" in target or target.startswith(("mailto:", "/")):
        return None
    path = posixpath.normpath(posixpath.join(posixpath.dirname(document), target))
    return None if path.startswith("..") or not (ROOT / path).exists() else path


def site_uri(path: str) -> str:
    """Where the site has the file or folder of the repository at `path`."""
    if path in DOCUMENTS:
        return DOCUMENTS[path]
    if path == WIRE[0]:
        return WIRE[1]
    if path.startswith("docs/") and (ROOT / path).is_file():
        return path.removeprefix("docs/")
    if (ROOT / path).is_dir():
        return f"files/{path}/index.md"
    return f"files/{path}.md" if language(path) else f"files/{path}"


def language(path: str) -> str | None:
    return LANGUAGES.get(posixpath.splitext(path)[1]) or LANGUAGES.get(posixpath.basename(path))


def file_page(path: str) -> str | None:
    """A page that shows the file, or lists the folder; None for a file that is copied as it is."""
    if (ROOT / path).is_dir():
        uri = site_uri(path)
        names = children(path)
        lines = [f"- [{name}]({posixpath.relpath(site_uri(f'{path}/{name}'), posixpath.dirname(uri))})" for name in names]
        return f"# {path}\n\n" + "\n".join(lines) + "\n"
    if (shown_as := language(path)) is None:
        return None
    return f"# {path}\n\n````{shown_as}\n{(ROOT / path).read_text(encoding='utf-8')}\n````\n"


def rewritten(markdown: str, source: str, uri: str) -> str:
    """`markdown` of the document `source`, whose page is `uri`, with each link to a file as a link to its page."""

    def link(match: re.Match[str]) -> str:
        path = resolved(source, match[1])
        return match[1] if path is None else posixpath.relpath(site_uri(path), posixpath.dirname(uri) or ".")

    parts, end = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [LINK.sub(link, markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, LINK.sub(link, markdown[end:])])


def deeper(markdown: str) -> str:
    """`markdown` with everything inside list items indented by four columns, as Python-Markdown wants it; GitHub takes two."""
    lines, in_list, fenced = [], False, False
    nested = by = 0
    for line in markdown.split("\n"):
        indent = len(line) - len(line.lstrip())
        if not fenced and line:
            if indent == 0:
                in_list, nested = bool(re.match(r"(?:[-*]|\d+\.) ", line)), 0
            by = nested
            if in_list and indent in {2, 3}:
                by = 4 - indent
                nested = by if re.match(r" +[-*] ", line) else 0
        fenced ^= line.lstrip().startswith("```")
        lines.append(" " * by + line if line else line)
    return "\n".join(lines)


def wire_page(proto: str) -> str:
    """The contract, one heading for each service, message and enum: its comment, then its definition."""
    head, *_ = re.split(r"^(?=service |message |enum )", proto, maxsplit=1, flags=re.MULTILINE)
    lines = ["# The wire", "", f"Made from `{WIRE[0]}`, which is what to compile:", "", "````proto", head.strip(), "````", ""]
    pattern = re.compile(r"((?:^// [^\n]*\n)*)^(service|message|enum) (\w+) \{(?:[^\n]*\}[^\n]*|\n.*?^\}[^\n]*)$", re.MULTILINE | re.DOTALL)
    kinds: dict[str, list[re.Match[str]]] = {"service": [], "message": [], "enum": []}
    for declared in pattern.finditer(proto):
        kinds[declared[2]].append(declared)
    for title, kind in (("Services", "service"), ("Messages", "message"), ("Enums", "enum")):
        lines += [f"## {title}", ""]
        for declared in kinds[kind]:
            comment = " ".join(line.removeprefix("// ") for line in declared[1].splitlines())
            body = declared[0].removeprefix(declared[1])
            lines += [f"### {declared[3]}", "", comment, "", "````proto", body, "````", ""]
    return "\n".join(lines)
