#!/usr/bin/env bash
# Ray: every node has an agent, whose HTTP port is 52365 on each. Where somebody else has that port (a second cluster or a second node on the
# machine does), the agent goes on without telling anybody its address. `ray status` and `ray list nodes` show a healthy node, and
# `ray logs cluster` answers 404 for as long as one asks. With `--dashboard-agent-listen-port=0` the agent takes a free port, and it works.
# Shown with ray[default] 2.60.0: both starts on a machine on which 52365 is taken.
set -euo pipefail
folder=$(mktemp -d /tmp/finding-XXXX)
head= taker=
stop_head() { [ -z "$head" ] || kill -TERM -- "-$head" 2>/dev/null || true; sleep 2; [ -z "$head" ] || kill -KILL -- "-$head" 2>/dev/null || true; head=; }
stop() { stop_head; [ -z "$taker" ] || kill "$taker" 2>/dev/null || true; rm -rf "$folder"; }
trap stop EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install 'ray[default]==2.60.0'
export HOME="$folder/home" PATH="$folder/venv/bin:$PATH" RAY_AUTH_MODE=disabled
mkdir "$HOME"
unset RAY_ADDRESS
ray --version
# Every interface, as an agent of another cluster may; where one has it already, that one will do.
python -c '
import socket, time
taken = socket.socket()
taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
try:
    taken.bind(("0.0.0.0", 52365))
    taken.listen()
except OSError:
    print("52365 is taken already", flush=True)
time.sleep(600)' &
taker=$!
free() { python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
answer() { # of `ray logs cluster`, asked $1 times, every five seconds: "logs", or the last error
  local said
  for _ in $(seq "$1"); do
    if said=$(ray logs cluster 2>&1); then echo logs; return; fi
    sleep 5
  done
  grep -oE '\b404\b[^"]*' <<< "$said" | head -1 | cut -c1-60 || tail -1 <<< "$said" | cut -c1-200
}
try() { # options of `ray start`, times to ask, name
  local gcs dashboard
  gcs=$(free) dashboard=$(free)
  set -m
  ray start --head --block --port="$gcs" --dashboard-host=127.0.0.1 --dashboard-port="$dashboard" --temp-dir="$folder/$3" --num-cpus=1 \
    --object-store-memory=80000000 --disable-usage-stats $1 > "$folder/head.log" 2>&1 &
  head=$!
  disown
  set +m
  for _ in $(seq 120); do
    [ "$(curl -s -o /dev/null -w '%{http_code}' "http://127.0.0.1:$dashboard/api/version" || true)" = 200 ] && break
    sleep 1
  done
  export RAY_ADDRESS="127.0.0.1:$gcs" RAY_DASHBOARD_ADDRESS="http://127.0.0.1:$dashboard"
  logs=$(answer "$2")
  alive=$(ray list nodes 2>/dev/null | grep -c ALIVE || true)
  active=$(ray status 2>/dev/null | grep -A1 -m1 '^Active' | tail -1 | awk '{ print $1 }' || true)
  stop_head
}
try "" 8 a
taken="$logs" seen="$alive"
echo "52365 taken:                   ray list nodes: $alive alive; ray status: $active active; ray logs cluster, for 40 s and more: $logs"
try --dashboard-agent-listen-port=0 12 b
echo "--dashboard-agent-listen-port=0: ray list nodes: $alive alive; ray status: $active active; ray logs cluster: $logs"
[ "$taken" != logs ] && [ "$logs" = logs ] && [ "$seen" = 1 ] || { echo "the behaviour has changed"; exit 1; }
echo "a node whose agent has no port looks healthy, and has no logs"
