"""The settings of the HTTP door."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator

from deployments.config.addresses import checked_host, joined, url_parts
from deployments.config.settings import Settings
from doors.http.options import HttpOptions, HttpTls

_LEAST_BODY_BYTES = 64 * 1024


class HttpTlsSettings(Settings):
    """PEM files: the certificate chain and its private key, on every node that runs a front door. They may be replaced while it serves."""

    certificate_file: str
    key_file: str


class HttpSettings(Settings):
    """The HTTP door of each front-door replica. Every replica on a node listens on the same `port`.

    Attributes:
        host, port: where callers connect; port 0 takes a free one, and null leaves the door out.
        tls: serve https.
        public_url: as callers reach the server, where a proxy or a load balancer stands before it; empty: as each request's Host says.
        max_connections: at once, for each replica.
        max_body_bytes: of one request.
        max_held_bytes: of the bodies of all requests that wait to be worked on, for each replica.
        body_bytes_per_second: how fast each replica reads large bodies, all of them together, beyond the first MiB of each. Callers who
            send faster wait, and live sessions keep the processor: a megabyte costs 2 to 6 ms of it. Raise it where cores are idle.
        body_timeout_seconds: how long the body of a request may take to arrive, less what `body_bytes_per_second` put off.
        head_timeout_seconds: the same of its line and headers.
        keep_alive_seconds: how long a connection stays open between two requests.
        origins: of web pages that may call from a browser, as `https://example.com`; `*` for all. The server's own may always.
    """

    host: Annotated[str, AfterValidator(checked_host)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] | None = None
    tls: HttpTlsSettings | None = None
    public_url: str = ""
    max_connections: Annotated[int, Field(ge=1, le=1_000_000)] = 2048
    max_body_bytes: Annotated[int, Field(ge=_LEAST_BODY_BYTES, lt=2**31)] = 64 * 1024 * 1024
    max_held_bytes: Annotated[int, Field(ge=_LEAST_BODY_BYTES)] = 768 * 1024 * 1024
    body_bytes_per_second: Annotated[int, Field(ge=_LEAST_BODY_BYTES)] = 16 * 1024 * 1024
    body_timeout_seconds: Annotated[float, Field(gt=0, le=86400)] = 120.0
    head_timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 10.0
    keep_alive_seconds: Annotated[float, Field(ge=1, le=3600)] = 30.0
    origins: tuple[str, ...] = ()

    @field_validator("public_url")
    @classmethod
    def _names_a_server(cls, url: str) -> str:
        if not url:
            return url
        parts = url_parts(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"must be http://HOST or https://HOST, with a port and a path if need be; got {url!r}")
        return url.rstrip("/")

    @field_validator("origins")
    @classmethod
    def _as_browsers_write_them(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            parts = urlsplit(origin)
            if origin != "*" and (parts.scheme not in ("http", "https") or not parts.netloc or parts.path or origin != origin.lower()):
                raise ValueError(f"must be * or origins in lower case as https://example.com, without a path; got {origin!r}")
        return origins

    @property
    def url(self) -> str:
        """How this machine reaches the door, without a slash at the end; empty where there is none."""
        return "" if self.port is None else f"http{'' if self.tls is None else 's'}://{joined(self.host, self.port)}"

    def options(self, stall_s: float, client_ca_file: str = "") -> HttpOptions:
        """For the door.

        Args:
            stall_s: how long a caller may take nothing of an answer.
            client_ca_file: authorities of client certificates; empty: callers are asked for none. Without TLS nobody can show one.

        Raises:
            ValueError: there is no door.
        """
        if self.port is None:
            raise ValueError("front_door.http.port is null: there is no HTTP door")
        client_ca = Path(client_ca_file) if client_ca_file else None
        tls = None if self.tls is None else HttpTls(Path(self.tls.certificate_file), Path(self.tls.key_file), client_ca)
        return HttpOptions(
            host=self.host, port=self.port, tls=tls, public_url=self.public_url, origins=self.origins,
            max_connections=self.max_connections, max_body_bytes=self.max_body_bytes, max_held_bytes=self.max_held_bytes,
            body_bytes_a_second=self.body_bytes_per_second, body_timeout_s=self.body_timeout_seconds,
            head_timeout_s=self.head_timeout_seconds, keep_alive_s=self.keep_alive_seconds, stall_s=stall_s,
        )  # fmt: skip
