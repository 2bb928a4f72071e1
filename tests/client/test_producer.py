"""A following producer against librdkafka's in-process brokers."""

from __future__ import annotations

import time
from collections.abc import Callable

from mrc.client import Acknowledged, FollowingProducer
from mrc.core.model import Region
from tests.client.conftest import EAST, WEST, Record, place, until

Regions = dict[Region, dict[str, str]]


def make(record: Record, regions: Regions) -> tuple[FollowingProducer[int], list[Acknowledged[int]]]:
    acked: list[Acknowledged[int]] = []
    return FollowingProducer(record, regions, acked.append), acked


def send(producer: FollowingProducer[int], *tokens: int) -> list[bool]:
    return [producer.send("orders", b"key", str(token).encode(), token) for token in tokens]


def tending(producer: FollowingProducer[int]) -> tuple[list[int], Callable[[], None]]:
    """A list of what comes back, and what tends the producer and fills it."""
    back: list[int] = []

    def tend() -> None:
        producer.tend(0.02)
        back.extend(each.token for each in producer.take_unacknowledged())

    return back, tend


def test_it_sends_only_where_and_while_a_region_is_open(record: Record, regions: Regions) -> None:
    producer, acked = make(record, regions)
    producer.tend()
    assert send(producer, 1) == [False]
    record.put(EAST, "open", 1)
    producer.tend()
    assert send(producer, 1, 2) == [True, True]
    until(lambda: len(acked) == 2, lambda: producer.tend(0.02))
    assert [(each.token, each.place) for each in acked] == [(1, place(EAST, 1)), (2, place(EAST, 1))]
    record.put(EAST, "draining", 1)
    assert send(producer, 3) == [False]
    producer.tend()
    assert producer.place is None
    assert producer.take_unacknowledged() == []
    record.put(WEST, "closed", 1)
    producer.tend()
    assert (producer.place, send(producer, 3)) == (None, [False])
    record.put(WEST, "open", 2)
    producer.tend()
    assert send(producer, 3) == [True]
    until(lambda: len(acked) == 3, lambda: producer.tend(0.02))
    assert acked[2].place == place(WEST, 2)
    producer.close()


def test_a_new_opening_of_the_same_region_gets_a_new_instance(record: Record, regions: Regions) -> None:
    producer, acked = make(record, regions)
    record.put(EAST, "open", 1)
    producer.tend()
    send(producer, 1)
    until(lambda: len(acked) == 1, lambda: producer.tend(0.02))
    record.put(EAST, "open", 2)
    assert send(producer, 2) == [False]
    producer.tend()
    assert producer.place == place(EAST, 2)
    send(producer, 2)
    until(lambda: len(acked) == 2, lambda: producer.tend(0.02))
    assert acked[1].place == place(EAST, 2)
    producer.close()


def test_what_a_dead_region_did_not_answer_comes_back_once_in_order_and_within_the_bound(record: Record, dead: Regions) -> None:
    producer, acked = make(record, dead)
    record.put(EAST, "open", 1)
    producer.tend()
    assert all(send(producer, *range(100)))
    record.put(WEST, "closed", 1)
    began_s = time.monotonic()
    producer.tend()
    assert time.monotonic() - began_s < 0.5
    back = producer.take_unacknowledged()
    assert [each.token for each in back] == list(range(100))
    assert {each.place for each in back} == {place(EAST, 1)}
    assert producer.take_unacknowledged() == []
    assert acked == []
    producer.close(flush_bound_s=0.1)


def test_closing_with_a_dead_region_gives_everything_back_within_the_bound(record: Record, dead: Regions) -> None:
    producer, _ = make(record, dead)
    record.put(EAST, "open", 1)
    producer.tend()
    send(producer, 1, 2)
    began_s = time.monotonic()
    producer.close(flush_bound_s=0.1)
    assert time.monotonic() - began_s < 3.0
    assert [each.token for each in producer.take_unacknowledged()] == [1, 2]


def test_a_failed_delivery_ends_the_instance_and_the_event_comes_back(record: Record, dead: Regions) -> None:
    impatient: Regions = {region: {**config, "message.timeout.ms": "50", "linger.ms": "10"} for region, config in dead.items()}
    producer, acked = make(record, impatient)
    record.put(EAST, "open", 1)
    producer.tend()
    send(producer, 1)
    back, tend = tending(producer)
    until(lambda: bool(back), tend)
    assert (back, acked) == ([1], [])
    until(lambda: producer.place == place(EAST, 1), tend)
    producer.close()


def test_an_unconfigured_region_is_nowhere(record: Record, regions: Regions) -> None:
    producer, _ = make(record, {EAST: regions[EAST]})
    record.put(WEST, "open", 1)
    producer.tend()
    assert (producer.place, send(producer, 1)) == (None, [False])


def test_an_event_that_a_late_purge_takes_comes_back_before_a_later_one_is_sent(record: Record, regions: Regions) -> None:
    producer, acked = make(record, regions)
    record.put(EAST, "open", 1)
    producer.tend()
    assert send(producer, 1) == [True]
    instance = producer._instance
    assert instance is not None
    # As where a broker's thread hangs while a refused producer rests, and the purge reaches it when the producer has gone on.
    instance.producer.purge(in_queue=True, in_flight=True, blocking=False)
    back, tend = tending(producer)
    until(lambda: bool(back), tend)
    assert (back, acked) == ([1], [])
    until(lambda: producer.place == place(EAST, 1), tend)
    assert send(producer, 1, 2) == [True, True]
    until(lambda: len(acked) == 2, tend)
    assert ([each.token for each in acked], back) == ([1, 2], [1])
    producer.close()
