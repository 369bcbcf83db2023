"""Arguments of the application, checked once. Replica counts, resources and autoscaling are Serve's: its own blocks of `serve.yaml`.

This module is imported by the controller, so it stays light: no torch, no gRPC.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator, model_validator

from autoscaling.admission.brownout import least_tier
from autoscaling.reports import Terms
from deployments.config.addresses import checked_host, url_parts
from deployments.config.admission import AdmissionSettings
from deployments.config.http import HttpSettings
from deployments.config.identity import IdentitySettings, check_exposure
from deployments.config.jobs import ArtifactSettings, JobSettings
from deployments.config.settings import Settings
from deployments.config.sizes import largest_messages, record_bytes
from deployments.config.stages import DecoderSettings, EngineSettings, EnhancerSettings, RuntimeSettings, TextEncoderSettings
from deployments.config.state import StateSettings
from deployments.config.usage import UsageSettings
from deployments.config.watch import WatchSettings
from deployments.config.webrtc import WebRtcSettings
from model_core.config import Execution, ModelConfig
from model_core.errors import InvalidRequest, WeightsError
from model_core.families.checkpoints.checkpoint import Checkpoint
from model_core.families.common.config import CheckpointConfig
from model_core.families.described import Choice, describe
from model_core.presets import DEFAULT_MODEL, MODELS
from model_core.presets import model_config as preset_config
from model_core.reopen import ReopenPolicy
from service.checks import Limits
from service.model_aliases import model_aliases

_REDIS_VALUE_BYTES = 512 * 1024 * 1024

Host = Annotated[str, AfterValidator(checked_host)]
Port = Annotated[int, Field(ge=0, le=65535)]
Alias = Annotated[str, Field(pattern=r"^[!-)+-~]{1,128}\*?$")]


class TlsSettings(Settings):
    """PEM files: the certificate chain and its private key, on every node that runs a front door."""

    certificate_file: str
    key_file: str


class FrontDoorSettings(Settings):
    """One front-door replica. Every replica on a node listens on the same `port`.

    Attributes:
        host, port: where clients connect; port 0 takes a free one, which only makes sense for a single replica that is never replaced.
        metrics_host, metrics_port: where Prometheus reads; a second replica on the same node takes a free port instead.
        max_sessions: at once, for each replica, whatever the stages could serve.
        drain_seconds: how long running sessions may go on once the replica has been told to stop. Those that have not ended by then end
            before their next chunk, and can be resumed at another front door; those that wait or are paused end at once.
        probe_period_seconds, probe_timeout_seconds: how often each stage is asked whether it answers, and how long it may take.
        reflection: whether the schema can be listed by anyone who reaches the port.
        http: the door for HTTP.
        watch: who may watch sessions of others.
        webrtc: viewers and publishers over WebRTC, by way of the door for HTTP.
        limits: what requests are checked against; see `service.checks.Limits`.
    """

    host: Host = "127.0.0.1"
    port: Port = 50051
    metrics_host: Host = "127.0.0.1"
    metrics_port: Port = 0
    max_sessions: Annotated[int, Field(ge=1)] = 16
    drain_seconds: Annotated[float, Field(ge=0)] = 10.0
    probe_period_seconds: Annotated[float, Field(gt=0)] = 1.0
    probe_timeout_seconds: Annotated[float, Field(gt=0)] = 5.0
    reflection: bool = True
    limits: Limits = Limits()
    tls: TlsSettings | None = None
    http: HttpSettings = HttpSettings()
    watch: WatchSettings = WatchSettings()
    webrtc: WebRtcSettings = WebRtcSettings()

    @model_validator(mode="after")
    def _peers_come_by_http(self) -> Self:
        if self.webrtc.enabled and self.http.port is None:
            raise ValueError("http.port must be set where webrtc.enabled is true, because peers come by HTTP; got null")
        return self

    def hosts(self) -> dict[str, str]:
        """Where callers connect, by the name of the setting."""
        http = {} if self.http.port is None else {"front_door.http.host": self.http.host}
        return {"front_door.host": self.host, **http}


class ReopenSettings(Settings):
    """How long a session keeps trying after a stage died, new ones included; see `model_core.reopen.ReopenPolicy`."""

    attempts: Annotated[int, Field(ge=1)] = 60
    backoff_seconds: Annotated[float, Field(ge=0)] = 0.05
    max_backoff_seconds: Annotated[float, Field(ge=0)] = 1.0
    give_up_after_seconds: Annotated[float, Field(gt=0)] = 60.0

    def policy(self) -> ReopenPolicy:
        return ReopenPolicy(self.attempts, self.backoff_seconds, self.max_backoff_seconds, self.give_up_after_seconds)


class SessionStoreSettings(Settings):
    """Where the front doors write running sessions down, so that a client whose connection broke can go on.

    Attributes:
        url: `redis://`, `rediss://` or `unix://`, shared by all front doors; empty: the memory of each, which is lost with it.
        password_variable: environment variable of the front doors that holds the store's password, which then stands in no file.
        ttl_seconds: how long a session outlives its connection.
        replay_seconds: how far behind the newest frame a session can be resumed, and how far ahead of what was written last.
        write_every_seconds: from one write of a session to the next; also how soon a connection notices that its session was taken over.
        timeout_seconds: of one call. A store that takes longer counts as away, which ends no stream.
        memory_bytes: bound of the memory store, for each front door.
    """

    url: Annotated[str, Field(pattern=r"^$|^(redis|rediss|unix)://")] = ""
    password_variable: str = ""
    ttl_seconds: Annotated[float, Field(ge=1)] = 120.0
    replay_seconds: Annotated[float, Field(ge=0)] = 8.0
    write_every_seconds: Annotated[float, Field(gt=0)] = 0.5
    timeout_seconds: Annotated[float, Field(gt=0)] = 0.5
    memory_bytes: Annotated[int, Field(ge=1)] = 256 * 1024 * 1024

    @field_validator("url")
    @classmethod
    def _names_a_server(cls, url: str) -> str:
        if url:
            parts = url_parts(url)
            wanted = parts.path if parts.scheme == "unix" else parts.hostname
            if not wanted or (parts.scheme != "unix" and not re.fullmatch(r"(/\d*)?", parts.path)):
                raise ValueError(f"must be redis://HOST:PORT/NUMBER, rediss://HOST:PORT/NUMBER or unix:///PATH; got {url!r}")
        return url

    def keep_chunks(self, model: ModelConfig) -> int:
        """At least one: what was sent last may not have arrived."""
        return max(1, math.ceil(self.replay_seconds / model.chunk_seconds))


class TracingSettings(Settings):
    """Spans of calls, for `front_door` replicas to make; see `observability.tracing`.

    Attributes:
        exporter: `none` makes no spans; `file` appends lines of JSON to `file`, on each front door's node; `otlp` sends them to `endpoint`.
        file: a path, to be looked at with `headrace trace`; nothing deletes what is in it.
        endpoint: of a collector, OTLP over HTTP, for instance `http://127.0.0.1:4318/v1/traces`.
        sample: share of calls that are traced, of those whose callers did not decide by the metadata `traceparent`.
    """

    exporter: Literal["none", "file", "otlp"] = "none"
    file: str = ""
    endpoint: Annotated[str, Field(pattern=r"^$|^https?://")] = ""
    sample: Annotated[float, Field(ge=0, le=1)] = 0.01

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        for exporter, field, value in (("file", "file", self.file), ("otlp", "endpoint", self.endpoint)):
            if self.exporter == exporter and not value:
                raise ValueError(f"{field} must be given with exporter {exporter}; got {value!r}")
        if self.endpoint and not url_parts(self.endpoint).hostname:
            raise ValueError(f"endpoint must name a host; got {self.endpoint!r}")
        if self.endpoint and urlsplit(self.endpoint).path in ("", "/"):
            likely = f"{self.endpoint.rstrip('/')}/v1/traces"
            raise ValueError(f"endpoint must have a path; a collector's is usually {likely}; got {self.endpoint!r}")
        return self


class CheckpointSettings(Settings):
    """A model that comes as a checkpoint in a folder, as diffusers lays it out; see `model_core.families.described.Choice`.

    Attributes:
        folder: on every node that runs a stage or a front door; or a repository of the hub, with `revision` a full commit.
        sha256: of the folder's SHA256SUMS, if it is to be pinned.
        family: only where the checkpoint leaves it open.
        skip_threshold: steps of a clip whose prediction is estimated to have changed by less need no forward; see
            `model_core.families.common.skipping`. It changes frames.
        decoder: component of the folder that holds a TAEHV, to decode with instead of the checkpoint's own autoencoder.
    """

    folder: Annotated[str, Field(min_length=1)]
    revision: str = ""
    sha256: Annotated[str, Field(pattern=r"^$|^[0-9a-f]{64}$")] = ""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    family: str = ""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,64}$")] = ""
    height: Annotated[int, Field(ge=0, le=4096)] = 0
    width: Annotated[int, Field(ge=0, le=4096)] = 0
    frames: Annotated[int, Field(ge=0, le=1025)] = 0
    fps: Annotated[int, Field(ge=0, le=240)] = 0
    steps: Annotated[int, Field(ge=0, le=100)] = 0
    guidance: Annotated[float, Field(ge=1, le=100)] | None = None
    negative_prompt: Annotated[str, Field(max_length=4096)] = ""
    skip_threshold: Annotated[float, Field(ge=0, le=1)] = 0.0
    decoder: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,64}$")] = ""

    def describe(self) -> CheckpointConfig:
        """Raises WeightsError."""
        where = {"folder", "revision", "sha256", "dtype"}
        return describe(Choice(checkpoint=Checkpoint(**self.model_dump(include=where)), **self.model_dump(exclude=where)))


class AppConfig(Settings):
    """What `deployments.app:build` takes.

    Attributes:
        model: name of a preset, or a checkpoint.
        aliases: further names that callers may use, each with the name of the model that it means, beside the well-known ones of
            `service.model_aliases`. One of those that should not count means the empty string; an empty mapping leaves none of them.
        mode: `staged`, a deployment for each stage, or `fused`, one deployment that holds all three.
        stages: module with `build_text_encoder(config)`, `build_denoiser(config, engine)`, `build_decoder(config, denoiser)` and, for an
            enhancer, `build_enhancer(config, decoder)`.
        enhancer: of a deployment of its own, or of the fused one; None: frames go out as they are decoded.
        link_window: chunks that may be on their way from one stage to the next.
        fps: plays the model's frames at another rate than its own, for hardware that is slower than its real time.
        open_timeout_seconds: how long a stage may take to accept a leg before the leg counts as failed.
        call_timeout_seconds: how long the text encoder may take for a prompt, and any stage to say that it is healthy.
        footage_timeout_seconds: how long the text encoder may take for an image or video, or for a chunk of a source.
        link_silence_seconds: after how long without a beat the other end of a stream counts as cut off.
        scale_to_zero: a denoiser or decoder without replicas counts as able to serve, for deployments whose `min_replicas` is 0: the next
            session starts one, and is held meanwhile, as long as `reopen` says.
        link_host: address that stages accept each other's credit on; empty: the node's address.
        stage_message_bytes: of one message between stages; what `RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH` is set to, which must change
            with it. A model one of whose chunks is larger is refused.
    """

    model: str | CheckpointSettings = DEFAULT_MODEL
    aliases: Mapping[Alias, str] | None = None
    mode: Literal["staged", "fused"] = "staged"
    stages: str = "model_core.local"
    fps: Annotated[int, Field(ge=1, le=240)] | None = None
    link_window: Annotated[int, Field(ge=1, le=64)] = 1
    open_timeout_seconds: Annotated[float, Field(gt=0)] = 2.5
    call_timeout_seconds: Annotated[float, Field(gt=0)] = 10.0
    footage_timeout_seconds: Annotated[float, Field(gt=0)] = 120.0
    link_silence_seconds: Annotated[float, Field(gt=0)] = 1.0
    scale_to_zero: bool = False
    link_host: Annotated[str, AfterValidator(lambda host: host and checked_host(host))] = ""
    stage_message_bytes: Annotated[int, Field(ge=1024 * 1024, lt=2**31)] = 256 * 1024 * 1024
    engine: EngineSettings = EngineSettings()
    text_encoder: TextEncoderSettings = TextEncoderSettings()
    decoder: DecoderSettings = DecoderSettings()
    enhancer: EnhancerSettings | None = None
    front_door: FrontDoorSettings = FrontDoorSettings()
    admission: AdmissionSettings = AdmissionSettings()
    reopen: ReopenSettings = ReopenSettings()
    session_store: SessionStoreSettings = SessionStoreSettings()
    tracing: TracingSettings = TracingSettings()
    state: StateSettings = StateSettings()
    identity: IdentitySettings = IdentitySettings()
    usage: UsageSettings = UsageSettings()
    artifacts: ArtifactSettings = ArtifactSettings()
    jobs: JobSettings = JobSettings()

    @field_validator("model")
    @classmethod
    def _served(cls, model: str | CheckpointSettings) -> str | CheckpointSettings:
        try:
            if isinstance(model, CheckpointSettings):
                model.describe()
                return model
            return preset_config(model).name
        except WeightsError as error:
            raise ValueError(str(error)) from None
        except InvalidRequest:
            raise ValueError(f"must be one of: {', '.join(sorted(MODELS))}; got {str(model)[:64]!r}") from None

    @model_validator(mode="after")
    def _aliases_served(self) -> Self:
        served = self._named().name
        for name, meant in (self.aliases or {}).items():
            if meant not in ("", served):
                raise ValueError(f"aliases.{name} must be {served}, which is served, or empty for no alias; got {meant[:64]!r}")
        return self

    @model_validator(mode="after")
    def _slots_fit(self) -> Self:
        if self.engine.batch_buckets[0] > self.engine.slots:
            raise ValueError(f"engine.batch_buckets starts at {self.engine.batch_buckets[0]}, above engine.slots = {self.engine.slots}")
        return self

    @model_validator(mode="after")
    def _tiers_lower(self) -> Self:
        tiers, preset = self.admission.tiers, self._named()
        if tiers and tiers[0] >= preset.num_steps:
            raise ValueError(f"admission.tiers must be below the {preset.num_steps} steps of {preset.name}; got {list(tiers)}")
        if tiers and tiers[-1] < (least := least_tier(preset.num_steps, preset.min_steps)):
            wanted = f"at least {least}, half of the {preset.num_steps} steps of {preset.name}, because fewer make noise"
            raise ValueError(f"admission.tiers must be {wanted}; got {list(tiers)}")
        return self

    @model_validator(mode="after")
    def _runtimes_fit(self) -> Self:
        """Only the embedded model's denoiser can be shared. A checkpoint is loaded in its own type, and is not cast after that."""
        if self.text_encoder.runtime.ranks * self.decoder.runtime.ranks > 1:
            raise ValueError("ranks must be 1 in the text encoder and the decoder, whose networks are small")
        if isinstance(self.model, CheckpointSettings):
            if self.engine.runtime.ranks > 1:
                raise ValueError(f"engine.runtime.ranks must be 1 where model is a checkpoint; got {self.engine.runtime.ranks}")
            for name, stage in (("text_encoder", self.text_encoder), ("engine", self.engine), ("decoder", self.decoder)):
                if stage.runtime != RuntimeSettings(stuck_seconds=stage.runtime.stuck_seconds) and stage.runtime.dtype != self.model.dtype:
                    raise ValueError(
                        f"{name}.runtime.dtype must be that of the checkpoint, {self.model.dtype!r}; got {stage.runtime.dtype!r}"
                    )
        return self

    @model_validator(mode="after")
    def _enhances(self) -> Self:
        if self.enhancer is not None and not self._named().enhancer:
            raise ValueError(f"enhancer must be left out: model {self._named().name} has none; got {self.enhancer}")
        if self.enhancer is not None and self.enhancer.runtime.ranks > 1:
            raise ValueError(f"enhancer.runtime.ranks must be 1; got {self.enhancer.runtime.ranks}")
        return self

    @model_validator(mode="after")
    def _messages_fit(self) -> Self:
        model, limit = self._named(), self.stage_message_bytes
        for message in largest_messages(model, enhances=self.enhancer is not None):
            if message.size_bytes > limit:
                raise ValueError(
                    f"stage_message_bytes must be at least {message.size_bytes} for {model.name}: {message.what}; got {limit}. Make fewer"
                    " or smaller frames, or raise it, and RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH with it"
                )
        store = self.session_store
        most = store.memory_bytes if not store.url else _REDIS_VALUE_BYTES
        if (size := record_bytes(model, store.keep_chunks(model))) > most:
            where = "session_store.memory_bytes" if not store.url else "a value of Redis"
            raise ValueError(f"{where} must hold a session's record, {size} bytes for {model.name}; got {most}. Lower replay_seconds")
        return self

    @model_validator(mode="after")
    def _callers_are_known(self) -> Self:
        door = self.front_door
        check_exposure(self.identity, door.hosts())
        if self.identity.certificates is not None and door.tls is None:
            raise ValueError("front_door.tls must be set with identity.certificates, which a caller shows over TLS; got none")
        if self.identity.keys == "required" and not self.state.url:
            raise ValueError("identity.keys must be 'off' where state.url is empty: keys are in the database; got 'required'")
        return self

    def terms(self) -> Terms:
        """What scaling must know of the application."""
        preset, admission = self.preset(), self.admission
        policy = admission.policy(preset)
        # The decoder of a fused replica has no calls of its own.
        decode_slots = self.decoder.slots if self.mode == "staged" else 0
        enhance_slots = 0 if self.enhancer is None else self.enhancer.slots
        return Terms(preset.chunk_seconds, policy.default_steps, admission.utilisation, policy.brownout.tiers, decode_slots, enhance_slots)

    def preset(self) -> ModelConfig:
        """The model's configuration as it is served."""
        preset = self._named()
        return replace(preset, fps=self.fps or preset.fps, execution=self.execution())

    def alias_table(self) -> dict[str, str]:
        """Further names of models, the well-known ones among them."""
        return model_aliases(self._named().name, self.aliases)

    def _named(self) -> ModelConfig:
        return preset_config(self.model) if isinstance(self.model, str) else self.model.describe()

    def execution(self) -> Execution:
        """What each stage runs on."""
        return Execution(
            text_encoder=self.text_encoder.runtime.runtime_config(),
            denoiser=self.engine.runtime.runtime_config(),
            decoder=self.decoder.runtime.runtime_config(),
            enhancer=(self.enhancer or EnhancerSettings()).runtime.runtime_config(),
        )
