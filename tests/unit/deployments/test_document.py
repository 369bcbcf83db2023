"""A deploy document that is wrong in its shape, and what `headrace check` says of one that is right."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.cluster.local import FUSED_CONFIG, STAGED_CONFIG, Overrides, load
from deployments.config.application import AppConfig
from deployments.config.explained import deployments, warnings
from headrace.cli import app
from headrace.cli.console import EXIT_BAD_INPUT, conclude
from model_core.errors import InvalidRequest

POLICY = "deployments.scaling.policy:PipelinePolicy"
BLOCK = "applications.0.deployments.0"
APP = {"name": "headrace", "import_path": "deployments.app:build"}


def document(**changes: Any) -> bytes:
    return yaml.safe_dump({"applications": [APP | changes]}).encode()


def block(**changes: Any) -> bytes:
    return document(deployments=[{"name": "Denoiser"} | changes])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "serve.yaml: must be a mapping with the key 'applications'; got nothing"),
        (b"- a\n- b\n", "serve.yaml: must be a mapping with the key 'applications'; got list \"['a', 'b']\""),
        (b"7", "serve.yaml: must be a mapping with the key 'applications'; got int '7'"),
        (b"\xff\xfe\x00", "serve.yaml: must be YAML"),
        (b"a: [1\nb: 2", "serve.yaml: must be YAML; line 2, column 2:"),
        (b"a: 2026-99-99", "serve.yaml: must be YAML; ValueError"),
        (b"applications: 5", "applications: Input should be a valid list"),
        (b"applications: [5]", "applications.0: Input should be a valid dictionary"),
        (b"applications: []", "applications: must be one application named 'headrace'; got []"),
        (document(args=5), "applications.0.args: Input should be a valid dictionary"),
        (document(args={"front_door": 7}), "args.front_door: Input should be a valid dictionary"),
        (document(args={"front_door": []}), "args.front_door: Input should be a valid dictionary"),
        (document(args={"front_door": {"drain_seconds": float("inf")}}), "args.front_door.drain_seconds: Input should be a finite number"),
        (document(args={"session_store": {"replay_seconds": float("inf")}}), "args.session_store.replay_seconds: Input should be a finite"),
        (
            document(args={"front_door": {"limits": {"max_prompt_bytes": 0}}}),
            "args.front_door.limits: max_prompt_bytes must be a number above 0",
        ),
        (
            document(args={"front_door": {"limits": {"uploads": {"max_video_bytes": 2**30}}}}),
            "args.front_door.limits.uploads: max_video_bytes must be a number above 0 up to 268435456; got 1073741824",
        ),
        (
            document(args={"session_store": {"url": "redis://h:abc/0"}}),
            "args.session_store.url: must be a URL with a host and a port from 1 to 65535;",
        ),
        (
            document(args={"session_store": {"url": "redis://h:0/0"}}),
            "args.session_store.url: must be a URL with a host and a port",
        ),
        *(
            (document(args={"front_door": {key: port}}), f"args.front_door.{key}: Input should be {limit}")
            for key in ("port", "metrics_port")
            for port, limit in ((65536, "less than or equal to 65535"), (-1, "greater than or equal to 0"), ("http", "a valid integer"))
        ),
        *(
            (document(args=args), f"args.{key}: must be a host's name or IP address, without a port and without brackets; got '{host}'")
            for host in ("127.0.0.1:99999", "[::1]", "http://h", "a b")
            for key, args in (
                ("front_door.host", {"front_door": {"host": host}}),
                ("front_door.metrics_host", {"front_door": {"metrics_host": host}}),
                ("link_host", {"link_host": host}),
            )
        ),
        (document(args={"front_door": {"host": ""}}), "args.front_door.host: must be a host's name or IP address"),
        (document(args={"session_store": {"url": "redis://h:1/x"}}), "args.session_store.url: must be redis://HOST:PORT/NUMBER, rediss:"),
        (document(args={"session_store": {"url": "unix://"}}), "args.session_store.url: must be redis://HOST:PORT/NUMBER, rediss:"),
        (
            document(args={"tracing": {"exporter": "otlp", "endpoint": "http://h:99999/v1/traces"}}),
            "args.tracing: must be a URL with a host and a port from 1 to 65535; got",
        ),
        (document(args={"model": {"folder": ""}}), "args.model.str: Input should be a valid string"),
        (document(import_path="elsewhere:build"), "applications.0.import_path: must be 'deployments.app:build'; got 'elsewhere:build'"),
        (
            document(runtime_env={"env_vars": {"RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": "4194304"}}),
            "applications.0.runtime_env.env_vars.RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH: must be args.stage_message_bytes, '268435456'",
        ),
        (document(args={"link_host": 0}), "args.link_host: Input should be a valid string"),
        (document(args={"engine": [1]}), "args.engine: Input should be a valid dictionary"),
        (document(deployments=7), "applications.0.deployments: Input should be a valid list"),
        (document(deployments=[7]), "applications.0.deployments.0: must be a mapping with the key 'name'; got int '7'"),
        (document(deployments=[{}]), "applications.0.deployments.0.name: Field required"),
        (document(deployments=[{"name": "Denoser"}]), "deployments.name: must be one of TextEncoder, Denoiser, Decoder, FrontDoor"),
        (
            document(deployments=[{"name": "Denoiser"}] * 2),
            "deployments.name: must be given once for each deployment; got 'Denoiser' twice",
        ),
        (b"applications: []\nx: {a: 1, a: 2}", "serve.yaml: must be YAML; line 2, column 11: the key 'a' is given twice"),
        (document(arg={}), "applications.0.arg: must be a key that Serve knows, such as args; got 'arg'"),
        (block(num_replica=2), f"{BLOCK}.num_replica: must be a key that Serve knows, such as num_replicas"),
        (block(ray_actor_options={"num_cpu": 2}), f"{BLOCK}.ray_actor_options.num_cpu: must be a key that Serve knows, such as num_cpus"),
        (
            block(ray_actor_options={"resources": {"a": "b"}}),
            f"{BLOCK}.ray_actor_options.resources.a: must be a number from 0 on; got str 'b'",
        ),
        (block(autoscaling_config={"min_replica": 2}), f"{BLOCK}.autoscaling_config.min_replica: must be a key that Serve knows, such as"),
        (block(autoscaling_config={"min_replicas": "two"}), f"{BLOCK}.autoscaling_config.min_replicas: Input should be a valid integer"),
        (block(autoscaling_config={"min_replicas": 2}), f"{BLOCK}.autoscaling_config: max_replicas (1) must be greater than or equal to"),
        (block(autoscaling_config={"policy": 5}), f"{BLOCK}.autoscaling_config.policy: must be a mapping with the key 'policy_function'"),
        (
            document(autoscaling_policy={"policy_function": "no.such:policy"}),
            "applications.0.autoscaling_policy.policy_function: must be one that can be imported, MODULE:NAME; got No module named 'no'",
        ),
        (
            document(autoscaling_policy={"policy_function": "deployments.autoscaler:PipelinePolicy"}),
            "applications.0.autoscaling_policy.policy_function: must be 'deployments.scaling.policy:PipelinePolicy', its name now; got",
        ),
        *(
            (
                document(autoscaling_policy={"policy_function": POLICY, "policy_kwargs": {key: 1}}),
                f"applications.0.autoscaling_policy.policy_kwargs.{key}: must be given as scaling.{key} in user_config of the deployment",
            )
            for key in ("replica_start_seconds", "burst_k", "burst_sessions", "down_window_seconds", "zero_after_seconds", "nodes")
        ),
        *(
            (block(**{key: value}), f"{BLOCK}.{key}: must {said}")
            for key in ("max_ongoing_requests", "graceful_shutdown_timeout_s", "max_replicas_per_node")
            for value, said in ((True, "not be true or false, which YAML reads from yes"), ("8", "be a number without quotes; got '8'"))
        ),
        (block(num_replicas=True), f"{BLOCK}.num_replicas: must not be true or false"),
        (block(health_check_period_s=float("inf")), f"{BLOCK}.health_check_period_s: must be a finite number; got inf"),
        *(
            (block(autoscaling_config={key: value}), f"{BLOCK}.autoscaling_config.{key}: must {said}")
            for key, value, said in (
                ("max_replicas", True, "not be true or false"),
                ("max_replicas", "8", "be a number without quotes; got '8'"),
                ("upscale_delay_s", float("inf"), "be a finite number; got inf"),
            )
        ),
        *(
            (block(ray_actor_options={key: value}), f"{BLOCK}.ray_actor_options.{key}: must {said}")
            for key, value, said in (
                ("num_cpus", True, "not be true or false"),
                ("num_gpus", "8", "be a number without quotes; got '8'"),
                ("memory", float("inf"), "be a finite number; got inf"),
            )
        ),
        (block(ray_actor_options={"resources": {"a": True}}), f"{BLOCK}.ray_actor_options.resources.a: must be a number from 0 on; got"),
        (block(placement_group_bundles=[{"CPU": True}]), f"{BLOCK}.placement_group_bundles.0.CPU: must not be true or false"),
        (
            block(ray_actor_options={"runtime_env": {"a": 1}}),
            f"{BLOCK}.ray_actor_options.runtime_env.a: must be a key that Ray knows: conda, ",
        ),
        *(
            (document(route_prefix=route), "applications.0.route_prefix: must be null, or begin with '/' and neither end with '/'")
            for route in ("x", "/x/", "/{x}", "")
        ),
        (document(runtime_env={"a": 1}), "applications.0.runtime_env.a: must be a key that Ray knows: conda, "),
        (document(runtime_env={"config": {"a": 1}}), "applications.0.runtime_env.config.a: must be a key that Ray knows: eager_install, "),
        (document(runtime_env={"pip": 5}), "applications.0.runtime_env: must be an environment that Ray takes; got runtime_env['pip']"),
        (document(runtime_env=[1]), "applications.0.runtime_env: Input should be a valid dictionary"),
        (document(runtime_env={"env_vars": [1]}), "applications.0.runtime_env.env_vars: must map names to quoted text"),
        (document(runtime_env={"env_vars": {"A": 1}}), "applications.0.runtime_env.env_vars: must map names to quoted text"),
    ],
)
def test_a_wrong_shape_names_its_key(tmp_path: Path, content: bytes, said: str) -> None:
    (path := tmp_path / "serve.yaml").write_bytes(content)
    with pytest.raises(InvalidRequest) as refused:
        load(path, Overrides())
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize(
    "changes",
    [
        {"args": {"session_store": {"url": "redis://user:troutcod@host:0/0"}}},
        {"args": {"session_store": {"url": "redis://:trout/cod@host:1/x"}}},
        {"args": {"session_store": {"url": "http://:troutcod@host:1/0"}}},
        {"args": {"session_store": {"url": "redis://host:1/x?password=troutcod"}}},
        {"args": {"session_store": {"url": "redis://:troutcod@host:1/0", "ttl_seconds": 1, "nothing": 1}}},
        {"args": {"session_store": ["redis://:troutcod@host:1/0"]}},
        {"args": {"tracing": {"exporter": "otlp", "endpoint": "http://user:troutcod@host:1"}}},
        {"runtime_env": {"env_vars": {"HEADRACE_REDIS_PASSWORD": 5550123}}},
    ],
)
def test_no_error_shows_a_password(tmp_path: Path, changes: dict[str, Any]) -> None:
    (path := tmp_path / "serve.yaml").write_bytes(document(**changes))
    with pytest.raises(InvalidRequest) as refused:
        load(path, Overrides())
    assert not re.findall(r"trout|cod|5550123", str(refused.value))


def test_keys_without_a_value_are_as_if_left_out(tmp_path: Path) -> None:
    (path := tmp_path / "serve.yaml").write_bytes(document(args={}, deployments=[], runtime_env={}, autoscaling_policy=None))
    loaded, config = load(path, Overrides(env={"A": "1"}))
    assert config == AppConfig(link_host="127.0.0.1")
    assert loaded["applications"][0]["runtime_env"] == {"env_vars": {"A": "1"}}


@pytest.mark.parametrize(
    ("given", "replicas"),
    [
        ({}, (1, 1, 1.0)),
        ({"num_replicas": 3}, (3, 3, 1.0)),
        ({"num_replicas": "auto", "ray_actor_options": {"num_cpus": None}}, (1, 100, 1.0)),
        ({"num_replicas": "auto", "autoscaling_config": {"max_replicas": 4}, "ray_actor_options": {"num_cpus": 2}}, (1, 4, 2.0)),
    ],
)
def test_what_serve_makes_of_a_block_is_told(tmp_path: Path, given: dict[str, Any], replicas: tuple[int, int, float]) -> None:
    (path := tmp_path / "serve.yaml").write_bytes(block(**given))
    [facts] = deployments(*load(path, Overrides()))
    assert (facts.min_replicas, facts.max_replicas, facts.cpus) == replicas


@pytest.mark.parametrize(
    ("path", "names"),
    [(STAGED_CONFIG, ["TextEncoder", "Denoiser", "Decoder", "FrontDoor"]), (FUSED_CONFIG, ["FusedPipeline", "FrontDoor"])],
)
def test_check_explains_the_shipped_files(path: Path, names: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert conclude(lambda: app(["check", str(path), "--json"], standalone_mode=False)) == 0
    told = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in told["deployments"]] == names
    assert (told["model"], told["warnings"]) == ("millrace-64", [])
    assert conclude(lambda: app(["check", str(path)], standalone_mode=False)) == 0
    assert names[0] in capsys.readouterr().out


def test_check_lists_every_fault_and_no_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path := tmp_path / "serve.yaml").write_bytes(document(args={"engine": {"slots": 0}, "front_door": {"port": -1}}))
    assert conclude(lambda: app(["check", str(path)], standalone_mode=False)) == EXIT_BAD_INPUT
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "error: args.engine.slots: Input should be greater than or equal to 1; got '0'",
        "error: args.front_door.port: Input should be greater than or equal to 0; got '-1'",
    ]


@pytest.mark.parametrize(
    ("args", "blocks", "said"),
    [
        (
            {"front_door": {"host": "0.0.0.0"}, "identity": {"jwt": {"issuer": "i", "audience": ["a"], "jwks": "keys.json"}}},  # noqa: S104
            {},
            "front_door.host 0.0.0.0 faces the network and tls is not set",
        ),
        ({}, {"FrontDoor": {"num_replicas": 2, "autoscaling_config": None}}, "several front doors without session_store.url"),
        ({}, {"Denoiser": {"autoscaling_config": {"min_replicas": 0, "max_replicas": 1}}}, "Denoiser has min_replicas 0"),
        (
            {"front_door": {"tls": {"certificate_file": "pyproject.toml", "key_file": "/no/key"}}},
            {},
            "front_door.tls.key_file /no/key cannot be read on this machine",
        ),
        ({"engine": {"runtime": {"name": "cuda"}}}, {}, "Denoiser runs on cuda and reserves none: set num_gpus"),
        (
            {"decoder": {"runtime": {"name": "neuron", "target": "trn2", "cores": 2, "compiled": True}}},
            {},
            "Decoder runs on neuron and reserves none: set resources: {neuron_cores: ...}",
        ),
    ],
)
def test_check_warns_of_what_may_not_have_been_meant(args: dict[str, Any], blocks: dict[str, Any], said: str) -> None:
    document, config = load(STAGED_CONFIG, Overrides(args=args, deployments=blocks))
    [warning] = warnings(config, deployments(document, config))
    assert warning.startswith(said)
