"""The page at `/`: its files, and how a browser gets them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from doors.http.page.files import FOLDER, INDEX, page_files
from tests.http_served import http_serving

FILES = page_files()
TEXTS = {name: file.data.decode() for name, file in FILES.items()}
SCRIPTS = {name: text for name, text in TEXTS.items() if name.endswith(".mjs")}
# The names of XML's own vocabularies look like addresses, and nobody fetches them.
NAMESPACES = ("http://www.w3.org/2000/svg",)
MAX_LINES = 400


def imports(name: str) -> set[str]:
    """The files that a script imports, by their paths in the folder."""
    found = re.findall(r'^(?:import|export)\b[^;]*?from "([^"]+)";', SCRIPTS[name], re.MULTILINE)
    return {(FOLDER / name).parent.joinpath(path).resolve().relative_to(FOLDER).as_posix() for path in found}


async def test_the_page_and_its_files_are_served_to_whoever_asks() -> None:
    async with http_serving() as served:
        page = await served.client.get("/")
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert page.content == FILES[INDEX].data
        for name, file in FILES.items():
            answer = await served.client.get(f"/assets/{name}")
            assert (answer.status_code, answer.content) == (200, file.data), name
            assert answer.headers["content-type"] == file.media_type, name


async def test_every_file_says_what_browsers_may_do_with_it() -> None:
    async with http_serving() as served:
        for path in ("/", *(f"/assets/{name}" for name in FILES)):
            headers = (await served.client.get(path)).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
            policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
            assert policy["default-src"] == "'none'"
            assert (policy["script-src"], policy["style-src"], policy["connect-src"]) == ("'self'", "'self'", "'self'")
            assert policy["frame-ancestors"] == "'none'"
            assert "unsafe" not in headers["content-security-policy"]
            assert not re.search(r"https?:|\*", headers["content-security-policy"])


async def test_a_browser_that_has_the_version_gets_no_bytes() -> None:
    async with http_serving() as served:
        first = await served.client.get("/assets/app.mjs")
        etag = first.headers["etag"]
        assert first.headers["cache-control"] == "no-cache"
        for known in (etag, f'"other", W/{etag}', "*"):
            again = await served.client.get("/assets/app.mjs", headers={"if-none-match": known})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
        other = await served.client.get("/assets/app.mjs", headers={"if-none-match": '"other"'})
        assert other.status_code == 200


async def test_head_is_answered_without_a_body() -> None:
    async with http_serving() as served:
        answer = await served.client.head("/")
        assert (answer.status_code, answer.content) == (200, b"")
        assert int(answer.headers["content-length"]) == len(FILES[INDEX].data)


NOTHING = (
    "/assets/", "/assets/none.mjs", "/assets/../room.py", "/assets/%2e%2e/room.py", "/assets//etc/passwd", "/assets/logic", "/page.css",
)  # fmt: skip


@pytest.mark.parametrize("path", NOTHING)
async def test_there_is_nothing_else(path: str) -> None:
    async with http_serving() as served:
        answer = await served.client.get(path)
        assert answer.status_code == 404
        assert answer.json()["error"]["message"]
        await served.still_serves()


async def test_the_page_takes_no_other_method() -> None:
    async with http_serving() as served:
        answer = await served.client.post("/", json={})
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no")
    with pytest.raises(ValueError, match=r"\.css, \.html, \.mjs, \.svg; got notes\.txt"):
        page_files(tmp_path)


def test_equal_files_have_equal_tags(tmp_path: Path) -> None:
    for name, text in (("a.css", "x"), ("b.css", "x"), ("c.css", "y")):
        (tmp_path / name).write_text(text)
    files = page_files(tmp_path)
    assert files["a.css"].etag == files["b.css"].etag != files["c.css"].etag


def test_no_file_names_another_host() -> None:
    for name, text in TEXTS.items():
        for namespace in NAMESPACES:
            text = text.replace(namespace, "")  # noqa: PLW2901 - the same text, shorter
        assert re.findall(r"(?:https?|wss?|ftp)://[^\s\"'`]*|url\(|@import|(?:src|href)=\"//", text) == [], name


def test_the_page_has_no_script_or_style_in_line() -> None:
    page = TEXTS[INDEX]
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=|javascript:", page, re.IGNORECASE) == []
    for name, text in SCRIPTS.items():
        found = re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|setAttribute\(\"style\"", text)
        assert found == [], name


def test_every_script_is_there_and_named_in_the_page() -> None:
    """The browser fetches them all at once, and not one after the other as it finds them."""
    assert "app.mjs" in SCRIPTS
    assert {needed for name in SCRIPTS for needed in imports(name)} | {"app.mjs"} == set(SCRIPTS)
    preloaded = set(re.findall(r'rel="modulepreload" href="assets/([^"]+)"', TEXTS[INDEX]))
    assert preloaded == set(SCRIPTS) - {"app.mjs"}
    used = set(re.findall(r'(?:src|href)="assets/([^"]+)"', TEXTS[INDEX]))
    assert used == set(FILES) - {INDEX}


OF_BROWSERS = r"\b(?:document|window|navigator|localStorage|sessionStorage)\.|\b(?:setTimeout|setInterval|fetch)\("


def test_logic_knows_no_page() -> None:
    logic = {name: text for name, text in SCRIPTS.items() if name.startswith("logic/")}
    assert len(logic) > 5
    for name, text in logic.items():
        assert all(needed.startswith("logic/") for needed in imports(name)), name
        code = re.sub(r"//.*", "", text)
        assert re.findall(OF_BROWSERS, code) == [], name


def test_the_scripts_find_what_they_look_for() -> None:
    ids = set(re.findall(r'\bid="([^"]+)"', TEXTS[INDEX]))
    wanted = {name for text in SCRIPTS.values() for name in re.findall(r'\bat\("([^"]+)"\)', text)}
    assert wanted
    assert wanted <= ids


def test_every_field_has_a_name_for_those_who_hear_the_page() -> None:
    page = TEXTS[INDEX]
    labelled = set(re.findall(r'<label[^>]*\bfor="([^"]+)"', page))
    for tag, attributes in re.findall(r"<(input|select|textarea)\b([^>]*)>", page):
        found = re.search(r'\bid="([^"]+)"', attributes)
        assert found is not None, tag
        assert found[1] in labelled, attributes
    assert 'role="status"' in page
    assert 'role="alert"' in page
    for target in re.findall(r'aria-(?:labelledby|describedby)="([^"]+)"', page):
        assert f'id="{target}"' in page


def test_no_file_of_the_page_is_too_long() -> None:
    lengths = {name: len(text.splitlines()) for name, text in SCRIPTS.items()}
    assert {name: n for name, n in lengths.items() if n > MAX_LINES} == {}
