"""The text stage in this process: prompt in, token features out; and, for models that take an image or video, that in and its latents out.

Every prompt runs alone, so its features depend on nothing but the prompt. This module knows nothing of sessions, clusters or metrics.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from model_core.errors import FieldViolation, HeadraceError, InvalidRequest
from model_core.families.interface import Conditioner, Embedder, VideoEncoder
from model_core.probe import Probe
from model_core.stages.device import DeviceThread
from model_core.stages.shared_runs import SharedRuns
from model_core.stages.watchdog import Watchdog
from model_core.statistics import TextEncoderStatistics
from model_core.types import Conditioning, Footage, Latents, SourceFootage, StageTiming, TextEmbedding

CACHE_SIZE = 1024
CACHE_BYTES = 512 * 2**20  # features of large text encoders are several megabytes a prompt
FOOTAGE_CACHE_SIZE = 8  # some ten megabytes each
log = logging.getLogger(__name__)

_NO_TIME = StageTiming("text_encoder", 0.0, 0.0, 0.0)


class LocalTextEncoder:
    """A `TextEncoder` with LRU caches. Call it from one event loop; prompts, and footage, each have a thread of their own.

    It embeds a known text when it is made, and blocks until that is done.

    Attributes:
        numerics: see `Numerics`.

    Args:
        embedder: the text network.
        conditioner: what looks at footage, for models that take any.
        cache_size, cache_bytes: prompts kept, and what their features may take; footage may take as much.
        clock: for the timings.
        stuck_s: see `RuntimeConfig.stuck_seconds`.
        size: height and width of footage.
        video_encoder: looks at sources, for models that restyle them.
    """

    def __init__(
        self,
        embedder: Embedder,
        conditioner: Conditioner | None = None,
        cache_size: int = CACHE_SIZE,
        cache_bytes: int = CACHE_BYTES,
        clock: Callable[[], float] = time.perf_counter,
        stuck_s: float = 60.0,
        size: tuple[int, int] = (64, 64),
        video_encoder: VideoEncoder | None = None,
    ) -> None:
        self._embedder = embedder
        self._conditioner = conditioner
        self._video_encoder = video_encoder
        self._clock = clock
        watchdog = Watchdog("text encoder", stuck_s)
        self._text_probe = Probe(lambda: self._features("a red circle")[0])
        with watchdog.working():
            self._text_probe.learn()
        self.numerics = self._text_probe.numerics
        self._prompts: SharedRuns[str, TextEmbedding] = SharedRuns(
            cache_size,
            cache_bytes,
            lambda text: text.tokens.nbytes + text.mask.nbytes,
            DeviceThread("text encoder", watchdog, "text-encoder"),
        )
        # Large networks look at footage, for seconds; a prompt must not wait for that.
        self._footage: SharedRuns[str, Conditioning] = SharedRuns(
            FOOTAGE_CACHE_SIZE, cache_bytes, lambda given: sum(array.nbytes for array in given.arrays()),
            DeviceThread("text encoder", Watchdog("text encoder", stuck_s), "footage"),
        )  # fmt: skip
        self._footage_probe = Probe(lambda: self._seen(np.full((1, *size, 3), 128, np.uint8)))
        # A chunk of a source is due within moments: it does not wait for an upload.
        self._source_device = DeviceThread("text encoder", Watchdog("text encoder", stuck_s), "source")
        self._service_s = self._footage_service_s = 0.0

    async def encode(self, prompt: str, numerics: str = "") -> TextEmbedding:
        """Embed one prompt, of any length and content; see `TextEncoder.encode`. The arrays are shared and read-only.

        Raises:
            StageUnavailable: the encoder is closed, broken or stuck.
            InvalidRequest: there are no features of this prompt, though there are of others.
        """
        self._prompts.check_health()
        embedding, cached = await self._prompts.get(prompt, partial(self._embed_one, prompt, self._clock()))
        return replace(embedding, timing=_NO_TIME) if cached else embedding

    async def condition(self, footage: Footage) -> Conditioning:
        """See `TextEncoder.condition`. The arrays are shared and read-only.

        Raises:
            StageUnavailable: the encoder is closed, broken or stuck.
            InvalidRequest: this model takes no footage, or cannot make anything of this.
        """
        self._footage.check_health()
        given, cached = await self._footage.get(footage.digest, partial(self._look_at, footage, self._clock()))
        return replace(given, timing=_NO_TIME) if cached else given

    async def encode_source(self, footage: SourceFootage, _: str = "") -> Latents:
        """See `SourceEncoder.encode_source`. Nothing is kept of it: no other session has the same.

        Raises:
            StageUnavailable: the encoder is closed, broken or stuck.
            InvalidRequest: this model restyles nothing, or cannot make anything of these frames.
        """
        self._source_device.check_health()
        return await self._source_device.finished(self._source_device.submit(partial(self._encoded, footage)))

    def statistics(self) -> TextEncoderStatistics:
        """Where prompts and footage were answered from, and what it cost."""
        prompts, footage = self._prompts, self._footage
        return TextEncoderStatistics(
            hits=prompts.hits, joined=prompts.joined, misses=prompts.misses, cached=prompts.cached, in_flight=prompts.in_flight,
            service_s=self._service_s, footage_hits=footage.hits + footage.joined, footage_misses=footage.misses,
            footage_service_s=self._footage_service_s,
        )  # fmt: skip

    def check_health(self) -> None:
        """Raise if this stage must be replaced.

        Raises:
            StageUnavailable: it is closed, or a device of it is broken or stuck.
        """
        self._prompts.check_health()
        self._footage.check_health()
        self._source_device.check_health()

    async def aclose(self) -> None:
        """Refuse new prompts, finish those under way, end the threads. Safe to call twice."""
        await self._prompts.aclose()
        await self._footage.aclose()
        await self._source_device.aclose()

    def _embed_one(self, prompt: str, asked: float) -> TextEmbedding:
        started = self._clock()
        with _blamed("prompt", "a text of which the text encoder makes features", f"{len(prompt)} characters", self._text_probe):
            tokens_ntd, mask_nt = self._features(prompt)
            count = self._embedder.count(prompt)
        for shared in (tokens_ntd, mask_nt):
            shared.flags.writeable = False  # many sessions hold the same cached arrays
        seconds = self._clock() - started
        self._service_s += seconds
        timing = StageTiming("text_encoder", started - asked, seconds, seconds)
        return TextEmbedding(prompt, tokens_ntd[0], mask_nt[0], timing, count, self.numerics)

    def _look_at(self, footage: Footage, asked: float) -> Conditioning:
        started = self._clock()
        told = " x ".join(map(str, footage.frames.shape[:3]))
        with _blamed("footage", "frames of which this model makes latents", told, self._footage_probe):
            given = self._given(footage.frames)
        for shared in given.arrays():
            shared.flags.writeable = False
        seconds = self._clock() - started
        self._footage_service_s += seconds
        return replace(given, timing=StageTiming("text_encoder", started - asked, seconds, seconds))

    def _encoded(self, footage: SourceFootage) -> Latents:
        if self._video_encoder is None:
            raise InvalidRequest((FieldViolation("strength", "must be unset: this model restyles no video; got one"),))
        with _blamed("source", "frames of which this model makes latents", f"chunk {footage.chunk}", self._text_probe):
            with torch.inference_mode():
                latents = self._video_encoder.encode(footage.frames, footage.chunk)
            _check_finite(latents)
        return latents

    def _features(self, prompt: str) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        tokens_ntd, mask_nt = self._embedder.embed([prompt])
        _check_finite(tokens_ntd)
        return tokens_ntd, mask_nt

    def _given(self, frames: NDArray[np.uint8]) -> Conditioning:
        if self._conditioner is None:
            raise InvalidRequest((FieldViolation("footage", "must be unset: this model takes neither image nor video; got one"),))
        with torch.inference_mode():
            given = self._conditioner.condition(frames)
        _check_finite(*given.arrays())
        return given

    def _seen(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.concatenate([array.ravel() for array in self._given(frames).arrays()])


def _check_finite(*arrays: NDArray[np.float32]) -> None:
    if not all(np.isfinite(array).all() for array in arrays):
        raise FloatingPointError("NaN or infinity came out")


@contextmanager
def _blamed(field: str, limit: str, got: str, probe: Probe) -> Iterator[None]:
    """What is raised within is the device's fault, or else of what was given as `field`, which is refused, and which no log repeats."""
    try:
        yield
    except HeadraceError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a device or a library raises
        probe.check(error)
        log.warning("no features could be made of a %s of %s: %s", field, got, type(error).__name__)
        raise InvalidRequest((FieldViolation(field, f"must be {limit}; got {got}, which failed with {type(error).__name__}"),)) from None
