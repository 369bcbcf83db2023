"""What a front door asks the others for sessions that are watched here and run there. See `service.watching.elsewhere`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayError
from ray.serve.exceptions import DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle

from deployments.links.remote import abandon, stage_errors
from deployments.links.wishes import Only
from model_core.errors import StageUnavailable
from model_core.tasks import cancel_and_wait
from service.watching.elsewhere import WAIT_S, Batch, Source
from service.watching.show import Place

log = logging.getLogger(__name__)

# Beyond that, a front door does not answer.
_ANSWER_WITHIN_S = 2.0


def own_actor() -> str:
    """The actor that this process is."""
    return ray.get_runtime_context().get_actor_id() or ""


class OtherDoors:
    """An `Elsewhere`.

    Args:
        handle: of the front doors, this one among them.
        own: the actor of this one.
        answer_within_s: how long they are waited for.
    """

    def __init__(self, handle: DeploymentHandle[Any], own: str, answer_within_s: float = _ANSWER_WITHIN_S) -> None:
        self._handle = handle
        self._own = own
        self._answer_within_s = answer_within_s

    async def find(self, token: str) -> Source | None:
        """See `Elsewhere`. The first that has the session counts, however slow others are.

        Those of an earlier version, which show nothing, count as not having it, and so do those that have died.
        """
        asked: list[asyncio.Task[Any]] = []
        unheard = False
        try:
            async with asyncio.timeout(self._answer_within_s):
                # Serve's `results_async` forgets every answer where one is late.
                results: list[Any] = await self._handle.broadcast("shows", token)._fetch_replica_results_async()  # noqa: SLF001 - see above
                asked = [asyncio.create_task(result.get_async()) for result in results]
                pending = set(asked)
                while pending:
                    done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                    actors = [_said(answer) for answer in done]
                    unheard = unheard or None in actors
                    if found := [actor for actor in actors if actor and actor != self._own]:
                        return _Session(self._handle, found[0], token)
        except DeploymentUnavailableError:  # there are none
            return None
        except (RayError, RayServeException, TimeoutError):
            unheard = True
        finally:
            await cancel_and_wait(*asked)
        if unheard:
            raise StageUnavailable("other front doors do not answer")
        return None

    async def leaving(self, tokens: Sequence[str]) -> None:
        """See `Elsewhere`. Those of an earlier version do not understand it, and whoever asks them looks for a session as before."""
        try:
            async with asyncio.timeout(self._answer_within_s):
                results: list[Any] = await self._handle.broadcast("leaves", list(tokens))._fetch_replica_results_async()  # noqa: SLF001 - as above
                await asyncio.gather(*(result.get_async() for result in results), return_exceptions=True)
        except (RayError, RayServeException, TimeoutError):
            log.warning("not all other front doors were told which sessions leave here")


def _said(asked: asyncio.Task[Any]) -> str | None:
    """The actor of a front door that has the session; empty where it has not, None where it has not said."""
    if asked.cancelled() or isinstance(asked.exception(), ActorUnavailableError | TimeoutError):
        return None
    answer = "" if asked.exception() is not None else asked.result()
    return answer if isinstance(answer, str) else ""


class _Session:
    """One session, at the front door that runs it."""

    def __init__(self, handle: DeploymentHandle[Any], actor: str, token: str) -> None:
        self._handle, self._actor, self._token = handle, actor, token

    async def after(self, place: Place | None) -> Batch | None:
        response = self._handle.shown.remote(self._token, place, Only(self._actor))
        with stage_errors("front door"):
            try:
                async with asyncio.timeout(WAIT_S + _ANSWER_WITHIN_S):
                    batch = await response
            except TimeoutError:
                raise StageUnavailable(f"front door: no answer within {WAIT_S + _ANSWER_WITHIN_S:g} s") from None
            finally:
                abandon(response)
        return batch if isinstance(batch, Batch) else None
