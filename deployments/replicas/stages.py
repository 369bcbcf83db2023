"""Stage replicas: thin Serve shells around local stages. Bare classes here; `app.py` makes deployments of them.

A shell adds what a cluster needs and nothing else: a linked stream, health, numbers for the autoscaler, a clean stop.
The stages themselves come from the module that the configuration names, so tests run the same shells around fakes.
No stage may block the event loop: Serve's own work runs on it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from importlib import import_module
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import ray
from prometheus_client import CollectorRegistry
from ray import serve
from ray.serve.handle import DeploymentHandle

from autoscaling.capacity.estimate import DecodeReading, DenoiseReading, Measured, sessions_alone
from autoscaling.reports import ReplicaReport, flatten
from deployments.config.application import AppConfig
from deployments.links.drain import watch_serve
from deployments.links.link import LinkOffer, LinkServer, ReaderGone
from deployments.links.remote import RemoteDecoder, RemoteDenoiser
from deployments.links.routing import RoutingReport, may_shrink
from deployments.links.source import dial
from deployments.links.wishes import Avoid
from deployments.replicas.metrics_port import ReplicaMetrics, Target
from deployments.replicas.process import process_statistics, yielding
from model_core.config import EngineConfig, ModelConfig, RuntimeConfig
from model_core.errors import FieldViolation, InvalidRequest
from model_core.events import ReportsForwards
from model_core.runtimes.environment import set_environment
from model_core.stages.interface import Decoder, Denoiser, TextEncoder
from model_core.stages.sources import DialsSources, SourceEncoder
from model_core.statistics import DecoderStatistics, DenoiserStatistics, EnhancerStatistics, StageStatistics, TextEncoderStatistics
from model_core.types import Conditioning, Footage, FrameChunk, LatentChunk, Latents, SessionContext, SourceFootage, TextEmbedding
from observability.context import NOBODY, Work, work_for
from observability.logs import set_up_logs
from observability.metrics import DenoiserMetrics, StatisticsCollector

T = TypeVar("T")

log = logging.getLogger(__name__)


class LocalStage(Protocol):
    """What a shell needs of a stage beyond its work."""

    def check_health(self) -> None:
        """Raise if the stage must be replaced (`EngineDead`)."""
        ...

    async def aclose(self) -> None:
        """Stop its threads."""
        ...


@runtime_checkable
class HasNumerics(Protocol):
    """A stage that works on a device."""

    @property
    def numerics(self) -> str:
        """See `model_core.types.Numerics`."""
        ...


def numerics(stages: Mapping[str, object]) -> dict[str, str]:
    """How each of those rounds that have a device, by name."""
    return {name: stage.numerics for name, stage in stages.items() if isinstance(stage, HasNumerics)}


class TextEncoderStage(TextEncoder, LocalStage, Protocol):
    def statistics(self) -> TextEncoderStatistics: ...


class DenoiserStage(Denoiser, LocalStage, Protocol):
    def statistics(self) -> DenoiserStatistics: ...


class DecoderStage(Decoder, LocalStage, Protocol):
    def statistics(self) -> DecoderStatistics: ...


class EnhancerStage(Decoder, LocalStage, Protocol):
    def statistics(self) -> EnhancerStatistics: ...


class StageFactory(Protocol):
    """The module that `AppConfig.stages` names."""

    def build_text_encoder(self, config: ModelConfig) -> TextEncoderStage: ...

    def build_denoiser(self, config: ModelConfig, engine: EngineConfig) -> DenoiserStage: ...

    def build_decoder(self, config: ModelConfig, denoiser: Denoiser) -> DecoderStage: ...

    def build_enhancer(self, config: ModelConfig, decoder: Decoder) -> EnhancerStage:
        """Asked for where the application has an enhancer."""
        ...


def stage_factory(config: AppConfig, threads: int, *runtimes: RuntimeConfig) -> StageFactory:
    """Set what `runtimes` need in the environment and import the stages; if that brought torch, give it `threads` before it does any work.

    Raises:
        RuntimeUnavailable: it is too late for that.
    """
    set_environment(runtimes, os.environ)
    factory = import_module(config.stages)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(threads)
    return cast("StageFactory", factory)


class _Shell:
    """Shared by all replicas. `_stages` are closed in order."""

    def __init__(
        self,
        config: AppConfig,
        *,
        text_encoder: TextEncoderStage | None = None,
        decoder: DecoderStage | None = None,
        denoiser: DenoiserStage | None = None,
        enhancer: EnhancerStage | None = None,
    ) -> None:
        set_up_logs()
        self._text_stage, self._decode_stage, self._denoise_stage, self._enhance_stage = text_encoder, decoder, denoiser, enhancer
        stages: dict[str, LocalStage | None] = {
            "text_encoder": text_encoder, "enhancer": enhancer, "decoder": decoder, "denoiser": denoiser
        }  # fmt: skip
        self._stages = {name: stage for name, stage in stages.items() if stage is not None}
        self._name = float(secrets.randbits(52))  # a float holds it exactly
        self._terms, self._measured = config.terms(), Measured()
        self._links = LinkServer(
            config.link_host or ray.util.get_node_ip_address(), config.link_window, silence_s=config.link_silence_seconds
        )
        self._drain = watch_serve(self._links.hand_over)
        registry = CollectorRegistry()
        registry.register(StatisticsCollector(self._counted))
        for stage in self._stages.values():
            if isinstance(stage, ReportsForwards):
                stage.observe(DenoiserMetrics(registry).observe)
            if isinstance(stage, DialsSources):
                stage.dial_with(dial)
        self._metrics = ReplicaMetrics(registry, config.front_door.metrics_host)

    async def ping(self) -> None:
        """Answer, if healthy."""
        self.check_health()

    def check_health(self) -> None:
        """Called by Serve, which replaces a replica that keeps raising."""
        for stage in self._stages.values():
            stage.check_health()

    async def statistics(self) -> dict[str, float]:
        """A `ReplicaReport`, flat."""
        return flatten(replace(self._report(), link=self._links.statistics(), process=process_statistics()))

    async def metrics_target(self) -> Target:
        """Where Prometheus reads this replica."""
        return self._metrics.target()

    def _report(self) -> ReplicaReport:
        text, denoise, decode, enhance = self._text_stage, self._denoise_stage, self._decode_stage, self._enhance_stage
        return ReplicaReport(
            self._name,
            text_encoder=None if text is None else text.statistics(),
            denoiser=None if denoise is None else denoise.statistics(),
            decoder=None if decode is None else decode.statistics(),
            enhancer=None if enhance is None else enhance.statistics(),
        )

    def _counted(self) -> Sequence[StageStatistics]:
        report = self._report()
        found = (report.text_encoder, report.denoiser, report.decoder, report.enhancer)
        return [counted for counted in found if counted is not None]

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """A `ReplicaReport`, flat."""
        return flatten(self._report())

    async def record_routing_stats(self) -> dict[str, Any]:
        """A `RoutingReport`, flat."""
        sessions = self._sessions_alone() if may_shrink(serve.get_replica_context()) else None
        return RoutingReport(numerics(self._stages), sessions).flatten()

    def _sessions_alone(self) -> int | None:
        """Sessions that this replica serves in real time; None while it has measured nothing."""
        report = self._report()
        self._measured = self._measured.observe(
            [] if report.denoiser is None else [DenoiseReading.of(report)], [] if report.decoder is None else [DecodeReading.of(report)]
        )
        terms = self._terms
        return sessions_alone(self._measured, terms.utilisation * terms.chunk_s, terms.steps, terms.decode_slots)

    async def _linked(self, chunks: AsyncGenerator[T, None]) -> AsyncGenerator[LinkOffer | T, None]:
        """`chunks` as a linked stream, which ends at a chunk boundary when the replica drains."""
        self._drain.start()
        log.info("a stream opens")
        try:
            async with aclosing(self._links.serve(chunks)) as items:
                async for item in items:
                    yield item
        except ReaderGone:
            log.info("the reader has gone")  # nobody hears an error, and Serve would log a traceback
        finally:
            log.info("the stream is over")

    async def __del__(self) -> None:
        """Serve awaits this when the replica stops, after its streams have ended or its grace is over."""
        self._drain.stop()
        await self._links.aclose()
        for stage in self._stages.values():
            await stage.aclose()
        await asyncio.to_thread(self._metrics.close)


class _Encoding(_Shell):
    """A shell around a text encoder."""

    _encoder: TextEncoderStage

    async def encode(self, prompt: str, work: Work = NOBODY, _: Avoid | None = None) -> TextEmbedding:
        work_for(work)
        log.info("a prompt is to be embedded")
        return await self._encoder.encode(prompt)

    async def condition(self, footage: Footage, work: Work = NOBODY, _: Avoid | None = None) -> Conditioning:
        work_for(work)
        return await self._encoder.condition(footage)

    async def encode_source(self, footage: SourceFootage, work: Work = NOBODY, _: Avoid | None = None) -> Latents:
        work_for(work)
        if not isinstance(self._encoder, SourceEncoder):
            raise InvalidRequest((FieldViolation("strength", "must be unset: these stages restyle no video; got one"),))
        return await self._encoder.encode_source(footage)


class _Streaming(_Shell):
    """A shell around stages of which `_last` makes the chunks that go out; of enhanced sessions, the enhancer if there is one here."""

    _last: DenoiserStage | DecoderStage | EnhancerStage

    async def stream(
        self, context: SessionContext, work: Work = NOBODY, _: Avoid | None = None
    ) -> AsyncGenerator[LinkOffer | LatentChunk | FrameChunk, None]:
        work_for(work)
        last = self._last if self._enhance_stage is None or not context.enhance else self._enhance_stage
        chunks: AsyncGenerator[LatentChunk | FrameChunk, None] = last.stream(context)
        async with aclosing(self._linked(chunks)) as items:
            async for item in items:
                yield item


class TextEncoderReplica(_Encoding):
    def __init__(self, config: AppConfig) -> None:
        with yielding():
            factory = stage_factory(config, config.text_encoder.threads, config.execution().text_encoder)
            self._encoder = factory.build_text_encoder(config.preset())
        super().__init__(config, text_encoder=self._encoder)


class DenoiserReplica(_Streaming):
    def __init__(self, config: AppConfig) -> None:
        engine = config.engine.engine_config()
        with yielding():
            factory = stage_factory(config, engine.threads, config.execution().denoiser)
            denoiser = self._last = factory.build_denoiser(config.preset(), engine)
        super().__init__(config, denoiser=denoiser)


class DecoderReplica(_Streaming):
    def __init__(self, config: AppConfig, denoiser: DeploymentHandle[Any]) -> None:
        upstream = RemoteDenoiser(denoiser, "denoiser", config.open_timeout_seconds)
        with yielding():
            factory = stage_factory(config, config.decoder.threads, config.execution().decoder)
            decoder = self._last = factory.build_decoder(config.preset(), upstream)
        super().__init__(config, decoder=decoder)


class EnhancerReplica(_Streaming):
    def __init__(self, config: AppConfig, decoder: DeploymentHandle[Any]) -> None:
        upstream = RemoteDecoder(decoder, "decoder", config.open_timeout_seconds)
        with yielding():
            factory = stage_factory(config, config.enhancer.threads if config.enhancer else 1, config.execution().enhancer)
            enhancer = self._last = factory.build_enhancer(config.preset(), upstream)
        super().__init__(config, enhancer=enhancer)


class FusedReplica(_Encoding, _Streaming):
    """All stages in one process: the same pipeline, without links between them."""

    def __init__(self, config: AppConfig) -> None:
        engine = config.engine.engine_config()
        preset = config.preset()
        execution = config.execution()
        with yielding():
            factory = stage_factory(
                config, engine.threads, execution.text_encoder, execution.denoiser, execution.decoder, execution.enhancer
            )
            self._encoder = factory.build_text_encoder(preset)
            denoiser = factory.build_denoiser(preset, engine)
            decoder = self._last = factory.build_decoder(preset, denoiser)
            enhancer = None if config.enhancer is None else factory.build_enhancer(preset, decoder)
        super().__init__(config, text_encoder=self._encoder, decoder=decoder, denoiser=denoiser, enhancer=enhancer)
