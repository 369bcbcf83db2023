#!/usr/bin/env bash
# openai for Python: a webhook endpoint can be made for `video.completed` and `video.failed`, and `webhooks.unwrap` has no class for either.
# A sound, signed event of a video comes out as an object of the class of another event, that of an agent's environment that has expired,
# with the right `type` in it. A program that tells events by their class takes the one for the other.
set -euo pipefail
folder=$(mktemp -d /tmp/finding-XXXX)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip -qq --disable-pip-version-check install openai==3.57.0 standardwebhooks==1.1.0
venv/bin/pip --disable-pip-version-check list 2>/dev/null | grep -E '^(openai|standardwebhooks) '
cat > unwrap.py <<'PY'
import base64
import inspect
import json
from datetime import datetime, timezone

import openai
from standardwebhooks.webhooks import Webhook

secret = "whsec_" + base64.b64encode(bytes(range(32))).decode()
now = datetime.now(timezone.utc)
client = openai.OpenAI(api_key="none")
events = inspect.get_annotations(client.webhooks.create)["event_types"]
classes = {}
for kind in ("video.completed", "video.failed", "batch.completed"):
    body = json.dumps({"id": "evt_1", "object": "event", "created_at": int(now.timestamp()), "type": kind, "data": {"id": "video_1"}})
    signature = Webhook(secret).sign("evt_1", now, body)
    headers = {"webhook-id": "evt_1", "webhook-timestamp": str(int(now.timestamp())), "webhook-signature": signature}
    event = client.webhooks.unwrap(body, headers, secret=secret)
    classes[kind] = type(event).__name__
    print(f"{kind}: an endpoint can be made for it: {kind in str(events)}; unwrapped: {classes[kind]}(type={event.type!r}, data.id={event.data.id!r})")
wrong = {kind: name for kind, name in classes.items() if name.lower() != kind.replace(".", "") + "webhookevent"}
raise SystemExit(0 if set(wrong) == {"video.completed", "video.failed"} else 1)
PY
if venv/bin/python unwrap.py; then echo "as described"; else echo "changed"; exit 1; fi
