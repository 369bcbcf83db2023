"""Settings of the HTTP door, and what they become."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from deployments.cluster.local import FUSED_CONFIG, ROOT, STAGED_CONFIG, Overrides, load, start_local
from deployments.config.http import HttpSettings
from doors.http.options import HttpOptions, HttpTls
from model_core.errors import InvalidRequest


def loaded(**overrides: Any) -> HttpSettings:
    return load(STAGED_CONFIG, Overrides(**overrides))[1].front_door.http


@pytest.mark.parametrize("path", [STAGED_CONFIG, FUSED_CONFIG])
def test_the_shipped_files_serve_http_on_this_machine(path: Path) -> None:
    http = load(path, Overrides())[1].front_door.http
    assert (http.host, http.port, http.url) == ("127.0.0.1", 8080, "http://127.0.0.1:8080")


def test_without_a_block_there_is_no_http() -> None:
    assert HttpSettings().port is None
    assert HttpSettings().url == ""
    with pytest.raises(ValueError, match="there is no HTTP door"):
        HttpSettings().options(60)


def test_a_free_port_goes_with_a_free_port_for_grpc_and_not_with_another() -> None:
    free = loaded(grpc_port=0)
    assert free.port not in (None, 0, 8080)
    assert loaded(grpc_port=6000).port == 8080
    assert loaded(grpc_port=0, http_port=7000).port == 7000
    assert loaded(http_port=0).port not in (None, 0, 8080)
    off = {"front_door": {"http": {"port": None}}}
    assert loaded(grpc_port=0, args=off).port is None
    assert loaded(http_port=7000, args=off).port == 7000


def test_defaults_of_settings_and_of_the_door_are_the_same() -> None:
    assert HttpSettings(port=0).options(HttpOptions().stall_s) == HttpOptions()


def test_callers_are_asked_for_certificates_over_tls_alone() -> None:
    files = {"certificate_file": "/tls.crt", "key_file": "/tls.key"}
    secured = HttpSettings.model_validate({"port": 0, "tls": files})
    assert secured.options(60, "/ca.crt").tls == HttpTls(Path("/tls.crt"), Path("/tls.key"), Path("/ca.crt"))
    assert secured.options(60).tls == HttpTls(Path("/tls.crt"), Path("/tls.key"))
    assert HttpSettings(port=0).options(60, "/ca.crt").tls is None


def test_the_block_in_the_documents_has_the_defaults() -> None:
    page = (ROOT / "docs" / "doors" / "index.md").read_text()
    block = yaml.safe_load(page.partition("```yaml\n")[2].partition("```")[0])
    told = block["front_door"]["http"]
    assert set(told) == set(HttpSettings.model_fields)
    tls = told.pop("tls")
    assert HttpSettings.model_validate(told) == HttpSettings(port=8080)
    assert HttpSettings.model_validate({"tls": tls}).tls is not None


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"port": -1}, "greater than or equal to 0"),
        ({"port": True}, "must not be true or false"),
        ({"host": "http://h"}, "must be a host's name or IP address"),
        ({"public_url": "video.example.com"}, "must be http://HOST or https://HOST"),
        ({"public_url": "https://h/?a=b"}, "must be http://HOST or https://HOST"),
        ({"origins": ["example.com"]}, "must be * or origins in lower case"),
        ({"origins": ["https://example.com/"]}, "must be * or origins in lower case"),
        ({"max_body_bytes": 10}, "greater than or equal to"),
        ({"tls": {"certificate_file": "a"}}, "Field required"),
        ({"ports": 1}, "Extra inputs are not permitted"),
    ],
)
def test_a_wrong_setting_is_named(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError) as refused:
        HttpSettings.model_validate(given)
    assert sentence in str(refused.value)


def test_a_public_url_has_no_slash_at_its_end() -> None:
    assert HttpSettings(public_url="https://video.example.com/a/").public_url == "https://video.example.com/a"


def test_a_private_cluster_without_a_token_is_not_started_for_http_to_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    args = {"front_door": {"http": {"host": "0.0.0.0"}}, "identity": {"insecure": True}}  # noqa: S104 - refused
    with pytest.raises(InvalidRequest, match=r"args\.front_door\.http\.host: must be a loopback address unless RAY_AUTH_MODE is token"):
        start_local(STAGED_CONFIG, Overrides(grpc_port=0, metrics_port=0, args=args))
