"""THE pipeline: encode → denoise → decode, chunk by chunk.

The stages are given by argument, so the same code runs them in this process, fused in one replica, or spread over a cluster.
"""

from __future__ import annotations

from dataclasses import replace

from model_core.acts import keys_held
from model_core.config import ModelConfig
from model_core.enhancement import Enhancement
from model_core.errors import FieldViolation, InvalidRequest
from model_core.fingerprint import FINGERPRINT_VERSION, enhancer_fingerprint, model_fingerprint
from model_core.pace import Pace
from model_core.reopen import ReopenPolicy
from model_core.request import SessionRequest, guidance_for, no_enhancer, within_tokens
from model_core.session import ControlEvent, MadeAgain, Paused, PromptApplied, Resumed, Session, SessionEvent, StepsApplied
from model_core.session_log import Extent, SessionLog, SessionRecord
from model_core.source import Restyling, SourceFeed
from model_core.stages.interface import Decoder, TextEncoder
from model_core.stages.patient import PatientEncoder
from model_core.stages.sources import Sources
from model_core.types import Codec

__all__ = [
    "ControlEvent",
    "MadeAgain",
    "Pace",
    "Paused",
    "PromptApplied",
    "Resumed",
    "Session",
    "SessionEvent",
    "SessionRequest",
    "StepsApplied",
    "VideoPipeline",
]


class VideoPipeline:
    """Opens sessions over three stages.

    Args:
        config: the model.
        encoder, decoder: the ends of the chain of stages.
        reopen: how a session survives a dead stage, also while it is being opened.
        keep_chunks: how many chunks behind the newest one a session can be restored at, and how many ahead of its record.
        sources: where sessions put the sources that they restyle; None where none may.
        enhancer: the end of the chain for sessions whose frames are enhanced; None where none may be.
    """

    def __init__(
        self,
        config: ModelConfig,
        encoder: TextEncoder,
        decoder: Decoder,
        reopen: ReopenPolicy | None = None,
        keep_chunks: int = 0,
        sources: Sources | None = None,
        enhancer: Decoder | None = None,
    ) -> None:
        self.config = config
        self.fingerprint = model_fingerprint(config)
        self._decoder, self._enhancer = decoder, enhancer
        self._reopen = reopen or ReopenPolicy()
        self._encoder = PatientEncoder(encoder, self._reopen)
        self._restyling = None if sources is None else Restyling(self._encoder, sources)
        self._extent = Extent(config.grid, config.context_chunks, keep_chunks, config.sink_chunks)

    @property
    def enhances(self) -> bool:
        """Whether frames may be enhanced here."""
        return self._enhancer is not None

    def _frames(self, enhance: Enhancement) -> tuple[Decoder, str]:
        """The end of the chain, and the fingerprint of what enhances.

        Raises:
            InvalidRequest: there is nothing that could.
        """
        if not enhance:
            return self._decoder, ""
        if self._enhancer is None:
            raise InvalidRequest((FieldViolation("enhance", no_enhancer(enhance, self.config)),))
        return self._enhancer, enhancer_fingerprint(self.config)

    async def open(self, request: SessionRequest) -> Session:
        """Embed what is given and return a session that is ready to be pulled; no slot is taken before the first pull.

        Raises:
            StageUnavailable: the text encoder stayed away for the whole of the reopen policy.
            InvalidRequest: the model takes no footage, no guidance, no source or no such keys, or reads no text of that length; or nothing
                enhances here.
        """
        keys = keys_held(request.keys, self.config.keys, "keys") if request.keys else ()
        decoder, enhancer = self._frames(request.enhance)
        shown = self.config.shown(request.enhance)
        embedding = within_tokens(await self._encoder.encode(request.prompt), self.config, "prompt")
        guidance = await guidance_for(request, self._encoder, self.config, embedding.numerics)
        given = None if request.footage is None else await self._encoder.condition(request.footage)
        log = SessionLog(embedding, request.num_steps, self._extent, given, keys)
        for number, (frame, prompt) in enumerate(request.later_prompts):
            later = await self._encoder.encode(prompt, embedding.numerics)
            log.change_prompt(within_tokens(later, self.config, f"later_prompts[{number}]"), shown.grid.chunk_from(frame))
        source = self._source(request.strength, 0, embedding.numerics)
        request = replace(request, footage=None, later_prompts=())  # what was made of them stands in the log
        return Session(
            shown, self._encoder, decoder, request, log, self._reopen, fingerprint=self.fingerprint, guidance=guidance, source=source,
            enhancer=enhancer,
        )  # fmt: skip

    def _source(self, strength: float | None, first_chunk: int, numerics: str) -> SourceFeed | None:
        """Raises InvalidRequest: nothing is restyled here."""
        if strength is None:
            return None
        if self._restyling is None or not self.config.restyles:
            told = f"must be unset: model {self.config.name} restyles no video here; got {strength:g}"
            raise InvalidRequest((FieldViolation("strength", told),))
        return SourceFeed(self.config, self._restyling, strength, first_chunk, numerics)

    def continues(self, record: SessionRecord) -> bool:
        """Whether what made and enhanced its frames is what there is here."""
        enhancer = enhancer_fingerprint(self.config) if record.enhance and self.enhances else ""
        return (record.fingerprint, record.enhancer) == (self.fingerprint, enhancer)

    def restorable(self, record: SessionRecord) -> tuple[int, int]:
        """The first and the last frame that a session can be restored at from `record`.

        A record may lag a little behind what the viewer has seen: the chunks between are made anew, and not shown.
        """
        grid = self.config.shown(record.enhance).grid
        last = grid.first_frame(record.next_chunk + self._extent.keep)
        end = last if record.num_frames is None else record.num_frames
        return grid.first_frame(record.first_restorable(self.config.context_chunks)), min(last, end)

    async def restore(self, record: SessionRecord, next_frame: int) -> Session:
        """The session of `record`, to be pulled from `next_frame` on; for FMP4 from the chunk that holds it.

        What its viewer was told and the record does not know is to be brought in first, by `reconcile`.

        Raises:
            ValueError: the record is another model's, or `next_frame` is not restorable.
            InvalidRequest: a prompt of the timeline has too many tokens, or nothing enhances here.
            StageUnavailable: the text encoder stayed away for the whole of the reopen policy.
        """
        decoder, enhancer = self._frames(record.enhance)
        shown = self.config.shown(record.enhance)
        first, last = self.restorable(record)
        if record.fingerprint_version != FINGERPRINT_VERSION:
            version = record.fingerprint_version
            raise ValueError(f"the fingerprint of the session's model must be of version {FINGERPRINT_VERSION}; got version {version}")
        if not self.continues(record) or not first <= next_frame <= last:
            raise ValueError(f"frame {next_frame} of {record.model}: this pipeline restores frames {first} to {last} of {self.config.name}")
        grid = shown.grid
        if record.codec is Codec.FMP4_H264 and next_frame != record.num_frames:
            next_frame = grid.first_frame(grid.chunk_of(next_frame))
        chunk = min(grid.chunk_of(next_frame), record.next_chunk)
        numerics = record.numerics.text_encoder
        # Of a prompt that only its viewer tells of, nobody has counted the tokens yet.
        embedded = {
            prompt: within_tokens(await self._encoder.encode(prompt, numerics), self.config, "prompt")
            for prompt in dict.fromkeys(entry.prompt for entry in record.timeline)
        }
        log = SessionLog.restore(record, chunk, [embedded[entry.prompt] for entry in record.timeline], self._extent)
        request = SessionRequest(
            session_id=record.session_id, prompt=log.prompt.prompt, seed=record.seed, num_steps=record.num_steps,
            num_frames=record.num_frames, codec=record.codec, guidance=record.guidance, negative_prompt=record.negative_prompt,
            strength=record.strength, enhance=record.enhance,
        )  # fmt: skip
        guidance = await guidance_for(request, self._encoder, self.config, numerics)
        return Session(
            shown, self._encoder, decoder, request, log, self._reopen, fingerprint=self.fingerprint, guidance=guidance,
            seen_frames=next_frame, source=self._source(record.strength, chunk, numerics), enhancer=enhancer,
        )  # fmt: skip
