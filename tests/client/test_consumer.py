"""A following consumer against librdkafka's in-process brokers."""

from __future__ import annotations

import time

from confluent_kafka import Consumer, Message, Producer, TopicPartition

from mrc.client.consumer import Closed, FollowingConsumer
from mrc.core.model import Region
from tests.client.conftest import EAST, WEST, Record, place, until

Regions = dict[Region, dict[str, str]]


def fill(config: dict[str, str], *values: str) -> None:
    producer = Producer({**config, "linger.ms": 0})
    for value in values:
        producer.produce("orders", value.encode(), b"key", partition=0)
    assert producer.flush(10) == 0
    producer.close()


def committed(config: dict[str, str]) -> int:
    consumer = Consumer({**config, "group.id": "billing"})
    offset = consumer.committed([TopicPartition("orders", 0)], timeout=10)[0].offset
    consumer.close()
    return int(offset)


def values(messages: list[Message]) -> list[bytes | None]:
    return [message.value() for message in messages]


def test_it_reads_where_a_region_is_open_and_commits_what_was_marked_when_it_closes(record: Record, regions: Regions) -> None:
    fill(regions[EAST], "a", "b", "c")
    fill(regions[WEST], "x")
    closings: list[Closed] = []
    consumer = FollowingConsumer(record, regions, "billing", ["orders"], commit_every_s=3600, closed=closings.append)
    assert consumer.poll(10, 0.01) == []
    record.put(EAST, "open", 1)
    found: list[Message] = []
    until(lambda: len(found) == 3, lambda: found.extend(consumer.poll(10, 0.05)))
    assert values(found) == [b"a", b"b", b"c"]
    for message in found[:2]:
        consumer.mark(message)
    record.put(EAST, "draining", 1)
    assert not consumer.tend()
    assert consumer.place is None
    assert [(each.place, each.committed) for each in closings] == [(place(EAST, 1), True)]
    assert committed(regions[EAST]) == 2
    record.put(WEST, "open", 2)
    found.clear()
    until(lambda: len(found) == 1, lambda: found.extend(consumer.poll(10, 0.05)))
    assert values(found) == [b"x"]
    record.put(EAST, "open", 3)
    found.clear()
    until(lambda: len(found) == 1, lambda: found.extend(consumer.poll(10, 0.05)))
    assert values(found) == [b"c"]
    consumer.close()


def test_it_commits_while_it_runs(record: Record, regions: Regions) -> None:
    fill(regions[EAST], "a", "b")
    record.put(EAST, "open", 1)
    consumer = FollowingConsumer(record, regions, "billing", ["orders"], commit_every_s=0.05)
    found: list[Message] = []
    until(lambda: len(found) == 2, lambda: found.extend(consumer.poll(10, 0.05)))
    for message in found:
        consumer.mark(message)
    until(lambda: committed(regions[EAST]) == 2, lambda: consumer.poll(10, 0.05), tries=50)
    consumer.close()


def test_a_dead_region_is_left_within_the_bound(record: Record, dead: Regions) -> None:
    closings: list[Closed] = []
    consumer = FollowingConsumer(record, dead, "billing", ["orders"], leave_bound_s=0.5, closed=closings.append)
    record.put(EAST, "open", 1)
    consumer.poll(10, 0.05)
    assert consumer.place == place(EAST, 1)
    record.put(WEST, "closed", 1)
    began_s = time.monotonic()
    assert consumer.poll(10, 0.05) == []
    assert time.monotonic() - began_s < 1.0
    assert consumer.place is None
    assert len(closings) == 1


def test_what_was_polled_at_one_place_is_never_committed_at_another(record: Record, regions: Regions) -> None:
    """An application that is slow, or processes beside its polling, marks east's record 2 when it reads west already."""
    fill(regions[EAST], "a", "b", "c")
    fill(regions[WEST], "v", "w", "x")
    consumer = FollowingConsumer(record, regions, "billing", ["orders"], commit_every_s=3600)
    record.put(EAST, "open", 1)
    there: list[Message] = []
    until(lambda: len(there) == 3, lambda: there.extend(consumer.poll(10, 0.05)))
    record.put(WEST, "open", 2)
    here: list[Message] = []
    until(lambda: len(here) == 3, lambda: here.extend(consumer.poll(10, 0.05)))
    assert consumer.mark(here[0])
    assert not consumer.mark(there[2])
    assert not consumer.mark(here[0]), "once is enough"
    consumer.close()
    assert not consumer.mark(here[1])
    assert committed(regions[WEST]) == 1


def test_partitions_that_another_member_takes_over_are_marked_by_that_one_alone(record: Record, regions: Regions) -> None:
    producer = Producer({**regions[EAST], "linger.ms": 0})
    for number in range(40):
        producer.produce("orders", str(number).encode(), partition=number % 4)
    assert producer.flush(10) == 0
    producer.close()
    record.put(EAST, "open", 1)
    with (
        FollowingConsumer(record, regions, "billing", ["orders"], commit_every_s=0.05) as one,
        FollowingConsumer(record, regions, "billing", ["orders"], commit_every_s=0.05) as two,
    ):
        held: list[Message] = []
        until(lambda: len(held) == 40, lambda: held.extend(one.poll(50, 0.05)))
        again: list[Message] = []

        def both() -> None:
            one.poll(50, 0.05)
            again.extend(two.poll(50, 0.05))

        until(lambda: bool(again), both)
        taken = {message.partition() for message in again}
        assert 0 < len(taken) < 4
        marked = {message.partition() for message in held if one.mark(message)}
        assert not marked & taken
        until(lambda: len(again) == 10 * len(taken), both)
        assert all(two.mark(message) for message in again)


def test_leaving_the_block_ends_a_member_within_the_bound_even_with_a_dead_region(record: Record, dead: Regions) -> None:
    record.put(EAST, "open", 1)
    began_s = time.monotonic()
    with FollowingConsumer(record, dead, "billing", ["orders"], leave_bound_s=0.5) as consumer:
        consumer.poll(10, 0.05)
        assert consumer.place == place(EAST, 1)
    assert consumer.place is None
    assert time.monotonic() - began_s < 1.5
