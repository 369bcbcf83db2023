#!/usr/bin/env bash
# Ray: one local ray.init() leaves a token behind. From then on `ray start --head` makes a cluster that asks for it, by itself, and
# `serve deploy` in the same shell does not send it, although the token lies where both look for it.
# RAY_AUTH_MODE=token in the environment makes the two agree.
set -euo pipefail
folder=$(mktemp -d /tmp/finding-XXXX)
head=
stop() { [ -z "$head" ] || kill -TERM -- "-$head" 2>/dev/null || true; sleep 2; [ -z "$head" ] || kill -KILL -- "-$head" 2>/dev/null || true; rm -rf "$folder"; }
trap stop EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install 'ray[serve]==2.60.0'
export HOME="$folder/home" PATH="$folder/venv/bin:$PATH"
mkdir "$HOME"
unset RAY_AUTH_MODE RAY_AUTH_TOKEN RAY_AUTH_TOKEN_PATH RAY_ADDRESS
ray --version
free() { python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
gcs=$(free) dashboard=$(free)

python -c "
import ray
ray.init(num_cpus=1, include_dashboard=False, object_store_memory=80_000_000, _temp_dir='$folder/a', log_to_driver=False)
ray.shutdown()" > "$folder/init.log" 2>&1
test -s "$HOME/.ray/auth_token"
echo "after ray.init(): $(stat -c '%a' "$HOME/.ray/auth_token") ~/.ray/auth_token"

set -m
ray start --head --block --port="$gcs" --dashboard-port="$dashboard" --temp-dir="$folder/b" --num-cpus=1 --object-store-memory=80000000 \
  --disable-usage-stats > "$folder/head.log" 2>&1 &
head=$!
disown
set +m
for _ in $(seq 120); do
  code=$(curl -s -o /dev/null -w '%{http_code}' "http://127.0.0.1:$dashboard/api/serve/applications/" || true)
  [ "$code" = 401 ] || [ "$code" = 200 ] && break
  sleep 1
done
echo "Serve's API without a token, RAY_AUTH_MODE never set: HTTP $code"
test "$code" = 401

printf 'applications: []\n' > "$folder/serve.yaml"
deploy() { serve deploy "$folder/serve.yaml" --address "http://127.0.0.1:$dashboard" 2>&1 | sed 's/\x1b\[[0-9;]*m//g' | grep -oE 'Authentication required[^.]*|Sent deploy request successfully' | head -n 1; }
without=$(deploy || true)
with=$(RAY_AUTH_MODE=token deploy || true)
echo "serve deploy: $without"
echo "RAY_AUTH_MODE=token serve deploy: $with"
case "$without" in "Authentication required"*) ;; *) echo "changed"; exit 1 ;; esac
test "$with" = "Sent deploy request successfully"
echo "as described"
