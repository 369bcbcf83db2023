import json

from service.jobs.files import bedrock_layout
from service.jobs.job import Destination, Job, JobStatus

DESTINATION = Destination("s3://bucket/prefix/")


def job() -> Job:
    return Job(
        id="abcdefgh0123", tenant="acme", door="bedrock", status=JobStatus.RUNNING, model="millrace-64", prompt="a red ball", seconds=6.0,
        seed=42, steps=4, width=1280, height=720, fps=24, created_at=0.0, updated_at=1.0,
    )  # fmt: skip


def test_the_folder_is_the_jobs_own_below_the_one_that_the_caller_named() -> None:
    assert bedrock_layout.folder(DESTINATION, "abcdefgh0123") == "s3://bucket/prefix/abcdefgh0123"
    assert bedrock_layout.folder(Destination("s3://bucket"), "abcdefgh0123") == "s3://bucket/abcdefgh0123"


def test_the_status_says_where_the_video_is_under_both_of_its_names() -> None:
    files = bedrock_layout.documents(job(), DESTINATION, 1234, "5f")
    assert set(files) == {"manifest.json", "video-generation-status.json", "generation-status.json"}
    assert files["video-generation-status.json"] == files["generation-status.json"]
    status = json.loads(files["generation-status.json"])
    assert status["fullVideo"] == {"status": "SUCCESS", "location": "s3://bucket/prefix/abcdefgh0123/output.mp4"}
    assert status["shots"] == [status["fullVideo"]]


def test_the_manifest_names_the_video_its_size_and_its_digest() -> None:
    manifest = json.loads(bedrock_layout.documents(job(), DESTINATION, 1234, "5f")["manifest.json"])
    assert manifest["invocationId"] == "abcdefgh0123"
    assert manifest["files"] == [{"name": "output.mp4", "contentType": "video/mp4", "sizeBytes": 1234, "sha256": "5f"}]
    assert manifest["video"] == {"durationSeconds": 6.0, "width": 1280, "height": 720, "fps": 24}
