"""One Oasis session: its caller, its scene, and the answers that may have to be given again."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence

from doors.grpc.oasis import a2v_pb2 as pb
from doors.grpc.oasis.errors import Refused
from doors.grpc.oasis.scene import Scene, SceneEnded
from doors.grpc.oasis.vp9 import Vp9Encoder
from model_core.acts import ARROWS, Keys
from model_core.config import ModelConfig
from model_core.errors import FieldViolation, InvalidRequest
from model_core.tasks import finished, run_in_thread
from model_core.types import Codec

STREAMS = ("left_forward", "front", "right_forward")
ACTIONS = 4
_DEAD = 0.1 + 1e-6  # what is moved no further stands still; floats of the wire are a little more than they say


class OasisSession:
    """Calls of one session are served one after the other.

    Args:
        owner: whoever may use it.
        config: of the model.
        codec: of the session of ours: JPEG, or raw frames that become VP9 here.
        now: seconds since some fixed moment.
    """

    def __init__(self, owner: tuple[str, str], config: ModelConfig, codec: Codec, now: Callable[[], float]) -> None:
        self.owner = owner
        self.config = config
        self.codec = codec
        self._now = now
        self.used_at = now()
        self._lock = asyncio.Lock()
        self._scene: Scene | None = None
        self._encoder = Vp9Encoder(config.width, config.height, config.fps) if codec is Codec.RAW_RGB else None
        self._fresh = True
        self._next = 0
        self._last: pb.InferResponse | None = None

    @property
    def busy(self) -> bool:
        """Whether a call is served now."""
        return self._lock.locked()

    async def prompt(self, begin: Callable[[], Scene]) -> None:
        """Leave the scene, and begin another one. Raises what `begin` raises, or what refuses the new scene's session."""
        async with self._lock:
            self.used_at = self._now()
            await self._leave()
            self._next, self._last, self._fresh = 0, None, True
            scene = self._scene = begin()
            try:
                await scene.started()
            except BaseException:
                await self._leave()
                raise
            finally:
                self.used_at = self._now()

    async def infer(self, number: int, actions: Sequence[pb.Action]) -> pb.InferResponse:
        """The frames that follow `actions`. The last answer is given again to one that asks for it again.

        Raises:
            Refused, InvalidRequest: also what ended the scene's session.
        """
        _check(actions)
        async with self._lock:
            self.used_at = self._now()
            if self._last is not None and number == self._last.sequence_num:
                return self._last
            if self._scene is None:
                raise Refused(pb.ERROR_CODE_PROMPT_SET, "a prompt must be set before the first actions; got none")
            if number != self._next:
                raise InvalidRequest((FieldViolation("sequence_num", f"must be {self._next}; got {number}"),))
            if set(ARROWS) <= set(self.config.keys):
                self._scene.act(keys_of(actions))
            try:
                await self._scene.wait_for(len(actions))
            except SceneEnded:
                seconds = self._next * ACTIONS / self.config.fps
                ended = f"the scene has ended after {seconds:g} s, the longest that the model makes; set a prompt"
                raise Refused(pb.ERROR_CODE_INVALID_REQUEST, ended) from None
            finally:
                self.used_at = self._now()
            # A caller that leaves now may ask again, and gets the answer then.
            return await finished(self._answer(number, self._scene.take(len(actions))))

    async def aclose(self) -> None:
        """End the scene, whatever call waits for it."""
        await self._leave()

    async def _leave(self) -> None:
        scene, self._scene = self._scene, None
        if scene is not None:
            await scene.aclose()

    async def _answer(self, number: int, frames: list[bytes]) -> pb.InferResponse:
        packets = frames if self._encoder is None else await run_in_thread(self._encoded, self._encoder, frames, self._fresh)
        self._fresh = False
        # The model has one camera. All streams show it.
        answer = pb.InferResponse(sequence_num=number, streams=[pb.OutputStream(name=name, frames=packets) for name in STREAMS])
        self._last, self._next = answer, number + 1
        return answer

    @staticmethod
    def _encoded(encoder: Vp9Encoder, frames: list[bytes], fresh: bool) -> list[bytes]:
        return encoder.encode(frames, fresh=fresh)


def keys_of(actions: Sequence[pb.Action]) -> Keys:
    """The arrow keys for what is done on average: throttle is up, or down where it is negative, and steering is right, or left."""
    throttle, steering = (sum(values) / len(actions) for values in zip(*((a.throttle, a.steering) for a in actions), strict=True))
    vertical: Keys = () if abs(throttle) <= _DEAD else ("up",) if throttle > 0 else ("down",)
    horizontal: Keys = () if abs(steering) <= _DEAD else ("right",) if steering > 0 else ("left",)
    return vertical + horizontal


def _check(actions: Sequence[pb.Action]) -> None:
    """Raises InvalidRequest."""
    if len(actions) != ACTIONS:
        raise InvalidRequest((FieldViolation("actions", f"must be {ACTIONS}; got {len(actions)}"),))
    for action in actions:
        for name, value in (("throttle", action.throttle), ("steering", action.steering)):
            if not (math.isfinite(value) and -1 <= value <= 1):
                raise InvalidRequest((FieldViolation(f"actions.{name}", f"must be a number from -1 to 1; got {value:g}"),))
