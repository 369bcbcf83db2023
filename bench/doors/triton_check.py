"""NVIDIA's `tritonclient`, as anybody installs it, against a server: `python -m bench.doors.triton_check --url http://127.0.0.1:50051`.

Its environment is `requirements-triton.txt`. The URL is of the gRPC port; its scheme is not looked at.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from bench.doors.cases import Cases, Skipped, Target, check, raises
from bench.doors.mp4 import played

PROMPT = "a red circle moving right"
WAIT_S = 120.0


def main() -> None:
    target, cases = Target.of_arguments(), Cases("triton")
    run = Check(target)
    cases.run_all(
        (
            ("ready", run.ready),
            ("list", run.list),
            ("create", run.create),
            ("fetch", run.fetch),
            ("frames", run.frames),
            ("stream", run.stream),
            ("stream a file", run.stream_file),
            ("steer", run.steer),
            ("cancel", run.cancel),
            ("statistics", run.statistics),
            ("wrong key", run.wrong_key),
            ("over quota", run.over_quota),
            ("bad input", run.bad_input),
        )
    )
    cases.end()


class Streamed:
    """Responses of one stream, in their order."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.responses: queue.Queue[tuple[Any, Any]] = queue.Queue()

    def next(self) -> Any:
        """The next result. Raises the error that came in its place."""
        result, error = self.responses.get(timeout=WAIT_S)
        if error is not None:
            raise error
        return result

    def until_final(self, request_id: str) -> list[Any]:
        """Results of the request up to its empty last response, which is left out."""
        results: list[Any] = []
        while True:
            result = self.next()
            response = result.get_response()
            if response.id == request_id and response.parameters["triton_final_response"].bool_param:
                return results
            results.append(result)


class Check:
    """What a caller does, with a sound key and without one."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.address = target.url.rpartition("//")[2].rstrip("/")
        self.client = triton.InferenceServerClient(self.address)
        self.headers = {"x-api-key": target.key}
        self.model = ""
        self.mp4 = b""

    @contextmanager
    def streaming(self) -> Iterator[Streamed]:
        client = triton.InferenceServerClient(self.address)
        streamed = Streamed(client)
        client.start_stream(lambda result, error: streamed.responses.put((result, error)), headers=self.headers)
        try:
            yield streamed
        finally:
            client.stop_stream(cancel_requests=True)
            client.close()

    def ready(self) -> str:
        check(self.client.is_server_live(headers=self.headers), "not live")
        check(self.client.is_server_ready(headers=self.headers), "not ready")
        told = self.client.get_server_metadata(headers=self.headers)
        return f"{told.name} {told.version}"

    def list(self) -> str:
        models = self.client.get_model_repository_index(headers=self.headers).models
        check(models, "no models")
        self.model = models[0].name
        check(self.client.is_model_ready(self.model, headers=self.headers), "the model is not ready")
        told = self.client.get_model_metadata(self.model, headers=self.headers)
        check({tensor.name for tensor in told.outputs} == {"frames", "video"}, f"outputs {told.outputs}")
        config = self.client.get_model_config(self.model, headers=self.headers).config
        check(config.model_transaction_policy.decoupled, "not decoupled")
        return self.model

    def create(self) -> str:
        answer = self.client.infer(self.model, [text(PROMPT)], headers=self.headers)
        self.mp4 = answer.as_numpy("video")[0]
        return f"{len(self.mp4)} bytes, seed {answer.get_response().parameters['seed'].string_param}"

    def fetch(self) -> str:
        frames, width, height = played(self.mp4)
        check(frames > 0 and width > 0, f"{frames} frames of {width}x{height}")
        return f"{frames} frames of {width}x{height}"

    def frames(self) -> None:
        asked = {"outputs": [triton.InferRequestedOutput("frames")], "headers": self.headers}
        first = self.client.infer(self.model, [text(PROMPT), seconds(1.0), seed(7)], **asked).as_numpy("frames")
        again = self.client.infer(self.model, [text(PROMPT), seconds(1.0), seed(7)], **asked).as_numpy("frames")
        check(first.dtype == np.uint8 and first.ndim == 4, f"{first.dtype} {first.shape}")
        check(np.array_equal(first, again), "the same seed gives other frames")

    def stream(self) -> str:
        with self.streaming() as streamed:
            inputs = [text(PROMPT), seconds(1.0), seed(7)]
            streamed.client.async_stream_infer(self.model, inputs, request_id="r1", enable_empty_final_response=True)
            chunks = [result.as_numpy("frames") for result in streamed.until_final("r1")]
        whole = self.client.infer(
            self.model, [text(PROMPT), seconds(1.0), seed(7)], outputs=[triton.InferRequestedOutput("frames")], headers=self.headers
        ).as_numpy("frames")
        check(np.array_equal(np.concatenate(chunks), whole), "a stream has other frames than one answer")
        return f"{len(chunks)} chunks"

    def stream_file(self) -> None:
        with self.streaming() as streamed:
            outputs = [triton.InferRequestedOutput("video")]
            streamed.client.async_stream_infer(
                self.model, [text(PROMPT), seconds(1.0)], outputs=outputs, request_id="r1", enable_empty_final_response=True
            )
            data = b"".join(result.as_numpy("video")[0] for result in streamed.until_final("r1"))
        check(played(data)[0] > 0, "the pieces are no file")

    def steer(self) -> str:
        shown: list[str] = []
        with self.streaming() as streamed:
            ask = streamed.client.async_stream_infer
            ask(self.model, [text(PROMPT)], request_id="1", sequence_id=7, sequence_start=True)
            shown.append(streamed.next().get_response().id)
            ask(self.model, [text("a blue square")], request_id="2", sequence_id=7)
            while shown[-1] != "2":
                shown.append(streamed.next().get_response().id)
            ask(self.model, [], request_id="3", sequence_id=7, sequence_end=True, enable_empty_final_response=True)
            streamed.until_final("3")
        return f"the new prompt shows after {len(shown) - 1} chunks"

    def cancel(self) -> None:
        with self.streaming() as streamed:
            streamed.client.async_stream_infer(self.model, [text(PROMPT), seconds(60.0)], request_id="long")
            streamed.next()

    def statistics(self) -> str:
        (stats,) = self.client.get_inference_statistics(self.model, headers=self.headers).model_stats
        check(stats.inference_count > 0 and stats.execution_count > 0, f"{stats}")
        return f"{stats.inference_count} inferences"

    def wrong_key(self) -> None:
        if not self.target.wrong_key:
            raise Skipped("the server takes any key")
        error: Any = raises(
            InferenceServerException,
            lambda: self.client.infer(self.model, [text(PROMPT)], headers={"x-api-key": self.target.wrong_key}),
        )
        check(error.status() == "StatusCode.UNAUTHENTICATED", f"{error.status()}")

    def over_quota(self) -> str:
        if not self.target.spent_key:
            raise Skipped("no key whose quota is used up")
        error: Any = raises(
            InferenceServerException,
            lambda: self.client.infer(self.model, [text(PROMPT)], headers={"x-api-key": self.target.spent_key}),
        )
        # A budget that is spent is no limit that passes.
        check(error.status() in {"StatusCode.RESOURCE_EXHAUSTED", "StatusCode.FAILED_PRECONDITION"}, f"{error.status()}")
        return str(error.message())

    def bad_input(self) -> str:
        told = []
        for model, inputs, status, parts in (
            (self.model, [text(" ")], "INVALID_ARGUMENT", ("inputs.prompt", "white space")),
            (self.model, [text(PROMPT), seconds(3600.0)], "INVALID_ARGUMENT", ("inputs.seconds", "3600")),
            (self.model, [text(PROMPT), tensor("colour", "BYTES", "red")], "INVALID_ARGUMENT", ("inputs.colour",)),
            ("nobody-1", [text(PROMPT)], "NOT_FOUND", ("model_name", "nobody-1")),
        ):
            error: Any = raises(InferenceServerException, partial(self.client.infer, model, inputs, headers=self.headers), *parts)
            check(error.status() == f"StatusCode.{status}", f"{error.status()}")
            told.append(str(error.message()))
        with self.streaming() as streamed:
            streamed.client.async_stream_infer(self.model, [text("")], request_id="bad")
            raises(InferenceServerException, streamed.next, "inputs.prompt")
            streamed.client.async_stream_infer(self.model, [text(PROMPT), seconds(0.5)], request_id="good")
            check(streamed.next().get_response().id == "good", "an error has ended the stream")
        return " | ".join(told)


def tensor(name: str, datatype: str, value: Any) -> Any:
    """An input of one element."""
    made = triton.InferInput(name, [1], datatype)
    kinds = {"BYTES": np.object_, "FP32": np.float32, "UINT64": np.uint64}
    made.set_data_from_numpy(np.array([value], kinds[datatype]))
    return made


def text(prompt: str) -> Any:
    return tensor("prompt", "BYTES", prompt)


def seconds(length: float) -> Any:
    return tensor("seconds", "FP32", length)


def seed(number: int) -> Any:
    return tensor("seed", "UINT64", number)


if __name__ == "__main__":
    main()
