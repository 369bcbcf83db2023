"""Which endpoint answers, of all rooms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from doors.http.room import Endpoint, Room
from doors.http.router import Found, Missing, endpoint_router


class Paths:
    """A room with endpoints that nobody calls."""

    def __init__(self, name: str, *routes: str) -> None:
        self.name = name
        self._routes = [route.split(" ") for route in routes]

    def endpoints(self) -> Sequence[Endpoint]:
        handler = cast("Any", None)
        return [Endpoint(path=path, method=method, operation=path, handler=handler) for method, path in self._routes]

    def refuse(self, failure: object) -> Any:
        raise NotImplementedError


OWN: Room = Paths("own", "GET /v1/models", "GET /v1/models/{model}", "GET /v1/jobs/job_{id}", "POST /v1/jobs")
VIDEOS: Room = Paths("videos", "POST /v1/videos", "GET /v1/videos/{id}", "DELETE /v1/videos/{id}", "GET /v1/videos/{video}/content")
QUEUE: Room = Paths("queue", "POST /v1/jobs/{model}", "GET /v1/jobs/{id}", "GET /{version}/videos/{id}")
ARNS: Room = Paths("arns", "GET /async-invoke/{arn:path}", "POST /model/{model:path}/invoke", "POST /v1beta/models/{model}:predict")
ROUTER = endpoint_router([OWN, VIDEOS, QUEUE, ARNS])


@pytest.mark.parametrize(
    ("method", "path", "room", "parameters"),
    [
        ("GET", "/v1/models", "own", {}),
        ("HEAD", "/v1/models", "own", {}),
        ("GET", "/v1/models/a", "own", {"model": "a"}),
        ("GET", "/v1/jobs/job_1", "own", {"id": "1"}),
        ("GET", "/v1/jobs/abc", "queue", {"id": "abc"}),
        ("POST", "/v1/jobs/lucy", "queue", {"model": "lucy"}),
        ("POST", "/v1/jobs/job_1", "queue", {"model": "job_1"}),
        ("GET", "/v1/videos/v", "videos", {"id": "v"}),
        ("GET", "/v2/videos/v", "queue", {"version": "v2", "id": "v"}),
        ("GET", "/async-invoke/arn:aws:x/abc", "arns", {"arn": "arn:aws:x/abc"}),
        ("POST", "/model/a/b/invoke", "arns", {"model": "a/b"}),
        ("POST", "/v1beta/models/veo:predict", "arns", {"model": "veo"}),
    ],
)
def test_the_path_with_the_longest_beginning_answers(method: str, path: str, room: str, parameters: dict[str, str]) -> None:
    found = ROUTER.find(method, path)
    assert isinstance(found, Found)
    assert (found.room.name, found.parameters) == (room, parameters)


@pytest.mark.parametrize(
    ("method", "path", "room", "methods"),
    [
        ("GET", "/", "own", ()),
        ("GET", "", "own", ()),
        ("GET", "/v1", "own", ()),
        ("GET", "/v1/videos/a/b", "videos", ()),
        ("GET", "/async-invoke", "arns", ()),
        ("PATCH", "/v1/videos/v", "videos", ("DELETE", "GET", "HEAD")),
        ("DELETE", "/v1/models", "own", ("GET", "HEAD")),
        ("GET", "/v1beta/x", "arns", ()),
    ],
)
def test_what_is_missing_belongs_to_the_nearest_room(method: str, path: str, room: str, methods: tuple[str, ...]) -> None:
    assert ROUTER.find(method, path) == Missing(next(r for r in (OWN, VIDEOS, QUEUE, ARNS) if r.name == room), methods)


@pytest.mark.parametrize("other", ["GET /v1/models", "GET /v1/models/{name}"])
def test_two_rooms_cannot_answer_the_same(other: str) -> None:
    with pytest.raises(ValueError, match="is answered already"):
        endpoint_router([OWN, Paths("other", other)])
