"""The oracle of `translation.py`: reads both logs in full and counts what an answered position costs. Imports nothing of mrc.

Every event carries an id of its own, so a copy is recognised by what it is, not by where it lies. Where an event was written is
known from the source's log or, for those that compaction has removed there since, from the producer's acknowledgement.
"""

from __future__ import annotations

import json
import statistics
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, TopicPartition

Where = tuple[str, int]
"""Topic and partition; both sides have the same names."""

Entry = tuple[int, str]
"""Offset and event id of a visible record."""

Raw = tuple[int, bytes | None, bytes | None]
"""Offset, key and value of a visible record."""

READ_TIMEOUT_S = 120.0


class Cost(NamedTuple):
    """What a group would meet that goes on at an answered position.

    Attributes:
        reread: records of the target at or after the answer that are copies of events below the committed position; of an
            event that was copied twice, both count.
        skipped: events of the source at or after the committed position whose copies all lie before the answer.
    """

    reread: int
    skipped: int


class Judge:
    """Knows both logs of one partition by the events in them.

    Args:
        source, target: their visible records, in offset order.
        gone: events that stood in the source once, with their offsets, whether they still do or not.
    """

    def __init__(self, source: Sequence[Entry], target: Sequence[Entry], gone: Iterable[Entry] = ()) -> None:
        self._source = source
        self._at = {event: offset for offset, event in gone} | {event: offset for offset, event in source}
        self._copies = target
        self._last: dict[str, int] = {event: offset for offset, event in target}

    def cost(self, committed: int, answer: int) -> Cost:
        """Count both for a group that has committed ``committed`` and goes on at ``answer``."""
        reread = sum(1 for offset, event in self._copies if offset >= answer and self._at.get(event, committed) < committed)
        skipped = sum(1 for offset, event in self._source if offset >= committed and self._last.get(event, answer) < answer)
        return Cost(reread, skipped)

    @property
    def copied_again(self) -> int:
        """How many records of the target are further copies of an event."""
        return len(self._copies) - len(self._last)

    @property
    def strangers(self) -> int:
        """How many records of the target hold an event that never stood in the source."""
        return sum(1 for _, event in self._copies if event not in self._at)


def without_record(log: Sequence[Entry]) -> int:
    """Return how many offsets below a log's last record hold none: markers, aborted records, and what compaction removed."""
    return log[-1][0] + 1 - len(log) if log else 0


def median(values: Sequence[int]) -> float | None:
    """Return the median; None of nothing."""
    return statistics.median(values) if values else None


class Checkpoint(NamedTuple):
    """A record of MirrorMaker's checkpoint connector: a committed position in the source, and where to go on in the target."""

    group: str
    where: Where
    upstream: int
    downstream: int


def decode_checkpoint(key: bytes, value: bytes) -> Checkpoint:
    """Decode a record of ``<source>.checkpoints.internal``; see Kafka's class `Checkpoint`, version 0: big-endian, strings with lengths.

    Raises:
        ValueError: it is cut short, or of another version.
    """
    try:
        group, at = _string(key, 0)
        topic, at = _string(key, at)
        (partition,) = struct.unpack_from(">i", key, at)
        version, upstream, downstream = struct.unpack_from(">hqq", value, 0)
    except struct.error as error:
        raise ValueError(f"a checkpoint is cut short: {error}") from error
    if version != 0:
        raise ValueError(f"a checkpoint of version {version}")
    return Checkpoint(group, (topic, partition), upstream, downstream)


def _string(data: bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from(">h", data, at)
    (text,) = struct.unpack_from(f">{length}s", data, at + 2)
    return text.decode(), at + 2 + length


def events(records: Iterable[Raw]) -> list[Entry]:
    """Return offsets and event ids. Raises KeyError or ValueError for a record that carries none."""
    return [(offset, str(json.loads(value or b"")["id"])) for offset, _, value in records]


def read_all(config: Mapping[str, str], wanted: Iterable[Where], last: int | None = None) -> dict[Where, list[Raw]]:
    """Return every visible record of some partitions, or those at about the ``last`` offsets.

    Args:
        config: librdkafka's settings of a user who may read them.
        wanted: the partitions; they exist.
        last: how many offsets before the end to begin; None: at the log's start.

    Raises:
        RuntimeError: an end was not reached within `READ_TIMEOUT_S`.
    """
    consumer = Consumer(
        {
            **config,
            "group.id": "bench-read",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
            "log_level": "0",  # it is closed in the middle of whatever it has begun
        }
    )
    found: dict[Where, list[Raw]] = {where: [] for where in wanted}
    try:
        starts = []
        for where in found:
            low, high = consumer.get_watermark_offsets(TopicPartition(*where), timeout=10)
            starts.append(TopicPartition(*where, low if last is None else max(low, high - last)))
        consumer.assign(starts)
        left, until_s = set(found), time.monotonic() + READ_TIMEOUT_S
        while left and time.monotonic() < until_s:
            for message in consumer.consume(5_000, 0.2):
                where = (str(message.topic()), int(message.partition() or 0))
                error = message.error()
                if error is None:
                    found[where].append((int(message.offset() or 0), message.key(), message.value()))
                elif error.code() == KafkaError._PARTITION_EOF:
                    left.discard(where)
                else:
                    raise RuntimeError(str(error))
        if left:
            raise RuntimeError(f"could not read {left} to the end")
    finally:
        consumer.close()
    return found
