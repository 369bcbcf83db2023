#!/usr/bin/env bash
# Ray Serve takes a request router as "module:class", and sends that module by value, not by name. So its classes are others in each
# process, though they have the same names: a call's argument of a class of that module is no instance of it for the router. Only in the
# process that deployed the application it is one.
# Shown with ray[serve] 2.60.0: a replica passes an object of a class of the router's module, and one of a class of a module beside it.
set -euo pipefail
folder=$(mktemp -d /tmp/finding-XXXXXX)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip -q --disable-pip-version-check install 'ray[serve]==2.60.0'
cat > "$folder/beside.py" <<'PYTHON'
class Beside:
    pass
PYTHON
cat > "$folder/router.py" <<'PYTHON'
import os

from ray.serve._private.request_router.pow_2_router import PowerOfTwoChoicesRequestRouter

from beside import Beside

FILE = os.path.join(os.environ["FINDING_FOLDER"], "seen")


class Within:
    pass


class Router(PowerOfTwoChoicesRequestRouter):
    async def choose_replicas(self, candidate_replicas, pending_request=None):
        if pending_request is not None and pending_request.args:
            argument = pending_request.args[0]
            known, named = isinstance(argument, (Within, Beside)), type(argument).__module__ + "." + type(argument).__name__
            with open(FILE, "a") as file:
                file.write(f"{named} {known}\n")
        return await super().choose_replicas(candidate_replicas, pending_request)
PYTHON
cat > "$folder/app.py" <<'PYTHON'
import ray
from ray import serve
from ray.serve.config import RequestRouterConfig

from beside import Beside
from router import Within


class Replica:
    def take(self, argument):
        return None


class Caller:
    def __init__(self, handle):
        self.handle = handle

    async def call(self):
        for argument in (Within(), Beside()):
            await self.handle.take.remote(argument)


def main():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    serve.start(proxy_location="Disabled", logging_config={"log_level": "ERROR"})
    router = RequestRouterConfig(request_router_class="router:Router")
    replica = serve.deployment(Replica, ray_actor_options={"num_cpus": 0}, request_router_config=router)
    caller = serve.deployment(Caller, ray_actor_options={"num_cpus": 0})
    serve.run(caller.bind(replica.bind()), route_prefix=None).call.remote().result(timeout_s=60)
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
PYTHON
export PYTHONPATH=$folder PYTHONWARNINGS=ignore RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=disabled FINDING_FOLDER=$folder
"$folder/venv/bin/python" -c 'import ray, sys; print(f"ray {ray.__version__}, Python {sys.version.split()[0]}")'
(cd "$folder" && venv/bin/python app.py 2>"$folder/stderr" >/dev/null) || { tail -5 "$folder/stderr" >&2; exit 2; }
verdict() { sort -u "$folder/seen" | awk -v class="$1" '$1 == class { print $2 }'; }
within=$(verdict router.Within) beside=$(verdict beside.Beside)
echo "isinstance of an argument, as the router sees it:"
echo "  of a class of the router's own module: $within"
echo "  of a class of a module beside it:      $beside"
[ "$within" = False ] && [ "$beside" = True ] || { echo "the behaviour has changed"; exit 1; }
echo "a class of the router's module is another one there"
