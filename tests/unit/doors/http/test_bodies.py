"""JSON and forms from hostile callers: every bound holds, and what is sound comes through unchanged."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doors.http import form_body, json_body
from doors.http.bodies import Held
from doors.http.form_body import MultipartForm, kind_of, url_encoded
from doors.http.room import Form
from model_core.errors import CapacityExceeded, InvalidRequest

LONG = "QUJD" * 50_000

TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(TEXTS, VALUES, max_size=5))
def test_any_object_comes_through(value: dict[str, Any]) -> None:
    assert json_body.parsed(json.dumps(value).encode()) == value
    assert json_body.parsed(json.dumps(value, ensure_ascii=False).encode()) == value


@given(st.lists(st.sampled_from(['"', "\\", "/", "a", "\n", "é"]), max_size=60).map("".join), st.booleans())
def test_long_texts_come_through_between_any_others(other: str, slashes: bool) -> None:
    value = {"before": other, other or "k": [LONG, {"in": LONG, "x": other}], "after": other}
    text = json.dumps(value)
    data = (text.replace("/", "\\/") if slashes else text).encode()
    assert json_body.parsed(data) == value


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "must be JSON"),
        (b"[1]", "must be a JSON object"),
        (b'{"a": NaN}', "NaN is no number in JSON"),
        (b'{"a": -Infinity}', "-Infinity is no number in JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "must be JSON; "),
        (b'{"a": "\xff"}', "must be JSON; "),
        (b'{"a": "\\ud800"}', "must hold no half of a surrogate pair"),
        (b'{"\\udc00": 1}', "must hold no half of a surrogate pair"),
        (b'{"a": ["\\u0000"]}', "must hold no NUL character"),
        (b'{"a": ' * 33 + b"1" + b"}" * 33, "must be JSON with at most 32 objects or lists in each other"),
        (b'{"a": ' + b"[" * 60_000 + b"]" * 60_000 + b"}", "must be JSON with at most 32 objects or lists in each other"),
        (b'{"a": [' + b"0," * 70_000 + b"0]}", "must be JSON with at most 65536 values"),
        (b'{"a": "' + b"\\n" * 1_100_000 + b'"}', "must be JSON with at most 1048576 escapes"),
        (b'{"a": "' + "é".encode() * 2_200_000 + b'"}', "must have at most 4194304 bytes besides long texts"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_json_that_breaks_a_bound_is_refused(data: bytes, sentence: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        json_body.parsed(data)
    (violation,) = refused.value.violations
    assert violation.field == "body"
    assert sentence in violation.description


@given(st.binary(max_size=200))
def test_what_is_no_json_is_refused_and_nothing_else_happens(data: bytes) -> None:
    try:
        json_body.parsed(data)
    except InvalidRequest:
        return


def multipart(*parts: tuple[str, bytes], boundary: str = "b") -> bytes:
    """Each part with its headers."""
    return b"".join(b"--%s\r\n%s\r\n\r\n%s\r\n" % (boundary.encode(), head.encode(), data) for head, data in parts) + b"--b--\r\n"


def field(name: str) -> str:
    return f'Content-Disposition: form-data; name="{name}"'


def read(data: bytes, step: int = 7) -> Form:
    form = MultipartForm(b"b")
    try:
        for at in range(0, len(data), step):
            form.feed(data[at : at + step])
        return form.form()
    finally:
        form.close()


@pytest.mark.parametrize("step", [1, 3, 64, 100_000])
def test_fields_and_files_come_through_however_they_are_cut(step: int) -> None:
    data = multipart(
        (field("prompt"), "ein roter Kreis é".encode()),
        (field("tag"), b"1"),
        (field("tag"), b""),
        (f'{field("image")}; filename="a.png"\r\nContent-Type: image/png', b"\x89PNG\r\n--c not the end"),
    )
    form = MultipartForm(b"b")
    for at in range(0, len(data), step):
        form.feed(data[at : at + step])
    made = form.form()
    assert made.fields == {"prompt": ["ein roter Kreis é"], "tag": ["1", ""]}
    (upload,) = made.files["image"]
    assert (upload.filename, upload.content_type, upload.size) == ("a.png", "image/png", 21)
    assert upload.file.read() == b"\x89PNG\r\n--c not the end"
    form.close()
    assert upload.file.closed


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "must end with the boundary"),
        (b"--b\r\n", "must end with the boundary"),
        (b"nonsense", "must be multipart/form-data"),
        (multipart((field("a"), b"1"))[:-6], "must end with the boundary"),
        (multipart(("X: y", b"1")), "must have parts with a Content-Disposition that names their field"),
        (multipart(*[(field(f"f{n}"), b"") for n in range(300)]), "must have at most 256 parts"),
        (multipart((field("n" * 300), b"1")), "must have fields with names of at most 256 bytes"),
        (multipart((field("a"), b"v" * 1_100_000)), "must have at most 1048576 bytes, or be a file"),
        (multipart((field("a"), b"\xff")), "must be UTF-8"),
        (multipart((field("a"), b"\x00")), "must hold no NUL character"),
        (multipart(("X: " + "v" * 5000, b"1")), "body"),
        (multipart((field("a") + "\r\nX: y" * 20, b"1")), "body"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_a_form_that_breaks_a_bound_is_refused(data: bytes, sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=sentence):
        read(data, 4096)


@given(st.binary(max_size=300))
def test_what_is_no_form_is_refused_and_nothing_else_happens(data: bytes) -> None:
    with suppress(InvalidRequest):
        read(data, 50)
    with suppress(InvalidRequest):
        url_encoded(data)


def test_url_encoded_forms_are_bounded_too() -> None:
    assert url_encoded(b"a=1&a=%C3%A9&b=&c=x+y").fields == {"a": ["1", "é"], "b": [""], "c": ["x y"]}
    for data, sentence in (
        (b"&".join(b"a%d=1" % n for n in range(300)), "must have at most 256 fields"),
        (b"n" * 300 + b"=1", "names of at most 256 bytes"),
        (b"a=%00", "must hold no NUL character"),
        (b"a=%FF", "must be URL-encoded UTF-8"),
        (b"a=\xff", "must be URL-encoded UTF-8"),
    ):
        with pytest.raises(InvalidRequest, match=sentence):
            url_encoded(data)


@pytest.mark.parametrize("boundary", [b"", b"x" * 1000])
def test_a_boundary_must_be_one(boundary: bytes) -> None:
    with pytest.raises(InvalidRequest, match="Content-Type"):
        MultipartForm(boundary)


def test_kinds_and_boundaries_are_read_from_the_header() -> None:
    assert kind_of("Multipart/Form-Data; boundary=abc") == (form_body.MULTIPART, b"abc")
    assert kind_of("") == ("", b"")


def test_bytes_that_are_held_are_counted_together() -> None:
    held = Held(10)
    held.take(6)
    with pytest.raises(CapacityExceeded, match="holds 6 bytes of requests, of at most 10"):
        held.take(5)
    held.give_back(6)
    held.take(10)
    assert held.size == 10


def test_texts_are_bounded_too_however_many_quotes_there_are() -> None:
    for data in (b'"' * 300_000, b'""' * 200_000, b'{"a": "' + b'\\"' * 200_000):
        with pytest.raises(InvalidRequest):
            json_body.parsed(data)


def test_a_form_is_on_disk_where_a_file_of_it_is_large() -> None:
    for size, large in ((1000, False), (1_500_000, True)):
        form = MultipartForm(b"b")
        form.feed(multipart((f'{field("image")}; filename="a.png"', bytes(size))))
        assert (form.form().files["image"][0].size, form.on_disk) == (size, large)
        form.close()
