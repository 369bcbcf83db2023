"""One account of a session, out of a record and what its viewer was told: `reconcile`, a pure function."""

from __future__ import annotations

from dataclasses import dataclass, replace

from model_core.session_log import PromptEntry, SessionRecord, with_change


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The newest changes of prompt and of steps (chunk, steps) that a viewer says it was sent, in the order in which it was sent them."""

    prompts: tuple[PromptEntry, ...] = ()
    steps: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Reconciled:
    """One account of a session. It continues at `chunk`, or within the chunk before it where the viewer stands there.

    `prompts` and `steps` are the changes that the viewer has still to be sent, before any frame.
    """

    record: SessionRecord
    chunk: int
    prompts: tuple[PromptEntry, ...]
    steps: tuple[tuple[int, int], ...]


def reconcile(record: SessionRecord, chunk: int, acknowledged: Acknowledged) -> Reconciled:
    """Bring a record and its viewer to one account, whichever of them knows more. The viewer has seen nothing from `chunk` on.

    A record may lag. It then takes over the changes that the viewer acknowledges. Or changes were lost on their way to the viewer. They are
    sent again, and if one superseded chunks that the viewer has seen, the viewer goes back to the first of those chunks.
    """
    newest = record.timeline[-1].change
    known = max((entry.change for entry in acknowledged.prompts), default=0)
    for entry in sorted((entry for entry in acknowledged.prompts if entry.change > newest), key=lambda entry: entry.change):
        record = record.changed(entry)
    acknowledged_steps = acknowledged.steps if known >= newest else ()
    steps = record.steps
    for change in (change for change in acknowledged_steps if change[0] >= record.next_chunk):
        steps = with_change(steps, change)
    unknown = [entry for entry in record.timeline if entry.change > known]
    # Without superseding, a change is sent before the frames that it is in force for: a viewer that has those frames knows of it.
    chunk = min([chunk, *(entry.chunk for entry in unknown if entry.supersedes)])
    story: tuple[tuple[int, int], ...] = ()
    for change in acknowledged_steps:
        story = with_change(story, change)
    ahead = tuple(change for change in steps if change[0] >= chunk and change != (0, record.num_steps))
    news = () if ahead == tuple(change for change in story if change[0] >= chunk) else ahead
    return Reconciled(replace(record, steps=steps), chunk, tuple(entry for entry in unknown if entry.chunk >= chunk), news)
