"""Every metric of Headrace: name, unit, labels, buckets, and the process that has it. Nothing else in the code base names one.

Objectives stand on bucket edges, so that the share that meets one is a plain ratio of two counters: first frame within
1 s (`le="1.0"`), chunks on time (`le="0.0"`). No label takes a caller's words: each names the closed set that its values come from, so the
number of series is fixed. What is counted of single sessions has a `model` label: those series multiply by the number of served models. To
add a metric, add a constant here; documents, dashboards and checks look at `CATALOGUE`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from model_core.stage import ENHANCER, Stage

PREFIX = "headrace"

TTFF_OBJECTIVE_S = 1.0
LATENESS_OBJECTIVE_S = 0.0
SWITCH_OBJECTIVE_S = 1.0

FIRST_FRAME_BUCKETS_S = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.75, TTFF_OBJECTIVE_S, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
SWITCH_BUCKETS_S = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.75, SWITCH_OBJECTIVE_S, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
CHUNK_BUCKETS_S = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 2.0, 5.0)
LATENESS_BUCKETS_S = (LATENESS_OBJECTIVE_S, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
GAP_BUCKETS_S = (0.01, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.75, 1.0, 1.5, 2.0, 5.0, 10.0)
JITTER_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
SLACK_BUCKETS_S = (-2.0, -1.0, -0.5, -0.2, -0.1, -0.05, 0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
STAGE_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
STEP_BUCKETS_S = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
JOB_BUCKETS_S = (1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 21_600.0, 86_400.0)
WAIT_BUCKETS_S = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0)
DECISION_BUCKETS_S = (0.0001, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
FLICKER_BUCKETS = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0)
SMOOTHNESS_BUCKETS = (0.5, 0.8, 0.9, 0.95, 0.97, 0.98, 0.985, 0.99, 0.9925, 0.995, 0.9975, 0.999, 1.0)
PART_BUCKETS = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
SHARE_BUCKETS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)


class Kind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Process(StrEnum):
    """Whose metric it is: the Serve deployment, or the controller, in which the autoscaling policy runs."""

    FRONT_DOOR = "FrontDoor"
    TEXT_ENCODER = "TextEncoder"
    DENOISER = "Denoiser"
    DECODER = "Decoder"
    ENHANCER = "Enhancer"
    CONTROLLER = "Controller"


@dataclass(frozen=True, slots=True)
class Label:
    """Its name, and the values it can have: `values`, or the closed set that `bound` describes."""

    name: str
    values: tuple[str, ...] = ()
    bound: str = ""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        name: without the prefix; ends in its unit, and in `_total` for a counter.
        kind: what Prometheus calls its type.
        text: what is measured, and from where to where.
        process: who has it. A fused replica has those of all three stages.
        labels: in the order of values given to `labels()`.
        buckets: of a histogram, without infinity.
        on_ray: also shown among Ray's own metrics.
        eventful: has data only after something out of the ordinary, such as an error; a healthy system may have none.
        formerly: a counter's deprecated name, which is served too, for one minor version.
    """

    name: str
    kind: Kind
    text: str
    process: Process
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()
    on_ray: bool = False
    eventful: bool = False
    formerly: str = ""

    @property
    def full(self) -> str:
        """As Prometheus knows it."""
        return f"{PREFIX}_{self.name}"

    @property
    def series(self) -> str:
        """A name that has samples: a histogram's own has none."""
        return f"{self.full}_count" if self.kind is Kind.HISTOGRAM else self.full


STAGES = (*(stage.value for stage in Stage), ENHANCER)

MODEL = Label("model", bound="models that the front door serves; one, today")
TENANT = Label("tenant", bound="tenants of the configuration, `default` and `other`")
DOOR = Label("door", bound="doors of the front door, and rooms of its doors")
STAGE = Label("stage", STAGES)
DEPLOYMENT = Label("deployment", bound="deployments of the application")
RPC = Label("rpc", bound="RPCs of the contract, and operations of rooms, as `triton.ModelInfer` and `own.stream`")
OUTCOME = Label(
    "outcome",
    ("completed", "stopped", "draining", "paused", "cancelled", "invalid", "refused", "unavailable", "unknown", "moved", "stalled",
     "unauthenticated", "forbidden", "not_ready", "conflict", "too_large", "quota", "not_served", "internal"),
)  # fmt: skip
ANSWER = Label("answer", ("admitted", "degraded", "waiting", "refused"))
CODEC = Label("codec", ("raw", "jpeg", "fmp4"))
JOB_OUTCOME = Label("outcome", ("completed", "failed", "cancelled"))
DELIVERY = Label("outcome", ("delivered", "tried", "gone", "given_up"))
OPERATION = Label("operation", ("get", "claim", "write", "read"))
BOOK = Label("book", ("usage", "audit", "events"))
LEVEL = Label("level", bound="brown-out levels of the configuration, from 1")
CONTINUOUS = Label("continuous", ("yes", "no"))
PART = Label("part", ("queue", "service", "transfer", "overhead"))
OF = Label("of", ("first_frame", "chunk"))
BATCH = Label("batch", bound="batch buckets of the engine's configuration")
WORK = Label("work", ("step", "commit"))
SLOT_STATE = Label("state", ("used", "free"))
PROMPT_SOURCE = Label("source", ("cache", "joined", "model"))
MEASURED = Label("measured", ("measured", "late", "failed"))
DIRECTION = Label("direction", ("up", "down", "hold"))

_DOOR = Process.FRONT_DOOR

# -- what a viewer feels: measured where frames leave ------------------------------------------------------------------------
TTFF = Metric("ttff_seconds", Kind.HISTOGRAM, "From admission to the first frame sent.", _DOOR, (MODEL,), FIRST_FRAME_BUCKETS_S)
TTFF_PART = Metric(
    "ttff_part_seconds", Kind.HISTOGRAM,
    "The parts of the time to a session's first frame. queue: waiting inside the stages; service: stage compute; transfer: on the way "
    "between processes and threads while the reader waited; overhead: everything else. The four sum to ttff_seconds.",
    _DOOR, (MODEL, PART), STAGE_BUCKETS_S,
)  # fmt: skip
LATENESS = Metric(
    "chunk_lateness_seconds", Kind.HISTOGRAM, "How long after its playout deadline a chunk was sent; 0 if on time. Only paced sessions.",
    _DOOR, (MODEL,), LATENESS_BUCKETS_S,
)  # fmt: skip
GAP = Metric(
    "interframe_gap_seconds", Kind.HISTOGRAM,
    "Time between two consecutive chunks as sent, pauses excluded. The frames of one chunk leave together.",
    _DOOR, (MODEL,), GAP_BUCKETS_S,
)  # fmt: skip
JITTER = Metric(
    "jitter_seconds", Kind.HISTOGRAM,
    "Absolute difference between the gap before a chunk and the length of the chunk before it. Only paced sessions.",
    _DOOR, (MODEL,), JITTER_BUCKETS_S,
)  # fmt: skip
STALL_SECONDS = Metric(
    "stall_seconds_total", Kind.COUNTER,
    "Seconds for which a viewer's picture stood still because a chunk was late. A stall shifts all later deadlines.",
    _DOOR, (MODEL,),
)  # fmt: skip
PLAYED = Metric(
    "sessions_played_total", Kind.COUNTER,
    "Paced sessions that showed a frame and have ended. continuous: whether the session had no stall.",
    _DOOR, (MODEL, CONTINUOUS),
)  # fmt: skip
PROMPT_SWITCH = Metric(
    "prompt_switch_seconds", Kind.HISTOGRAM, "From the arrival of a new prompt to the first frame sent that shows it.",
    _DOOR, (MODEL,), SWITCH_BUCKETS_S,
)  # fmt: skip
RESUME = Metric(
    "resume_seconds", Kind.HISTOGRAM, "From the arrival of a resume to the first missing frame sent.",
    _DOOR, (MODEL,), FIRST_FRAME_BUCKETS_S, eventful=True,
)  # fmt: skip

# -- sessions and admission --------------------------------------------------------------------------------------------------
SESSIONS_LIVE = Metric("sessions_live", Kind.GAUGE, "Sessions that have a slot.", _DOOR, on_ray=True)
SESSIONS_WAITING = Metric("sessions_waiting", Kind.GAUGE, "Sessions that wait for a slot.", _DOOR, on_ray=True)
SESSIONS_DEGRADED = Metric("sessions_degraded", Kind.GAUGE, "Sessions that run with fewer steps than they asked for.", _DOOR, on_ray=True)
CAPACITY = Metric(
    "capacity_sessions", Kind.GAUGE, "Paced sessions of default quality that the stages can serve in real time.", _DOOR, on_ray=True
)
BROWNOUT = Metric("brownout_level", Kind.GAUGE, "Brown-out level; 0 is full quality.", _DOOR, on_ray=True)
CALLS = Metric(
    "calls_total",
    Kind.COUNTER,
    "Calls that ended, by RPC and outcome, including `ListModels`.",
    _DOOR,
    (RPC, OUTCOME),
    formerly="sessions_total",
)
ADMISSIONS = Metric("admissions_total", Kind.COUNTER, "Requests, by tenant and answer.", _DOOR, (MODEL, TENANT, ANSWER))
ADMISSION_WAIT = Metric(
    "admission_wait_seconds",
    Kind.HISTOGRAM,
    "Time that a request waited for a slot; 0 if it did not wait.",
    _DOOR,
    (MODEL,),
    WAIT_BUCKETS_S,
)
STORE_ERRORS = Metric(
    "session_store_errors_total", Kind.COUNTER, "Calls of the session store that failed or took too long.",
    _DOOR, (OPERATION,), eventful=True,
)  # fmt: skip

# -- who watches sessions of others ------------------------------------------------------------------------------------------
WATCHERS = Metric("watchers", Kind.GAUGE, "Calls that watch sessions of others.", _DOOR, on_ray=True)
WATCHED_SECONDS = Metric(
    "watched_seconds_total", Kind.COUNTER, "Seconds of video sent to those who watch sessions of others, by door. They were made once.",
    _DOOR, (MODEL, DOOR), eventful=True,
)  # fmt: skip
WATCH_SKIPPED = Metric(
    "watch_skipped_frames_total", Kind.COUNTER, "Frames that somebody who watches was not sent, because it reads too slowly.",
    _DOOR, (MODEL,), eventful=True,
)  # fmt: skip

# -- what was made, and what it cost -----------------------------------------------------------------------------------------
FRAMES = Metric("frames_total", Kind.COUNTER, "Frames sent, by codec.", _DOOR, (MODEL, CODEC))
VIDEO_SECONDS = Metric("video_seconds_total", Kind.COUNTER, "Seconds of video sent, by tenant and door.", _DOOR, (MODEL, TENANT, DOOR))
PIXELS = Metric(
    "pixels_total", Kind.COUNTER, "Pixels of the frames sent, as the model rendered them, by tenant and door.",
    _DOOR, (MODEL, TENANT, DOOR),
)  # fmt: skip
STEPS = Metric("denoise_steps_total", Kind.COUNTER, "Denoise steps of the chunks sent, by tenant and door.", _DOOR, (MODEL, TENANT, DOOR))
ACCELERATOR_SECONDS = Metric(
    "accelerator_seconds_total", Kind.COUNTER,
    "Device time of chunks sent, by tenant, door and stage. The time of a shared forward is divided by its sessions.",
    _DOOR, (MODEL, TENANT, DOOR, STAGE),
)  # fmt: skip
DEGRADED_CHUNKS = Metric(
    "degraded_chunks_total", Kind.COUNTER, "Chunks sent with fewer denoise steps than the request asked for, by brown-out level.",
    _DOOR, (MODEL, LEVEL), eventful=True,
)  # fmt: skip

LEDGER_ERRORS = Metric(
    "ledger_errors_total", Kind.COUNTER,
    "Writes of usage, of the audit log, or of usage events that failed. They are tried again.",
    _DOOR, (BOOK,), eventful=True,
)  # fmt: skip
LEDGER_DROPPED = Metric(
    "ledger_dropped_total", Kind.COUNTER,
    "Usage rows and audit entries that were dropped, because too many waited while the database was away.",
    _DOOR, (BOOK,), eventful=True,
)  # fmt: skip

# -- quality of finished jobs, of a share of them: see docs/quality.md -------------------------------------------------------
QUALITY_LOOKS = Metric(
    "quality_videos_total", Kind.COUNTER,
    "Finished videos of jobs whose quality was looked at, by how that ended: with numbers, not in time, or not at all.",
    _DOOR, (MODEL, MEASURED), eventful=True,
)  # fmt: skip
QUALITY_FLICKER = Metric(
    "quality_flicker_ratio", Kind.HISTOGRAM,
    "Mean absolute change of a pixel from frame to frame, of a video. A proxy for flicker, in which motion counts too.",
    _DOOR, (MODEL,), FLICKER_BUCKETS, eventful=True,
)  # fmt: skip
QUALITY_BRIGHTNESS = Metric(
    "quality_brightness_flicker_ratio", Kind.HISTOGRAM,
    "Mean distance of a frame's brightness from the middle of its neighbours', of a video. A proxy for flicker.",
    _DOOR, (MODEL,), FLICKER_BUCKETS, eventful=True,
)  # fmt: skip
QUALITY_SMOOTHNESS = Metric(
    "quality_smoothness_ratio", Kind.HISTOGRAM,
    "1 less the mean error of frames that are predicted from their neighbours, of a video. A proxy for smooth motion.",
    _DOOR, (MODEL,), SMOOTHNESS_BUCKETS, eventful=True,
)  # fmt: skip
QUALITY_FROZEN = Metric(
    "quality_frozen_ratio", Kind.HISTOGRAM, "Share of a video's frames that repeat the one before. Scenes that stand still do so, too.",
    _DOOR, (MODEL,), PART_BUCKETS, eventful=True,
)  # fmt: skip
QUALITY_BLACK = Metric(
    "quality_black_ratio", Kind.HISTOGRAM, "Share of a video's frames that are black.", _DOOR, (MODEL,), PART_BUCKETS, eventful=True
)
QUALITY_ADHERENCE = Metric(
    "quality_adherence_ratio", Kind.HISTOGRAM,
    "Share of a video's windows that show everything that its prompt names, where a detector can tell.",
    _DOOR, (MODEL,), PART_BUCKETS, eventful=True,
)  # fmt: skip
QUALITY = (QUALITY_FLICKER, QUALITY_BRIGHTNESS, QUALITY_SMOOTHNESS, QUALITY_FROZEN, QUALITY_BLACK, QUALITY_ADHERENCE)

# -- jobs, and what their callers are told -------------------------------------------------------------------------------------
JOBS_QUEUED = Metric(
    "jobs_queued", Kind.GAUGE, "Jobs in the queue. Front doors that share a database all show the same number.", _DOOR, on_ray=True
)
OLDEST_QUEUED = Metric(
    "jobs_oldest_queued_seconds", Kind.GAUGE, "Age of the oldest job in the queue; 0 without any. All front doors show the same.",
    _DOOR, on_ray=True,
)  # fmt: skip
JOBS_RUNNING = Metric("jobs_running", Kind.GAUGE, "Jobs that a front door works on.", _DOOR, on_ray=True)
JOBS_ENDED = Metric(
    "jobs_ended_total", Kind.COUNTER, "Jobs that ended, by door and outcome, counted by the front door that ended them.",
    _DOOR, (DOOR, JOB_OUTCOME), eventful=True,
)  # fmt: skip
JOB_WAIT = Metric("job_wait_seconds", Kind.HISTOGRAM, "From the submission of a job until it was begun.", _DOOR, (), JOB_BUCKETS_S)
JOB_TIME = Metric(
    "job_seconds", Kind.HISTOGRAM, "From the beginning of a job to its completed file, whatever workers it lost.", _DOOR, (), JOB_BUCKETS_S
)
JOB_VIDEO = Metric(
    "job_video_seconds_total", Kind.COUNTER, "Seconds of video in the files of completed jobs, by door.", _DOOR, (DOOR,), eventful=True
)
WEBHOOKS = Metric(
    "webhook_deliveries_total", Kind.COUNTER,
    "Attempts to deliver a notice. tried: it comes again; gone: the receiver wants no more of them; given_up: the last attempt failed.",
    _DOOR, (DELIVERY,), eventful=True,
)  # fmt: skip

# -- where a chunk's time went: carried by the chunk, counted when it is sent ------------------------------------------------
CHUNK_LATENCY = Metric(
    "chunk_latency_seconds", Kind.HISTOGRAM, "Queue and service time of a chunk, summed over all stages.", _DOOR, (MODEL,), CHUNK_BUCKETS_S
)
STAGE_QUEUE = Metric(
    "stage_queue_seconds", Kind.HISTOGRAM, "Time that a chunk or a prompt waited in a stage before work on it began.",
    _DOOR, (MODEL, STAGE), STAGE_BUCKETS_S,
)  # fmt: skip
STAGE_SERVICE = Metric(
    "stage_service_seconds", Kind.HISTOGRAM, "Time that a stage worked on a chunk or on a prompt.", _DOOR, (MODEL, STAGE), STAGE_BUCKETS_S
)
STAGE_TRANSFER = Metric(
    "stage_transfer_seconds", Kind.HISTOGRAM,
    "Time that the reader waited for a result that was already on its way. Between hosts it is as exact as their clocks.",
    _DOOR, (MODEL, STAGE), STAGE_BUCKETS_S,
)  # fmt: skip
OVERHEAD = Metric(
    "framework_overhead_seconds", Kind.HISTOGRAM,
    "Time outside stage compute and queueing. first_frame: from admission to the first frame sent; chunk: its transfers, and the time "
    "from its arrival at the front door until gRPC has accepted it, including a slow reader's flow control.",
    _DOOR, (MODEL, OF), STAGE_BUCKETS_S,
)  # fmt: skip
REPLICAS = Metric(
    "replicas_answering", Kind.GAUGE, "Replicas that answered when Prometheus last asked for its targets, by deployment.",
    _DOOR, (DEPLOYMENT,), on_ray=True,
)  # fmt: skip

# -- inside the stages: each replica its own ---------------------------------------------------------------------------------
STEP_TIME = Metric(
    "step_seconds", Kind.HISTOGRAM, "Time of one forward of the denoiser: a denoise step or a commit, by batch bucket.",
    Process.DENOISER, (WORK, BATCH), STEP_BUCKETS_S,
)  # fmt: skip
OCCUPANCY = Metric(
    "batch_occupancy_ratio", Kind.HISTOGRAM, "Share of a forward's bucket rows that belonged to a session.",
    Process.DENOISER, (WORK,), SHARE_BUCKETS,
)  # fmt: skip
SLACK = Metric(
    "dispatch_slack_seconds", Kind.HISTOGRAM,
    "Spare time of a paced session's chunk when its first step was dispatched. Below 0 the chunk will be late.",
    Process.DENOISER, (), SLACK_BUCKETS_S,
)  # fmt: skip
CACHE_SLOTS = Metric("cache_slots", Kind.GAUGE, "Slots of the session cache, used and free.", Process.DENOISER, (SLOT_STATE,), on_ray=True)
DENOISER_WAITING = Metric("denoiser_waiting_sessions", Kind.GAUGE, "Sessions that wait for a cache slot.", Process.DENOISER, on_ray=True)
UNDELIVERED = Metric("undelivered_chunks", Kind.GAUGE, "Denoised chunks that no reader has pulled yet.", Process.DENOISER)
EXPECTED_SECONDS = Metric(
    "expected_busy_seconds_total",
    Kind.COUNTER,
    "Time that the denoiser's forwards should have taken, by the profile measured at its start.",
    Process.DENOISER,
)
DENOISER_BUSY = Metric("denoiser_busy_seconds_total", Kind.COUNTER, "Device time of a denoise replica.", Process.DENOISER)
DENOISER_CHUNKS = Metric("denoiser_chunks_total", Kind.COUNTER, "Chunks denoised, including dropped ones.", Process.DENOISER)
DECODER_BUSY = Metric("decoder_busy_seconds_total", Kind.COUNTER, "Device time of a decode replica.", Process.DECODER)
DECODER_CHUNKS = Metric("decoder_chunks_total", Kind.COUNTER, "Chunks decoded, including dropped ones.", Process.DECODER)
ENHANCER_BUSY = Metric("enhancer_busy_seconds_total", Kind.COUNTER, "Device time of an enhance replica.", Process.ENHANCER)
ENHANCER_CHUNKS = Metric("enhancer_chunks_total", Kind.COUNTER, "Chunks enhanced, including dropped ones.", Process.ENHANCER)
ENHANCER_SESSIONS = Metric("enhancer_sessions", Kind.GAUGE, "Sessions that an enhance replica serves.", Process.ENHANCER, on_ray=True)
DECODER_SESSIONS = Metric("decoder_sessions", Kind.GAUGE, "Sessions that a decode replica serves.", Process.DECODER, on_ray=True)
ENCODER_BUSY = Metric(
    "text_encoder_busy_seconds_total", Kind.COUNTER, "Time that the text encoder spent in tokenizer and model.", Process.TEXT_ENCODER
)
PROMPTS = Metric(
    "prompts_total", Kind.COUNTER, "Prompts embedded. source: from the cache, joined to an equal one in progress, or by the model.",
    Process.TEXT_ENCODER, (PROMPT_SOURCE,),
)  # fmt: skip

# -- the autoscaling policy --------------------------------------------------------------------------------------------------
AUTOSCALER_DECISIONS = Metric(
    "autoscaler_decisions_total", Kind.COUNTER, "Decisions of the policy, by deployment.", Process.CONTROLLER, (DEPLOYMENT, DIRECTION)
)
AUTOSCALER_TARGET = Metric(
    "autoscaler_target_replicas", Kind.GAUGE, "Replicas that the policy wants.", Process.CONTROLLER, (DEPLOYMENT,), on_ray=True
)
AUTOSCALER_TIME = Metric(
    "autoscaler_decision_seconds", Kind.HISTOGRAM, "Time of one run of the policy, in Serve's control loop.",
    Process.CONTROLLER, (), DECISION_BUCKETS_S,
)  # fmt: skip

CATALOGUE: tuple[Metric, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
