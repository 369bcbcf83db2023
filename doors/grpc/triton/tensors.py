"""Tensors of the KServe v2 protocol to plain values and back. Pure; knows no model.

The contents of a tensor come as raw bytes, in the order of the inputs, or as typed lists inside each input. Little-endian throughout.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence

from doors.grpc.triton import kserve_pb2 as pb
from service.checks import Problems
from service.events import Usage

BYTES = "BYTES"
_FORMATS = {
    "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q",
    "FP16": "e", "FP32": "f", "FP64": "d",
}  # fmt: skip
_LISTS = {
    "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents", "INT64": "int64_contents", "UINT8": "uint_contents",
    "UINT16": "uint_contents", "UINT32": "uint_contents", "UINT64": "uint64_contents", "FP32": "fp32_contents",
    "FP64": "fp64_contents", BYTES: "bytes_contents",
}  # fmt: skip
_LENGTH = struct.Struct("<I")
_SHARED_MEMORY = "shared_memory_region"

INTEGERS = frozenset(name for name in _FORMATS if "INT" in name)
FLOATS = frozenset(name for name in _FORMATS if name.startswith("FP"))
TEXT = frozenset({BYTES})

Value = int | float | bytes
Plain = bool | int | float | str


def single_values(request: pb.ModelInferRequest, kinds: Mapping[str, frozenset[str]], problems: Problems) -> dict[str, Value]:
    """The one element of each input, by name. What is wrong with them goes to `problems`.

    Args:
        kinds: the data types that each input may have.
    """
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        problems.add("raw_input_contents", f"must be as many as inputs, {len(request.inputs)}, or none; got {len(raw)}")
        return {}
    values: dict[str, Value] = {}
    for index, tensor in enumerate(request.inputs):
        path = f"inputs.{tensor.name[:64]}"
        if tensor.name not in kinds:
            problems.add(path, f"must be one of {', '.join(sorted(kinds))}")
        elif tensor.name in values:
            problems.add(path, "must come at most once; got a second one")
        elif (problem := _problem(tensor, kinds[tensor.name])) is not None:
            problems.add(path, problem)
        else:
            value = _raw(tensor.datatype, raw[index]) if raw else _typed(tensor)
            if value is None:
                problems.add(path, f"must hold 1 element of {tensor.datatype}{_got(tensor, raw[index] if raw else None)}")
            else:
                values[tensor.name] = value
    return values


def _problem(tensor: pb.ModelInferRequest.InferInputTensor, kinds: frozenset[str]) -> str | None:
    if _SHARED_MEMORY in tensor.parameters:
        return "must come in the message: this server has no shared memory"
    if tensor.datatype not in kinds:
        return f"must be of data type {' or '.join(sorted(kinds))}; got {tensor.datatype[:32]!a}"
    if math.prod(tensor.shape) != 1 or len(tensor.shape) > 8:
        return f"must have 1 element, of shape [1]; got shape {list(tensor.shape)[:8]}"
    return None


def _got(tensor: pb.ModelInferRequest.InferInputTensor, raw: bytes | None) -> str:
    if raw is not None:
        length = ", after its length in 4 bytes" if tensor.datatype == BYTES else ""
        return f"{length}; got {len(raw)} bytes"
    return f" in contents.{_LISTS.get(tensor.datatype, 'raw_input_contents')}; got {_length(tensor)}"


def _length(tensor: pb.ModelInferRequest.InferInputTensor) -> int:
    name = _LISTS.get(tensor.datatype)
    return 0 if name is None else len(getattr(tensor.contents, name))


def _raw(datatype: str, data: bytes) -> Value | None:
    if datatype == BYTES:
        if len(data) < _LENGTH.size or _LENGTH.unpack_from(data)[0] != len(data) - _LENGTH.size:
            return None
        return data[_LENGTH.size :]
    form = struct.Struct(f"<{_FORMATS[datatype]}")
    if len(data) != form.size:
        return None
    value: int | float = form.unpack(data)[0]
    return value


def _typed(tensor: pb.ModelInferRequest.InferInputTensor) -> Value | None:
    if _length(tensor) != 1:
        return None
    value: Value = getattr(tensor.contents, _LISTS[tensor.datatype])[0]
    return value


def packed(items: Sequence[bytes]) -> bytes:
    """Elements of a BYTES tensor, as raw contents."""
    return b"".join(part for item in items for part in (_LENGTH.pack(len(item)), item))


def parameter(value: Plain) -> pb.InferParameter:
    """A response's parameter."""
    match value:
        case bool():
            return pb.InferParameter(bool_param=value)
        case int():
            return pb.InferParameter(int64_param=value)
        case float():
            return pb.InferParameter(double_param=value)
        case str():
            return pb.InferParameter(string_param=value)


def usage_parameters(usage: Usage) -> dict[str, Plain]:
    """What a video used, for the last response of it."""
    return {
        "video_seconds": usage.video_s, "pixels": usage.pixels, "denoise_steps": usage.steps, "denoise_seconds": usage.denoise_s,
        "decode_seconds": usage.decode_s,
    }  # fmt: skip


def parameters(request: pb.ModelInferRequest) -> dict[str, Plain]:
    """A request's parameters as plain values; those without a value are left out."""
    return dict(_plain(request.parameters))


def _plain(given: Mapping[str, pb.InferParameter]) -> Iterator[tuple[str, Plain]]:
    for name, value in given.items():
        kind = value.WhichOneof("parameter_choice")
        if kind is not None:
            yield name, getattr(value, kind)
