"""The port `Logs`: whole committed records from given positions, without a group."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaException, Message
from confluent_kafka import TopicPartition as Wire

from mrc.adapters.kafka.access import Access
from mrc.adapters.kafka.cluster import KafkaCluster
from mrc.adapters.kafka.errors import Complaints, unreachable, world_error
from mrc.adapters.kafka.reading import is_end, open_consumer
from mrc.core.errors import MrcError
from mrc.core.model import Offset, TopicPartition
from mrc.ports import COMMITTED, Arrived, Span

BATCH_RECORDS_MAX = 5_000
QUIET_S = 0.5
"""How long a follower waits before it says that nothing has come."""

WAIT_S = 0.1


class KafkaLogs:
    """One region's logs.

    Args:
        region: for errors.
        access: how the cluster is reached.
        deadline_s: how long a cluster that does not answer is asked.
    """

    def __init__(self, region: str, access: Access, deadline_s: float) -> None:
        self._region = region
        self._access = access
        self._deadline_s = deadline_s
        self._cluster = KafkaCluster(region, access, None, deadline_s)

    def spans(self, topics: Sequence[str], since_ms: int | None = None) -> dict[TopicPartition, Span]:
        """See `Logs.spans`."""
        found = self._cluster.topics(topics)
        if missing := [name for name in topics if name not in found]:
            raise MrcError("TOPICS_MISSING", f"there is no {', '.join(missing)}", where=self._region)
        tps = [TopicPartition(name, number) for name in topics for number in range(len(found[name].leaders))]
        # Begins first: what is read between the two answers is then inside, never before.
        begins = self._cluster.starts(tps)
        if since_ms is not None:
            later = self._cluster.since(tps, since_ms)
            ends = self._cluster.ends(tps, "read_committed")
            begins = {tp: later.get(tp, ends[tp]) for tp in tps}
        else:
            ends = self._cluster.ends(tps, "read_committed")
        # A record of an open transaction may be the first one; the stable end is before it.
        return {tp: Span(min(begins[tp], ends[tp]), ends[tp]) for tp in tps}

    def read(self, spans: Mapping[TopicPartition, Span]) -> Iterator[list[Arrived]]:
        """See `Logs.read`."""
        wanted = {tp: span for tp, span in spans.items() if span.begin < span.end}
        if not wanted:
            return
        starts = {tp: span.begin for tp, span in wanted.items()}
        for messages in committed(self._access, self._region, starts, self._deadline_s, {tp: span.end for tp, span in wanted.items()}):
            yield [arrived(message, self._region) for message in messages]

    def follow(self, begin: Mapping[TopicPartition, Offset], passed: dict[TopicPartition, Offset] | None = None) -> Iterator[list[Arrived]]:
        """See `Logs.follow`."""
        complaints = Complaints()
        consumer = open_consumer(self._access, begin, complaints, COMMITTED)
        try:
            while True:
                messages = _some(consumer, QUIET_S)
                if complaints.take_down():
                    self._require_cluster(consumer, complaints)
                found = []
                for message in messages:
                    if not is_end(message.error()):
                        found.append(arrived(message, self._region))
                    elif passed is not None:
                        passed[TopicPartition(message.topic() or "", message.partition() or 0)] = Offset(message.offset() or 0)
                yield found
        finally:
            consumer.close()

    def _require_cluster(self, consumer: Consumer, complaints: Complaints) -> None:
        """After all brokers were lost, silence is not idleness: ask one of them before saying "nothing new"."""
        began_s = time.monotonic()
        try:
            consumer.list_topics(timeout=self._deadline_s)
        except KafkaException as error:
            complaints.raise_refused(began_s - QUIET_S, self._region)
            raise world_error(error.args[0], self._region) from error

    def close(self) -> None:
        """Release the connections; harmless when repeated."""
        self._cluster.close()


def committed(
    access: Access,
    region: str,
    starts: Mapping[TopicPartition, Offset],
    deadline_s: float,
    below: Mapping[TopicPartition, Offset] | None = None,
) -> Iterator[list[Message]]:
    """Yield the committed records from ``starts`` to below ``below``, or to the readable end where there is none, as the driver has them.

    Raises world errors with the messages; ``CLUSTER_UNREACHABLE`` when nothing has come for ``deadline_s``, be it that a log ends before
    ``below``: a leader that has just been elected may know less for a moment, or for good.
    """
    complaints = Complaints()
    consumer = open_consumer(access, starts, complaints, COMMITTED)
    left = set(starts)
    try:
        began_s = time.monotonic()
        waited_s = 0.0  # without what the caller takes for its work between two batches
        while left:
            asked_s = time.monotonic()
            messages = _some(consumer, WAIT_S)
            waited_s = 0.0 if messages else waited_s + time.monotonic() - asked_s
            if waited_s > deadline_s:
                complaints.raise_refused(began_s, region)
                tp = min(left)
                raise unreachable(region, f"read {tp} up to {(below or {}).get(tp, 'its end')}", deadline_s)
            yield _within(consumer, messages, left, below or {})
    finally:
        consumer.close()


def _within(
    consumer: Consumer, messages: Sequence[Message], left: set[TopicPartition], below: Mapping[TopicPartition, Offset]
) -> list[Message]:
    """Return the records that are wanted, and take the partitions that are read to their end out of ``left``."""
    found: list[Message] = []
    for message in messages:
        tp, offset = TopicPartition(message.topic() or "", message.partition() or 0), message.offset() or 0
        ended = is_end(message.error())
        if message.error() is not None and not ended:
            found.append(message)  # whoever makes a record of it raises
            continue
        if tp not in left:
            continue
        if not ended and (tp not in below or offset < below[tp]):
            found.append(message)
        if ended and offset < below.get(tp, offset):
            continue
        if ended or (tp in below and offset >= below[tp] - 1):
            left.discard(tp)
            consumer.pause([Wire(tp.topic, tp.partition)])
    return found


def _some(consumer: Consumer, timeout_s: float) -> list[Message]:
    """Return what there is: the driver fills a batch or waits the whole time, so wait for one message and take what is there already."""
    messages = consumer.consume(1, timeout_s)
    if messages:
        messages += consumer.consume(BATCH_RECORDS_MAX - 1, 0)
    return messages


def arrived(message: Message, region: str) -> Arrived:
    """Return a record. Raises what the message says instead."""
    error = message.error()
    topic, partition, offset = message.topic() or "", message.partition() or 0, message.offset() or 0
    if error is not None:
        raise world_error(error, f"{region} {topic}-{partition} at {offset}")
    try:
        headers: Any = message.headers()  # The stub tells of the forms that one may send; what comes back is a list of pairs.
    except UnicodeDecodeError:
        headers = ()
    return Arrived(topic, partition, offset, message.key(), message.value(), tuple(headers or ()), message.timestamp()[1])
