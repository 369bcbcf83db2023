"""How the denoise stage gets the latents of a source that a session restyles: it asks for them, chunk by chunk.

A source belongs to the process of its session. The context of a leg says where that is (`SourceOffer`), and the denoise stage dials it, as
it would from another machine. So the stages between them carry nothing of it, and a stage that restyles nothing knows nothing of it.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

from model_core.errors import StageUnavailable
from model_core.types import Latents, SourceFootage, SourceOffer

TOKEN_BYTES = 16


class Source(Protocol):
    """A source as latents."""

    def latents(self, chunk: int) -> Coroutine[Any, Any, Latents | None]:
        """Those of a chunk `[C, F, H, W]`, when its frames are there. None: the source has ended before it.

        Raises:
            StageUnavailable: they cannot be had now.
        """
        ...


Dial = Callable[[SourceOffer], AbstractAsyncContextManager[Source]]
"""Opens the source of an offer. Entering it raises StageUnavailable: there is none."""


@runtime_checkable
class DialsSources(Protocol):
    """A denoise stage that restyles."""

    def dial_with(self, dial: Dial) -> None:
        """Open sources with `dial` from now on."""
        ...


@runtime_checkable
class SourceEncoder(Protocol):
    """The text stage of a model that restyles."""

    async def encode_source(self, footage: SourceFootage, numerics: str = "") -> Latents:
        """Latents of one chunk of a source, a function of `footage` alone. `numerics` as in `TextEncoder.encode`.

        Raises:
            InvalidRequest: this model restyles nothing.
            StageUnavailable: the stage is away.
        """
        ...


class Sources(Protocol):
    """Where sessions put their sources, so that they can be dialled."""

    def offer(self, source: Source) -> SourceOffer:
        """Let `source` be dialled until the offer is withdrawn."""
        ...

    def withdraw(self, offer: SourceOffer) -> None: ...


class LocalSources:
    """`Sources` for stages of the same process and event loop."""

    def __init__(self, new_token: Callable[[], bytes] = lambda: secrets.token_bytes(TOKEN_BYTES)) -> None:
        self._new_token = new_token
        self._sources: dict[bytes, Source] = {}

    def offer(self, source: Source) -> SourceOffer:
        offer = SourceOffer(self._new_token())
        self._sources[offer.token] = source
        return offer

    def withdraw(self, offer: SourceOffer) -> None:
        self._sources.pop(offer.token, None)

    @asynccontextmanager
    async def dial(self, offer: SourceOffer) -> AsyncGenerator[Source, None]:
        """See `Dial`."""
        source = self._sources.get(offer.token)
        if source is None:
            raise StageUnavailable("the session's source has gone")
        yield source


class _NoSource:
    async def __aenter__(self) -> Source:
        raise StageUnavailable("this stage opens no sources")

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


def no_sources(_: SourceOffer) -> AbstractAsyncContextManager[Source]:
    """The `Dial` of a stage that was given none."""
    return _NoSource()
