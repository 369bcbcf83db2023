"""Names that stock clients ask for, and sizes and texts that only some wires can carry."""

from __future__ import annotations

from dataclasses import replace

import pytest

from model_core.errors import FieldViolation, InvalidRequest
from model_core.presets import millrace_64
from service.checks import Catalogue, Limits, Problems, Validator
from service.model_aliases import WELL_KNOWN, model_aliases
from service.orders import Doorway, Mode, VideoRequest

SERVED = millrace_64()
OTHER = replace(SERVED, name="other")
FILE = Doorway(Mode.FILE)


def catalogue(**aliases: str) -> Catalogue:
    return Catalogue({SERVED.name: SERVED, OTHER.name: OTHER}, SERVED.name, aliases)


@pytest.mark.parametrize(
    "name",
    [
        "sora-2", "sora-2-pro", "amazon.nova-reel-v1:0", "amazon.nova-reel-v1:1", "luma.ray-v2:0", "veo-3.1-generate-001",
        "gemini-omni-1.1-flash", "gen4.5", "gen4_turbo", "veo3.1_fast", "lucy-2.1",
    ],
)  # fmt: skip
def test_names_that_stock_clients_send_mean_the_default_model(name: str) -> None:
    found = Catalogue({SERVED.name: SERVED}, SERVED.name, model_aliases(SERVED.name)).find(name)
    assert found is SERVED


def test_a_whole_name_comes_before_a_beginning_and_the_longest_beginning_before_the_others() -> None:
    table = catalogue(**{"a-*": SERVED.name, "a-b-*": OTHER.name, "a-b-c": SERVED.name})
    assert [table.find(name) for name in ("a-x", "a-b-x", "a-b-c", "")] == [SERVED, OTHER, SERVED, SERVED]


def test_the_name_of_a_served_model_is_no_alias() -> None:
    assert catalogue(other=SERVED.name).find("other") is OTHER


def test_an_alias_of_nothing_and_a_name_that_is_neither_are_refused_as_unknown_models_are() -> None:
    limits = Limits()
    table = Catalogue({SERVED.name: SERVED}, SERVED.name, model_aliases(SERVED.name, {"sora-2": ""}))
    for name in ("sora-2", "sora", "veo", "millrace"):
        with pytest.raises(InvalidRequest, match=f"model: must be one of {SERVED.name}; got '{name}'"):
            Validator(table, limits).order(VideoRequest(prompt="a red circle", model=name, seconds=1), FILE, "s1", 5)


def test_an_order_by_an_alias_is_of_the_model_that_it_means() -> None:
    table = catalogue(mine=OTHER.name)
    order = Validator(table, Limits()).order(VideoRequest(prompt="a red circle", model="mine", seconds=1), FILE, "s1", 5)
    assert order.config is OTHER


def test_an_operators_aliases_are_added_to_the_well_known_ones_and_come_first() -> None:
    assert model_aliases("m") == dict.fromkeys(WELL_KNOWN, "m")
    assert model_aliases("m", {"mine": "m", "veo-*": ""}) == {**dict.fromkeys(WELL_KNOWN, "m"), "mine": "m", "veo-*": ""}
    assert model_aliases("m", {}) == {}


@pytest.mark.parametrize(
    ("width", "height", "wrong"),
    [
        (0, 0, []),
        (1280, 720, []),
        (1024, 1792, []),
        (3840, 2160, []),
        (0, 720, [("width", "must be an even number of pixels from 16 to 3840; got 0")]),
        (1281, 720, [("width", "must be an even number of pixels from 16 to 3840; got 1281")]),
        (1280, 4000, [("height", "must be an even number of pixels from 16 to 3840; got 4000")]),
        (3840, 3840, [("width", "must be at most 8294400 pixels with the height; got 3840x3840")]),
    ],
)
def test_the_size_of_a_file_is_even_and_at_most_4k(width: int, height: int, wrong: list[tuple[str, str]]) -> None:
    problems = Problems()
    Validator(catalogue(), Limits()).presentation(width, height, FILE, problems)
    found: tuple[FieldViolation, ...] = ()
    if problems:
        with pytest.raises(InvalidRequest) as invalid:
            problems.check()
        found = invalid.value.violations
    assert [(v.field, v.description) for v in found] == wrong


def test_a_text_that_utf_8_cannot_hold_is_the_callers_fault() -> None:
    half = chr(0xD83D)  # of a pair, as a JSON string may hold it
    with pytest.raises(InvalidRequest, match=r"prompt: must be text that UTF-8 can hold; got 'a \\ud83d'"):
        Validator(catalogue(), Limits()).order(VideoRequest(prompt=f"a {half}", seconds=1), FILE, "s1", 5)
