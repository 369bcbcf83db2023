"""A text encoder that is tried again while it is away."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from model_core.errors import FieldViolation, InvalidRequest, StageUnavailable
from model_core.reopen import ReopenPolicy
from model_core.stages.interface import TextEncoder
from model_core.stages.sources import SourceEncoder
from model_core.types import Conditioning, Footage, Latents, SourceFootage, TextEmbedding

Answer = TypeVar("Answer")

log = logging.getLogger(__name__)


class PatientEncoder:
    """A `TextEncoder` that waits as long as `policy` says for the one behind it. Only `StageUnavailable` is tried again.

    Args:
        encoder: may be away.
        policy: how often to try, and until when.
        clock, sleep: time.
        chance: random numbers from 0 to 1.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        policy: ReopenPolicy,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._encoder = encoder
        self._policy = policy
        self._clock = clock
        self._sleep = sleep
        self._chance = chance

    async def encode(self, prompt: str, numerics: str = "") -> TextEmbedding:
        """Embed one prompt; see `TextEncoder`.

        Raises:
            StageUnavailable: the encoder stayed away for the whole of the policy.
        """
        return await self._tried(partial(self._encoder.encode, prompt, numerics))

    async def condition(self, footage: Footage) -> Conditioning:
        """What the denoise stage is given of an image or video.

        Raises:
            StageUnavailable: as `encode`.
            InvalidRequest: this model takes none.
        """
        return await self._tried(partial(self._encoder.condition, footage))

    async def encode_source(self, footage: SourceFootage, numerics: str = "") -> Latents:
        """Latents of one chunk of a source.

        Raises:
            StageUnavailable: as `encode`.
            InvalidRequest: this model restyles nothing.
        """
        encoder = self._encoder
        if not isinstance(encoder, SourceEncoder):
            raise InvalidRequest((FieldViolation("strength", "must be unset: this text stage encodes no sources; got one"),))
        return await self._tried(partial(encoder.encode_source, footage, numerics))

    async def _tried(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        failures, first_at = 0, 0.0
        while True:
            try:
                return await call()
            except StageUnavailable as error:
                failures += 1
                if failures == 1:
                    first_at = self._clock()
                    log.warning("the text encoder is away, it is tried again: %s", error)
                if self._policy.gives_up(failures, self._clock() - first_at):
                    raise
            await self._sleep(self._policy.delay(failures, self._chance()))
