from __future__ import annotations

import re
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from deployments.app import build
from deployments.cluster.local import FUSED_CONFIG, ROOT, STAGED_CONFIG, Overrides, free_port, load, start_local
from deployments.config.application import AppConfig
from deployments.config.names import APP_NAME
from deployments.config.watch import WatchSettings
from deployments.config.webrtc import WebRtcSettings, check_package
from model_core.config import EngineConfig
from model_core.errors import InvalidRequest
from model_core.presets import DEFAULT_MODEL

KEEP = Overrides(grpc_port=0, metrics_port=0)


def write(folder: Path, text: str) -> Path:
    path = folder / "serve.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("path", "mode", "names"),
    [
        (STAGED_CONFIG, "staged", ["TextEncoder", "Denoiser", "Decoder", "FrontDoor"]),
        (FUSED_CONFIG, "fused", ["FusedPipeline", "FrontDoor"]),
    ],
)
def test_shipped_files_name_the_deployments_that_build_makes(path: Path, mode: str, names: list[str]) -> None:
    document, config = load(path, KEEP)
    blocks = document["applications"][0]["deployments"]
    assert config.mode == mode
    assert config.model == DEFAULT_MODEL
    assert [block["name"] for block in blocks] == names
    assert all({"ray_actor_options", "autoscaling_config"} <= block.keys() for block in blocks)
    root: Any = build(config)._bound_deployment  # noqa: SLF001 - Ray shows the graph nowhere else
    assert {root.name, *(stage._bound_deployment.name for stage in root.init_args[1:])} == set(names)  # noqa: SLF001


def test_aliases_are_added_to_the_well_known_ones_and_an_empty_mapping_leaves_none() -> None:
    _, config = load(STAGED_CONFIG, Overrides(args={"aliases": {"mine": DEFAULT_MODEL, "sora-2": ""}}))
    table = config.alias_table()
    assert (table["mine"], table["sora-2"], table["veo-*"]) == (DEFAULT_MODEL, "", DEFAULT_MODEL)
    assert AppConfig().alias_table()["sora-2"] == DEFAULT_MODEL
    assert AppConfig(aliases={}).alias_table() == {}


def test_the_defaults_of_a_denoise_replica_are_stated_once() -> None:
    assert AppConfig().engine.engine_config() == EngineConfig()


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({"model": "wan-99"}, "args.model: must be one of: millrace-64, millrace-64-world; got 'wan-99'"),
        ({"mode": "both"}, "args.mode: Input should be 'staged' or 'fused'; got 'both'"),
        ({"engine": {"slots": 0}}, "args.engine.slots: Input should be greater than or equal to 1; got '0'"),
        ({"engine": {"batch_buckets": [4, 2]}}, "strictly ascending list; got [4, 2]"),
        ({"front_door": {"port": 70000}}, "args.front_door.port: Input should be less than or equal to 65535; got '70000'"),
        ({"admission": {"tiers": [2, 3]}}, "must be a strictly descending list; got [2, 3]"),
        ({"admission": {"tiers": [4, 2]}}, "admission.tiers must be below the 4 steps of millrace-64; got [4, 2]"),
        ({"admission": {"tiers": [3, 1]}}, "must be at least 2, half of the 4 steps of millrace-64, because fewer make noise; got [3, 1]"),
        ({"admission": {"utilisation": 1.2}}, "args.admission.utilisation: Input should be less than or equal to 1; got '1.2'"),
        ({"tracing": {"exporter": "file"}}, "file must be given with exporter file; got ''"),
        ({"tracing": {"exporter": "otlp", "endpoint": "collector:4317"}}, "args.tracing.endpoint: String should match pattern"),
        (
            {"tracing": {"exporter": "otlp", "endpoint": "http://127.0.0.1:4318"}},
            "endpoint must have a path; a collector's is usually http://127.0.0.1:4318/v1/traces; got 'http://127.0.0.1:4318'",
        ),
        ({"admission": {"mode": "fcfs"}}, "args.admission.mode: Input should be 'measured' or 'none'; got 'fcfs'"),
        ({"aliases": {"sora-2": "sora"}}, "aliases.sora-2 must be millrace-64, which is served, or empty for no alias; got 'sora'"),
        ({"aliases": {"a*b": "millrace-64"}}, "args.aliases.a*b"),
        ({"link_windw": 2}, "args.link_windw: must be a key that is known, such as link_window; got 'link_windw'"),
        ({"front_door": {"http": {"hst": "h"}}}, "args.front_door.http.hst: must be a key that is known, such as host; got 'hst'"),
        (
            {"front_door": {"limits": {"max_promt_bytes": 9}}},
            "args.front_door.limits.max_promt_bytes: must be a key that is known, such as max_prompt_bytes",
        ),
        (
            {"front_door": {"limits": {"uploads": {"max_image_byte": 9}}}},
            "args.front_door.limits.uploads.max_image_byte: must be a key that is known, such as max_image_bytes",
        ),
        ({"text_encoder": {"runtime": {"nme": "cpu"}}}, "args.text_encoder.runtime.nme: must be a key that is known, such as name"),
        ({"identity": {"qqq": 1}}, "args.identity.qqq: must be a key that is known, such as buckets, cache_seconds, certificates,"),
        (
            {"admission": {"tenants": {"a": {}}}},
            "args.admission.tenants: must be given as tenants in user_config of the deployment FrontDoor; got 'tenants', its old place",
        ),
        ({"front_door": {"limits": {"max_prompt_bytes": "many"}}}, "args.front_door.limits.max_prompt_bytes"),
    ],
)
def test_a_wrong_argument_names_itself_its_limit_and_its_value(args: dict[str, object], told: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(told)):
        load(STAGED_CONFIG, Overrides(args=args))


@pytest.mark.parametrize(
    ("tenants", "told"),
    [
        ({"a": {"weight": 0}}, "deployments.FrontDoor.user_config.tenants.a.weight: Input should be greater than 0; got '0'"),
        ({"other": {}}, "'other' stands for all that are not listed, and cannot be listed"),
        ({"a b": {}}, "deployments.FrontDoor.user_config.tenants.a b"),
        ({"a": {"wait": 1}}, "deployments.FrontDoor.user_config.tenants.a.wait: must be a key that is known, such as weight; got 'wait'"),
    ],
)
def test_a_wrong_tenant_is_refused_before_a_front_door_is_told(tenants: dict[str, object], told: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(told)):
        load(STAGED_CONFIG, Overrides(deployments={"FrontDoor": {"user_config": {"tenants": tenants}}}))


def test_overrides_are_merged_and_port_zero_becomes_a_real_port() -> None:
    overrides = Overrides(
        grpc_port=0,
        metrics_port=19464,
        args={"engine": {"slots": 3}},
        deployments={"Denoiser": {"autoscaling_config": None, "num_replicas": 2}},
        env={"MORE": "1"},
    )
    document, config = load(STAGED_CONFIG, overrides)
    app = document["applications"][0]
    assert config.front_door.port > 0
    assert config.front_door.metrics_port == 19464
    assert config.engine.slots == 3
    assert config.engine.batch_buckets == (1, 2, 4, 8)
    assert config.link_host == "127.0.0.1"
    assert next(block for block in app["deployments"] if block["name"] == "Denoiser")["num_replicas"] == 2
    assert app["runtime_env"]["env_vars"]["MORE"] == "1"
    assert app["runtime_env"]["env_vars"]["RAY_SERVE_USE_GRPC_BY_DEFAULT"] == "1"


def test_on_a_running_cluster_stages_meet_at_the_address_of_their_node() -> None:
    _, config = load(STAGED_CONFIG, Overrides(address="auto"))
    assert config.link_host == ""


def test_an_unknown_deployment_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="must be among: Decoder, Denoiser, FrontDoor, TextEncoder; got 'Denoise'"):
        load(STAGED_CONFIG, Overrides(deployments={"Denoise": {}}))


def test_a_staged_file_cannot_be_started_fused() -> None:
    with pytest.raises(InvalidRequest, match="must be 'fused'"):
        load(STAGED_CONFIG, Overrides(fused=True))


@pytest.mark.parametrize("text", ["applications: []", "applications: [{name: other, import_path: 'deployments.app:build'}]"])
def test_a_file_without_the_application_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidRequest, match="must be one application named 'headrace'"):
        load(write(tmp_path, text), KEEP)


def test_a_taken_port_is_an_error_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # as another front door would hold it
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(OSError, match=f"127.0.0.1:{port} cannot be listened on"):
            start_local(None, Overrides(grpc_port=port, metrics_port=free_port()))


def test_fused_args_of_the_two_files_do_not_drift() -> None:
    """What the fused file leaves out must mean what the staged file says."""
    staged = AppConfig.model_validate(yaml.safe_load(STAGED_CONFIG.read_text())["applications"][0]["args"])
    fused = AppConfig.model_validate(yaml.safe_load(FUSED_CONFIG.read_text())["applications"][0]["args"])
    assert staged.model_dump(exclude={"mode"}) == fused.model_dump(exclude={"mode"})
    assert yaml.safe_load(STAGED_CONFIG.read_text())["applications"][0]["name"] == APP_NAME


@pytest.mark.parametrize(
    "args",
    [{"front_door": {"port": True}}, {"engine": {"slots": True}},
     {"engine": {"batch_buckets": [True, 2]}}, {"admission": {"max_waiting": False}}],
)  # fmt: skip
def test_a_yes_where_a_number_belongs_is_not_taken_for_one(args: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="must not be true or false"):
        AppConfig.model_validate(args)
    assert AppConfig.model_validate({"front_door": {"reflection": True}}).front_door.reflection


@pytest.mark.parametrize(("linger_seconds", "drain_seconds", "waits_s"), [(30.0, 10.0, 30.0), (30.0, 120.0, 130.0), (0.0, 0.0, 10.0)])
def test_those_who_watch_wait_for_a_session_at_least_as_long_as_its_front_door_drains(
    linger_seconds: float, drain_seconds: float, waits_s: float
) -> None:
    assert WatchSettings(linger_seconds=linger_seconds).limits(drain_seconds).linger_s == waits_s


def test_an_enhancer_is_a_deployment_of_its_own_where_the_arguments_have_one(tmp_path: Path) -> None:
    plain = STAGED_CONFIG.read_text()
    block = "- name: Enhancer\n        ray_actor_options: {num_cpus: 0.5}\n\n      - name: FrontDoor"
    path = write(tmp_path, plain.replace("- name: FrontDoor", block, 1))
    with pytest.raises(InvalidRequest, match=r"must be one of .*; got 'Enhancer'"):
        load(path, KEEP)
    document, config = load(path, replace(KEEP, args={"enhancer": {"slots": 3}}))
    assert "Enhancer" in [block["name"] for block in document["applications"][0]["deployments"]]
    assert config.terms().enhance_slots == 3
    assert config.preset().enhancer


def test_a_model_without_an_enhancer_and_too_large_frames_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"stage_message_bytes must be at least .*: 16 enhanced raw frames of 256x256"):
        AppConfig.model_validate({"enhancer": {}, "stage_message_bytes": 3 * 1024 * 1024})
    AppConfig.model_validate({"stage_message_bytes": 3 * 1024 * 1024})


def test_the_documents_block_for_an_enhancer_is_accepted(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "enhance.md").read_text()
    shown = yaml.safe_load(text[text.index("```yaml") + 7 :].partition("```")[0])
    document = yaml.safe_load(STAGED_CONFIG.read_text())
    app = document["applications"][0]
    app["args"] |= shown["args"]
    app["deployments"] += shown["deployments"]
    _, config = load(write(tmp_path, yaml.safe_dump(document)), KEEP)
    assert config.enhancer is not None


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"ports": [50000, 40000]}, "ports must be a first and a last one; got 50000, 40000"),
        ({"public_host": "media.example"}, "must be IP addresses; got 'media.example'"),
        ({"hosts": ["everywhere"]}, "must be IP addresses; got 'everywhere'"),
        ({"stun": "turn:a"}, "must be stun:HOST or stun:HOST:PORT; got 'turn:a'"),
        ({"max_peers": 0}, "greater than or equal to 1"),
    ],
)
def test_settings_of_webrtc_are_checked(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(told)):
        WebRtcSettings.model_validate({"enabled": True, **given})


def test_webrtc_needs_its_package_and_the_door_for_http() -> None:
    with pytest.raises(ValidationError, match=re.escape("http.port must be set where webrtc.enabled is true")):
        AppConfig.model_validate({"front_door": {"webrtc": {"enabled": True}}})
    with pytest.raises(ValueError, match="enabled must be false where the package no_such_package is not installed"):
        check_package("no_such_package")
    check_package("aiortc")
    assert WebRtcSettings().enabled is False


def test_packets_come_on_loopback_alone_where_http_does() -> None:
    settings = WebRtcSettings(ports=(40000, 40999), public_host="203.0.113.5")
    assert settings.options("127.0.0.1").hosts == ("127.0.0.1",)
    assert settings.options("192.0.2.1").hosts == ()
    assert settings.options("192.0.2.1").ports == (40000, 40999)
    assert WebRtcSettings(hosts=("10.0.0.7",)).options("127.0.0.1").hosts == ("10.0.0.7",)
