"""The OpenAPI document says what the server does, and no request that can be made of it finds a defect."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import jsonschema

from bench.doors.schema import ask, lines
from doors.http.own import openapi
from doors.http.own.schemas import JobBody, StreamBody, WebhookEndpointBody
from service.intake import Intake
from tests.http_served import OPTIONS, http_serving
from tests.unit.doors.http.fake_jobs import FakeJobDesk

EXAMPLES = 90


async def test_the_document_names_every_path_of_the_api_and_no_other() -> None:
    async with http_serving() as served:
        document = (await served.client.get("/openapi.json")).json()
        assert document["openapi"] == "3.1.0"
        for path, item in document["paths"].items():
            for method in item:
                prefix = {"batches": "batch_", "webhook_endpoints": "whe_"}.get(path.split("/")[2], "job_")
                answer = await served.client.request(method.upper(), path.replace("{id}", f"{prefix}x").replace("{model}", "m"))
                assert answer.status_code != 405, (method, path)
                assert "there is nothing at" not in answer.text, (method, path)
        names = {operation["operationId"] for item in document["paths"].values() for operation in item.values()}
        room = {
            "stream",
            "list_models",
            "get_model",
            "create_job",
            "list_jobs",
            "get_job",
            "delete_job",
            "cancel_job",
            "get_content",
            "create_batch",
            "create_webhook_endpoint",
            "list_webhook_endpoints",
            "delete_webhook_endpoint",
        }
        assert names >= room


def test_bodies_in_the_document_are_those_that_are_checked() -> None:
    schemas = openapi.document()["components"]["schemas"]
    for body, required in ((StreamBody, ["prompt"]), (JobBody, ["prompt"]), (WebhookEndpointBody, ["url"])):
        assert set(schemas[body.__name__]["properties"]) == set(body.model_fields)
        assert schemas[body.__name__]["additionalProperties"] is False
        assert schemas[body.__name__]["required"] == required
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_every_reference_leads_somewhere() -> None:
    document = openapi.document("https://video.example.com")
    assert document["servers"] == [{"url": "https://video.example.com"}]

    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if "$ref" in node else []
            return own + [each for value in node.values() for each in references(value)]
        return [each for value in node for each in references(value)] if isinstance(node, list) else []

    found = references(document)
    assert found
    assert {each.removeprefix("#/components/schemas/") for each in found} <= set(document["components"]["schemas"])


async def test_no_request_that_can_be_made_of_it_finds_a_defect(tmp_path: Path) -> None:
    def desk(intake: Intake) -> FakeJobDesk:
        return FakeJobDesk(intake, tmp_path)

    async with http_serving(options=OPTIONS, jobs=desk, max_sessions=8) as served:
        url = f"http://127.0.0.1:{served.port}"
        found = await asyncio.to_thread(ask, url, openapi.document(), EXAMPLES, seeded=True)
        assert found.defects == [], "\n".join(lines(found))
        assert found.total >= EXAMPLES // 2
        await served.nothing_left()
