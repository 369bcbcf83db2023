"""What a caller may do with its credential, and what it asks of its quotas. Pure."""

from __future__ import annotations

from service.identity.principal import Forbidden, Principal
from service.orders import Order


def check_order(order: Order, principal: Principal) -> None:
    """Raises Forbidden: the model, or the length, is not for this credential."""
    principal.check_model(order.config.name)
    most = principal.max_seconds
    if most is None:
        return
    frames = order.request.num_frames
    if frames is not None and order.replays and order.resume is not None:
        frames -= order.resume.next_frame  # which are not shown
    if frames is None or frames > most * order.config.fps + 0.5:
        asked = "no end" if frames is None else f"{frames / order.config.fps:g}"
        raise Forbidden(f"{order.doorway.path('seconds')} must be at most {most:g} with this credential; got {asked}")


def seconds_left(order: Order) -> float | None:
    """Seconds of video that are still to be made; None for a session without an end."""
    frames = order.request.num_frames
    if frames is None:
        return None
    done = 0 if order.resume is None else order.resume.next_frame
    return max(0, frames - done) / order.config.fps
