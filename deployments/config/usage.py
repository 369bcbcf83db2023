"""The part of the application's arguments that says how usage is written down, and where it is reported."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from deployments.config.addresses import url_parts
from deployments.config.settings import Settings


class UsageSettings(Settings):
    """The ledger and its events; see `service.ledger`. It needs `state.url`.

    Attributes:
        write_seconds: from one write to the next. A front door that is killed loses the usage of so many seconds at most.
        events: `folder` appends CloudEvents, as lines of JSON, to files in `folder`, on each front door's node; `http` posts them to `url`;
            `none` reports nothing.
        token_variable: environment variable of the front doors with a token that is sent to `url` as a bearer; empty for none.
    """

    write_seconds: Annotated[float, Field(gt=0, le=60)] = 2.0
    events: Literal["none", "folder", "http"] = "none"
    folder: str = ""
    url: Annotated[str, Field(pattern=r"^$|^https?://")] = ""
    token_variable: str = ""

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        for events, field, value in (("folder", "folder", self.folder), ("http", "url", self.url)):
            if self.events == events and not value:
                raise ValueError(f"{field} must be given with events {events}; got {value!r}")
        if self.url and not url_parts(self.url).hostname:
            raise ValueError(f"url must name a host; got {self.url!r}")
        return self
