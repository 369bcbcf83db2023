#!/usr/bin/env bash
# Two requests run on one stream of NVIDIA's tritonclient, and the server refuses one of them. Its answer has the error and the request's
# id, in the fields that the protocol has for them. Which request does the caller's callback learn of? The client drops the answer where
# there is an error, and calls back with a message alone.
set -euo pipefail
folder=$(mktemp -d /tmp/finding-XXXX)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install 'tritonclient[grpc]==2.73.0' numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
import queue
import sys
from concurrent import futures
from importlib.metadata import version

import grpc
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc


class Server(service_pb2_grpc.GRPCInferenceServiceServicer):
    def ModelStreamInfer(self, requests, context):
        for request in requests:
            answer = pb.ModelInferResponse(model_name=request.model_name, id=request.id)
            yield pb.ModelStreamInferResponse(error_message="refused" if request.id == "bad" else "", infer_response=answer)


server = grpc.server(futures.ThreadPoolExecutor(4))
service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Server(), server)
port = server.add_insecure_port("127.0.0.1:0")
server.start()

print("tritonclient", version("tritonclient"), "· grpcio", grpc.__version__)
came = queue.Queue()
client = triton.InferenceServerClient(f"127.0.0.1:{port}")
client.start_stream(lambda result, error: came.put((result, error)))
for name in ("good", "bad"):
    client.async_stream_infer("m", [], request_id=name)
told = {}
for _ in range(2):
    result, error = came.get(timeout=20)
    if error is None:
        told["good"] = result.get_response().id
        print("an answer: its request is", repr(told["good"]))
    else:
        told["bad"] = None if result is None else result.get_response().id
        print("an error:", repr(error.message()), "· its request is", repr(told["bad"]))
client.stop_stream()
server.stop(None)
sys.exit(0 if told == {"good": "good", "bad": None} else "changed")
PY
