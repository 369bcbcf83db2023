"""The token to watch a session by."""

from __future__ import annotations

import base64
import hashlib

# Of `watch_token`.
CHARS = 43
_PURPOSE = b"headrace watch\0"


def watch_token(resume_token: str) -> str:
    """What shows the session that `resume_token` resumes. It does not tell that token, and so does not steer.

    It needs no place of its own in the session's record: whoever goes on with a session, at whatever front door, has the same one.
    """
    digest = hashlib.sha256(_PURPOSE + resume_token.encode()).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
