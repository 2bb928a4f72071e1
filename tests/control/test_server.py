"""One agent's server: what it refuses, how errors travel, who the actor is, how it ends."""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from mrc.config import TlsSettings
from mrc.control import server as server_module
from mrc.control.api import CONFLICT_SERVICE, METHODS, SERVICE
from mrc.control.pb.mrc.v1 import mrc_pb2 as pb
from mrc.control.pb.mrc.v1.mrc_pb2_grpc import CoordinatorServiceStub
from mrc.control.server import Server
from mrc.core.errors import CODES, MrcError
from mrc.core.views import StatusView
from tests.control.estate import Agent, Estate, NoDockets, World


@pytest.fixture
def world() -> World:
    made = World()
    made.leaders["west"] = "west-a"
    return made


@pytest.fixture
def address(world: World) -> Iterator[str]:
    server = Server(Agent(world, "west", "west-a"), NoDockets(), "127.0.0.1:0")
    yield server.start()
    server.stop(0.1)


@pytest.fixture
def channel(address: str) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(address) as made:
        yield made


@pytest.fixture
def stub(channel: grpc.Channel) -> CoordinatorServiceStub:
    return CoordinatorServiceStub(channel)


def told(failure: grpc.RpcError) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    status = rpc_status.from_call(failure)
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "mrc"
    return failure.code(), info.reason, dict(info.metadata)


def asked(stub: CoordinatorServiceStub, method: str, request_: object) -> Any:
    """Return the answer, of a stream the first one."""
    answer = getattr(stub, method)(request_, timeout=5)
    return next(answer) if METHODS[method].streams else answer


MOVE: dict[str, Any] = {"kind": "switchover", "target": "west", "token": "t"}


@pytest.mark.parametrize(
    ("method", "request_", "where"),
    [
        ("StartMove", pb.StartMoveRequest(**{**MOVE, "kind": "teleport"}), "kind"),
        ("StartMove", pb.StartMoveRequest(**{**MOVE, "target": ""}), "target"),
        ("StartMove", pb.StartMoveRequest(**{**MOVE, "token": ""}), "token"),
        ("StartMove", pb.StartMoveRequest(**{**MOVE, "token": "t" * 129}), "token"),
        ("StartMove", pb.StartMoveRequest(**MOVE, reason="r" * 1025), "reason"),
        ("StartMove", pb.StartMoveRequest(**MOVE, reason="a\x1b[2Jb"), "reason"),
        ("Plan", pb.PlanRequest(kind="", target="west"), "kind"),
        ("Translate", pb.TranslateRequest(source="east", topic="orders", partition=0, offset=-1), "offset"),
        ("Translate", pb.TranslateRequest(source="east", topic="orders", partition=-3, offset=1), "partition"),
        ("Translate", pb.TranslateRequest(source="", topic="orders"), "source"),
        ("TranslateMany", pb.TranslateManyRequest(places=[pb.Place(region="east", topic="orders", offset=-1)]), "offset"),
        ("TranslateMany", pb.TranslateManyRequest(places=[pb.Place(region="east", topic="o\n")]), "topic"),
        ("TranslateMany", pb.TranslateManyRequest(places=[pb.Place()] * 1001), "places"),
        ("CommitOffsets", pb.CommitOffsetsRequest(group="billing", positions=[pb.WantedOffset(topic="orders", offset=-1)]), "offset"),
        ("CommitOffsets", pb.CommitOffsetsRequest(group="billing", positions=[pb.WantedOffset(topic="orders")] * 2), "positions"),
        ("CommitOffsets", pb.CommitOffsetsRequest(positions=[pb.WantedOffset(topic="orders", metadata="m" * 4097)]), "metadata"),
        ("CommitOffsets", pb.CommitOffsetsRequest(group="billing", epoch=-1), "epoch"),
        ("ExplainOffsets", pb.ExplainOffsetsRequest(group="billing", partition=-1), "partition"),
        ("Status", pb.StatusRequest(replication_group="x" * 256), "replication_group"),
        ("GetExecution", pb.GetExecutionRequest(), "execution_id"),
        ("Abort", pb.AbortRequest(execution_id="../../etc\n"), "execution_id"),
    ],
)
def test_requests_that_are_not_well_formed_are_refused_by_field(
    stub: CoordinatorServiceStub, method: str, request_: object, where: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        asked(stub, method, request_)
    code, reason, metadata = told(caught.value)
    assert (code, reason, metadata["where"]) == (grpc.StatusCode.INVALID_ARGUMENT, "BAD_REQUEST", where)
    assert metadata["kind"] == "usage"
    assert metadata["remedy"] == CODES["BAD_REQUEST"].remedy


def test_metadata_of_a_position_may_hold_any_character(stub: CoordinatorServiceStub) -> None:
    wanted = pb.WantedOffset(topic="orders", offset=7, metadata="AQ==\x00\n\t")
    answer = stub.CommitOffsets(pb.CommitOffsetsRequest(group="billing", positions=[wanted]), timeout=5)
    assert [(one.topic, one.wanted.value) for one in answer.committed] == [("orders", 7)]


def test_a_request_beyond_the_bound_is_refused_before_it_is_read(stub: CoordinatorServiceStub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Status(pb.StatusRequest(replication_group="x" * 100_000), timeout=5)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_bytes_that_are_no_message_are_refused(channel: grpc.Channel) -> None:
    garbage = channel.unary_unary(f"/{SERVICE}/Status", request_serializer=bytes, response_deserializer=bytes)
    with pytest.raises(grpc.RpcError):
        garbage(b"\xff\xff\xff\xff garbage", timeout=5)
    CoordinatorServiceStub(channel).Version(pb.VersionRequest(), timeout=5)


def test_an_unknown_method_is_refused(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(f"/{SERVICE}/Destroy", request_serializer=bytes, response_deserializer=bytes)(b"", timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("NOT_LEADER", grpc.StatusCode.FAILED_PRECONDITION),
        ("UNKNOWN_TOPIC", grpc.StatusCode.NOT_FOUND),
        ("MOVE_IN_PROGRESS", grpc.StatusCode.FAILED_PRECONDITION),
        ("PLAN_REFUSED", grpc.StatusCode.FAILED_PRECONDITION),
        ("TOKEN_REUSED", grpc.StatusCode.ALREADY_EXISTS),
        ("ZOOKEEPER_UNREACHABLE", grpc.StatusCode.UNAVAILABLE),
        ("GROUP_HAS_MEMBERS", grpc.StatusCode.FAILED_PRECONDITION),
        ("LEASE_LOST", grpc.StatusCode.UNAVAILABLE),
    ],
)
def test_errors_keep_their_code_their_place_and_their_remedy(
    stub: CoordinatorServiceStub, monkeypatch: pytest.MonkeyPatch, code: str, expected: grpc.StatusCode
) -> None:
    def fail(_agent: Agent, _rg: str) -> StatusView:
        raise MrcError(code, "what happened", where="west orders-3", retryable=True)

    monkeypatch.setattr(Agent, "status", fail)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Status(pb.StatusRequest(), timeout=5)
    assert caught.value.details() == "what happened"
    metadata = {"where": "west orders-3", "remedy": CODES[code].remedy, "kind": CODES[code].kind, "retryable": "true"}
    assert told(caught.value) == (expected, code, metadata)


def test_a_bug_is_told_without_its_inside(stub: CoordinatorServiceStub, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_agent: Agent, _rg: str) -> StatusView:
        raise KeyError("the password is swordfish")

    monkeypatch.setattr(Agent, "status", fail)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Status(pb.StatusRequest(), timeout=5)
    code, reason, _ = told(caught.value)
    assert (code, reason) == (grpc.StatusCode.INTERNAL, "INVARIANT")
    assert "swordfish" not in str(caught.value.details())
    assert "Traceback" not in str(caught.value.details())


@pytest.mark.parametrize(
    ("metadata", "actor"),
    [
        ((("mrc-user", "alice"),), "alice (unauthenticated)"),
        ((), "unknown (unauthenticated)"),
        ((("mrc-user", "x" * 4000),), "x" * 128 + " (unauthenticated)"),
    ],
)
def test_without_tls_the_actor_is_what_the_client_says_and_is_marked(
    stub: CoordinatorServiceStub, metadata: tuple[tuple[str, str], ...], actor: str
) -> None:
    assert stub.StartMove(pb.StartMoveRequest(**MOVE), metadata=metadata, timeout=5).execution.actor == actor


def test_health_and_reflection_answer(channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    for name in ("", SERVICE, CONFLICT_SERVICE):
        assert health.Check(health_pb2.HealthCheckRequest(service=name)).status == health_pb2.HealthCheckResponse.SERVING
    reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
    answer = next(iter(reflection.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))))
    assert {SERVICE, CONFLICT_SERVICE} <= {service.name for service in answer.list_services_response.service}


def test_who_asks_what_services_there_are_and_stays_leaves_room_for_calls(channel: grpc.Channel, stub: CoordinatorServiceStub) -> None:
    reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
    gone = threading.Event()

    def staying() -> Iterator[reflection_pb2.ServerReflectionRequest]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        gone.wait()

    callers = [reflection.ServerReflectionInfo(staying()) for _ in range(server_module._CALLS_MAX + server_module._STREAMS_MAX)]
    try:
        assert next(callers[0]).list_services_response.service
        assert stub.Version(pb.VersionRequest(), timeout=5).version.agent == "west-a"
        with pytest.raises(grpc.RpcError) as caught:
            collections.deque(callers[-1], maxlen=0)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    finally:
        for one in callers:
            one.cancel()
        gone.set()


@pytest.mark.parametrize("beyond", ["0.0.0.0:0", "192.168.1.4:7001", "[::]:0", "kafka.example.org:7001"])
def test_without_tls_nothing_listens_beyond_loopback(world: World, beyond: str) -> None:
    with pytest.raises(MrcError) as caught:
        Server(Agent(world, "west", "west-a"), NoDockets(), beyond)
    assert caught.value.code == "CONFIG_INVALID"


def test_an_address_that_is_taken_is_an_error(world: World, address: str) -> None:
    with pytest.raises(MrcError, match="cannot listen"):
        Server(Agent(world, "west", "west-a"), NoDockets(), address).start()


def test_tls_files_that_are_not_there_are_an_error(world: World, tmp_path: Path) -> None:
    tls = TlsSettings(tmp_path / "cert", tmp_path / "key", tmp_path / "ca")
    with pytest.raises(MrcError) as caught:
        Server(Agent(world, "west", "west-a"), NoDockets(), "127.0.0.1:0", tls).start()
    assert (caught.value.code, caught.value.where) == ("CONFIG_INVALID", "grpc.tls")


def test_streams_are_bounded_and_leave_room_for_calls(stub: CoordinatorServiceStub, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.auto = False
    move = stub.StartMove(pb.StartMoveRequest(**MOVE), timeout=5).execution.id
    watches = [stub.WatchExecution(pb.WatchExecutionRequest(execution_id=move)) for _ in range(server_module._STREAMS_MAX)]
    for watch in watches:
        next(iter(watch))
    with pytest.raises(grpc.RpcError) as caught:
        next(iter(stub.WatchExecution(pb.WatchExecutionRequest(execution_id=move))))
    assert told(caught.value)[1] == "AGENT_BUSY"
    assert stub.Version(pb.VersionRequest(), timeout=5).version.agent == "west-a"
    for watch in watches:
        watch.cancel()
    give_up_s = time.monotonic() + 10
    while True:  # the places of the cancelled streams are free again
        try:
            next(iter(stub.WatchExecution(pb.WatchExecutionRequest(execution_id=move), timeout=2)))
            break
        except grpc.RpcError:
            assert time.monotonic() < give_up_s


def test_a_stopping_agent_ends_its_streams_so_that_another_one_is_asked(estate: Estate) -> None:
    estate.world.auto = False
    with grpc.insecure_channel(estate.world.addresses["west-b"]) as channel:
        stub = CoordinatorServiceStub(channel)
        move = stub.StartMove(pb.StartMoveRequest(**MOVE), timeout=5).execution.id
        watch = stub.WatchExecution(pb.WatchExecutionRequest(execution_id=move))
        next(watch)
        stopping = threading.Thread(target=estate.servers.pop("west-b").stop, args=(5.0,))
        stopping.start()
        with pytest.raises(grpc.RpcError) as caught:
            collections.deque(watch, maxlen=0)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        stopping.join(10)
        assert not stopping.is_alive()
