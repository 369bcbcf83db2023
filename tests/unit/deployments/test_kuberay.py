"""deploy/kuberay: pods against Kubernetes' own schema, worker groups as Ray's autoscaler reads them, the application against serve.yaml.

The RayService definition of the operator is not to be had from a package index, so its own fields are checked against the list below.
"""

from __future__ import annotations

import copy
import re
import runpy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr as derive
from ray.autoscaler._private.util import validate_config
from ray.serve.schema import ServeDeploySchema

from deployments.cluster.local import STAGED_CONFIG
from deployments.config.application import AppConfig
from deployments.config.tuning import tuning
from model_core.stage import Stage

ROOT = Path(__file__).parents[3]
MANIFEST = ROOT / "deploy/kuberay/rayservice.yaml"
DOCKERFILE = ROOT / "deploy/images/neuron.Dockerfile"
KUBERNETES = "1.35"

# Fields of RayService (ray.io/v1) down to the pod templates, as KubeRay's API reference lists them; only those used here.
FIELDS: dict[str, Any] = {
    "apiVersion": str, "kind": str, "metadata": {"name": str, "namespace": str},
    "spec": {
        "serveService": {"apiVersion": str, "kind": str, "metadata": dict, "spec": dict},
        "excludeHeadPodFromServeSvc": bool,
        "serveConfigV2": str,
        "rayClusterConfig": {
            "rayVersion": str, "enableInTreeAutoscaling": bool, "authOptions": {"mode": str},
            "autoscalerOptions": {"version": str, "idleTimeoutSeconds": int, "env": list},
            "headGroupSpec": {"rayStartParams": dict, "template": dict},
            "workerGroupSpecs": [
                {"groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int, "rayStartParams": dict, "template": dict}
            ],
        },
    },
}  # fmt: skip


@pytest.fixture(name="manifests")
def _manifests() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(MANIFEST.read_text()))


@pytest.fixture(name="service")
def _service(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = [m for m in manifests if m["kind"] == "RayService"]
    return found


def pods(service: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    cluster = service["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        template = group["template"]
        yield {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod", **template.get("metadata", {})}, "spec": template["spec"]}


def misfits(value: Any, wanted: Any, path: str = "") -> list[str]:
    """Fields that are not in `wanted`, missing, or of another type."""
    if isinstance(wanted, dict) and isinstance(value, dict):
        unknown = [f"{path}.{key}: unknown" for key in value.keys() - wanted.keys()]
        missing = [f"{path}.{key}: missing" for key in wanted.keys() - value.keys()]
        return unknown + missing + [m for key in value.keys() & wanted.keys() for m in misfits(value[key], wanted[key], f"{path}.{key}")]
    if isinstance(wanted, list) and isinstance(value, list):
        return [m for n, item in enumerate(value) for m in misfits(item, wanted[0], f"{path}[{n}]")]
    return [] if isinstance(wanted, type) and type(value) is wanted else [f"{path}: {type(value).__name__}"]


def test_kubernetes_accepts_every_object_and_every_pod(manifests: list[dict[str, Any]], service: dict[str, Any]) -> None:
    objects = [m for m in manifests if m is not service] + [service["spec"]["serveService"]] + list(pods(service))
    assert len(objects) == 6 + 1 + 3
    for each in objects:
        kubernetes_validate.validate(each, KUBERNETES, strict=True)


def test_kubernetes_would_refuse_a_misspelt_field(service: dict[str, Any]) -> None:
    pod = next(pods(service))
    pod["spec"]["containers"][0]["imagePolicy"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def test_the_service_has_the_fields_that_kuberay_knows(service: dict[str, Any]) -> None:
    assert misfits(service, FIELDS) == []
    assert (service["apiVersion"], service["kind"]) == ("ray.io/v1", "RayService")
    wrong = copy.deepcopy(service)
    wrong["spec"]["rayClusterConfig"]["workerGroupSpecs"][1]["maxReplica"] = 3
    assert misfits(wrong, FIELDS) == [".spec.rayClusterConfig.workerGroupSpecs[1].maxReplica: unknown"]


def node_types(service: Mapping[str, Any]) -> dict[str, Any]:
    """As Ray's autoscaler understands the groups."""
    cluster = {"metadata": service["metadata"], "spec": service["spec"]["rayClusterConfig"]}
    config = derive(cluster)
    validate_config(config)
    types: dict[str, Any] = config["available_node_types"]
    return types


def test_rays_autoscaler_reads_the_groups(service: dict[str, Any]) -> None:
    types = node_types(service)
    offered = {name: {key: n for key, n in t["resources"].items() if key != "memory"} for name, t in types.items()}
    assert offered == {"headgroup": {"CPU": 0}, "cpu": {"CPU": 8}, "trn2": {"CPU": 10, "neuron_cores": 4, "trn2": 1}}
    assert (types["trn2"]["min_workers"], types["trn2"]["max_workers"]) == (0, 8)


def test_every_replica_fits_a_group(service: dict[str, Any]) -> None:
    document = yaml.safe_load(service["spec"]["serveConfigV2"])
    groups = [t["resources"] for t in node_types(service).values()]
    for block in document["applications"][0]["deployments"]:
        options = block["ray_actor_options"]
        asked = {"CPU": options["num_cpus"], **options.get("resources", {})}
        assert any(all(group.get(key, 0) >= n for key, n in asked.items()) for group in groups), block["name"]


def test_the_application_is_that_of_serve_yaml(service: dict[str, Any]) -> None:
    embed = runpy.run_path(str(ROOT / "deploy/kuberay/embed.py"))
    assert MANIFEST.read_text() == embed["rendered"](), "run `make kuberay`"
    document = yaml.safe_load(service["spec"]["serveConfigV2"])
    ServeDeploySchema.model_validate(document)
    AppConfig.model_validate(document["applications"][0]["args"])
    assert document["applications"][0]["args"]["model"] == yaml.safe_load(STAGED_CONFIG.read_text())["applications"][0]["args"]["model"]
    assert document["applications"][0]["args"]["front_door"]["host"] == "0.0.0.0"  # noqa: S104 - a pod's own network


def test_the_policy_asks_for_groups_that_are_there(service: dict[str, Any]) -> None:
    app = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"][0]
    blocks = {block["name"]: block for block in app["deployments"]}
    nodes = tuning(blocks["FrontDoor"]["user_config"]).scaling.nodes
    assert nodes is not None
    types = node_types(service)
    for pool in nodes.pools:
        assert types[pool.name]["resources"][pool.name] == 1
        assert types[pool.name]["resources"]["neuron_cores"] == nodes.units
        assert types[pool.name]["max_workers"] == pool.max_nodes
    cores = blocks["Denoiser"]["ray_actor_options"]["resources"]["neuron_cores"]
    assert nodes.replica_units == {Stage.DENOISER: cores}
    assert AppConfig.model_validate(app["args"]).engine.runtime.cores == cores


def test_versions_are_those_of_the_requirements(service: dict[str, Any]) -> None:
    pinned = re.search(r"^ray\[serve\]==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert service["spec"]["rayClusterConfig"]["rayVersion"] == pinned.group(1)
    assert "install --no-cache-dir -r requirements.txt " in DOCKERFILE.read_text()
    release = re.search(r'^version = "(\S+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert release is not None
    for pod in pods(service):
        assert pod["spec"]["containers"][0]["image"] == f"registry.invalid/headrace:{release.group(1)}"
    user = re.search(r"--uid (\d+)", DOCKERFILE.read_text())
    assert user is not None
    writers = [pod for pod in pods(service) if any("persistentVolumeClaim" in volume for volume in pod["spec"].get("volumes", []))]
    assert [pod["spec"]["securityContext"]["fsGroup"] for pod in writers] == [int(user.group(1))]


def test_calls_reach_front_doors_of_the_active_cluster_and_nothing_else(manifests: list[dict[str, Any]], service: dict[str, Any]) -> None:
    """KubeRay gives the Service a selector for the active cluster and all of its pods; a pod without a port of the name is no endpoint."""
    front_door = AppConfig.model_validate(yaml.safe_load(service["spec"]["serveConfigV2"])["applications"][0]["args"]).front_door
    assert [m["metadata"]["name"] for m in manifests if m["kind"] == "Service"] == ["headrace-http", "headrace-redis", "headrace-postgres"]
    balancer = service["spec"]["serveService"]
    assert "selector" not in balancer["spec"], "KubeRay would put its own in its place"
    (port,) = balancer["spec"]["ports"]
    assert (port["name"], port["port"]) == ("serve", front_door.port)  # what it takes over from a Service of the user's
    head, *workers = [{p["name"]: p["containerPort"] for p in pod["spec"]["containers"][0].get("ports", [])} for pod in pods(service)]
    (behind,) = [ports for ports in workers if port["targetPort"] in ports]
    assert (behind["grpc"], behind["metrics"]) == (front_door.port, front_door.metrics_port)
    assert not any(name == "serve" or name.startswith("serve-") or name == port["targetPort"] for name in head)


def test_http_reaches_front_doors_and_nothing_else(manifests: list[dict[str, Any]], service: dict[str, Any]) -> None:
    """KubeRay passes on the one port that is called `serve`, so HTTP has a Service that finds the pods by a label of ours."""
    http = AppConfig.model_validate(yaml.safe_load(service["spec"]["serveConfigV2"])["applications"][0]["args"]).front_door.http
    (balancer,) = [m["spec"] for m in manifests if m["metadata"]["name"] == "headrace-http"]
    (port,) = balancer["ports"]
    behind = [pod for pod in pods(service) if balancer["selector"].items() <= pod["metadata"].get("labels", {}).items()]
    (container,) = [container for pod in behind for container in pod["spec"]["containers"]]
    ports = {p["name"]: p["containerPort"] for p in container["ports"]}
    assert "grpc" in ports, "they are the pods of front doors"
    assert (http.host, http.port) == ("0.0.0.0", ports[port["targetPort"]])  # noqa: S104 - a pod's own network
    assert http.tls is not None, "keys must not travel in clear"
    assert (port["name"], port["port"]) == ("https", 443)


def test_nobody_runs_code_or_takes_sessions_without_a_secret(manifests: list[dict[str, Any]], service: dict[str, Any]) -> None:
    assert service["spec"]["rayClusterConfig"]["authOptions"] == {"mode": "token"}
    app = AppConfig.model_validate(yaml.safe_load(service["spec"]["serveConfigV2"])["applications"][0]["args"])
    asked = {"secretKeyRef": {"name": "headrace-redis", "key": "password"}}
    (cpu,) = [pod for pod in pods(service) if any(p["name"] == "grpc" for p in pod["spec"]["containers"][0].get("ports", []))]
    assert {"name": app.session_store.password_variable, "valueFrom": asked} in cpu["spec"]["containers"][0]["env"]
    (redis,) = [m for m in manifests if m["kind"] == "Deployment"]
    (container,) = redis["spec"]["template"]["spec"]["containers"]
    assert container["env"] == [{"name": "PASSWORD", "valueFrom": asked}]
    assert container["args"][-2:] == ["--requirepass", "$(PASSWORD)"]


def test_callers_are_asked_for_keys_over_tls_and_front_doors_have_what_that_takes(
    manifests: list[dict[str, Any]], service: dict[str, Any]
) -> None:
    app = AppConfig.model_validate(yaml.safe_load(service["spec"]["serveConfigV2"])["applications"][0]["args"])
    assert (app.identity.keys, app.identity.insecure) == ("required", False)
    (cpu,) = [pod for pod in pods(service) if any(p["name"] == "grpc" for p in pod["spec"]["containers"][0].get("ports", []))]
    (container,) = cpu["spec"]["containers"]
    secrets = {each["name"]: each["valueFrom"]["secretKeyRef"] for each in container["env"] if "valueFrom" in each}
    assert secrets[app.identity.master_variable] == {"name": "headrace-identity", "key": "master"}
    assert secrets[app.state.password_variable] == {"name": "headrace-postgres", "key": "password"}
    assert app.front_door.tls is not None
    [mount] = container["volumeMounts"]
    assert app.front_door.http.tls is not None
    files = [*app.front_door.tls, *app.front_door.http.tls]
    assert {str(Path(path).parent) for _, path in files} == {mount["mountPath"]}
    assert cpu["spec"]["volumes"] == [{"name": mount["name"], "secret": {"secretName": "headrace-tls"}}]
    (postgres,) = [m for m in manifests if m["kind"] == "StatefulSet"]
    (database,) = postgres["spec"]["template"]["spec"]["containers"]
    told = {each["name"]: each.get("value") or each["valueFrom"]["secretKeyRef"] for each in database["env"]}
    url = urlsplit(app.state.url)
    assert (url.username, url.hostname, url.path) == (told["POSTGRES_USER"], postgres["metadata"]["name"], f"/{told['POSTGRES_DB']}")
    assert url.password is None
    assert told["POSTGRES_PASSWORD"] == secrets[app.state.password_variable]
    created = re.findall(r"^#   .*kubectl create secret \w+ ([\w$-]+)", MANIFEST.read_text(), re.MULTILINE)
    assert created == ["headrace-$name", "headrace-identity", "headrace-tls"]
