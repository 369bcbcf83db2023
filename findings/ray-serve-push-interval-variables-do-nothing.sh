#!/usr/bin/env bash
# Ray Serve warns that `metrics_interval_s` of an autoscaling_config is deprecated, to be replaced by two environment variables. Set, they
# change nothing: replicas go on telling the controller their numbers every 10 s. Only the deprecated field makes it more often.
# Shown with ray[serve] 2.60.0: how many reports of a replica a policy sees in 25 s, with the variables at 0.5 s, and with the field at 0.5 s.
set -euo pipefail
folder=$(mktemp -d /tmp/finding-XXXXXX)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip -q --disable-pip-version-check install 'ray[serve]==2.60.0'
cat > "$folder/probe.py" <<'PYTHON'
import os
import sys
import time
import warnings

FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "reports")


def policy(context):
    """Serve calls this in its controller, ten times a second."""
    newest = [series[-1].timestamp for by_replica in (context.raw_metrics or {}).values() for series in by_replica.values() if series]
    with open(FILE, "a") as file:
        file.write("".join(f"{at}\n" for at in newest))
    return 1, {}


class Replica:
    def record_autoscaling_stats(self):
        return {"number": 1.0}


def main(field):
    import ray
    from ray import serve

    warnings.simplefilter("default")
    config = {"min_replicas": 1, "max_replicas": 1, "policy": {"policy_function": "probe:policy"}, **({"metrics_interval_s": 0.5} if field else {})}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    serve.start(proxy_location="Disabled", logging_config={"log_level": "ERROR"})
    serve.run(serve.deployment(Replica, ray_actor_options={"num_cpus": 0}, autoscaling_config=config).bind(), route_prefix=None)
    open(FILE, "w").close()
    time.sleep(25)
    reports = len(set(open(FILE).read().split()))
    serve.shutdown()
    ray.shutdown()
    print(f"RESULT {reports}")


if __name__ == "__main__":
    main(sys.argv[1] == "field")
PYTHON
export PYTHONPATH=$folder PYTHONWARNINGS=ignore RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=disabled
run() { (cd "$folder" && "$@" 2>"$folder/stderr" | sed -n 's/^RESULT //p') || { tail -5 "$folder/stderr" >&2; exit 2; }; }
variables=$(RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S=0.5 RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S=0.5 \
  run venv/bin/python probe.py variables)
field=$(run venv/bin/python probe.py field)
"$folder/venv/bin/python" -c 'import ray, sys; print(f"ray {ray.__version__}, Python {sys.version.split()[0]}")'
echo "reports seen in 25 s with the variables at 0.5 s: $variables"
echo "reports seen in 25 s with metrics_interval_s at 0.5 s: $field"
[ "$variables" -le 5 ] && [ "$field" -ge 15 ] || { echo "the behaviour has changed"; exit 1; }
echo "the variables that the warning names change nothing"
