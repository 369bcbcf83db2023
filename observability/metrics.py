"""The metrics of the catalogue as objects to count with, a bundle for each process, on the registry given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from model_core.events import Forward
from model_core.statistics import DecoderStatistics, DenoiserStatistics, EnhancerStatistics, StageStatistics, TextEncoderStatistics
from observability import catalogue as c
from observability.catalogue import CATALOGUE, Kind, Metric


def histogram(metric: Metric, registry: CollectorRegistry) -> Histogram:
    return Histogram(metric.full, metric.text, _names(metric), buckets=metric.buckets, registry=registry)


def counter(metric: Metric, registry: CollectorRegistry) -> Counter:
    """The counter, and beside it its deprecated name, if it has one."""
    made = Counter(metric.full, metric.text, _names(metric), registry=registry)
    if metric.formerly:
        registry.register(OldName(metric, made))
    return made


def gauge(metric: Metric, registry: CollectorRegistry) -> Gauge:
    return Gauge(metric.full, metric.text, _names(metric), registry=registry)


def _names(metric: Metric) -> tuple[str, ...]:
    return tuple(label.name for label in metric.labels)


class OldName(Collector):
    """Serves a renamed counter's samples under its deprecated name."""

    def __init__(self, metric: Metric, renamed: Counter) -> None:
        self._metric, self._renamed = metric, renamed

    def collect(self) -> Iterator[CounterMetricFamily]:
        metric = self._metric
        old = CounterMetricFamily(f"{c.PREFIX}_{metric.formerly}", f"Deprecated: now {metric.full}.", labels=_names(metric))
        for family in self._renamed.collect():
            for sample in family.samples:
                if sample.name == metric.full:
                    old.add_metric([sample.labels[name] for name in _names(metric)], sample.value)
        yield old


@dataclass(frozen=True, slots=True)
class StageSeries:
    """What is counted of one stage for one model, its labels looked up once."""

    queue: Histogram
    service: Histogram
    transfer: Histogram


@dataclass(frozen=True, slots=True)
class ModelSeries:
    """What is counted of the sessions of one model, its labels looked up once."""

    ttff_seconds: Histogram
    ttff_parts: Mapping[str, Histogram]
    chunk_lateness_seconds: Histogram
    interframe_gap_seconds: Histogram
    jitter_seconds: Histogram
    stall_seconds_total: Counter
    sessions_played: Mapping[bool, Counter]
    prompt_switch_seconds: Histogram
    resume_seconds: Histogram
    admission_wait_seconds: Histogram
    frames: Mapping[str, Counter]
    video_seconds_total: Callable[[str, str], Counter]
    pixels_total: Callable[[str, str], Counter]
    denoise_steps_total: Callable[[str, str], Counter]
    accelerator_seconds_total: Callable[[str, str, str], Counter]
    degraded_chunks_total: Callable[[str], Counter]
    chunk_latency_seconds: Histogram
    stages: Mapping[str, StageSeries]
    overhead_first_frame: Histogram
    overhead_chunk: Histogram
    quality: Mapping[str, Histogram]
    quality_videos: Mapping[str, Counter]


class Metrics:
    """The metrics of a front door. Those of single sessions are counted through `of` the session's model."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.ttff_seconds = histogram(c.TTFF, registry)
        self.chunk_lateness_seconds = histogram(c.LATENESS, registry)
        self.prompt_switch_seconds = histogram(c.PROMPT_SWITCH, registry)
        self._ttff_part = histogram(c.TTFF_PART, registry)
        self._gap = histogram(c.GAP, registry)
        self._jitter = histogram(c.JITTER, registry)
        self._stalls = counter(c.STALL_SECONDS, registry)
        self._played = counter(c.PLAYED, registry)
        self._resume = histogram(c.RESUME, registry)

        self.sessions_live = gauge(c.SESSIONS_LIVE, registry)
        self.sessions_waiting = gauge(c.SESSIONS_WAITING, registry)
        self.sessions_degraded = gauge(c.SESSIONS_DEGRADED, registry)
        self.capacity_sessions = gauge(c.CAPACITY, registry)
        self.brownout_level = gauge(c.BROWNOUT, registry)
        self.calls_total = counter(c.CALLS, registry)
        self.admissions_total = counter(c.ADMISSIONS, registry)
        self._admission_wait = histogram(c.ADMISSION_WAIT, registry)
        self.session_store_errors_total = counter(c.STORE_ERRORS, registry)

        self.watchers = gauge(c.WATCHERS, registry)
        self.watched_seconds_total = counter(c.WATCHED_SECONDS, registry)
        self.watch_skipped_frames_total = counter(c.WATCH_SKIPPED, registry)

        self._frames = counter(c.FRAMES, registry)
        self._video_seconds = counter(c.VIDEO_SECONDS, registry)
        self._pixels = counter(c.PIXELS, registry)
        self._denoise_steps = counter(c.STEPS, registry)
        self._accelerator_seconds = counter(c.ACCELERATOR_SECONDS, registry)
        self._degraded_chunks = counter(c.DEGRADED_CHUNKS, registry)
        self.ledger_errors_total = counter(c.LEDGER_ERRORS, registry)
        self.ledger_dropped_total = counter(c.LEDGER_DROPPED, registry)

        self.jobs = JobMetrics(registry)

        self._chunk_latency = histogram(c.CHUNK_LATENCY, registry)
        self._queue, self._service, self._transfer = (histogram(m, registry) for m in (c.STAGE_QUEUE, c.STAGE_SERVICE, c.STAGE_TRANSFER))
        self._overhead = histogram(c.OVERHEAD, registry)
        self.replicas_answering = gauge(c.REPLICAS, registry)
        self._quality = {metric.name: histogram(metric, registry) for metric in c.QUALITY}
        self._quality_videos = counter(c.QUALITY_LOOKS, registry)
        self._models: dict[str, ModelSeries] = {}

    def of(self, model: str) -> ModelSeries:
        """The series of one model. `model` must be a served one's name, or the number of series grows without bound."""
        series = self._models.get(model)
        if series is None:
            series = self._models[model] = self._series(model)
        return series

    def _series(self, model: str) -> ModelSeries:
        queue, service, transfer = self._queue, self._service, self._transfer
        return ModelSeries(
            ttff_seconds=self.ttff_seconds.labels(model),
            ttff_parts={part: self._ttff_part.labels(model, part) for part in c.PART.values},
            chunk_lateness_seconds=self.chunk_lateness_seconds.labels(model),
            interframe_gap_seconds=self._gap.labels(model),
            jitter_seconds=self._jitter.labels(model),
            stall_seconds_total=self._stalls.labels(model),
            sessions_played={continuous: self._played.labels(model, "yes" if continuous else "no") for continuous in (True, False)},
            prompt_switch_seconds=self.prompt_switch_seconds.labels(model),
            resume_seconds=self._resume.labels(model),
            admission_wait_seconds=self._admission_wait.labels(model),
            frames={codec: self._frames.labels(model, codec) for codec in c.CODEC.values},
            video_seconds_total=lambda tenant, door: self._video_seconds.labels(model, tenant, door),
            pixels_total=lambda tenant, door: self._pixels.labels(model, tenant, door),
            denoise_steps_total=lambda tenant, door: self._denoise_steps.labels(model, tenant, door),
            accelerator_seconds_total=lambda tenant, door, stage: self._accelerator_seconds.labels(model, tenant, door, stage),
            degraded_chunks_total=lambda level: self._degraded_chunks.labels(model, level),
            chunk_latency_seconds=self._chunk_latency.labels(model),
            stages={s: StageSeries(queue.labels(model, s), service.labels(model, s), transfer.labels(model, s)) for s in c.STAGES},
            overhead_first_frame=self._overhead.labels(model, "first_frame"),
            overhead_chunk=self._overhead.labels(model, "chunk"),
            quality={name: made.labels(model) for name, made in self._quality.items()},
            quality_videos={how: self._quality_videos.labels(model, how) for how in c.MEASURED.values},
        )


class JobMetrics:
    """What a front door counts of jobs."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.queued = gauge(c.JOBS_QUEUED, registry)
        self.oldest_queued_seconds = gauge(c.OLDEST_QUEUED, registry)
        self.running = gauge(c.JOBS_RUNNING, registry)
        self.ended_total = counter(c.JOBS_ENDED, registry)
        self.wait_seconds = histogram(c.JOB_WAIT, registry)
        self.seconds = histogram(c.JOB_TIME, registry)
        self.video_seconds_total = counter(c.JOB_VIDEO, registry)
        self.deliveries_total = counter(c.WEBHOOKS, registry)


class DenoiserMetrics:
    """A denoise replica's forwards. `observe` runs in the engine's thread after each."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._seconds = histogram(c.STEP_TIME, registry)
        self._occupancy = histogram(c.OCCUPANCY, registry)
        self._slack = histogram(c.SLACK, registry)
        self._series: dict[tuple[str, int], tuple[Histogram, Histogram]] = {}

    def observe(self, forward: Forward) -> None:
        key = (forward.work, forward.bucket)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = (self._seconds.labels(forward.work, str(forward.bucket)), self._occupancy.labels(forward.work))
        series[0].observe(forward.seconds)
        series[1].observe(forward.rows / forward.bucket)
        for slack_s in forward.slack_s:
            self._slack.observe(slack_s)


class AutoscalerMetrics:
    """The policy's."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.decisions_total = counter(c.AUTOSCALER_DECISIONS, registry)
        self.target_replicas = gauge(c.AUTOSCALER_TARGET, registry)
        self.decision_seconds = histogram(c.AUTOSCALER_TIME, registry)


def statistics_as_metrics(counted: StageStatistics) -> Iterator[tuple[Metric, tuple[str, ...], float]]:
    """Metrics that are a stage's own statistics, with the values of their labels. They cost nothing until they are scraped."""
    match counted:
        case TextEncoderStatistics():
            yield c.ENCODER_BUSY, (), counted.service_s
            yield c.PROMPTS, ("cache",), counted.hits
            yield c.PROMPTS, ("joined",), counted.joined
            yield c.PROMPTS, ("model",), counted.misses
        case DenoiserStatistics():
            yield c.CACHE_SLOTS, ("used",), counted.sessions
            yield c.CACHE_SLOTS, ("free",), counted.free_slots
            yield c.DENOISER_WAITING, (), counted.waiting
            yield c.UNDELIVERED, (), counted.undelivered
            yield c.DENOISER_BUSY, (), counted.busy_s
            yield c.EXPECTED_SECONDS, (), counted.expected_s
            yield c.DENOISER_CHUNKS, (), counted.chunks
        case DecoderStatistics():
            yield c.DECODER_BUSY, (), counted.busy_s
            yield c.DECODER_CHUNKS, (), counted.chunks
            yield c.DECODER_SESSIONS, (), counted.sessions
        case EnhancerStatistics():
            yield c.ENHANCER_BUSY, (), counted.busy_s
            yield c.ENHANCER_CHUNKS, (), counted.chunks
            yield c.ENHANCER_SESSIONS, (), counted.sessions


class StatisticsCollector(Collector):
    """Metrics out of statistics that are kept anyway.

    Args:
        read: the statistics of each stage in this process; called from the thread that serves a scrape.
    """

    def __init__(self, read: Callable[[], Iterable[StageStatistics]]) -> None:
        self._read = read

    def describe(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """None: a registry that has these asks for no statistics before the first scrape."""
        return iter(())

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for counted in self._read():
            for metric, values, number in statistics_as_metrics(counted):
                kind = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
                family = families.setdefault(metric.name, kind(metric.full, metric.text, labels=_names(metric)))
                family.add_metric(values, number)
        return iter(families.values())


def shown_on_ray(registry: CollectorRegistry) -> Iterator[tuple[Metric, dict[str, str], float]]:
    """Samples, with their labels, of those metrics that Ray's own are to show too."""
    wanted = {metric.full: metric for metric in CATALOGUE if metric.on_ray}
    for family in registry.collect():
        for sample in family.samples if family.name in wanted else ():
            yield wanted[family.name], dict(sample.labels), sample.value
