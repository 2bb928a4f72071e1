"""Reads whole partitions with plain consumers, as an application would."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from tests.conformance.oracle import Event, Log

Where = tuple[str, int]
"""A topic, by its name in the cluster that is read, and a partition."""

Identify = Callable[[bytes | None, bytes | None], str]
"""Key and value -> the event's id."""

READ_S = 240.0


class Record(NamedTuple):
    """A visible record as it lies in the log."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp_ms: int


def plainly(key: bytes | None, value: bytes | None) -> str:
    """Return an event's id: its value, or its key where the value is null or empty."""
    return value.decode() if value else f"{'tombstone' if value is None else 'empty'} {(key or b'').decode()}"


def records(config: Mapping[str, str], wanted: Iterable[Where], isolation: str) -> tuple[dict[Where, list[Record]], dict[Where, int]]:
    """Return the visible records of each partition, and where it ends for a reader with this isolation; within `READ_S`."""
    consumer = Consumer(
        {
            **config,
            "group.id": "test-conformance-reader",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": isolation,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 20,
        }
    )
    found: dict[Where, list[Record]] = {where: [] for where in wanted}
    ends: dict[Where, int] = {}
    try:
        consumer.assign([TopicPartition(topic, partition, 0) for topic, partition in found])
        until_s = time.monotonic() + READ_S
        while len(ends) < len(found) and time.monotonic() < until_s:
            for message in consumer.consume(10_000, 0.1):
                _take(message, found, ends)
        if len(ends) < len(found):
            raise AssertionError(f"could not read to the end within {READ_S:.0f} s: {sorted(found.keys() - ends.keys())}")
    finally:
        consumer.close()
    return found, ends


def _take(message: Message, found: dict[Where, list[Record]], ends: dict[Where, int]) -> None:
    where = (message.topic() or "", message.partition() or 0)
    error, offset = message.error(), message.offset() or 0
    if error is None:
        found[where].append(Record(offset, message.key(), message.value(), message.timestamp()[1]))
    elif error.code() == KafkaError._PARTITION_EOF:
        ends[where] = offset
    elif not error.retriable():
        raise AssertionError(f"{where}: {error}")


def starts(config: Mapping[str, str], wanted: Iterable[Where]) -> dict[Where, int]:
    """Return where each partition's log begins."""
    asked = {TopicPartition(*where): OffsetSpec.earliest() for where in wanted}
    if not asked:
        return {}
    admin = AdminClient(dict(config))  # is needed until it has answered
    futures = admin.list_offsets(asked, request_timeout=60)
    return {(tp.topic, tp.partition): int(future.result(timeout=60).offset) for tp, future in futures.items()}


def logs(config: Mapping[str, str], wanted: Mapping[Where, Identify], isolation: str) -> dict[Where, Log]:
    """Return each partition as the oracle needs it."""
    begins = starts(config, wanted)
    found, ends = records(config, wanted, isolation)
    return {
        where: Log(begins[where], ends[where], tuple(Event(r.offset, wanted[where](r.key, r.value), r.timestamp_ms) for r in rows))
        for where, rows in found.items()
    }
