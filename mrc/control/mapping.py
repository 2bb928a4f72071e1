"""Views to protobuf and back, by field name; errors to rich statuses and back.

Messages mirror views field by field, so the mapping knows no single field. Every response message has exactly one field.
Invariant: a view that is sent and received is equal to itself.
"""

from __future__ import annotations

from typing import Any, TypeVar

import grpc
import msgspec
from google.protobuf import any_pb2, json_format
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from mrc.core.errors import CODES, MrcError
from mrc.core.model import convert

T = TypeVar("T")

_DOMAIN = "mrc"

_MESSAGE_BYTES_MAX = 1024
"""Of an error. It travels twice, once with three bytes for one, and a client takes trailers of 8 KiB; beyond that it learns nothing."""

_STATUS: dict[str, int] = {
    "BAD_REQUEST": code_pb2.INVALID_ARGUMENT,
    "TOKEN_REUSED": code_pb2.ALREADY_EXISTS,
    "UNAUTHENTICATED": code_pb2.UNAUTHENTICATED,
    "AGENT_BUSY": code_pb2.RESOURCE_EXHAUSTED,
    "EFFECT_TIMED_OUT": code_pb2.DEADLINE_EXCEEDED,
    "AGENT_UNREACHABLE": code_pb2.UNAVAILABLE,
    "CLUSTER_UNREACHABLE": code_pb2.UNAVAILABLE,
    "CONNECT_UNREACHABLE": code_pb2.UNAVAILABLE,
    "ZOOKEEPER_UNREACHABLE": code_pb2.UNAVAILABLE,
    "LEASE_LOST": code_pb2.UNAVAILABLE,
    "STALE_TERM": code_pb2.UNAVAILABLE,
}
"""gRPC's code where the kind alone does not say it; ``UNKNOWN_...`` is NOT_FOUND, the rest FAILED_PRECONDITION or INTERNAL."""


# ---------------------------------------------------------------- views


def respond(kind: type[Message], view: object) -> Message:
    """Return ``view`` (one, or a tuple of them) as the response message ``kind``."""
    field = kind.DESCRIPTOR.fields[0].name
    return kind(**{field: msgspec.to_builtins(view)})


def read(response: Message, kind: type[T]) -> T:
    """Return the one field of ``response`` as the view (or tuple of views) ``kind``.

    Raises:
        MrcError: ``VERSION_MISMATCH`` where it is none.
    """
    plain = json_format.MessageToDict(response, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    field = response.DESCRIPTOR.fields[0]
    answer = plain.get(field.name)
    if isinstance(answer, dict):
        _say_none(answer, field.message_type)
    try:
        return convert(answer, kind, strict=False)
    except msgspec.ValidationError as error:
        raise MrcError("VERSION_MISMATCH", f"{response.DESCRIPTOR.name} cannot be read: {error}") from None


def _say_none(answer: dict[str, Any], described: Any) -> None:
    """JSON leaves an absent message out; a view says None."""
    for field in described.fields:
        if field.message_type is not None and not field.is_repeated:
            answer.setdefault(field.name, None)


# ---------------------------------------------------------------- errors


def status_of(error: MrcError) -> grpc.Status:
    """Return ``error`` as the status that a call ends with."""
    info = error_details_pb2.ErrorInfo(
        reason=error.code,
        domain=_DOMAIN,
        metadata={"where": error.where, "remedy": error.remedy, "kind": error.kind, "retryable": str(error.retryable).lower()},
    )
    detail = any_pb2.Any()
    detail.Pack(info)
    status: grpc.Status = rpc_status.to_status(status_pb2.Status(code=_code(error), message=_cut(error.message), details=[detail]))
    return status


def _cut(message: str) -> str:
    """Return the beginning of a message that trailers have no room for."""
    said = message.encode()
    return message if len(said) <= _MESSAGE_BYTES_MAX else said[:_MESSAGE_BYTES_MAX].decode(errors="ignore") + "..."


def _code(error: MrcError) -> int:
    if error.code in _STATUS:
        return _STATUS[error.code]
    if error.kind == "bug":
        return int(code_pb2.INTERNAL)
    return int(code_pb2.NOT_FOUND if error.code.startswith("UNKNOWN_") else code_pb2.FAILED_PRECONDITION)


def error_of(failure: grpc.RpcError, address: str) -> MrcError:
    """Return what a failed call to the agent at ``address`` means."""
    try:
        status = rpc_status.from_call(failure)
    except ValueError:  # the client has ended the call itself, with a code of its own
        status = None
    for detail in status.details if status else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info) and info.domain == _DOMAIN:
            return _told(status.message, info)
    code = failure.code()
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return MrcError("VERSION_MISMATCH", f"the agent does not know this request: {failure.details()}", where=address)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return MrcError("AGENT_BUSY", str(failure.details()), where=address, retryable=True)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return MrcError("AGENT_UNREACHABLE", "no answer in time", where=address, retryable=True)
    return MrcError("AGENT_UNREACHABLE", f"{code.name}: {failure.details()}", where=address, retryable=True)


def _told(message: str, info: error_details_pb2.ErrorInfo) -> MrcError:
    if info.reason not in CODES:
        return MrcError("VERSION_MISMATCH", f"{info.reason}: {message}", where=info.metadata["where"])
    return MrcError(info.reason, message, where=info.metadata["where"], retryable=info.metadata["retryable"] == "true")
