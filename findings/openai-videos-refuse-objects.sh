#!/usr/bin/env bash
# openai for Python: three calls of `client.videos` take an object by their types, and cannot send one. An image by its address, a video to
# edit and a video to extend by their ids end in a RuntimeError of the client, before anything is sent. Only files pass.
set -euo pipefail
folder=$(mktemp -d /tmp/finding-XXXX)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip -qq --disable-pip-version-check install openai==3.57.0
venv/bin/pip --disable-pip-version-check list 2>/dev/null | grep -E '^openai '
cat > calls.py <<'PY'
import typing
import warnings
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import openai
from openai.types import video_create_params, video_edit_params, video_extend_params

VIDEO = b'{"id": "video_1", "object": "video", "status": "queued", "progress": 0, "created_at": 1, "model": "sora-2", "seconds": "4"}'
sent = 0


class Recorder(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        global sent
        sent += 1
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(VIDEO)))
        self.end_headers()
        self.wfile.write(VIDEO)

    def log_message(self, *_: object) -> None:
        pass


warnings.simplefilter("ignore")
server = HTTPServer(("127.0.0.1", 0), Recorder)
Thread(target=server.serve_forever, daemon=True).start()
videos = openai.OpenAI(base_url=f"http://127.0.0.1:{server.server_port}/v1", api_key="none", max_retries=0).videos
for params, name in ((video_create_params.VideoCreateParams, "input_reference"), (video_edit_params.VideoEditParams, "video"),
                     (video_extend_params.VideoExtendParams, "video")):
    print(f"{params.__name__}.{name}: {params.__annotations__[name]}")
image = {"image_url": "data:image/png;base64,iVBORw0KGgo="}
calls = {
    "create(input_reference={'image_url': …})": lambda: videos.create(prompt="a", input_reference=image),
    "edit(video={'id': …})": lambda: videos.edit(prompt="a", video={"id": "video_1"}),
    "extend(video={'id': …})": lambda: videos.extend(prompt="a", seconds="4", video={"id": "video_1"}),
}
failed = 0
for call, make in calls.items():
    try:
        print(f"{call}: {make().id}")
    except RuntimeError as error:
        failed += 1
        print(f"{call}: RuntimeError: {str(error)[:160]}")
print(f"requests sent: {sent}")
videos.create(prompt="a", input_reference=("a.png", b"\x89PNG\r\n\x1a\n", "image/png"))
print(f"and with a file: {sent}")
raise SystemExit(0 if (failed, sent) == (3, 1) else 1)
PY
if venv/bin/python calls.py; then echo "as described"; else echo "changed"; exit 1; fi
