"""Webhooks of a tenant, registered once for all of its jobs: `/v1/webhook_endpoints`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.responses import JSONResponse, Response

from doors.http.own import schemas
from doors.http.own.schemas import WebhookEndpointBody
from doors.http.room import Endpoint, HttpRequest, Services
from service.checks import Problems
from service.failures import NotServed
from service.jobs.webhooks import endpoints
from service.jobs.webhooks.endpoints import EndpointDesk

PREFIX = "whe_"


class WebhookEndpoints:
    """The handlers.

    Args:
        services: what they work with.
    """

    def __init__(self, services: Services) -> None:
        self._services = services

    def endpoints(self) -> Sequence[Endpoint]:
        path = "/v1/webhook_endpoints"
        return (
            Endpoint(path=path, method="POST", operation="create_webhook_endpoint", handler=self.create),
            Endpoint(path=path, method="GET", operation="list_webhook_endpoints", handler=self.list),
            Endpoint(path=f"{path}/{PREFIX}{{id}}", method="DELETE", operation="delete_webhook_endpoint", handler=self.delete),
        )

    async def create(self, request: HttpRequest) -> Response:
        """The one answer that holds the secret."""
        desk, problems = self._desk(), Problems()
        body = problems.passed(schemas.read(WebhookEndpointBody, await request.json(), problems))
        made = await desk.register(request.principal, body.url)
        return JSONResponse(described(made) | {"secret": made.secret}, 201, {"cache-control": "no-store"})

    async def list(self, request: HttpRequest) -> Response:
        found = await self._desk().list(request.principal)
        return JSONResponse({"object": "list", "data": [described(each) for each in found]})

    async def delete(self, request: HttpRequest) -> Response:
        endpoint_id: str = request.raw.path_params["id"]
        await self._desk().remove(request.principal, endpoint_id)
        return JSONResponse({"id": f"{PREFIX}{endpoint_id}", "object": "webhook_endpoint.deleted", "deleted": True})

    def _desk(self) -> EndpointDesk:
        if self._services.endpoints is None:
            raise NotServed("this server has no database, and so no jobs")
        return self._services.endpoints


def described(endpoint: endpoints.Endpoint) -> dict[str, Any]:
    """As our API shows it, without its secret."""
    return {"id": f"{PREFIX}{endpoint.id}", "object": "webhook_endpoint", "url": endpoint.url, "created_at": endpoint.created_at}
