"""How the frames of a session fall into chunks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkGrid:
    """How the frames of a session fall into chunks.

    Attributes:
        first, rest: latent frames of chunk 0, and of every other.
        last: latent frames of the last chunk, where it is shorter than `rest`; else 0.
        factor: frames that a latent frame becomes.
        head: frames that the session's very first latent frame becomes; causal video autoencoders make one of it.
        chunks: how many chunks a session can have; None for no end.
    """

    first: int
    rest: int
    factor: int
    head: int
    chunks: int | None = None
    last: int = 0

    def latents(self, chunk: int) -> int:
        """Latent frames of `chunk`."""
        if self.last and self.chunks is not None and chunk >= self.chunks - 1:
            return self.last
        return self.rest if chunk else self.first

    def first_frame(self, chunk: int) -> int:
        """The frame that `chunk` begins with."""
        short = self.rest - self.last if self.last and self.chunks is not None and chunk >= self.chunks else 0
        return self.head + (self.first + (chunk - 1) * self.rest - short - 1) * self.factor if chunk else 0

    def frames(self, chunk: int) -> int:
        """Frames of `chunk`."""
        return self.first_frame(chunk + 1) - self.first_frame(chunk)

    def chunk_of(self, frame: int) -> int:
        """The chunk that holds `frame`."""
        beyond = frame - self.first_frame(1)
        return 0 if beyond < 0 else 1 + beyond // (self.rest * self.factor)

    def chunk_from(self, frame: int) -> int:
        """The first chunk that begins with `frame` or later."""
        chunk = self.chunk_of(frame)
        return chunk if self.first_frame(chunk) == frame else chunk + 1

    def chunks_in(self, latents: int) -> int:
        """Whole chunks that a session's first `latents` latent frames fill."""
        return 0 if latents < self.first else 1 + (latents - self.first) // self.rest

    @property
    def max_frames(self) -> int | None:
        """The longest session; None for no end."""
        return None if self.chunks is None else self.first_frame(self.chunks)
