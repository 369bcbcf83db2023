"""Values out of JSON, and what is said of those that are wrong."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from starlette.requests import Request

from doors.http.given import MAX_SEED, Given, check_all, decoded, idempotency_key, shown
from model_core.errors import InvalidRequest
from service.checks import Problems
from service.orders import Doorway, Mode, VideoRequest
from tests.core import core


def given(**members: Any) -> tuple[Given, Problems]:
    problems = Problems()
    return Given(members, problems, "spec."), problems


def said(problems: Problems) -> list[tuple[str, str]]:
    with pytest.raises(InvalidRequest) as caught:
        problems.check()
    return [(violation.field, violation.description) for violation in caught.value.violations]


def test_what_is_right_is_read() -> None:
    spec, problems = given(a="text", b=3, c="4", d=2.0, e=True, f={"g": "inner"}, h=[{"i": 1}], j={"k": "l"}, m=1.5, n="2.5", o=None)
    assert (spec.text("a"), spec.integer("b", 0, 9), spec.integer("c", 0, 9), spec.integer("d", 0, 9)) == ("text", 3, 4, 2)
    assert (spec.flag("e"), spec.inner("f").text("g"), spec.items("h", most=2)[0].integer("i", 0, 1)) == (True, "inner", 1)
    assert (spec.labels("j", most=1, chars=1), spec.number("m"), spec.number("n")) == ({"k": "l"}, 1.5, 2.5)
    assert (spec.has("o"), spec.text("o"), spec.integer("o", 0, 1), spec.flag("o"), spec.items("o", most=1)) == (False, "", None, None, [])
    assert (spec.choice("a", ("text", "other")), spec.choice("o", ("text",)), spec.inner("o").path("p")) == ("text", "", "spec.o.p")
    problems.check()


@pytest.mark.parametrize(
    "number",
    [-1, 10, 1.5, "x", "--1", "1.0", "", True, [], MAX_SEED + 1, pytest.param(10**5000, id="huge"), float("inf"), float("nan"), "٣"],
)
def test_what_is_no_such_number_is_refused(number: object) -> None:
    spec, problems = given(a=number)
    assert spec.integer("a", 0, 9) is None
    assert said(problems)[0][1].startswith("must be a whole number from 0 to 9; got ")


@pytest.mark.parametrize("number", ["x", "", "inf", "nan", float("inf"), float("nan"), 10**400, "1e999", True, {}])
def test_what_is_no_finite_number_is_refused(number: object) -> None:
    spec, problems = given(a=number)
    assert spec.number("a") is None
    assert said(problems)[0][1].startswith("must be a number; got ")


def test_each_problem_has_the_path_the_limit_and_the_value() -> None:
    spec, problems = given(a=1, b="c", d="no", e=[], f={"g": 1}, h=[1], i="gs://bucket/x")
    for read in (
        lambda: spec.text("a"), lambda: spec.choice("b", ("x", "y")), lambda: spec.flag("d"), lambda: spec.inner("e"),
        lambda: spec.labels("f", most=1, chars=3), lambda: spec.items("h", most=1), lambda: spec.unset("i", "of no use"),
        lambda: spec.text("z", required=True), lambda: spec.refuse_item("h", 0, "must be an object"),
    ):  # fmt: skip
        read()
    assert said(problems) == [
        ("spec.a", "must be text; got 1"),
        ("spec.b", "must be one of x, y; got 'c'"),
        ("spec.d", "must be true or false; got 'no'"),
        ("spec.e", "must be an object; got a list of 0"),
        ("spec.f", "must be an object of at most 1 members, whose names and values are text of at most 3 characters; got an object of 1"),
        ("spec.h", "must be a list of at most 1 objects; got a list of 1"),
        ("spec.i", "must be unset: of no use; got 'gs://bucket/x'"),
        ("spec.z", "is required; got none"),
        ("spec.h[0]", "must be an object; got 1"),
    ]


def test_half_of_a_surrogate_pair_is_no_text() -> None:
    spec, problems = given(a="\ud800", b={"\udfff": "x"})
    assert (spec.text("a"), spec.labels("b", most=1, chars=9)) == ("", {})
    assert [field for field, _ in said(problems)] == ["spec.a", "spec.b"]


@pytest.mark.parametrize(
    "text",
    [
        base64.b64encode(b"\xfb\xff\x00").decode(), base64.urlsafe_b64encode(b"\xfb\xff\x00").decode(), "+/8A", "-_8A", "+/\r\n8A",
        "data:image/png;base64,+/8A", "data:image/png;charset=x;base64,+/8A",
    ],
)  # fmt: skip
async def test_base64_comes_in_both_alphabets_and_in_data_uris(text: str) -> None:
    spec, problems = given(a=text, b=base64.b64encode(bytes(100_000)).decode())
    assert await spec.media("a") == b"\xfb\xff\x00"
    assert await spec.media("b") == bytes(100_000)
    problems.check()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("https://example.com/a.png", "must be a data URI or base64: this server fetches nothing from elsewhere; got 'https://"),
        ("data:image/png,abc", "must be a data URI in base64"),
        ("data:image/png;base64", "must be a data URI in base64"),
        ("data:image/png;base64,a$b", "must be base64; got 'data:image/png"),
        ("a", "must be base64; got 'a'"),
        ("é" * 8, "must be base64; got "),
    ],
)
async def test_what_holds_no_bytes_is_refused(text: str, problem: str) -> None:
    spec, problems = given(a=text)
    assert await spec.media("a") is None
    assert said(problems)[0][1].startswith(problem)


def test_padding_may_be_missing_but_not_a_digit() -> None:
    assert decoded("QQ") == decoded("QQ==") == b"A"
    assert decoded("QQ==QQ==") is None
    assert decoded("QQQQQ") is None


def test_values_are_shown_short_and_plain() -> None:
    assert shown("a" * 1000) == "'" + "a" * 63 + "...'"
    assert shown(10**5000) == "a number of too many digits"
    assert shown("\x1b[0m") == r"'\x1b[0m'"
    assert (shown(None), shown([1, 2]), shown({}), shown(True), shown(1.5)) == ("none", "a list of 2", "an object of 0", "True", "1.5")


@pytest.mark.parametrize(("key", "fits"), [("a" * 256, True), ("a" * 257, False), ("", True), ("k\xe9", False), ("a\tb", False)])
def test_an_idempotency_key_is_short_and_printable(key: str, fits: bool) -> None:
    problems = Problems()
    scope = {"type": "http", "headers": [(b"idempotency-key", key.encode("latin-1"))]}
    assert idempotency_key(Request(scope), problems) == (key if fits else "")
    assert bool(problems) is not fits


async def test_everything_wrong_is_said_at_once_and_once_a_field() -> None:
    doorway = Doorway(Mode.FILE, names={"prompt": "promptText", "seconds": "duration"})
    async with core() as made:
        check_all(Problems(), made.intake, VideoRequest(prompt=""), doorway)  # nothing was found, so nothing is looked for
        problems = Problems()
        problems.add("promptText", "must be text; got 1")
        with pytest.raises(InvalidRequest) as caught:
            check_all(problems, made.intake, VideoRequest(prompt="", seconds=-1), doorway)
    assert [violation.field for violation in caught.value.violations] == ["promptText", "duration"]
    assert caught.value.violations[0].description == "must be text; got 1"


@pytest.mark.parametrize("size", [196_607, 196_608, 196_609, 700_000])
def test_base64_that_is_read_in_pieces_is_read_whole(size: int) -> None:
    data = bytes(range(251)) * (size // 251 + 1)
    data = data[:size]
    text = base64.b64encode(data).decode()
    assert decoded(text) == decoded(text.rstrip("=")) == decoded("\n".join(text[at : at + 77] for at in range(0, len(text), 77))) == data
    assert decoded(f"{text[:100_000]}%{text[100_000:]}") is None
