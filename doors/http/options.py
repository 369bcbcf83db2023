"""What the HTTP door listens on, and what bounds it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class HttpTls:
    """PEM files: the certificate chain and its private key. Files that are replaced count for connections from then on.

    Attributes:
        client_ca_file: authorities of client certificates, which callers may show then; one that is shown must be good. None: callers
            are asked for none.
    """

    certificate_file: Path
    key_file: Path
    client_ca_file: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.certificate_file, self.key_file, *(() if self.client_ca_file is None else (self.client_ca_file,)))


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpOptions:
    """Every wait of the door has an end, and every buffer a bound.

    Attributes:
        host, port: port 0 takes a free one.
        tls: serve TLS with it; None serves plain text.
        public_url: as callers reach this server, without a slash at the end; empty: as each request's Host says.
        origins: of web pages that may call from a browser, as `https://example.com`; `*` for all.
        max_connections: at once; one more is told to come back.
        max_head_bytes: of a request's line and headers.
        head_timeout_s: for the whole head of a request.
        keep_alive_s: how long a connection stays open between two requests.
        max_body_bytes: of one request, and of one message of a WebSocket.
        max_held_bytes: of all bodies and messages that wait to be worked on, together; less WebSockets that hold at most 80 KiB each.
        body_bytes_a_second: of all bodies and messages together, beyond the first MiB of each.
        body_timeout_s: for the whole of a body, less what the door itself put off, or of a message.
        idle_timeout_s: how long a caller may send nothing of one, and how long the rest of one may come that was answered already.
        stall_s: how long a caller may take nothing of an answer, or of a WebSocket; and how long messages of its own may wait.
        ping_s: how often the caller of a WebSocket is asked whether it is there.
        pong_s: how long it may say nothing to that.
        linger_s: how long a connection that is to be closed may make no progress.
        sweep_s: how often connections are looked at.
    """

    host: str = "127.0.0.1"
    port: int = 0
    tls: HttpTls | None = None
    public_url: str = ""
    origins: tuple[str, ...] = ()
    max_connections: int = 2048
    max_head_bytes: int = 64 * 1024
    head_timeout_s: float = 10.0
    keep_alive_s: float = 30.0
    max_body_bytes: int = 64 * 1024 * 1024
    max_held_bytes: int = 768 * 1024 * 1024
    body_bytes_a_second: int = 16 * 1024 * 1024
    body_timeout_s: float = 120.0
    idle_timeout_s: float = 20.0
    stall_s: float = 60.0
    ping_s: float = 20.0
    pong_s: float = 40.0
    linger_s: float = 5.0
    sweep_s: float = 1.0
