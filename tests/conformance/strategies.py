"""Four ways to answer where a group goes on: mrc's agents, MirrorMaker's checkpoints, the same offset, the next record's timestamp."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from confluent_kafka import Consumer, TopicPartition

from tests.conformance.logs import Where, records
from tests.conformance.oracle import Log
from tests.conformance.stage import Stage


class Position(NamedTuple):
    """A group's committed position, and where its records are copied to."""

    case: str
    label: str
    replication_group: str
    group: str
    topic: str
    target: str
    partition: int
    committed: int

    @property
    def source_where(self) -> Where:
        return self.topic, self.partition

    @property
    def target_where(self) -> Where:
        return self.target, self.partition


class Answer(NamedTuple):
    """Where to go on in the target.

    Attributes:
        offset: None where the strategy gives none.
        kind: ``exact``, ``bounded``, ``unknown``, ``absent``, or ``stale``: an answer for another position of the group.
        repeats_max: what a bounded answer says.
        floor: the position that stands while there is no answer; -1 where there never was one.
    """

    offset: int | None
    kind: str
    reason: str = ""
    repeats_max: int = 0
    floor: int = -1


ABSENT = Answer(None, "absent")


class Translator(Protocol):
    """Answers for committed positions."""

    name: str

    def answers(self, positions: Sequence[Position]) -> Mapping[Position, Answer]:
        """Return an answer for each position."""


class Exact:
    """What mrc's agents say, as ``mrc offsets list`` prints it."""

    name = "exact"

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def answers(self, positions: Sequence[Position]) -> dict[Position, Answer]:
        """See `Translator`."""
        rows = {name: self.rows(name) for name in dict.fromkeys(position.replication_group for position in positions)}
        return {position: answer_of(rows[position.replication_group], position) for position in positions}

    def rows(self, replication_group: str) -> dict[tuple[str, str, int], dict[str, Any]]:
        """Return the command's rows by group, topic and partition."""
        command = ["--output", "json", "--replication-group", replication_group, "offsets", "list"]
        done = subprocess.run(
            [sys.executable, "-m", "mrc", "--config", str(self._stage.sandbox.config_path), *command],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return {(row["group"], row["topic"], row["partition"]): row for row in json.loads(done.stdout)}


def answer_of(rows: Mapping[tuple[str, str, int], Mapping[str, Any]], position: Position) -> Answer:
    """Return what a list of checkpoints says of a position."""
    row = rows.get((position.group, position.topic, position.partition))
    if row is None:
        return ABSENT
    said, floor = row["translation"], row["floor"]
    if row["source_offset"] != position.committed:
        return Answer(None, "stale", f"the checkpoint is for {row['source_offset']}", floor=floor)
    offset = None if said["type"] == "unknown" else said["offset"]
    return Answer(offset, said["type"], said["reason"], said["repeats_max"], floor)


class Checkpoint(NamedTuple):
    """A record of MirrorMaker's checkpoints topic, and its bytes made again."""

    group: str
    topic: str
    partition: int
    upstream: int
    downstream: int
    metadata: str

    def encoded(self) -> tuple[bytes, bytes]:
        """Return key and value."""
        key = _packed(self.group) + _packed(self.topic) + struct.pack(">i", self.partition)
        return key, struct.pack(">hqq", 0, self.upstream, self.downstream) + _packed(self.metadata)


def checkpoint(key: bytes, value: bytes) -> Checkpoint:
    """Return a checkpoint as MirrorMaker wrote it."""
    group, at = _unpacked(key, 0)
    topic, at = _unpacked(key, at)
    (partition,) = struct.unpack_from(">i", key, at)
    version, upstream, downstream = struct.unpack_from(">hqq", value, 0)
    assert version == 0
    metadata, _ = _unpacked(value, 18)
    return Checkpoint(group, topic, partition, upstream, downstream, metadata)


class Sync(NamedTuple):
    """A record of MirrorMaker's offset-syncs topic."""

    topic: str
    partition: int
    upstream: int
    downstream: int

    def encoded(self) -> tuple[bytes, bytes]:
        """Return key and value."""
        return _packed(self.topic) + struct.pack(">i", self.partition), struct.pack(">qq", self.upstream, self.downstream)


def sync(key: bytes, value: bytes) -> Sync:
    """Return an offset sync as MirrorMaker wrote it."""
    topic, at = _unpacked(key, 0)
    return Sync(topic, *struct.unpack_from(">i", key, at), *struct.unpack(">qq", value))


class Heartbeat(NamedTuple):
    """A record of MirrorMaker's heartbeats topic."""

    source: str
    target: str
    timestamp_ms: int

    def encoded(self) -> tuple[bytes, bytes]:
        """Return key and value."""
        return _packed(self.source) + _packed(self.target), struct.pack(">hq", 0, self.timestamp_ms)


def heartbeat(key: bytes, value: bytes) -> Heartbeat:
    """Return a heartbeat as MirrorMaker wrote it."""
    source, at = _unpacked(key, 0)
    target, _ = _unpacked(key, at)
    version, timestamp_ms = struct.unpack(">hq", value)
    assert version == 0
    return Heartbeat(source, target, timestamp_ms)


class MirrorMaker:
    """What MirrorMaker's last checkpoint of the group and partition says, for whichever position it was made."""

    name = "mm2"

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def answers(self, positions: Sequence[Position]) -> dict[Position, Answer]:
        """See `Translator`."""
        last = {(one.group, one.topic, one.partition): one for one in self.checkpoints()}
        found = {}
        for position in positions:
            one = last.get((position.group, position.target, position.partition))
            found[position] = ABSENT if one is None else Answer(one.downstream, "checkpoint")
        return found

    def checkpoints(self) -> list[Checkpoint]:
        """Return every checkpoint that the topic still holds, in order."""
        where = ("east.checkpoints.internal", 0)
        found, _ = records(self._stage.config("west"), [where], "read_committed")
        return [checkpoint(r.key, r.value) for r in found[where] if r.key is not None and r.value is not None]


class Identity:
    """The same offset."""

    name = "identity"

    def answers(self, positions: Sequence[Position]) -> dict[Position, Answer]:
        """See `Translator`."""
        return {position: Answer(position.committed, "guess") for position in positions}


class Timestamp:
    """ListOffsets in the target by the timestamp of the next record in the source; its end where there is no next record."""

    name = "timestamp"

    def __init__(self, stage: Stage, sources: Mapping[Where, Log], targets: Mapping[Where, Log]) -> None:
        self._stage = stage
        self._sources = sources
        self._targets = targets

    def answers(self, positions: Sequence[Position]) -> dict[Position, Answer]:
        """See `Translator`."""
        consumer = Consumer({**self._stage.config("west"), "group.id": "test-conformance-reader"})
        try:
            return {position: self._answer(consumer, position) for position in positions}
        finally:
            consumer.close()

    def _answer(self, consumer: Consumer, position: Position) -> Answer:
        source = self._sources.get(position.source_where)
        target = self._targets.get(position.target_where)
        if source is None or target is None:
            return ABSENT
        stamp = next((event.timestamp_ms for event in source.events if event.offset >= position.committed), None)
        if stamp is None or stamp < 0:
            return Answer(target.end, "guess")
        found = consumer.offsets_for_times([TopicPartition(position.target, position.partition, stamp)], timeout=60)[0].offset
        return Answer(found if found >= 0 else target.end, "guess")


def _packed(text: str) -> bytes:
    return struct.pack(">h", len(text.encode())) + text.encode()


def _unpacked(data: bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from(">h", data, at)
    return data[at + 2 : at + 2 + length].decode(), at + 2 + length
