"""A client of the KServe v2 protocol out of plain stubs, and requests as stock clients make them."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray

from doors.grpc.triton import kserve_pb2 as pb
from doors.grpc.triton.room import SERVICE_NAME
from doors.grpc.triton.tensors import parameter
from tests.served import Served

FORMATS = {"FP32": "<f", "FP64": "<d", "INT32": "<i", "INT64": "<q", "UINT64": "<Q"}


def raw(datatype: str, value: Any) -> bytes:
    """One element as raw contents."""
    if datatype == "BYTES":
        data = value if isinstance(value, bytes) else str(value).encode()
        return struct.pack("<I", len(data)) + data
    return struct.pack(FORMATS[datatype], value)


def request(
    *inputs: tuple[str, str, Any],
    model: str = "",
    id: str = "",  # noqa: A002 - the wire's name
    outputs: tuple[str, ...] = (),
    **parameters: Any,
) -> pb.ModelInferRequest:
    """Each input is its name, its data type and its one element."""
    tensor = pb.ModelInferRequest.InferInputTensor
    made = pb.ModelInferRequest(
        model_name=model,
        id=id,
        inputs=[tensor(name=name, datatype=datatype, shape=[1]) for name, datatype, _ in inputs],
        raw_input_contents=[raw(datatype, value) for _, datatype, value in inputs],
        outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in outputs],
    )
    for name, value in parameters.items():
        made.parameters[name].CopyFrom(parameter(value))
    return made


def prompt(text: str, seconds: float | None = 1.0, **more: Any) -> pb.ModelInferRequest:
    """A request of a prompt and a length."""
    length = [] if seconds is None else [("seconds", "FP32", seconds)]
    return request(("prompt", "BYTES", text), *length, **more)


class Client:
    """Calls one method after the other."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    async def call(self, method: str, message: Any) -> Any:
        """One answer. Raises grpc.aio.AioRpcError."""
        answers = getattr(pb, f"{method}Response")
        stub: Any = self._channel.unary_unary(f"/{SERVICE_NAME}/{method}", type(message).SerializeToString, answers.FromString)
        async with asyncio.timeout(20):
            return await stub(message)

    def stream(self) -> Any:
        """A call to write requests to and to read responses from."""
        return self._channel.stream_stream(
            f"/{SERVICE_NAME}/ModelStreamInfer", pb.ModelInferRequest.SerializeToString, pb.ModelStreamInferResponse.FromString
        )()


@asynccontextmanager
async def client(served: Served) -> AsyncIterator[Client]:
    """With the limits that stock clients have."""
    options = (("grpc.max_receive_message_length", 2**31 - 1),)
    async with grpc.aio.insecure_channel(served.address, options) as channel:
        yield Client(channel)


async def responses(call: Any) -> list[pb.ModelStreamInferResponse]:
    """All that come until the end."""
    found = []
    async with asyncio.timeout(20):
        while (response := await call.read()) is not grpc.aio.EOF:
            found.append(response)
    return found


def frames_of(response: pb.ModelInferResponse) -> NDArray[np.uint8]:
    """The pixels of a response with the output `frames`."""
    (output,) = response.outputs
    assert (output.name, output.datatype) == ("frames", "UINT8")
    return np.frombuffer(response.raw_output_contents[0], np.uint8).reshape(output.shape)


def video_of(response: pb.ModelInferResponse, index: int = 0) -> bytes:
    """The bytes of the output `video`."""
    assert (response.outputs[index].name, response.outputs[index].datatype) == ("video", "BYTES")
    data = response.raw_output_contents[index]
    (length,) = struct.unpack_from("<I", data)
    assert length == len(data) - 4
    return data[4:]


def final(response: pb.ModelInferResponse) -> bool:
    return response.parameters["triton_final_response"].bool_param
