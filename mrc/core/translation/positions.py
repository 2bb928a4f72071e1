"""Positions in a file: what `mrc offsets export` writes and `mrc offsets import` reads, and which target offset is safe to commit.

A file is whole or refused: an unknown field, another version, a position twice. Its offsets are target offsets (next record to
read), so that a person can apply them by hand with Kafka's own tools.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from mrc.core.errors import MrcError
from mrc.core.model import GroupId, Region, TopicPartition, Written, decoder
from mrc.core.translation.checkpoint import Checkpoint
from mrc.core.translation.offset_map import Bounded, Exact

BYTES_MAX = 256 * 1024 * 1024
"""A million positions."""

Evidence = Literal["exact", "bounded", "floor"]
NonNegative = Annotated[int, Meta(ge=0)]

_PLAIN = r"^[^\x00-\x1f\x7f]*$"


def checkpoints_topic(source: Region) -> str:
    """Return the topic of the target cluster in which mrc keeps the checkpoints of the flow out of ``source``."""
    return f"mrc.checkpoints.{source}.internal"


class Place(NamedTuple):
    """A position in a log that somebody asks about: ``topic`` by its name in the replication group."""

    region: str
    topic: str
    partition: int
    offset: int


class _Line(Written, frozen=True):
    region: Annotated[str, Meta(min_length=1, max_length=255, pattern=_PLAIN)]
    topic: Annotated[str, Meta(min_length=1, max_length=255, pattern=_PLAIN)]
    partition: Annotated[int, Meta(ge=0, le=2**31 - 1)]
    offset: Annotated[int, Meta(ge=0, le=2**63 - 1)]


_LINES = decoder(_Line)


def decode_place(line: bytes, where: str) -> Place:
    """Return the position in a line of JSON: an object with region, topic, partition and offset.

    Raises:
        MrcError: ``BAD_REQUEST`` naming the field.
    """
    try:
        read = _LINES.decode(line)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise MrcError("BAD_REQUEST", f"not a position: {error}", where=where) from None
    return Place(read.region, read.topic, read.partition, read.offset)


class Safe(NamedTuple):
    """A target offset that skips nothing: the answer, or the last one that there was."""

    offset: int
    evidence: Evidence
    repeats_max: int


def safe(checkpoint: Checkpoint) -> Safe | None:
    """Return what may be committed for a checkpoint; None where there never was an answer."""
    match checkpoint.translation:
        case Exact():
            return Safe(checkpoint.translation.offset, "exact", 0)
        case Bounded():
            return Safe(checkpoint.translation.offset, "bounded", checkpoint.translation.repeats_max)
    return Safe(checkpoint.floor, "floor", 0) if checkpoint.floor >= 0 else None


class FilePosition(Written, frozen=True):
    """One group's position on one partition.

    Attributes:
        topic: by its name in the target.
        offset: in the target.
        metadata: what the consumer stored with its commit, byte for byte.
        source_topic, source_offset: what it was translated from.
        evidence: ``exact``; ``bounded``: at most ``repeats_max`` records repeat; ``floor``: an earlier answer, for the position
            itself has none yet.
        age_s: how old the source position was when the file was written.
    """

    group: GroupId
    topic: str
    partition: NonNegative
    offset: NonNegative
    metadata: str
    source_topic: str
    source_offset: NonNegative
    evidence: Evidence
    repeats_max: NonNegative = 0
    age_s: float = 0.0

    @property
    def tp(self) -> TopicPartition:
        """The target's partition."""
        return TopicPartition(self.topic, self.partition)


class PositionsFile(Written, frozen=True):
    """The file.

    Attributes:
        epoch: of the active-region record when it was written; None where nobody could say.
        at_ms: when it was written, milliseconds since the Unix epoch.
        via: ``agents``, or ``direct``: read from the target's own topic, without agents and ZooKeeper.
        left_out: positions without any safe target offset, as ``group topic-partition: reason``.
    """

    kind: Literal["mrc-positions"]
    version: Literal[1]
    replication_group: str
    source: Region
    target: Region
    epoch: int | None
    at_ms: int
    via: Literal["agents", "direct"]
    positions: tuple[FilePosition, ...]
    left_out: tuple[str, ...] = ()

    def by_group(self) -> dict[GroupId, list[FilePosition]]:
        """Return the positions by group, in the file's order."""
        found: dict[GroupId, list[FilePosition]] = {}
        for position in self.positions:
            found.setdefault(position.group, []).append(position)
        return found


def encode_positions(file: PositionsFile) -> bytes:
    """Return the file's bytes: indented JSON."""
    return msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n"


def decode_positions(data: bytes, where: str) -> PositionsFile:
    """Return what the file holds.

    Raises:
        MrcError: ``POSITIONS_INVALID`` naming the field.
    """
    if len(data) > BYTES_MAX:
        raise MrcError("POSITIONS_INVALID", f"the file has {len(data):,} bytes; at most {BYTES_MAX:,} are read", where=where)
    try:
        file = decoder(PositionsFile).decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise MrcError("POSITIONS_INVALID", str(error), where=where) from None
    seen: set[tuple[GroupId, TopicPartition]] = set()
    for position in file.positions:
        if (position.group, position.tp) in seen:
            raise MrcError("POSITIONS_INVALID", f"{position.group} on {position.tp} stands in it twice", where=where)
        seen.add((position.group, position.tp))
    return file
