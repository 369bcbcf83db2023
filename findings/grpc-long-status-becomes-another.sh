#!/usr/bin/env bash
# gRPC: the same failed call ends with one status or with another, by chance, where the status's details are long.
# A server refuses each call with INVALID_ARGUMENT and some 11 KB of google.rpc.Status, a list of bad fields, say. A C-core client takes
# headers of 8 KiB, and from there to 16 KiB drops some, at random: such a call is RESOURCE_EXHAUSTED, by which services say "busy, try
# again". grpc-js, against the same server, always reports INVALID_ARGUMENT.
set -euo pipefail
folder=$(mktemp -d /tmp/finding-XXXX)
server=
stop() { [ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$folder"; }
trap stop EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip -qq --disable-pip-version-check install grpcio==1.85.1 protobuf==7.36.2 googleapis-common-protos==1.76.0
npm install --silent --no-audit --no-fund --ignore-scripts @grpc/grpc-js@1.14.7
venv/bin/pip --disable-pip-version-check list 2>/dev/null | grep -E '^(grpcio|protobuf) '
node -p '"@grpc/grpc-js " + require("@grpc/grpc-js/package.json").version'

cat > server.py <<'PY'
import sys
from concurrent import futures

import grpc
from google.rpc import error_details_pb2, status_pb2

status = status_pb2.Status(code=3, message="the request has many faults")
bad = error_details_pb2.BadRequest()
for index in range(140):
    bad.field_violations.add(field=f"field_{index}", description="must be one of the values that this field takes; got another one")
status.details.add().Pack(bad)


def refuse(_: bytes, context: grpc.ServicerContext) -> bytes:
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(grpc.StatusCode.INVALID_ARGUMENT, status.message)


server = grpc.server(futures.ThreadPoolExecutor(4))
handler = grpc.method_handlers_generic_handler("demo.Demo", {"Refuse": grpc.unary_unary_rpc_method_handler(refuse)})
server.add_generic_rpc_handlers((handler,))
print("details take", status.ByteSize(), "bytes", file=sys.stderr, flush=True)
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
server.wait_for_termination()
PY
cat > client.py <<'PY'
import collections
import sys

import grpc

seen = collections.Counter()
with grpc.insecure_channel(f"127.0.0.1:{sys.argv[1]}") as channel:
    call = channel.unary_unary("/demo.Demo/Refuse")
    for _ in range(200):
        try:
            call(b"")
        except grpc.RpcError as error:
            seen[error.code().name] += 1
print(" ".join(f"{name}={count}" for name, count in sorted(seen.items())))
PY
cat > client.js <<'JS'
const grpc = require("@grpc/grpc-js");
const raw = (bytes) => bytes;
const client = new grpc.Client(`127.0.0.1:${process.argv[2]}`, grpc.credentials.createInsecure());
const seen = {};
const call = (left) => {
  if (left === 0) {
    console.log(Object.entries(seen).map(([name, count]) => `${name}=${count}`).join(" "));
    return client.close();
  }
  client.makeUnaryRequest("/demo.Demo/Refuse", raw, raw, Buffer.alloc(0), (error) => {
    seen[grpc.status[error.code]] = (seen[grpc.status[error.code]] ?? 0) + 1;
    call(left - 1);
  });
};
call(200);
JS
venv/bin/python server.py > port & server=$!
until [ -s port ]; do sleep 0.1; done
python=$(venv/bin/python client.py "$(cat port)") node=$(node client.js "$(cat port)")
echo "200 equal calls, grpcio:  $python"
echo "200 equal calls, grpc-js: $node"
[[ $python == *INVALID_ARGUMENT=*RESOURCE_EXHAUSTED=* ]] && [ "$node" = "INVALID_ARGUMENT=200" ]
