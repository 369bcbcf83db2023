"""The metrics of the catalogue as objects to count with, a bundle for each process, on the registry given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from model_core.events import Forward
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
    """What is counted of one stage, its label looked up once."""

    queue: Histogram
    service: Histogram
    transfer: Histogram


class Metrics:
    """A front door's."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.ttff_seconds = histogram(c.TTFF, registry)
        parts = histogram(c.TTFF_PART, registry)
        self.ttff_parts = {part: parts.labels(part) for part in c.PART.values}
        self.chunk_lateness_seconds = histogram(c.LATENESS, registry)
        self.interframe_gap_seconds = histogram(c.GAP, registry)
        self.jitter_seconds = histogram(c.JITTER, registry)
        self.stall_seconds_total = counter(c.STALL_SECONDS, registry)
        played = counter(c.PLAYED, registry)
        self.sessions_played = {continuous: played.labels("yes" if continuous else "no") for continuous in (True, False)}
        self.prompt_switch_seconds = histogram(c.PROMPT_SWITCH, registry)
        self.resume_seconds = histogram(c.RESUME, registry)

        self.sessions_live = gauge(c.SESSIONS_LIVE, registry)
        self.sessions_waiting = gauge(c.SESSIONS_WAITING, registry)
        self.sessions_degraded = gauge(c.SESSIONS_DEGRADED, registry)
        self.capacity_sessions = gauge(c.CAPACITY, registry)
        self.brownout_level = gauge(c.BROWNOUT, registry)
        self.calls_total = counter(c.CALLS, registry)
        self.admissions_total = counter(c.ADMISSIONS, registry)
        self.admission_wait_seconds = histogram(c.ADMISSION_WAIT, registry)
        self.session_store_errors_total = counter(c.STORE_ERRORS, registry)

        frames = counter(c.FRAMES, registry)
        self.frames = {codec: frames.labels(codec) for codec in c.CODEC.values}
        self.video_seconds_total = counter(c.VIDEO_SECONDS, registry)
        self.accelerator_seconds_total = counter(c.ACCELERATOR_SECONDS, registry)
        self.degraded_chunks_total = counter(c.DEGRADED_CHUNKS, registry)

        self.chunk_latency_seconds = histogram(c.CHUNK_LATENCY, registry)
        queue, service, transfer = (histogram(metric, registry) for metric in (c.STAGE_QUEUE, c.STAGE_SERVICE, c.STAGE_TRANSFER))
        self.stages = {s: StageSeries(queue.labels(s), service.labels(s), transfer.labels(s)) for s in c.STAGES}
        overhead = histogram(c.OVERHEAD, registry)
        self.overhead_first_frame, self.overhead_chunk = (overhead.labels(of) for of in c.OF.values)
        self.replicas_answering = gauge(c.REPLICAS, registry)


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


# Metrics that are numbers of a stage's own statistics, read when they are scraped: they cost nothing until then.
# Metric, values of its labels, and the number's name in the flat statistics of a replica.
_FROM_STATISTICS: tuple[tuple[Metric, tuple[str, ...], str], ...] = (
    (c.CACHE_SLOTS, ("used",), "denoiser_sessions"),
    (c.CACHE_SLOTS, ("free",), "denoiser_free_slots"),
    (c.DENOISER_WAITING, (), "denoiser_waiting"),
    (c.UNDELIVERED, (), "denoiser_undelivered"),
    (c.DENOISER_BUSY, (), "denoiser_busy_s"),
    (c.EXPECTED_SECONDS, (), "denoiser_expected_s"),
    (c.DENOISER_CHUNKS, (), "denoiser_chunks"),
    (c.DECODER_BUSY, (), "decoder_busy_s"),
    (c.DECODER_CHUNKS, (), "decoder_chunks"),
    (c.DECODER_SESSIONS, (), "decoder_sessions"),
    (c.ENCODER_BUSY, (), "text_encoder_service_s"),
    (c.PROMPTS, ("cache",), "text_encoder_hits"),
    (c.PROMPTS, ("joined",), "text_encoder_joined"),
    (c.PROMPTS, ("model",), "text_encoder_misses"),
)


class StatisticsCollector(Collector):
    """Metrics out of statistics that are kept anyway. What a stage does not keep is left out.

    Args:
        read: the flat numbers of this replica's stages; called from the thread that serves a scrape.
    """

    def __init__(self, read: Callable[[], Mapping[str, float]]) -> None:
        self._read = read

    def describe(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """None: a registry that has these asks for no statistics before the first scrape."""
        return iter(())

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        numbers = self._read()
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for metric, values, name in _FROM_STATISTICS:
            if name in numbers:
                kind = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
                family = families.setdefault(metric.name, kind(metric.full, metric.text, labels=_names(metric)))
                family.add_metric(values, numbers[name])
        return iter(families.values())


def shown_on_ray(registry: CollectorRegistry) -> Iterator[tuple[Metric, dict[str, str], float]]:
    """Samples, with their labels, of those metrics that Ray's own are to show too."""
    wanted = {metric.full: metric for metric in CATALOGUE if metric.on_ray}
    for family in registry.collect():
        for sample in family.samples if family.name in wanted else ():
            yield wanted[family.name], dict(sample.labels), sample.value
