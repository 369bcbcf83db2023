"""The settings that say who may call, and the rule that a network is not served unasked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from deployments.app import build
from deployments.cluster.local import FUSED_CONFIG, STAGED_CONFIG, Overrides, load
from deployments.config.application import AppConfig
from deployments.config.explained import deployments, warnings
from deployments.config.identity import IdentitySettings
from deployments.replicas.identity import identity
from headrace.cli import app
from headrace.cli.console import EXIT_BAD_INPUT, conclude
from model_core.errors import InvalidRequest
from service.clock import MonotonicClock
from service.identity.allowance import NoQuotas
from service.identity.authority import Doorkeeper
from service.identity.open_door import OpenDoor
from service.identity.principal import Caller
from tests.documents import ROOT, named_by
from tests.identities import MASTER, sqlite

JWT = {"issuer": "https://login.example.org", "audience": ["headrace"], "jwks": "https://login.example.org/keys"}
CERTIFICATES = {"ca_file": "/etc/headrace/ca.crt", "tenants": {"spiffe://example.org/studio": "studio"}}
TLS = {"certificate_file": "/etc/headrace/tls.crt", "key_file": "/etc/headrace/tls.key"}
NETWORK = ("0.0.0.0", "::", "10.0.0.7", "headrace.example.org")  # noqa: S104 - nothing is bound
KEYS: dict[str, Any] = {"identity": {"keys": "required"}, "state": {"url": "postgresql://headrace@db/headrace"}}


@pytest.mark.parametrize("host", NETWORK)
def test_a_door_to_the_network_that_asks_nobody_is_refused(host: str) -> None:
    wanted = (
        f"identity.keys must be 'required', or identity.jwt or identity.certificates be set, because front_door.host {host} faces the "
        "network and anybody there could call; got 'off'. To let anybody call, set identity.insecure to true"
    )
    with pytest.raises(InvalidRequest) as caught:
        load(STAGED_CONFIG, Overrides(args={"front_door": {"host": host}}))
    [violation] = caught.value.violations
    assert (violation.field, violation.description) == ("args", wanted)
    with pytest.raises(ValidationError, match="anybody there could call"):
        build(AppConfig.model_validate({"front_door": {"host": host}}))


@pytest.mark.parametrize(
    "args",
    [KEYS, {"identity": {"jwt": JWT}}, {"identity": {"certificates": CERTIFICATES}, "front_door": {"tls": TLS}},
     {"identity": {"insecure": True}}],
    ids=["keys", "jwt", "certificates", "insecure"],
)  # fmt: skip
def test_it_is_served_where_callers_are_known_or_nobody_minds(args: dict[str, Any]) -> None:
    door = {"host": "0.0.0.0", **args.get("front_door", {})}  # noqa: S104 - nothing is bound
    assert AppConfig.model_validate({**args, "front_door": door}).front_door.host == door["host"]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.9.9.9"])
def test_this_machine_is_served_without_keys(host: str) -> None:
    assert not AppConfig.model_validate({"front_door": {"host": host}}).identity.asked_for


@pytest.mark.parametrize("path", [STAGED_CONFIG, FUSED_CONFIG])
def test_the_shipped_files_are_for_this_machine_and_become_the_networks_by_one_setting(path: Path) -> None:
    with pytest.raises(InvalidRequest, match="anybody there could call"):
        load(path, Overrides(args={"front_door": {"host": "0.0.0.0"}}))  # noqa: S104 - nothing is bound
    _, config = load(path, Overrides(args={"front_door": {"host": "0.0.0.0"}, **KEYS}))  # noqa: S104
    assert config.identity.keys == "required"


def test_check_says_why_and_how(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = yaml.safe_load(STAGED_CONFIG.read_text())
    document["applications"][0]["args"]["front_door"]["host"] = "0.0.0.0"  # noqa: S104 - nothing is bound
    (path := tmp_path / "serve.yaml").write_text(yaml.safe_dump(document))
    assert conclude(lambda: app(["check", str(path)], standalone_mode=False)) == EXIT_BAD_INPUT
    assert "error: args: identity.keys must be 'required'" in capsys.readouterr().err
    document["applications"][0]["args"]["identity"] = {"insecure": True}
    path.write_text(yaml.safe_dump(document))
    assert conclude(lambda: app(["check", str(path), "--json"], standalone_mode=False)) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["callers"] == "anybody"
    assert told["warnings"][0].startswith("identity.insecure is true and front_door.host 0.0.0.0 faces the network: anybody there can call")


def test_off_needs_no_quotes_in_yaml() -> None:
    assert IdentitySettings.model_validate(yaml.safe_load("keys: off")).keys == "off"


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({"keys": True}, "identity.keys: must not be true or false, which YAML reads from yes and no, too; got true"),
        ({"keys": "on"}, "identity.keys: Input should be 'off' or 'required'; got 'on'"),
        ({"insecure": True, "jwt": JWT}, "insecure must be false where jwt is set: callers are asked for it either way; got true"),
        ({"keys": "required", "master_variable": ""}, "master_variable must name an environment variable with keys required; got ''"),
        ({"master_variable": "A-B"}, "identity.master_variable: String should match pattern"),
        ({"cache_seconds": -1}, "identity.cache_seconds: Input should be greater than or equal to 0; got '-1'"),
        ({"proxies": ["10.0.0.1/8"]}, "must be IP addresses, or networks such as 10.0.0.0/8; got '10.0.0.1/8'"),
        ({"proxies": ["gateway"]}, "must be IP addresses, or networks such as 10.0.0.0/8; got 'gateway'"),
        ({"open_buckets": ["B"]}, "identity.open_buckets.0: String should match pattern"),
        ({"jwt": JWT, "open_buckets": ["films"]}, "open_buckets must be empty where jwt is set: tenants have buckets of their own"),
        ({"buckets": {"studio": ["films"]}}, "buckets must be empty where callers are asked for nothing"),
        ({"jwt": JWT, "buckets": {"a b": ["films"]}}, "String should match pattern"),
        ({"jwt": JWT, "buckets": {"studio": ["B"]}}, "identity.buckets.studio.0: String should match pattern"),
        ({"jwt": {**JWT, "jwks": "http://login.example.org/keys"}}, "must be https://HOST/PATH, or a file; got 'http://login"),
        ({"jwt": {**JWT, "jwks": "ftp://login.example.org/keys"}}, "must be https://HOST/PATH, or a file; got 'ftp://login"),
        ({"jwt": {**JWT, "algorithms": ["HS256"]}}, "identity.jwt.algorithms.0: Input should be 'RS256'"),
        ({"jwt": {**JWT, "algorithms": ["none"]}}, "identity.jwt.algorithms.0: Input should be 'RS256'"),
        ({"jwt": {**JWT, "algorithms": []}}, "identity.jwt.algorithms: Tuple should have at least 1 item"),
        ({"jwt": {**JWT, "audience": []}}, "identity.jwt.audience: Tuple should have at least 1 item"),
        ({"certificates": CERTIFICATES}, "front_door.tls must be set with identity.certificates, which a caller shows over TLS; got none"),
        ({"certificates": {**CERTIFICATES, "tenants": {}}}, "identity.certificates.tenants: Dictionary should have at least 1 item"),
        ({"certificates": {**CERTIFICATES, "tenants": {"a": "b c"}}}, "String should match pattern"),
        ({"keys": "required"}, "identity.keys must be 'off' where state.url is empty: keys are in the database; got 'required'"),
    ],
)
def test_a_setting_that_makes_no_sense_names_itself_its_limit_and_its_value(args: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        load(STAGED_CONFIG, Overrides(args={"identity": args}))
    assert told in str(caught.value)


@pytest.mark.parametrize("where", ["https://login.example.org/keys", "http://127.0.0.1:8080/keys", "/etc/headrace/keys.json"])
def test_keys_of_an_issuer_come_from_where_they_cannot_be_forged(where: str) -> None:
    settings = IdentitySettings.model_validate({"jwt": {**JWT, "jwks": where}})
    assert settings.jwt is not None
    assert settings.jwt.jwks == where


def test_check_says_who_is_asked_for_what() -> None:
    document, config = load(STAGED_CONFIG, Overrides(args={"identity": {"jwt": JWT}}))
    assert config.identity.asked_for == "jwt"
    assert list(warnings(config, deployments(document, config))) == []


async def test_a_front_door_is_made_of_its_settings(tmp_path: Path) -> None:
    clock = MonotonicClock()
    made = identity(IdentitySettings(), None, clock, {})
    assert isinstance(made.authority, OpenDoor)
    assert isinstance(made.quotas, NoQuotas)
    required = IdentitySettings(keys="required", master_variable="SECRET")
    async with sqlite(tmp_path) as database:
        for environment, told in (
            ({}, "identity.master_variable must name a variable that is set; SECRET is not"),
            ({"SECRET": "planted"}, "identity.master_variable SECRET must have at least 32 characters; got 7"),
        ):
            with pytest.raises(ValueError, match=told) as caught:
                identity(required, database, clock, environment)
            assert "planted" not in str(caught.value)
        made = identity(required, database, clock, {"SECRET": MASTER})
        assert isinstance(made.authority, Doorkeeper)
        assert not isinstance(made.quotas, NoQuotas)
        assert MASTER not in repr(made)
        await made.aclose()
    with pytest.raises(ValueError, match=r"identity\.keys must be 'off' without a database"):
        identity(required, None, clock, {"SECRET": MASTER})
    tokens = identity(IdentitySettings.model_validate({"jwt": JWT}), None, clock, {})
    assert isinstance(tokens.authority, Doorkeeper)


async def test_a_tenants_buckets_are_those_of_the_settings() -> None:
    args = {"certificates": CERTIFICATES, "buckets": {"studio": ["films"]}}
    made = identity(IdentitySettings.model_validate(args), None, MonotonicClock(), {})
    caller = Caller(address="10.0.0.7", certificate_names=("spiffe://example.org/studio",))
    assert (await made.authority.without_secret(caller)).buckets == frozenset({"films"})


def test_the_settings_of_the_page_are_accepted() -> None:
    mine = "tests/unit/deployments/test_identity_config.py::test_the_settings_of_the_page_are_accepted"
    found = [yaml.safe_load(block.text) for block in named_by(mine, [ROOT / "docs" / "keys.md"])]
    assert len(found) == 5
    for settings in found:
        assert AppConfig.model_validate({**settings, "state": KEYS["state"]}).identity.asked_for


def test_check_warns_of_an_authority_that_cannot_be_read() -> None:
    args = {"front_door": {"tls": {"certificate_file": "pyproject.toml", "key_file": "pyproject.toml"}}}
    document, config = load(STAGED_CONFIG, Overrides(args={**args, "identity": {"certificates": CERTIFICATES}}))
    [warning] = warnings(config, deployments(document, config))
    assert warning.startswith("identity.certificates.ca_file /etc/headrace/ca.crt cannot be read on this machine")


def test_the_folder_of_a_server_is_used_where_the_file_names_no_other_place() -> None:
    own = Overrides(state_url="sqlite:////own/headrace.db", artifacts_folder="/own/artifacts", args={"identity": {"keys": "required"}})
    _, config = load(STAGED_CONFIG, own)
    assert (config.state.url, config.artifacts.folder) == (own.state_url, own.artifacts_folder)
    told = {"state": {"url": "sqlite:////told.db"}, "artifacts": {"s3": {"bucket": "results"}}}
    _, config = load(STAGED_CONFIG, replace(own, args=told))
    assert (config.state.url, config.artifacts.folder) == ("sqlite:////told.db", "")
    _, config = load(STAGED_CONFIG, Overrides())
    assert (config.state.url, config.artifacts.folder) == ("", "")
