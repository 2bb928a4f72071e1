"""Conflicts through an agent: listed, streamed, resolved and refused, against what resolvers of two regions in memory have written."""

from __future__ import annotations

import json
import math
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest

from mrc.config import Settings, load
from mrc.control.api import CONFLICTS, METHODS, silence
from mrc.control.client import Client
from mrc.control.conflicts import LISTED_MAX, heard, heard_news, told
from mrc.control.dockets import AgentsDocket
from mrc.control.mapping import read, respond
from mrc.control.pb.mrc.v1 import conflicts_pb2 as pb
from mrc.control.pb.mrc.v1 import mrc_pb2
from mrc.control.pb.mrc.v1.conflicts_pb2_grpc import ConflictServiceStub
from mrc.control.pb.mrc.v1.mrc_pb2_grpc import CoordinatorServiceStub
from mrc.control.server import Server
from mrc.core.conflict.story import Told
from mrc.core.errors import MrcError
from mrc.core.model import Offset, Region, TopicPartition, encode
from mrc.ports import Arrived, Span
from mrc.resolver.audit import Audit, Filter, News, Stats
from mrc.resolver.deciding import Answer
from mrc.resolver.writing import CandidateRecord, ConflictRecord, DecisionRecord
from mrc.sim.streams import FakeLogs
from mrc.wiring import conflicts as wiring
from mrc.wiring.conflicts import AgentDockets
from mrc.wiring.resolver import kinds_of
from tests.cli.test_conflicts import ACTIVE, CANCELLED_AND_SHIPPED, REFUNDED, RULES
from tests.config.example import write_example
from tests.control.estate import Agent, World
from tests.control.relay import Relay
from tests.control.test_server import told as refusal
from tests.resolver.pair import Pair

SOON_S = 10.0
EAST = Region("east")


class Living(FakeLogs):
    """One region's logs while a test changes them; who follows them waits for what comes."""

    def __init__(self, regions: Regions, region: str) -> None:
        super().__init__(regions.pair.sites[Region(region)].cluster)
        self._regions = regions

    def follow(self, begin: Mapping[TopicPartition, Offset], passed: dict[TopicPartition, Offset] | None = None) -> Iterator[list[Arrived]]:
        batches = super().follow(begin, passed)
        while True:
            with self._regions.changed:
                batch = next(batches)
                if not batch:
                    self._regions.changed.wait(0.02)
            yield batch


class Regions:
    """East with two agents and west with one, over resolvers that have decided about order 17 and ask a person about order 18."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        (folder / "conflicts.yaml").write_text(RULES)
        settings = load(write_example(folder, ACTIVE))
        (kind,) = kinds_of(settings, settings.replication_groups[0])
        self.pair = Pair(kind)
        self.changed = threading.Condition()
        self.pair.instead_of_kafka(patch)
        self.servers: dict[str, Server] = {}
        addresses: dict[str, str] = {}
        for region, written in settings.regions.items():
            for agent in written.agents:
                server = Server(Agent(World(), region, agent.id), AgentDockets(settings, Region(region)), "127.0.0.1:0")
                self.servers[agent.id], addresses[agent.id] = server, server.start()
        self.settings = settings
        for id, address in addresses.items():
            self.settings = self.through(id, address)
        self.addresses = addresses
        self.tell("17", CANCELLED_AND_SHIPPED)
        self.tell("18", REFUNDED)

    def through(self, agent: str, address: str) -> Settings:
        """The settings of somebody who reaches an agent at another address."""
        regions = {
            region: msgspec.structs.replace(
                written,
                agents=tuple(msgspec.structs.replace(one, grpc=address) if one.id == agent else one for one in written.agents),
            )
            for region, written in self.settings.regions.items()
        }
        return msgspec.structs.replace(self.settings, regions=regions)

    def tell(self, key: str, told: tuple[Told, ...]) -> None:
        """Let a story happen about an order."""
        with self.changed:
            self.pair.tell(key, told)
            self.pair.settle()
            self.changed.notify_all()

    def audit(self, region: str) -> Audit:
        """What a region has written, read without any agent."""
        here = Region(region)
        return Audit(FakeLogs(self.pair.sites[here].cluster), here, [self.pair.kind], pytest.fail)

    def id_of(self, key: str) -> str:
        return self.audit("east").newest(Filter(entity=key), 1)[0].id


@pytest.fixture
def regions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Regions]:
    made = Regions(tmp_path, monkeypatch)
    try:
        yield made
    finally:
        for server in made.servers.values():
            server.stop(0.1)


@pytest.fixture
def living(regions: Regions, monkeypatch: pytest.MonkeyPatch) -> Regions:
    """The same, where what is followed comes when the test says so."""
    monkeypatch.setattr(wiring, "KafkaLogs", lambda region, *_: Living(regions, region))
    return regions


@pytest.fixture
def channel(regions: Regions) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(regions.addresses["east-a"]) as made:
        yield made


@pytest.fixture
def stub(channel: grpc.Channel) -> ConflictServiceStub:
    return ConflictServiceStub(channel)


@pytest.fixture
def client(regions: Regions) -> Iterator[Client]:
    with Client(regions.settings, "ann") as made:
        yield made


def docket(client: Client, region: str = "east") -> AgentsDocket:
    return AgentsDocket(client, Region(region), "orders", "")


def code_of(failure: pytest.ExceptionInfo[grpc.RpcError]) -> tuple[grpc.StatusCode, str]:
    return refusal(failure.value)[:2]


def asked(stub: ConflictServiceStub, name: str, request_: object) -> Any:
    """Return the answer, of a stream the first one."""
    answer = getattr(stub, name)(request_, timeout=SOON_S)
    return next(answer) if METHODS[name].streams else answer


# ---------------------------------------------------------------- mapping


def side(origin: str, **more: Any) -> CandidateRecord:
    fields: dict[str, Any] = {
        "id": f"{origin}-1",
        "origin": Region(origin),
        "number": 2**62,
        "hlc": "1700000000000.3",
        "type": "Placed",
        "deleted": False,
        "value": {"event": "Placed", "amount": 2**63 - 1, "rate": 0.1, "note": "\u00fc\n\x00", "deep": [{"a": None}, True]},
        "competes_as": "Placed",
        "types": ("Placed",),
        "unseen_since": -1,
        "seen": {Region("south"): 2**53 + 1},
        "fields": {"note": "1", "count": 1, "paid": True, "none": None},
    }
    return CandidateRecord(**{**fields, **more})


def record(**more: Any) -> ConflictRecord:
    sides = (side("east"), side("west", value=None, deleted=True, type="", fields={}, unseen_since=7))
    made = ConflictRecord("c", "order/1", "1", "orders", "update_deleted", "r", "h", ("first", "then"), "east-1", False, sides)
    return msgspec.structs.replace(made, **more)


DECIDED = DecisionRecord("d", Region("west"), "ann", "because", 2**53 + 1)


@pytest.mark.parametrize(
    "one",
    [
        record(),
        record(open=True, until_ms=2**53 + 1),
        record(closed="superseded", steps=()),
        record(closed="decision", decision=DECIDED, winner="west-1"),
        record(candidates=(side("east", value={"n": 10**30}), side("west", value={"n": -(10**25)}))),
    ],
)
def test_a_conflict_is_received_as_it_was_sent(one: ConflictRecord) -> None:
    sent = respond(pb.GetConflictResponse, told(one)).SerializeToString()
    received = pb.GetConflictResponse.FromString(sent)
    assert (received.conflict.outcome, received.conflict.at_ms) == (one.outcome, one.at_ms)
    again = heard(read(received, METHODS["GetConflict"].view))
    assert again == one
    assert [type(a.value) for a in again.candidates] == [type(b.value) for b in one.candidates]
    news = respond(pb.TailConflictsResponse, {"conflict": told(one), "cursor": "x"})
    assert heard_news(read(news, METHODS["TailConflicts"].view)).conflict == one
    assert heard_news(read(pb.TailConflictsResponse(news=pb.ConflictNews(cursor="x")), METHODS["TailConflicts"].view)).conflict is None


def test_every_field_of_what_is_written_has_its_place_in_the_messages() -> None:
    def names(kind: Any) -> list[str]:
        return [field.name for field in kind.DESCRIPTOR.fields]

    written = [name for name in ConflictRecord.__struct_fields__ if name != "version"]
    assert names(pb.Conflict) == [*written, "at_ms", "outcome"]
    assert names(pb.ConflictSide) == list(CandidateRecord.__struct_fields__)
    assert names(pb.ConflictDecision) == list(DecisionRecord.__struct_fields__)
    assert names(pb.ConflictStats) == list(Stats.__struct_fields__)
    assert names(pb.ConflictAnswer) == list(Answer.__struct_fields__)


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize("region", ["east", "west"])
def test_agents_answer_what_their_region_has_written(regions: Regions, client: Client, region: str) -> None:
    through, direct = docket(client, region), regions.audit(region)
    whole = direct.newest(Filter(), 100)
    assert [one.key for one in whole] == ["17", "18"] or [one.key for one in whole] == ["18", "17"]
    assert through.newest(Filter(), 0) == whole
    assert through.newest(Filter(), 1) == whole[:1]
    for one in whole:
        assert through.find(one.id) == one
        for wanted in (Filter(one.entity), Filter(rule=one.rule), Filter(outcome=one.outcome), Filter(since_ms=one.at_ms)):
            assert through.newest(wanted, LISTED_MAX) == direct.newest(wanted, LISTED_MAX)
    assert through.find("0" * 20) is None
    assert through.stats(None) == direct.stats(None)
    assert through.stats(10**13) == direct.stats(10**13)


def test_the_next_agent_is_asked_where_one_is_gone_and_silence_names_all(regions: Regions, client: Client) -> None:
    regions.servers["east-a"].stop(0.1)
    assert len(docket(client).newest(Filter(), 0)) == 2
    regions.servers["east-b"].stop(0.1)
    with pytest.raises(MrcError, match="no agent answered") as caught:
        docket(client).stats(None)
    assert regions.addresses["east-b"] in caught.value.where


@pytest.mark.parametrize(
    ("name", "request_", "where"),
    [
        ("ListConflicts", pb.ListConflictsRequest(limit=LISTED_MAX + 1), "limit"),
        ("ListConflicts", pb.ListConflictsRequest(limit=-1), "limit"),
        ("ListConflicts", pb.ListConflictsRequest(since_ms=-1), "since_ms"),
        ("ListConflicts", pb.ListConflictsRequest(outcome="north"), "outcome"),
        ("ListConflicts", pb.ListConflictsRequest(entity="k" * 1301), "entity"),
        ("ListConflicts", pb.ListConflictsRequest(rule="a\x1b[2J"), "rule"),
        ("GetConflict", pb.GetConflictRequest(), "conflict_id"),
        ("GetConflict", pb.GetConflictRequest(conflict_id="x" * 256), "conflict_id"),
        ("TailConflicts", pb.TailConflictsRequest(outcome="north"), "outcome"),
        ("TailConflicts", pb.TailConflictsRequest(cursor="x" * 50_000), "cursor"),
        ("TailConflicts", pb.TailConflictsRequest(cursor="not a cursor"), "cursor"),
        ("TailConflicts", pb.TailConflictsRequest(cursor="k5M"), "cursor"),
        ("TailConflicts", pb.TailConflictsRequest(cursor="\u00fc"), "cursor"),
        ("ResolveConflict", pb.ResolveConflictRequest(conflict_id="c", winner="east"), "token"),
        ("ResolveConflict", pb.ResolveConflictRequest(conflict_id="c", token="t"), "winner"),
        ("ResolveConflict", pb.ResolveConflictRequest(conflict_id="c", winner="east", token="t", actor="a\nb"), "actor"),
        ("ResolveConflict", pb.ResolveConflictRequest(conflict_id="c", winner="east", token="t", actor="a" * 129), "actor"),
        ("ResolveConflict", pb.ResolveConflictRequest(conflict_id="c", winner="east", token="t", reason="r" * 1025), "reason"),
        *(
            ("ResolveConflict", pb.ResolveConflictRequest(conflict_id="c", winner="east", token="t", wait_s=wait_s), "wait_s")
            for wait_s in (-1.0, 31.0, math.inf, math.nan)
        ),
        ("CountConflicts", pb.CountConflictsRequest(since_ms=-(2**63)), "since_ms"),
    ],
)
def test_requests_that_are_not_well_formed_are_refused_by_field(stub: ConflictServiceStub, name: str, request_: object, where: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        asked(stub, name, request_)
    code, reason, metadata = refusal(caught.value)
    assert (code, reason, metadata["where"]) == (grpc.StatusCode.INVALID_ARGUMENT, "BAD_REQUEST", where)


@pytest.mark.parametrize(
    ("request_", "code", "status"),
    [
        (pb.GetConflictRequest(conflict_id="nope"), "UNKNOWN_CONFLICT", grpc.StatusCode.NOT_FOUND),
        (pb.GetConflictRequest(conflict_id="nope", topic="payments"), "UNKNOWN_TOPIC", grpc.StatusCode.NOT_FOUND),
        (pb.GetConflictRequest(conflict_id="nope", replication_group="x"), "UNKNOWN_REPLICATION_GROUP", grpc.StatusCode.NOT_FOUND),
    ],
)
def test_what_there_is_not_is_named(stub: ConflictServiceStub, request_: object, code: str, status: grpc.StatusCode) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        asked(stub, "GetConflict", request_)
    assert code_of(caught) == (status, code)


@pytest.mark.parametrize("name", sorted(CONFLICTS))
def test_where_no_resolver_has_run_every_method_says_so(
    regions: Regions, stub: ConflictServiceStub, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(regions.pair.sites[EAST].cluster, "_partitions", {})
    given = {"conflict_id": "c", "winner": "east", "token": "t"}
    kind = METHODS[name].request
    with pytest.raises(grpc.RpcError) as caught:
        asked(stub, name, kind(**{key: value for key, value in given.items() if key in kind.DESCRIPTOR.fields_by_name}))
    assert code_of(caught) == (grpc.StatusCode.FAILED_PRECONDITION, "TOPICS_MISSING")
    assert "there is no mrc.conflicts.orders" in str(caught.value.details())


def test_broken_rules_refuse_the_call_and_not_the_agent(regions: Regions, channel: grpc.Channel, stub: ConflictServiceStub) -> None:
    path = regions.settings.base / "conflicts.yaml"
    path.write_text("version: 1\n")
    with pytest.raises(grpc.RpcError) as caught:
        asked(stub, "CountConflicts", pb.CountConflictsRequest())
    assert code_of(caught)[1] == "RULES_INVALID"
    assert CoordinatorServiceStub(channel).Version(mrc_pb2.VersionRequest(), timeout=SOON_S).version.agent == "east-a"
    path.write_text(RULES)
    assert asked(stub, "CountConflicts", pb.CountConflictsRequest()).stats.region == "east"


class Endless(FakeLogs):
    """Logs that are never read to their end."""

    reading = threading.Semaphore(0)
    ended = threading.Event()

    def read(self, spans: Mapping[TopicPartition, Span]) -> Iterator[list[Arrived]]:
        try:
            while True:
                self.reading.release()
                yield []
        finally:
            self.ended.set()


def test_a_reading_ends_when_its_caller_is_gone_and_no_more_than_a_few_read_at_a_time(
    regions: Regions, channel: grpc.Channel, stub: ConflictServiceStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Endless, "reading", threading.Semaphore(0))
    monkeypatch.setattr(Endless, "ended", threading.Event())
    monkeypatch.setattr(wiring, "KafkaLogs", lambda region, *_: Endless(regions.pair.sites[Region(region)].cluster))
    counting = stub.CountConflicts.future(pb.CountConflictsRequest())
    assert Endless.reading.acquire(timeout=SOON_S)
    with pytest.raises(grpc.RpcError) as caught:
        asked(stub, "CountConflicts", pb.CountConflictsRequest())
    assert code_of(caught) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "AGENT_BUSY")
    assert CoordinatorServiceStub(channel).Version(mrc_pb2.VersionRequest(), timeout=SOON_S).version.agent == "east-a"
    counting.cancel()
    assert Endless.ended.wait(SOON_S)
    Endless.ended.clear()
    with pytest.raises(grpc.RpcError) as caught:
        stub.GetConflict(pb.GetConflictRequest(conflict_id="c"), timeout=0.3)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert Endless.ended.wait(SOON_S)


# ---------------------------------------------------------------- streams


def test_a_stream_goes_on_behind_its_cursor_at_any_agent_of_the_region(living: Regions, stub: ConflictServiceStub) -> None:
    stream = stub.TailConflicts(pb.TailConflictsRequest(), timeout=SOON_S)
    first = next(stream).news
    assert not first.HasField("conflict")
    living.tell("19", CANCELLED_AND_SHIPPED)
    came = next(stream).news
    assert (came.conflict.key, came.conflict.winner, came.conflict.outcome) == ("19", "19-w1", "west")
    stream.cancel()
    living.tell("20", CANCELLED_AND_SHIPPED)
    with grpc.insecure_channel(living.addresses["east-b"]) as other:
        for cursor, keys in ((came.cursor, ["20"]), (first.cursor, ["19", "20"])):
            again = ConflictServiceStub(other).TailConflicts(pb.TailConflictsRequest(cursor=cursor), timeout=SOON_S)
            assert next(again).news.cursor == cursor
            assert [next(again).news.conflict.key for _ in keys] == keys
            again.cancel()
        filtered = ConflictServiceStub(other).TailConflicts(pb.TailConflictsRequest(cursor=first.cursor, entity="order/20"), timeout=SOON_S)
        assert [message.news.conflict.key for message in (next(filtered), next(filtered))] == ["", "20"]
        since = ConflictServiceStub(other).TailConflicts(pb.TailConflictsRequest(since_ms=1), timeout=SOON_S)
        assert {next(since).news.conflict.key for _ in range(5)} == {"", "17", "18", "19", "20"}


def test_a_conflict_that_is_closed_comes_again(living: Regions, stub: ConflictServiceStub) -> None:
    stream = stub.TailConflicts(pb.TailConflictsRequest(entity="18", since_ms=1), timeout=SOON_S)
    next(stream)
    assert next(stream).news.conflict.open
    living.tell("18", (*REFUNDED, Told("n1", "east", "NoteAdded", seen=("d1",), at_s=4.0)))
    closed = next(stream).news.conflict
    assert (closed.id, closed.open, closed.closed, closed.outcome) == (living.id_of("18"), False, "superseded", "superseded")


def test_an_idle_stream_says_how_far_it_is(living: Regions, stub: ConflictServiceStub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mrc.control.conflicts.HEARTBEAT_S", 0.1)
    stream = stub.TailConflicts(pb.TailConflictsRequest(entity="nobody"), timeout=SOON_S)
    begun = next(stream).news
    living.tell("19", CANCELLED_AND_SHIPPED)
    for message in stream:  # the deadline ends it
        assert not message.news.HasField("conflict")
        if message.news.cursor != begun.cursor:
            break
    stream.cancel()
    again = stub.TailConflicts(pb.TailConflictsRequest(cursor=message.news.cursor), timeout=SOON_S)
    next(again)
    living.tell("20", CANCELLED_AND_SHIPPED)
    while not (news := next(again).news).HasField("conflict"):
        pass
    assert news.conflict.key == "20"


def test_a_cursor_of_elsewhere_or_of_what_was_deleted_is_refused(living: Regions, stub: ConflictServiceStub) -> None:
    with grpc.insecure_channel(living.addresses["west-a"]) as west:
        of_west = next(ConflictServiceStub(west).TailConflicts(pb.TailConflictsRequest(), timeout=SOON_S)).news.cursor
    with pytest.raises(grpc.RpcError) as caught:
        asked(stub, "TailConflicts", pb.TailConflictsRequest(cursor=of_west))
    assert code_of(caught)[1] == "BAD_REQUEST"
    assert "west" in str(caught.value.details())
    here = asked(stub, "TailConflicts", pb.TailConflictsRequest()).news.cursor
    living.tell("19", CANCELLED_AND_SHIPPED)
    cluster = living.pair.sites[EAST].cluster
    for tp, span in FakeLogs(cluster).spans(["mrc.conflicts.orders"]).items():
        cluster.trim(tp, span.end)
    with pytest.raises(grpc.RpcError) as caught:
        asked(stub, "TailConflicts", pb.TailConflictsRequest(cursor=here))
    assert code_of(caught) == (grpc.StatusCode.FAILED_PRECONDITION, "OFFSET_OUT_OF_RANGE")


def test_streams_of_conflicts_are_bounded_and_their_places_are_free_again(living: Regions, stub: ConflictServiceStub) -> None:
    most = CONFLICTS["TailConflicts"].at_once
    streams = [stub.TailConflicts(pb.TailConflictsRequest()) for _ in range(most)]
    for stream in streams:
        next(stream)
    with pytest.raises(grpc.RpcError) as caught:
        asked(stub, "TailConflicts", pb.TailConflictsRequest())
    assert code_of(caught)[1] == "AGENT_BUSY"
    assert len(list(stub.ListConflicts(pb.ListConflictsRequest(), timeout=SOON_S))) == 2
    for stream in streams:
        stream.cancel()
    give_up_s = time.monotonic() + SOON_S
    while True:
        try:
            asked(stub, "TailConflicts", pb.TailConflictsRequest())
            break
        except grpc.RpcError:
            assert time.monotonic() < give_up_s


class Flood(FakeLogs):
    """Logs in which one conflict comes again and again, a batch as soon as the last one was taken."""

    batches = 0

    def follow(self, begin: Mapping[TopicPartition, Offset], passed: dict[TopicPartition, Offset] | None = None) -> Iterator[list[Arrived]]:
        (one, *_), _ = self._cluster.visible(TopicPartition("mrc.conflicts.orders", 0), Offset(0), 1)
        while True:
            type(self).batches += 1
            yield [one] * 10


def test_who_takes_nothing_is_sent_no_more_than_connections_hold(
    regions: Regions, stub: ConflictServiceStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Flood, "batches", 0)
    monkeypatch.setattr(wiring, "KafkaLogs", lambda region, *_: Flood(regions.pair.sites[Region(region)].cluster))
    stream = stub.TailConflicts(pb.TailConflictsRequest())
    next(stream)
    size = next(stream).ByteSize()
    give_up_s, seen, since_s = time.monotonic() + SOON_S, -1, time.monotonic()
    while time.monotonic() - since_s < 0.5:  # until no more is taken from the logs for half a second
        assert time.monotonic() < give_up_s, Flood.batches
        if Flood.batches != seen:
            seen, since_s = Flood.batches, time.monotonic()
        time.sleep(0.01)
    assert seen * 10 * size < 16 * 1024 * 1024
    for _ in range(seen * 10):
        next(stream)
    assert Flood.batches > seen
    stream.cancel()


def followed(client: Client, living: Regions) -> Iterator[News]:
    """Follow the conflicts, and see the first one come that happens then, about order 19."""
    following = docket(client).follow(Filter())
    assert next(following).conflict is None
    living.tell("19", CANCELLED_AND_SHIPPED)
    came = next(following).conflict
    assert came is not None
    assert came.key == "19"
    return following


def test_who_follows_goes_on_with_the_other_agent_and_misses_nothing(
    living: Regions, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mrc.control.dockets.AGAIN_EVERY_S", 0.05)
    following = followed(client, living)
    living.servers["east-a"].stop(0.1)
    living.tell("20", CANCELLED_AND_SHIPPED)
    keys = []
    for news in following:
        if news.conflict is not None:
            keys.append(news.conflict.key)
            break
    assert keys == ["20"]


def test_who_follows_waits_for_a_place_where_the_agent_that_is_left_has_none(
    living: Regions, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mrc.control.dockets.AGAIN_EVERY_S", 0.05)
    following = docket(client).follow(Filter())
    next(following)
    with grpc.insecure_channel(living.addresses["east-b"]) as channel:
        others = [ConflictServiceStub(channel).TailConflicts(pb.TailConflictsRequest()) for _ in range(CONFLICTS["TailConflicts"].at_once)]
        for one in others:
            next(one)
        living.servers["east-a"].stop(0.1)
        living.tell("19", CANCELLED_AND_SHIPPED)
        ending = threading.Timer(0.5, others[0].cancel)
        ending.start()
        assert next(news.conflict.key for news in following if news.conflict is not None) == "19"
        ending.join()


class Shaky(Client):
    """Its agents' cluster answers again after each message, or has lost what was asked for."""

    def __init__(self, error: MrcError) -> None:
        self.asked: list[str] = []
        self._error = error

    def stream_region(self, region: str, method: str, *, deadline_s: float, **fields: Any) -> Iterator[Any]:
        self.asked.append(fields["cursor"])
        yield {"conflict": None, "cursor": f"place {len(self.asked)}"}
        raise self._error


def test_who_follows_outlives_a_cluster_that_does_not_answer_for_a_moment_and_no_place_that_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mrc.control.dockets.AGAIN_EVERY_S", 0.0)
    shaky = Shaky(MrcError("CLUSTER_UNREACHABLE", "no leader", retryable=True))
    following = docket(shaky).follow(Filter())
    assert [next(following).cursor for _ in range(3)] == ["place 1", "place 2", "place 3"]
    assert shaky.asked == ["", "place 1", "place 2"]
    with pytest.raises(MrcError, match="OFFSET_OUT_OF_RANGE"):
        list(docket(Shaky(MrcError("OFFSET_OUT_OF_RANGE", "deleted"))).follow(Filter()))


@pytest.fixture
def watchful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is noticed within a second."""
    for side in ("client", "server"):
        monkeypatch.setattr(f"mrc.control.{side}.SILENCE", silence(0.5))


@pytest.mark.usefixtures("watchful")
def test_who_follows_an_agent_that_falls_silent_goes_on_with_the_other_one(living: Regions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mrc.control.dockets.AGAIN_EVERY_S", 0.05)
    monkeypatch.setattr("mrc.control.dockets.WATCH_S", 2 * SOON_S)
    with Relay(living.addresses["east-a"]) as relay, Client(living.through("east-a", relay.address), "ann") as client:
        following = followed(client, living)
        relay.silence()
        living.tell("20", CANCELLED_AND_SHIPPED)
        began_s = time.monotonic()
        keys = [next(news.conflict.key for news in following if news.conflict is not None)]
        assert keys == ["20"]
        assert time.monotonic() - began_s < SOON_S


@pytest.mark.usefixtures("watchful")
def test_callers_that_fall_silent_free_their_places(living: Regions) -> None:
    server = Server(Agent(World(), "east", "east-a"), AgentDockets(living.settings, EAST), "127.0.0.1:0")
    address = server.start()
    try:
        with Relay(address) as relay, grpc.insecure_channel(relay.address) as cut, grpc.insecure_channel(address) as channel:
            streams = [ConflictServiceStub(cut).TailConflicts(pb.TailConflictsRequest()) for _ in range(CONFLICTS["TailConflicts"].at_once)]
            for stream in streams:
                next(stream)
            relay.silence()
            give_up_s = time.monotonic() + SOON_S
            while True:
                try:
                    asked(ConflictServiceStub(channel), "TailConflicts", pb.TailConflictsRequest())
                    break
                except grpc.RpcError:
                    assert time.monotonic() < give_up_s
                    time.sleep(0.05)
    finally:
        server.stop(0.1)


# ---------------------------------------------------------------- decisions


def test_a_decision_through_an_agent_stands_in_both_regions(regions: Regions, client: Client) -> None:
    id = regions.id_of("18")
    answer = docket(client, "west").decide(id, "east", "my-token", "bob", "refund was paid", 30.0)
    assert (answer.state, answer.decision.id, answer.decision.winner, answer.decision.region) == ("decided", "my-token", "18-r1", "west")
    assert answer.decision.actor == "bob, says ann (unauthenticated)"
    regions.pair.settle()
    for region in ("east", "west"):
        one = regions.audit(region).find(id)
        assert one is not None
        assert one.decision is not None
        assert (one.winner, one.closed, one.decision.actor, one.decision.reason) == (
            "18-r1",
            "decision",
            answer.decision.actor,
            "refund was paid",
        )
        assert encode(docket(client, region).find(id)) == encode(one)
    assert docket(client, "west").decide(id, "east", "my-token", "", "", 0.0).state == "decided"
    for token, winner in (("another", "east"), ("another", "west")):
        with pytest.raises(MrcError, match="bob, says ann") as caught:
            docket(client).decide(id, winner, token, "", "", 0.0)
        assert caught.value.code == "CONFLICT_CLOSED"


@pytest.mark.parametrize("reason", ["refund was paid " * 64, "\u8fd4\u91d1" * 512, "\U0001f4b8" * 1024])
def test_a_refusal_keeps_its_code_however_long_its_words_are(regions: Regions, client: Client, reason: str) -> None:
    """What is said of an error travels in the trailers of a call, and of these there may be few KiB."""
    id = regions.id_of("18")
    assert docket(client).decide(id, "east", "t", "", reason, 30.0).state == "decided"
    with pytest.raises(MrcError, match=r"ann \(unauthenticated\) decided it") as caught:
        docket(client).decide(id, "east", "another", "", "", 0.0)
    assert caught.value.code == "CONFLICT_CLOSED"
    assert reason[:100] in caught.value.message


def test_who_asks_again_with_his_token_decides_once(regions: Regions, client: Client) -> None:
    id, token = regions.id_of("18"), uuid.uuid4().hex
    first = docket(client).decide(id, "18-r1", token, "", "", 0.0)
    again = docket(client).decide(id, "east", token, "", "", 0.0)
    assert (first.state, again.state, again.decision) == ("waits", "waits", first.decision)
    assert first.decision.actor == "ann (unauthenticated)"
    with pytest.raises(MrcError) as caught:
        docket(client).decide(id, "west", token, "", "", 0.0)
    assert caught.value.code == "TOKEN_REUSED"
    given = [record for record in regions.pair.sites[EAST].records("mrc.watermarks.orders") if record.key == b"decision"]
    assert len(given) == 1
    assert docket(client).decide(id, "18-r1", token, "", "", 30.0).state == "decided"
    for site in regions.pair.sites.values():
        assert site.records("mrc.dead-letters.orders") == []


def test_a_conflict_that_names_another_topic_is_decided_where_it_stands(regions: Regions, client: Client) -> None:
    site = regions.pair.sites[EAST]
    last = next(one for one in site.records("mrc.conflicts.orders") if one.key == regions.id_of("18").encode())
    strange = json.loads(last.value or b"") | {"id": "strange", "topic": "elsewhere"}
    site.cluster.write("mrc.conflicts.orders", last.partition, b"strange", json.dumps(strange).encode(), [])
    answer = docket(client).decide("strange", "east", "t", "", "", 30.0)
    assert (answer.state, answer.why.partition(":")[0]) == ("refused", "conflict strange is not open")


class Slow(FakeLogs):
    """Logs in which a lot happens while conflicts are read."""

    def __init__(self, pair: Pair, region: str) -> None:
        super().__init__(pair.sites[Region(region)].cluster)
        self._pair = pair

    def read(self, spans: Mapping[TopicPartition, Span]) -> Iterator[list[Arrived]]:
        yield from super().read(spans)
        if any(tp.topic == "mrc.conflicts.orders" for tp in spans):
            for _ in range(10):
                self._pair.settle()


def test_who_asks_again_is_told_of_what_was_decided_while_his_conflict_was_looked_up(
    regions: Regions, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = regions.id_of("18")
    assert docket(client).decide(id, "east", "t", "", "", 0.0).state == "waits"
    monkeypatch.setattr(wiring, "KafkaLogs", lambda region, *_: Slow(regions.pair, region))
    again = docket(client).decide(id, "east", "t", "", "", 0.0)
    assert (again.state, again.decision.id) == ("decided", "t")


@pytest.mark.parametrize(
    ("id", "winner", "code"),
    [("nope", "east", "UNKNOWN_CONFLICT"), ("17", "east", "CONFLICT_CLOSED"), ("18", "north", "BAD_REQUEST")],
)
def test_what_cannot_be_decided_is_refused_and_nothing_is_written(
    regions: Regions, client: Client, id: str, winner: str, code: str
) -> None:
    before = len(regions.pair.sites[EAST].records("mrc.watermarks.orders"))
    with pytest.raises(MrcError) as caught:
        docket(client).decide(regions.id_of(id) if id.isdigit() else id, winner, "t", "", "", 0.0)
    assert caught.value.code == code
    assert len(regions.pair.sites[EAST].records("mrc.watermarks.orders")) == before
