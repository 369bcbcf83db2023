"""Opens the session of an order, and says what that took."""

from __future__ import annotations

from dataclasses import replace

from opentelemetry.util.types import AttributeValue

from model_core.errors import InvalidRequest
from model_core.pipeline import VideoPipeline
from model_core.session import Session
from model_core.types import StageTiming
from model_core.uploads.decoders import UploadDecoders
from service.orders import Order


async def open_session(pipeline: VideoPipeline, order: Order, decoders: UploadDecoders, caller: str = "") -> Session:
    """The session of `order`, new or resumed. `decoders` decode its upload on the account of `caller`.

    Raises:
        StageUnavailable: the text encoder is away, or the upload cannot be decoded just now.
        InvalidRequest: a prompt has too many tokens, or the upload cannot be decoded.
    """
    point = order.resume
    if point is not None:
        try:
            return await pipeline.restore(point.story.record, point.next_frame)
        except InvalidRequest as error:
            raise order.doorway.named(error, "acknowledged.") from None
    request = order.request
    if order.upload is not None:
        request = replace(request, footage=await decoders.footage(order.upload, pipeline.config, caller))
        order.upload.forget()
    try:
        return await pipeline.open(request)
    except InvalidRequest as error:
        raise order.doorway.named(error) from None


def encoding_timing(session: Session, elapsed_s: float) -> StageTiming:
    """What it took to embed the prompt and decode the upload: the stage's own numbers, and the rest of `elapsed_s` as transfer.

    All of it counts as the stage's time where the stage reports nothing.
    """
    reported = session.text_timings
    if not reported:
        return StageTiming("text_encoder", 0.0, elapsed_s, elapsed_s)
    queue_s, service_s, device_s = (sum(part) for part in zip(*((t.queue_s, t.service_s, t.device_s) for t in reported), strict=True))
    return StageTiming("text_encoder", queue_s, service_s, device_s, transfer_s=max(0.0, elapsed_s - queue_s - service_s))


def trace_attributes(order: Order, account: str) -> dict[str, AttributeValue]:
    """What a trace says of a session. It does not say what the session draws, which is its caller's affair."""
    request = order.request
    return {
        "model": order.config.name, "tenant": account, "steps": request.num_steps, "codec": request.codec.value,
        "max_lead_s": order.max_lead_s, "resumed": order.resume is not None,
    }  # fmt: skip
