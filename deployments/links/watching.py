"""What a front door asks the others for sessions that are watched here and run there. See `service.watching.elsewhere`."""

from __future__ import annotations

import asyncio
from typing import Any

import ray
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from deployments.links.remote import abandon, stage_errors
from deployments.links.routing import Only
from model_core.errors import StageUnavailable
from service.watching.elsewhere import WAIT_S, Batch, Source
from service.watching.show import Place

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
    """

    def __init__(self, handle: DeploymentHandle[Any], own: str) -> None:
        self._handle = handle
        self._own = own

    async def find(self, token: str) -> Source | None:
        """See `Elsewhere`. Those of an earlier version, which show nothing, count as not having it."""
        try:
            answers = await self._handle.broadcast("shows", token).results_async(timeout_s=_ANSWER_WITHIN_S, return_exceptions=True)
        except (RayError, RayServeException, TimeoutError):
            return None
        found = (answer for answer in answers if isinstance(answer, str) and answer not in ("", self._own))
        return next((_Session(self._handle, actor, token) for actor in found), None)


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
