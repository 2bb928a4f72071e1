"""Stream logs, in memory and on Kafka: what is committed is committed as a whole, and by nobody who has no right to it."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import pytest
from confluent_kafka import Producer

from mrc.adapters.kafka import Access, KafkaCluster
from mrc.adapters.kafka.logs import KafkaLogs
from mrc.adapters.kafka.streaming import KafkaStreamLog
from mrc.core.errors import MrcError
from mrc.core.model import Offset, TopicPartition
from mrc.ports import Arrived, Logs, Outgoing, Span, StreamLog
from mrc.sandbox.world import Sandbox
from mrc.sim.streams import FakeLogs, StreamCluster
from tests.contract.conftest import BOTH

PARTITIONS = 2
BEGAN_MS = 1_700_000_000_000


class Streams(Protocol):
    """Topics ``in`` and ``out`` of a cluster, and processes of one group that read ``in``."""

    read_from: str
    written_to: str

    def join(self, name: str) -> StreamLog: ...

    def write(self, partition: int, value: bytes, timestamp_ms: int = BEGAN_MS) -> None: ...

    def logs(self) -> Logs: ...


class FakeStreams:
    read_from, written_to = "in", "out"

    def __init__(self) -> None:
        self._cluster = StreamCluster()
        for topic in (self.read_from, self.written_to):
            self._cluster.make(topic, PARTITIONS)

    def join(self, name: str) -> StreamLog:
        return self._cluster.join(name, [self.read_from])

    def write(self, partition: int, value: bytes, timestamp_ms: int = BEGAN_MS) -> None:
        self._cluster.write(self.read_from, partition, b"k", value, [("h", b"1")], timestamp_ms)

    def logs(self) -> Logs:
        return FakeLogs(self._cluster)


class RealStreams:
    def __init__(self, sandbox: Sandbox) -> None:
        mark = uuid.uuid4().hex[:8]
        self.read_from, self.written_to = f"mrc.in-{mark}", f"mrc.out-{mark}"
        login = sandbox.client_config("east", "mrc")
        self._access = Access(login["bootstrap.servers"], "SASL_PLAINTEXT", login["sasl.mechanism"], "mrc", login["sasl.password"])
        self._group = f"mrc.resolver.{mark}"
        self._producer = Producer({**sandbox.client_config("east", "admin")})
        self._open: list[KafkaStreamLog | KafkaLogs] = []
        cluster = KafkaCluster("east", self._access, None, 10.0)
        for topic in (self.read_from, self.written_to):
            cluster.make_topic_like(topic, PARTITIONS, {"cleanup.policy": "compact"})
            cluster.make_topic_like(topic, PARTITIONS, {"cleanup.policy": "compact"})
        until_s = time.monotonic() + 60
        wanted = {self.read_from: PARTITIONS, self.written_to: PARTITIONS}
        names = [self.read_from, self.written_to, self.read_from, "mrc.nowhere"]
        while {name: len(info.leaders) for name, info in cluster.topics(names).items()} != wanted:
            assert time.monotonic() < until_s
        cluster.close()

    def join(self, name: str) -> StreamLog:
        made = KafkaStreamLog(self._access, "east", self._group, name, [self.read_from], 20.0)
        self._open.append(made)
        return made

    def logs(self) -> Logs:
        made = KafkaLogs("east", self._access, 20.0)
        self._open.append(made)
        return made

    def write(self, partition: int, value: bytes, timestamp_ms: int = BEGAN_MS) -> None:
        self._producer.produce(self.read_from, value, b"k", partition, headers=[("h", b"1")], timestamp=timestamp_ms)
        assert self._producer.flush(60) == 0

    def close(self) -> None:
        for log in self._open:
            log.close()


@pytest.fixture(params=BOTH)
def streams(request: pytest.FixtureRequest) -> Iterator[Streams]:
    if request.param == "fake":
        yield FakeStreams()
        return
    real = RealStreams(request.getfixturevalue("sandbox"))
    yield real
    real.close()


class Worker:
    """One process: remembers its share, and reads from where it is told."""

    def __init__(self, log: StreamLog, starts: Mapping[TopicPartition, Offset] = {}) -> None:
        self.log = log
        self.share: frozenset[TopicPartition] = frozenset()
        self.shares = 0
        self.read: list[Arrived] = []
        self._starts = starts

    def taken(self, tps: frozenset[TopicPartition]) -> Mapping[TopicPartition, Offset]:
        self.share = tps
        self.shares += 1
        return {tp: self._starts.get(tp, Offset(0)) for tp in tps}

    def given_back(self) -> None:
        self.share = frozenset()

    def poll(self) -> None:
        self.read += self.log.poll(100, 0.1, self)


def until(holds: Callable[[], bool], *workers: Worker) -> None:
    deadline_s = time.monotonic() + 120
    for _ in itertools.count():
        if holds():
            return
        assert time.monotonic() < deadline_s
        for worker in workers:
            worker.poll()


def out(streams: Streams, log: StreamLog, partition: int = 0) -> list[bytes | None]:
    return [one.value for batch in log.replay(TopicPartition(streams.written_to, partition), Offset(0)) for one in batch]


def test_records_are_read_from_where_the_share_says_whole_and_in_order(streams: Streams) -> None:
    for value in (b"0", b"1", b"2"):
        streams.write(0, value)
    worker = Worker(streams.join("a"), {TopicPartition(streams.read_from, 0): Offset(1)})
    until(lambda: len(worker.read) == 2, worker)
    assert worker.share == {TopicPartition(streams.read_from, number) for number in range(PARTITIONS)}
    assert [(one.partition, one.offset, one.key, one.value, one.headers, one.timestamp_ms) for one in worker.read] == [
        (0, 1, b"k", b"1", (("h", b"1"),), BEGAN_MS),
        (0, 2, b"k", b"2", (("h", b"1"),), BEGAN_MS),
    ]
    until(lambda: worker.log.at_end(TopicPartition(streams.read_from, 0)), worker)
    tps = [TopicPartition(streams.read_from, number) for number in range(2)]
    assert worker.log.ends(tps) == {tps[0]: 3, tps[1]: 0}


def test_a_commit_s_records_are_there_and_it_says_where_they_end(streams: Streams) -> None:
    worker = Worker(streams.join("a"))
    streams.write(1, b"x")
    until(lambda: bool(worker.read), worker)
    positions = {TopicPartition(streams.read_from, 1): Offset(1)}
    records = [Outgoing(streams.written_to, number % 2, b"k", str(number).encode(), [("n", None)]) for number in range(5)]
    ends = worker.log.commit(records, positions)
    worker.log.append([Outgoing(streams.written_to, 0, b"k", b"beside")])
    later = worker.log.commit([Outgoing(streams.written_to, 0, b"k", None)], positions)
    assert ends == {TopicPartition(streams.written_to, 0): 3, TopicPartition(streams.written_to, 1): 2}
    assert later[TopicPartition(streams.written_to, 0)] > 4  # the first commit's marker lies between
    assert out(streams, worker.log) == [b"0", b"2", b"4", b"beside", None]
    rest = [
        one.value
        for batch in worker.log.replay(TopicPartition(streams.written_to, 0), ends[TopicPartition(streams.written_to, 0)])
        for one in batch
    ]
    assert rest == [b"beside", None]


def test_a_replay_from_beyond_the_end_is_an_error(streams: Streams) -> None:
    log = streams.join("a")
    assert list(itertools.chain(*log.replay(TopicPartition(streams.written_to, 0), Offset(0)))) == []
    with pytest.raises(MrcError) as caught:
        list(log.replay(TopicPartition(streams.written_to, 0), Offset(99)))
    assert caught.value.code == "OFFSET_OUT_OF_RANGE"


def test_one_that_takes_a_name_fences_its_earlier_holder(streams: Streams) -> None:
    earlier = Worker(streams.join("a"))
    streams.write(0, b"x")
    until(lambda: bool(earlier.read), earlier)
    later = Worker(streams.join("a"))
    until(lambda: bool(later.read), later)
    with pytest.raises(MrcError) as caught:
        earlier.log.commit([Outgoing(streams.written_to, 0, b"k", b"stale")], {TopicPartition(streams.read_from, 0): Offset(1)})
    assert caught.value.code == "RESOLVER_FENCED"
    later.log.commit([Outgoing(streams.written_to, 0, b"k", b"right")], {TopicPartition(streams.read_from, 0): Offset(1)})
    assert out(streams, later.log) == [b"right"]


def test_processes_share_and_what_one_has_is_nobody_else_s(streams: Streams) -> None:
    first = Worker(streams.join("a"))
    streams.write(0, b"x")
    until(lambda: bool(first.read), first)
    second = Worker(streams.join("b"))
    until(lambda: len(first.share) == len(second.share) == 1, first, second)
    assert first.share | second.share == {TopicPartition(streams.read_from, number) for number in range(PARTITIONS)}
    first.read.clear()
    second.read.clear()
    for partition in range(PARTITIONS):
        streams.write(partition, b"y")
    until(lambda: {one.partition for one in (*first.read, *second.read) if one.value == b"y"} == set(range(PARTITIONS)), first, second)
    for worker in (first, second):
        assert {TopicPartition(one.topic, one.partition) for one in worker.read} <= worker.share


def test_a_topic_has_an_identity_of_its_own(streams: Streams) -> None:
    log = streams.join("a")
    assert log.identity(streams.read_from) == log.identity(streams.read_from) != log.identity(streams.written_to)


def test_logs_are_read_within_spans_and_their_records_have_timestamps(streams: Streams) -> None:
    for number in range(3):
        streams.write(number % PARTITIONS, str(number).encode(), BEGAN_MS + number)
    logs, first, second = streams.logs(), TopicPartition(streams.read_from, 0), TopicPartition(streams.read_from, 1)
    whole = logs.spans([streams.read_from])
    assert whole == {first: Span(Offset(0), Offset(2)), second: Span(Offset(0), Offset(1))}
    assert logs.spans([streams.read_from], BEGAN_MS + 2) == {first: Span(Offset(1), Offset(2)), second: Span(Offset(1), Offset(1))}
    streams.write(0, b"later", BEGAN_MS + 9)
    found = [one for batch in logs.read(whole) for one in batch]
    assert sorted((one.partition, one.offset, one.value, one.headers, one.timestamp_ms - BEGAN_MS) for one in found) == [
        (0, 0, b"0", (("h", b"1"),), 0),
        (0, 1, b"2", (("h", b"1"),), 2),
        (1, 0, b"1", (("h", b"1"),), 1),
    ]
    assert [one for batch in logs.read({first: Span(Offset(2), Offset(2))}) for one in batch] == []


def test_logs_are_followed_from_where_one_says_and_silence_is_an_empty_list(streams: Streams) -> None:
    for value in (b"0", b"1"):
        streams.write(0, value)
    coming = streams.logs().follow({TopicPartition(streams.read_from, 0): Offset(1)})
    found: list[bytes | None] = []
    for batch in coming:
        found += [one.value for one in batch]
        if found == [b"1"] and not batch:
            streams.write(0, b"2")
        if len(found) == 2:
            break
    assert found == [b"1", b"2"]


def test_logs_pass_over_the_markers_of_transactions_and_a_missing_topic_is_named(streams: Streams) -> None:
    worker = Worker(streams.join("a"))
    streams.write(0, b"x")
    until(lambda: bool(worker.read), worker)
    worker.log.commit([Outgoing(streams.written_to, 0, b"k", b"done")], {TopicPartition(streams.read_from, 0): Offset(1)})
    logs = streams.logs()
    span = {tp: span for tp, span in logs.spans([streams.written_to]).items() if tp.partition == 0}
    assert [one.value for batch in logs.read(span) for one in batch] == [b"done"]
    (tp,), passed = span, dict[TopicPartition, Offset]()
    for _, _batch in zip(range(100), logs.follow({tp: Offset(0)}, passed)):
        if passed.get(tp) == span[tp].end:
            break
    assert passed == {tp: span[tp].end}
    with pytest.raises(MrcError) as caught:
        logs.spans(["mrc.nowhere"])
    assert caught.value.code == "TOPICS_MISSING"
