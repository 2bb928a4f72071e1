"""The API's methods in one table: what is asked, what is answered, and which of a request's fields may hold what.

The server serves from it and the client calls from it, so that both mean the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar, get_args

from google.protobuf.message import Message

from mrc.control import conflicts
from mrc.control.pb.mrc.v1 import conflicts_pb2
from mrc.control.pb.mrc.v1 import mrc_pb2 as pb
from mrc.control.service import Caller, Dockets, Service
from mrc.core.errors import MrcError
from mrc.core.failover.runbook import MoveKind
from mrc.core.inventory import Position
from mrc.core.model import Offset, TopicPartition
from mrc.core.translation.positions import Place
from mrc.core.views import (
    CheckpointView,
    CommittedView,
    DivergenceView,
    EntryView,
    ExecutionView,
    ExplanationView,
    FlowView,
    ForgottenView,
    GroupOffsetView,
    OffsetDiffView,
    PlanView,
    RecoveryProgressView,
    RecoveryView,
    StatusView,
    TranslatedView,
    TranslationView,
    UnmovableView,
    VerifiedView,
    VersionView,
)
from mrc.resolver.audit import Stats
from mrc.resolver.cursors import CURSOR_CHARACTERS_MAX

SERVICE = pb.DESCRIPTOR.services_by_name["CoordinatorService"].full_name
CONFLICT_SERVICE = conflicts_pb2.DESCRIPTOR.services_by_name["ConflictService"].full_name
"""The services' full names."""

REQUEST_BYTES_MAX = 64 * 1024
ANSWER_BYTES_MAX = 64 * 1024 * 1024
"""Room for the checkpoints of some hundred groups on some thousand partitions."""


def silence(after_s: float) -> list[tuple[str, int]]:
    """Return the channel options by which a side that says nothing, not even that it is there, is given up within twice ``after_s``."""
    after_ms = round(after_s * 1000)
    return [
        ("grpc.keepalive_time_ms", after_ms),
        ("grpc.keepalive_timeout_ms", after_ms),
        ("grpc.http2.ping_timeout_ms", after_ms),
        ("grpc.http2.max_pings_without_data", 0),
        # Of the other side's questions: who asks more often than this is cut off.
        ("grpc.http2.min_ping_interval_without_data_ms", after_ms // 2),
    ]


SILENCE = silence(10.0)
"""A machine that is cut off or frozen closes no connection, so a stream to it would stand still for as long as TCP tries."""

_NAME_CHARACTERS_MAX = 255
POSITIONS_MAX = 1000
"""How many positions one request may hold."""

METADATA_CHARACTERS_MAX = 4096
"""Kafka's default of ``offset.metadata.max.bytes``."""

_CHARACTERS_MAX = {
    "reason": 1024,
    "token": 128,
    "metadata": METADATA_CHARACTERS_MAX,
    "actor": 128,
    "entity": 1300,
    "cursor": CURSOR_CHARACTERS_MAX,
}
_REQUIRED = frozenset({"target", "source", "execution_id", "token", "kind", "conflict_id", "winner"})
_FREE = frozenset({"metadata", "entity"})
"""Fields that hold any character: they are another's, and are kept as they are."""

_KINDS: tuple[MoveKind, ...] = get_args(MoveKind)
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")


S = TypeVar("S")


class Method(NamedTuple, Generic[S]):
    """One method of the API.

    Attributes:
        request: its request message.
        response: its response message.
        view: what the response's one field is.
        answer: asks what serves it; takes the request and who asks.
        streams: whether ``answer`` returns an iterator and the response is streamed.
        at_once: how many calls of it are served at a time; 0: as many as there is room for.
    """

    request: type[Message]
    response: type[Message]
    view: Any
    answer: Callable[[S, Any, Caller], Any]
    streams: bool = False
    at_once: int = 0


def _wanted(request: pb.CommitOffsetsRequest) -> dict[TopicPartition, Position]:
    """Return the positions of a request. Raises ``BAD_REQUEST`` where a partition stands in it twice."""
    found = {TopicPartition(p.topic, p.partition): Position(Offset(p.offset), p.metadata) for p in request.positions}
    if len(found) < len(request.positions):
        raise MrcError("BAD_REQUEST", "a partition stands in it twice", where="positions")
    return found


COORDINATOR: Mapping[str, Method[Service]] = {
    "Version": Method(pb.VersionRequest, pb.VersionResponse, VersionView, lambda s, _r, _a: s.version()),
    "Status": Method(pb.StatusRequest, pb.StatusResponse, StatusView, lambda s, r, _a: s.status(r.replication_group)),
    "Lag": Method(pb.LagRequest, pb.LagResponse, tuple[FlowView, ...], lambda s, r, _a: s.lag(r.replication_group)),
    "ListCheckpoints": Method(
        pb.ListCheckpointsRequest,
        pb.ListCheckpointsResponse,
        tuple[CheckpointView, ...],
        lambda s, r, _a: s.checkpoints(r.replication_group, r.group, r.topic),
    ),
    "Translate": Method(
        pb.TranslateRequest,
        pb.TranslateResponse,
        TranslationView,
        lambda s, r, _a: s.translate(r.replication_group, r.source, r.topic, r.partition, r.offset),
    ),
    "Verify": Method(
        pb.VerifyRequest, pb.VerifyResponse, VerifiedView, lambda s, r, _a: s.verify(r.replication_group, r.group), streams=True
    ),
    "ShowOffsets": Method(
        pb.ShowOffsetsRequest,
        pb.ShowOffsetsResponse,
        tuple[GroupOffsetView, ...],
        lambda s, r, _a: s.group_offsets(r.replication_group, r.group),
    ),
    "ExplainOffsets": Method(
        pb.ExplainOffsetsRequest,
        pb.ExplainOffsetsResponse,
        ExplanationView,
        lambda s, r, _a: s.explain(r.replication_group, r.group, r.topic, r.partition if r.HasField("partition") else None),
        streams=True,
    ),
    "DiffOffsets": Method(
        pb.DiffOffsetsRequest,
        pb.DiffOffsetsResponse,
        tuple[OffsetDiffView, ...],
        lambda s, r, _a: s.diff(r.replication_group, r.group),
    ),
    "ListUnmovable": Method(
        pb.ListUnmovableRequest, pb.ListUnmovableResponse, tuple[UnmovableView, ...], lambda s, r, _a: s.unmovable(r.replication_group)
    ),
    "TranslateMany": Method(
        pb.TranslateManyRequest,
        pb.TranslateManyResponse,
        tuple[TranslatedView, ...],
        lambda s, r, _a: s.translate_many(r.replication_group, [Place(p.region, p.topic, p.partition, p.offset) for p in r.places]),
    ),
    "ApplyOffsets": Method(
        pb.ApplyOffsetsRequest,
        pb.ApplyOffsetsResponse,
        tuple[CommittedView, ...],
        lambda s, r, _a: s.apply_offsets(r.replication_group, r.group, r.dry_run),
    ),
    "CommitOffsets": Method(
        pb.CommitOffsetsRequest,
        pb.CommitOffsetsResponse,
        tuple[CommittedView, ...],
        lambda s, r, _a: s.commit_offsets(r.replication_group, r.group, r.epoch, _wanted(r), r.dry_run),
    ),
    "ForgetCheckpoints": Method(
        pb.ForgetCheckpointsRequest,
        pb.ForgetCheckpointsResponse,
        tuple[ForgottenView, ...],
        lambda s, r, _a: s.forget(r.replication_group, r.group, r.topic, r.dry_run),
    ),
    "Plan": Method(
        pb.PlanRequest,
        pb.PlanResponse,
        PlanView,
        lambda s, r, _a: s.plan(r.replication_group, r.kind, r.target, r.attested, r.allow_data_loss, r.producers_restarted),
    ),
    "StartMove": Method(
        pb.StartMoveRequest,
        pb.StartMoveResponse,
        ExecutionView,
        lambda s, r, a: s.start(
            r.replication_group, r.kind, r.target, r.token, a.actor, r.reason, r.attested, r.allow_data_loss, r.producers_restarted
        ),
    ),
    "GetExecution": Method(pb.GetExecutionRequest, pb.GetExecutionResponse, ExecutionView, lambda s, r, _a: s.execution(r.execution_id)),
    "ListExecutions": Method(
        pb.ListExecutionsRequest,
        pb.ListExecutionsResponse,
        tuple[ExecutionView, ...],
        lambda s, r, _a: s.executions(r.replication_group),
    ),
    "GetHistory": Method(pb.GetHistoryRequest, pb.GetHistoryResponse, tuple[EntryView, ...], lambda s, r, _a: s.history(r.execution_id)),
    "GetReport": Method(pb.GetReportRequest, pb.GetReportResponse, str, lambda s, r, _a: s.report(r.execution_id)),
    "WatchExecution": Method(
        pb.WatchExecutionRequest, pb.WatchExecutionResponse, ExecutionView, lambda s, r, _a: s.watch(r.execution_id), streams=True
    ),
    "Approve": Method(pb.ApproveRequest, pb.ApproveResponse, ExecutionView, lambda s, r, a: s.approve(r.execution_id, a.actor, r.reason)),
    "Abort": Method(pb.AbortRequest, pb.AbortResponse, ExecutionView, lambda s, r, a: s.abort(r.execution_id, a.actor, r.reason)),
    "Skip": Method(pb.SkipRequest, pb.SkipResponse, ExecutionView, lambda s, r, a: s.skip(r.execution_id, a.actor, r.reason)),
    "ListDivergence": Method(
        pb.ListDivergenceRequest,
        pb.ListDivergenceResponse,
        tuple[DivergenceView, ...],
        lambda s, r, _a: s.divergence(r.replication_group),
    ),
    "RecoverDivergence": Method(
        pb.RecoverDivergenceRequest,
        pb.RecoverDivergenceResponse,
        RecoveryProgressView,
        lambda s, r, _a: s.recover(r.replication_group, r.execution_id, r.doing),
        streams=True,
    ),
    "DivergenceStatus": Method(
        pb.DivergenceStatusRequest,
        pb.DivergenceStatusResponse,
        tuple[RecoveryView, ...],
        lambda s, r, _a: s.recoveries(r.replication_group),
    ),
}
"""Name -> method, of what an agent does for its replication groups."""

CONFLICTS: Mapping[str, Method[Dockets]] = {
    "ListConflicts": Method(
        conflicts_pb2.ListConflictsRequest,
        conflicts_pb2.ListConflictsResponse,
        dict[str, Any],
        conflicts.newest,
        streams=True,
        at_once=2,
    ),
    "GetConflict": Method(conflicts_pb2.GetConflictRequest, conflicts_pb2.GetConflictResponse, dict[str, Any], conflicts.find, at_once=2),
    "TailConflicts": Method(
        conflicts_pb2.TailConflictsRequest,
        conflicts_pb2.TailConflictsResponse,
        dict[str, Any],
        conflicts.tail,
        streams=True,
        at_once=8,
    ),
    "ResolveConflict": Method(
        conflicts_pb2.ResolveConflictRequest, conflicts_pb2.ResolveConflictResponse, dict[str, Any], conflicts.decide, at_once=2
    ),
    "CountConflicts": Method(conflicts_pb2.CountConflictsRequest, conflicts_pb2.CountConflictsResponse, Stats, conflicts.count, at_once=1),
}
"""Name -> method, of what is decided between regions that both write. Each reads logs, so that few of them are served at a time."""

METHODS: Mapping[str, Method[Any]] = {**COORDINATOR, **CONFLICTS}
"""Name -> method, of both services."""


def path(name: str) -> str:
    """Return what a method is called by."""
    return f"/{CONFLICT_SERVICE if name in CONFLICTS else SERVICE}/{name}"


def check(request: Message) -> None:
    """Refuse a request that is not well formed. Raises ``BAD_REQUEST`` with the field's name."""
    for field in request.DESCRIPTOR.fields:
        value = getattr(request, field.name)
        if isinstance(value, str):
            _check_text(field.name, value)
        elif isinstance(value, int) and value < 0:
            raise MrcError("BAD_REQUEST", f"{field.name} is {value}; it is 0 or more", where=field.name)
        elif field.is_repeated:
            if len(value) > POSITIONS_MAX:
                raise MrcError(
                    "BAD_REQUEST", f"{field.name} has {len(value)} entries; at most {POSITIONS_MAX} are allowed", where=field.name
                )
            for one in value:
                check(one)
    kind = getattr(request, "kind", _KINDS[0])
    if kind not in _KINDS:
        raise MrcError("BAD_REQUEST", f"kind is {kind!r}; allowed: {', '.join(_KINDS)}", where="kind")


def _check_text(name: str, value: str) -> None:
    most = _CHARACTERS_MAX.get(name, _NAME_CHARACTERS_MAX)
    if not value and name in _REQUIRED:
        raise MrcError("BAD_REQUEST", f"{name} is empty", where=name)
    if len(value) > most:
        raise MrcError("BAD_REQUEST", f"{name} has {len(value)} characters; at most {most} are allowed", where=name)
    if name not in _FREE and _CONTROL_CHARACTER.search(value):
        raise MrcError("BAD_REQUEST", f"{name} holds a control character", where=name)
