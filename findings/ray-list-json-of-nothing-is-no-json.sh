#!/usr/bin/env bash
# Ray: `ray list ... --format json` prints a JSON array where it finds something, and where it finds nothing a sentence in place of [].
# A script that parses its output fails on the day that the list is empty. `serve config` is of the same kind: what it prints for a
# deployed file is one application, which `serve deploy` does not accept.
set -euo pipefail
folder=$(mktemp -d /tmp/finding-XXXX)
head=
stop() { [ -z "$head" ] || kill -TERM -- "-$head" 2>/dev/null || true; sleep 2; [ -z "$head" ] || kill -KILL -- "-$head" 2>/dev/null || true; rm -rf "$folder"; }
trap stop EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install 'ray[serve]==2.60.0'
export HOME="$folder/home" PATH="$folder/venv/bin:$PATH" RAY_AUTH_MODE=disabled PYTHONPATH="$folder"
mkdir "$HOME"
unset RAY_ADDRESS
ray --version
free() { python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
gcs=$(free) dashboard=$(free)
set -m
ray start --head --block --port="$gcs" --dashboard-host=127.0.0.1 --dashboard-port="$dashboard" --temp-dir="$folder/b" --num-cpus=2 \
  --object-store-memory=80000000 --disable-usage-stats > "$folder/head.log" 2>&1 &
head=$!
disown
set +m
for _ in $(seq 120); do
  [ "$(curl -s -o /dev/null -w '%{http_code}' "http://127.0.0.1:$dashboard/api/serve/applications/" || true)" = 200 ] && break
  sleep 1
done
export RAY_ADDRESS="127.0.0.1:$gcs" RAY_DASHBOARD_ADDRESS="http://127.0.0.1:$dashboard"
nodes=$(ray list nodes --format json 2>/dev/null)
actors=$(ray list actors --filter state=DEAD --format json 2>/dev/null)
echo "nodes:  ${#nodes} characters, beginning with ${nodes:0:1}"
echo "actors: $actors"
test "${nodes:0:1}" = "["
if python -c 'import json, sys; json.loads(sys.argv[1])' "$actors" 2>/dev/null; then echo "changed"; exit 1; fi

cat > "$folder/app.py" <<'PY'
from ray import serve


@serve.deployment
class Nothing:
    pass


app = Nothing.bind()
PY
cat > "$folder/serve.yaml" <<'YAML'
proxy_location: Disabled
applications:
  - name: nothing
    import_path: app:app
    route_prefix: null
YAML
serve deploy "$folder/serve.yaml" > /dev/null 2>&1
for _ in $(seq 60); do
  serve config 2>/dev/null > "$folder/printed.yaml"
  grep -q import_path "$folder/printed.yaml" && break
  sleep 1
done
echo "serve config prints:"
cat "$folder/printed.yaml"
again=$(serve deploy "$folder/printed.yaml" 2>&1 || true)
refused=$(grep -A1 -m1 '^applications' <<< "$again" | tr '\n' ' ' || true)
echo "serve deploy of that: ${refused:-accepted}"
case "$refused" in *"Field required"*) echo "as described" ;; *) echo "changed"; exit 1 ;; esac
