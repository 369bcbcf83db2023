"""Who may run: admit, admit at fewer steps, wait, or be refused at once. One pure decision on what is known at that moment.

Paced sessions need the accelerator in real time. Jobs, which have no playback to keep up with, take slots that real time leaves free.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from autoscaling.admission.brownout import BrownOutConfig, Running
from autoscaling.capacity.profile import Capacity

DEFAULT_TENANT = "default"
OTHER_TENANT = "other"

_RETRY_BOUNDS_S = (0.5, 60.0)


@dataclass(frozen=True, slots=True)
class Tenant:
    """Its share of the accelerators when there is not enough for all, and how many sessions it may have, in line or running."""

    weight: float = 1.0
    max_sessions: int | None = None


_PLAIN = Tenant()


@dataclass(frozen=True, slots=True)
class AdmissionConfig:
    """Policy.

    Attributes:
        brownout: levels of fewer steps.
        max_waiting: places in line for viewers, that is, for paced sessions. Jobs may take half as many, while viewers leave them free.
        max_wait_s: a paced session that would have to wait longer is refused at once. Jobs wait as long as there is a place.
        default_steps: what sessions of other front doors are taken to run with.
        tenants: by name. Callers that name none are `default`; callers that name one not listed are all `other`, with the default's terms.
        hold_s: how long a paused session keeps its slot. What it has played since an earlier pause makes up for as much of that pause.
        max_aside: paused sessions that may be kept without a slot; beyond them a pause that is too long ends the session.
    """

    brownout: BrownOutConfig = field(default_factory=BrownOutConfig)
    max_waiting: int = 64
    max_wait_s: float = 10.0
    default_steps: int = 4
    tenants: Mapping[str, Tenant] = field(default_factory=dict)
    hold_s: float = 30.0
    max_aside: int = 256

    @property
    def job_places(self) -> int:
        """Places in line that jobs may take."""
        return math.ceil(self.max_waiting / 2)

    def tenant_name(self, named: str) -> str:
        """The account that a caller who calls itself `named` belongs to; one of a fixed set."""
        if not named:
            return DEFAULT_TENANT
        return named if named in self.tenants or named == DEFAULT_TENANT else OTHER_TENANT

    def tenant(self, name: str) -> Tenant:
        """Its terms."""
        return self.tenants.get(name) or self.tenants.get(DEFAULT_TENANT) or _PLAIN

    def places(self, name: str, *, paced: bool = True) -> int:
        """Places in line that tenant `name` may take: a share by weight, so that no tenant can keep the others out of the line."""
        return self._share(name, self.max_waiting if paced else self.job_places)

    def places_aside(self, name: str) -> int:
        """Paused sessions without a slot that tenant `name` may have."""
        return self._share(name, self.max_aside)

    def _share(self, name: str, places: int) -> int:
        weights = {n: t.weight for n, t in self.tenants.items()}
        weights.setdefault(DEFAULT_TENANT, self.tenant(DEFAULT_TENANT).weight)
        return math.ceil(places * self.tenant(name).weight / sum(weights.values()))


@dataclass(frozen=True, slots=True)
class Ask:
    """One request for a session.

    Attributes:
        tenant: the account.
        steps: denoise steps that a chunk costs.
        paced: whether it must keep up with playback.
        resumed: somebody is watching it already, so it stands before those who have not begun, and is not refused for a long wait.
        model: the model that it is for. An `AdmissionControl` decides for the replicas of one model, so no decision looks at this.
        fixed: with other steps it would be another video, as where a source is restyled at some strength; so it is never lowered.
    """

    tenant: str
    steps: int
    paced: bool
    resumed: bool = False
    model: str = ""
    fixed: bool = False

    @property
    def lowers(self) -> bool:
        """Whether brown-out may give it fewer steps."""
        return self.paced and not self.fixed


@dataclass(frozen=True, slots=True)
class View:
    """All that a decision may look at.

    Attributes:
        capacity: of the stages.
        level: of brown-out.
        running: paced sessions that run.
        jobs: jobs that run.
        ahead: how many of its kind are in line before it; before a resumed one stand only resumed ones.
        waiting: how many in line have a place that it could have had. For one that is resumed: resumed ones of its kind; else for a viewer:
            all viewers; and for a job: everybody.
        waiting_jobs: for a job, how many of those are jobs.
        tenant_sessions: how many its tenant has, in line, running or set aside.
        tenant_waiting: how many of its tenant are in line, of its kind, and resumed or not as it is.
        departures_per_s: how often a session is expected to end.
    """

    capacity: Capacity
    level: int = 0
    running: Running = field(default_factory=Running)
    jobs: int = 0
    ahead: int = 0
    waiting: int = 0
    waiting_jobs: int = 0
    tenant_sessions: int = 0
    tenant_waiting: int = 0
    departures_per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Admit:
    """Run now, with `steps` steps, at brown-out `level`, which may be further down than it was."""

    steps: int
    level: int


@dataclass(frozen=True, slots=True)
class Wait:
    """In line; 1 is the next to go."""

    position: int


@dataclass(frozen=True, slots=True)
class Reject:
    """Not now; `reason` says which limit."""

    retry_after_s: float
    reason: str


Decision = Admit | Wait | Reject


def decide(ask: Ask, view: View, config: AdmissionConfig, jitter: float) -> Decision:
    """Sessions that run are lowered before anyone waits, and one waits only if its turn is expected within the bound.

    Args:
        jitter: from 0 up to 1, spreads the return of those who are refused.
    """
    terms = config.tenant(ask.tenant)
    if terms.max_sessions is not None and view.tenant_sessions >= terms.max_sessions:
        reason = f"tenant {ask.tenant} has {view.tenant_sessions} of at most {terms.max_sessions} sessions"
        return Reject(_retry_after(view, jitter), reason)
    if view.ahead == 0 and (level := _level_for(ask, view, config)) is not None:
        return Admit(config.brownout.steps(ask.steps, level) if ask.lowers else ask.steps, level)
    if (refused := _no_place(ask, view, config)) is not None:
        return Reject(_retry_after(view, jitter), refused)
    return Wait(view.ahead + 1)


def _no_place(ask: Ask, view: View, config: AdmissionConfig) -> str | None:
    """Why `ask` may not wait; None where it may. Each kind has places of its own, so that neither keeps the other out."""
    kind = "sessions" if ask.paced else "jobs"
    if view.waiting >= config.max_waiting:
        return f"all capacity is taken and {view.waiting} of at most {config.max_waiting} sessions wait"
    if not ask.paced and view.waiting_jobs >= config.job_places:
        return f"all capacity is taken and {view.waiting_jobs} of at most {config.job_places} jobs wait"
    if view.tenant_waiting >= (places := config.places(ask.tenant, paced=ask.paced)):
        return f"all capacity is taken and {view.tenant_waiting} of at most {places} {kind} of tenant {ask.tenant} wait"
    if ask.paced and not ask.resumed and _turn_in_s(view.ahead + 1, view) > config.max_wait_s:
        return f"all capacity is taken and a slot is expected later than the {config.max_wait_s:g} s that one may wait"
    return None


def _level_for(ask: Ask, view: View, config: AdmissionConfig) -> int | None:
    """The first level, from the present one down, at which there is room for `ask`; None where there is none."""
    capacity, brownout = view.capacity, config.brownout
    running = view.running.total()
    taken = running + view.jobs + capacity.others
    if taken >= capacity.slots:
        return None
    if not ask.paced:
        reserved = min(capacity.slots - 1, capacity.sessions(_lowest_steps(config))) if capacity.measured else 0
        return view.level if view.jobs + max(running + capacity.others, reserved) < capacity.slots else None
    all_of_them = view.running.joined(ask.steps, fixed=ask.fixed).joined(config.default_steps, capacity.others)
    for level in range(view.level, brownout.lowest + 1):
        if brownout.fits(capacity, all_of_them, level):
            return level
    return None


def _lowest_steps(config: AdmissionConfig) -> int:
    return config.brownout.steps(config.default_steps, config.brownout.lowest)


def _turn_in_s(position: int, view: View) -> float:
    return position / view.departures_per_s if view.departures_per_s > 0 else math.inf


def _retry_after(view: View, jitter: float) -> float:
    """Once or twice the time to the next free slot."""
    low, high = _RETRY_BOUNDS_S
    return min(high, max(low, _turn_in_s(1, view))) * (1 + jitter)
