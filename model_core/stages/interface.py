"""The three stages as protocols: what the pipeline needs, and all it may use.

Frames are pulled: front door ← decoder ← denoiser. A decoder owns its upstream denoiser, so that in a
cluster chunks flow from stage to stage over one open chain of streams without passing through the front door twice.
Closing a stream (`aclose()`) cancels the work behind it within one denoise step and frees its slot.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from model_core.types import Conditioning, Footage, FrameChunk, LatentChunk, SessionContext, TextEmbedding


class TextEncoder(Protocol):
    async def encode(self, prompt: str, numerics: str = "") -> TextEmbedding:
        """Embed one prompt. Any text is accepted. One beyond the token limit is cut; `count` shows it, so that the caller can refuse it.

        Args:
            numerics: of the device that embedded the session's other prompts. One of the same is preferred, where there is a choice.
        """
        ...

    async def condition(self, footage: Footage) -> Conditioning:
        """What the denoise stage is given of an image or video, a function of its pixels alone.

        Raises:
            InvalidRequest: this model takes none.
        """
        ...


class Denoiser(Protocol):
    def stream(self, context: SessionContext) -> AsyncGenerator[LatentChunk, None]:
        """Make chunks from `context.next_chunk` on, in order, to the session's end. Those that were given come as they are.

        Raises:
            StageUnavailable: the stage died; reopen with the suffix of what was received.
        """
        ...


class Decoder(Protocol):
    def stream(self, context: SessionContext) -> AsyncGenerator[FrameChunk, None]:
        """Pull the session's latents from upstream and decode them, one chunk ahead of the reader at most.

        Raises:
            StageUnavailable: this stage or the one upstream died.
        """
        ...
