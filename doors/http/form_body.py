"""Forms, multipart and URL-encoded, parsed part by part and within bounds. Runs in threads; files go to disk beyond 1 MB."""

from __future__ import annotations

from contextlib import suppress
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.datastructures import Headers, UploadFile

from doors.http.room import Form
from model_core.errors import FieldViolation, InvalidRequest

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_PARTS = 256
MAX_NAME_BYTES = 256
MAX_FIELD_BYTES = 1024 * 1024
MULTIPART, URL_ENCODED = "multipart/form-data", "application/x-www-form-urlencoded"

_IN_MEMORY_BYTES = 1024 * 1024
_MAX_HEADERS, _MAX_HEADER_BYTES = 16, 4096


def kind_of(content_type: str) -> tuple[str, bytes]:
    """The media type, in lower case, and the boundary; empty for none."""
    kind, options = parse_options_header(content_type)
    return kind.decode("latin-1"), options.get(b"boundary", b"")


class MultipartForm:
    """Feed it the body; then `form` is what it was. Call `close` where that is not reached.

    Args:
        boundary: between parts.

    Raises:
        InvalidRequest: the boundary is none; from `feed` and `form`, the body is no such form or breaks a bound.
    """

    def __init__(self, boundary: bytes) -> None:
        self._form = Form()
        self._open: list[UploadFile] = []
        self._parts = 0
        self._ended = False
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._headers: dict[str, str] = {}
        self._name = ""
        self._text = bytearray()
        self._file: UploadFile | None = None
        self._size = 0
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._part_begins,
            "on_header_field": lambda data, start, end: self._grow(self._header_name, data[start:end]),
            "on_header_value": lambda data, start, end: self._grow(self._header_value, data[start:end]),
            "on_header_end": self._header_ends,
            "on_headers_finished": self._headers_end,
            "on_part_data": lambda data, start, end: self._data(data[start:end]),
            "on_part_end": self._part_ends,
            "on_end": self._end,
        }
        if not boundary:
            raise _problem("Content-Type", "must name the boundary of multipart/form-data")
        try:
            self._parser = MultipartParser(boundary, callbacks, max_header_count=_MAX_HEADERS, max_header_size=_MAX_HEADER_BYTES)
        except FormParserError as error:
            raise _problem("Content-Type", f"must name a boundary of multipart/form-data; {error}") from None

    def feed(self, data: bytes) -> None:
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise _problem("body", f"must be multipart/form-data; {str(error)[:100]}") from None

    def form(self) -> Form:
        """The whole form, after the last of the body."""
        if not self._ended:
            raise _problem("body", "must end with the boundary and two dashes")
        for upload in self._open:
            upload.file.seek(0)
        return self._form

    @property
    def on_disk(self) -> bool:
        """Whether one of the files is so large that it is."""
        return any((upload.size or 0) > _IN_MEMORY_BYTES for upload in self._open)

    def close(self) -> None:
        """Let go of all files."""
        for upload in self._open:
            with suppress(OSError):
                upload.file.close()

    def _grow(self, text: bytearray, data: bytes) -> None:
        if len(text) + len(data) > _MAX_HEADER_BYTES:
            raise _problem("body", f"must have parts whose headers have at most {_MAX_HEADER_BYTES} bytes")
        text += data

    def _part_begins(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise _problem("body", f"must have at most {MAX_PARTS} parts")
        self._headers, self._name, self._text, self._file, self._size = {}, "", bytearray(), None, 0

    def _header_ends(self) -> None:
        self._headers[self._header_name.decode("latin-1").lower()] = self._header_value.decode("latin-1")
        self._header_name.clear()
        self._header_value.clear()

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._headers.get("content-disposition", ""))
        if b"name" not in options:
            raise _problem("body", "must have parts with a Content-Disposition that names their field")
        self._name = _text(options[b"name"], "the name of a field")
        if len(options[b"name"]) > MAX_NAME_BYTES:
            raise _problem("body", f"must have fields with names of at most {MAX_NAME_BYTES} bytes; got {len(options[b'name'])}")
        if (filename := options.get(b"filename")) is not None:
            spooled: Any = SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115 - closed by `close`
            self._file = UploadFile(spooled, size=0, filename=filename.decode("utf-8", "replace"), headers=Headers(self._headers))
            self._open.append(self._file)

    def _data(self, data: bytes) -> None:
        self._size += len(data)
        if self._file is not None:
            self._file.file.write(data)
            self._file.size = self._size
            return
        if self._size > MAX_FIELD_BYTES:
            raise _problem(self._name, f"must have at most {MAX_FIELD_BYTES} bytes, or be a file")
        self._text += data

    def _part_ends(self) -> None:
        if self._file is not None:
            self._form.files.setdefault(self._name, []).append(self._file)
        else:
            self._form.fields.setdefault(self._name, []).append(_text(bytes(self._text), self._name))

    def _end(self) -> None:
        self._ended = True


def url_encoded(data: bytes) -> Form:
    """Raises InvalidRequest: it is no such form, or breaks a bound."""
    form = Form()
    try:
        pairs = parse_qsl(data.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_PARTS, errors="strict")
    except UnicodeDecodeError:
        raise _problem("body", "must be URL-encoded UTF-8") from None
    except ValueError:
        raise _problem("body", f"must have at most {MAX_PARTS} fields") from None
    for name, value in pairs:
        if len(name.encode()) > MAX_NAME_BYTES:
            raise _problem("body", f"must have fields with names of at most {MAX_NAME_BYTES} bytes; got {len(name.encode())}")
        _check(value, name)
        form.fields.setdefault(name, []).append(value)
    return form


def _text(data: bytes, field: str) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise _problem(field, f"must be UTF-8; got {error.reason} at byte {error.start}") from None
    _check(text, field)
    return text


def _check(text: str, field: str) -> None:
    if "\x00" in text:
        raise _problem(field, "must hold no NUL character")


def _problem(field: str, sentence: str) -> InvalidRequest:
    return InvalidRequest((FieldViolation(field, sentence),))
