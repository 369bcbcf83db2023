"""What Amazon Bedrock writes into a caller's folder when a video is done, so that programs made for it find what they look for. Pure.

The folder is the job's own, below the one that the caller named. It holds the video, a manifest, and the status of the generation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from service.jobs.job import Destination, Job

VIDEO = "output.mp4"
MANIFEST = "manifest.json"
# AWS calls this file both ways in one page of its guide. Programs look for either.
STATUSES = ("video-generation-status.json", "generation-status.json")

_SCHEMA = "1.0"


def folder(destination: Destination, job_id: str) -> str:
    """The job's own folder, `s3://bucket/prefix/JOB`, without a slash at the end."""
    return f"{destination.uri.rstrip('/')}/{job_id}"


def documents(job: Job, destination: Destination, size_bytes: int, sha256: str) -> Mapping[str, bytes]:
    """The JSON files beside the video, by name. They are the same however often the job was tried.

    Args:
        job: the job; it need not be marked as completed yet.
        destination: where its files go.
        size_bytes, sha256: of the video.
    """
    manifest = {
        "schemaVersion": _SCHEMA,
        "invocationId": job.id,
        "model": job.model,
        "seed": job.seed,
        "video": {"durationSeconds": job.seconds, "width": job.width, "height": job.height, "fps": job.fps},
        "files": [{"name": VIDEO, "contentType": "video/mp4", "sizeBytes": size_bytes, "sha256": sha256}],
    }
    made = {"status": "SUCCESS", "location": f"{folder(destination, job.id)}/{VIDEO}"}
    status = {"schemaVersion": _SCHEMA, "shots": [made], "fullVideo": made}
    return {MANIFEST: _json(manifest), **dict.fromkeys(STATUSES, _json(status))}


def _json(document: Mapping[str, object]) -> bytes:
    return json.dumps(document, indent=2).encode() + b"\n"
