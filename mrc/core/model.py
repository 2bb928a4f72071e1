"""The words of the design as values: regions, partitions, readings, the active-region record.

Every offset in mrc is the *next record to read*; every range is half-open. A value that could not be
read is an `Unknown` with its reason, never -1, 0 or None.
"""

from __future__ import annotations

import threading
from typing import Annotated, Any, Generic, Literal, NewType, TypeVar

import msgspec

Region = NewType("Region", str)
"""The name of a place with one Kafka cluster, one Connect cluster and one or more agents."""

GroupId = NewType("GroupId", str)
"""A Kafka consumer group's id."""

Offset = NewType("Offset", int)
"""The offset of the next record to read (Kafka's committed-offset meaning), 0 or more."""

Epoch = NewType("Epoch", int)
"""Grows by one with every opening of a region; a region with an older epoch is fenced at first contact."""

Term = NewType("Term", int)
"""Grows by one with every new leader of a region's pair of agents."""

Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""What is written down by others and kept: MessagePack holds no more."""

T = TypeVar("T")


class Value(msgspec.Struct, frozen=True):
    """A frozen value; the base of everything in core."""


class Written(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A frozen value that people or other agents wrote: unknown fields are an error."""


class TopicPartition(msgspec.Struct, frozen=True, order=True):
    """One partition of a topic, by the name it has in the cluster that is spoken of."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}"


class Seen(msgspec.Struct, frozen=True):
    """A visible record as the aligner needs it.

    Attributes:
        offset: its own offset.
        timestamp_ms: its timestamp.
        fingerprint: 64-bit hash of timestamp, key, value and headers.
    """

    offset: int
    timestamp_ms: int
    fingerprint: int


class Record(msgspec.Struct, frozen=True):
    """A record as people look at it: everything that a fingerprint is made of."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


class Known(msgspec.Struct, Generic[T], frozen=True, tag="known"):
    """A value that was read.

    Attributes:
        value: what was read.
        at_ms: wall-clock time of the reading, milliseconds since the Unix epoch.
    """

    value: T
    at_ms: int


class Unknown(msgspec.Struct, frozen=True, tag="unknown"):
    """A reading that failed.

    Attributes:
        reason: a stable kebab-case word, such as ``cluster-unreachable``.
        detail: a sentence for people.
        since_ms: wall-clock time of the first failure in this row of failures.
    """

    reason: str
    detail: str
    since_ms: int


Reading = Known[T] | Unknown

RegionState = Literal["open", "draining", "closed"]


class ActiveRecord(Written, frozen=True):
    """Which region of a replication group may be written: the one record that decides it.

    ``open``: applications read and write in ``region``. ``draining``: applications in ``region`` finish
    (read, commit) and write no more. ``closed``: nobody reads or writes; ``region`` is the one to open next.
    A region that is not named here is fenced, always.

    Attributes:
        region: the region that the state speaks of.
        state: see above.
        epoch: number of openings so far.
        execution: id of the execution that wrote the record; empty for the first record of an estate.
        at_ms: when it was written, by the writer's wall clock; for people only, decides nothing.
    """

    region: Region
    state: RegionState
    epoch: Epoch
    execution: str = ""
    at_ms: int = 0
    version: Literal[1] = 1


class Flow(msgspec.Struct, frozen=True, order=True):
    """Replication source -> target by one MM2 connector set."""

    source: Region
    target: Region

    def __str__(self) -> str:
        return f"{self.source}->{self.target}"

    @property
    def reversed(self) -> Flow:
        """The flow the other way."""
        return Flow(self.target, self.source)


Mode = Literal["active-passive", "active-active"]
"""Of a replication group: one region open for writing, or all."""

Policy = Literal["identity", "default"]
"""MM2's replication policy: the same topic names, or ``<source>.<topic>`` in the target."""


def target_topic(policy: Policy, source: Region, topic: str) -> str:
    """Return the name that ``topic`` of ``source`` has in a target region (Kafka's DefaultReplicationPolicy)."""
    return topic if policy == "identity" else f"{source}.{topic}"


def encode(value: object) -> bytes:
    """Return ``value`` as compact JSON with sorted keys: the form of every record that mrc writes."""
    return _ENCODER.encode(value)


def decode(data: bytes, kind: type[T]) -> T:
    """Return the JSON in ``data`` as ``kind``.

    Raises:
        msgspec.DecodeError, msgspec.ValidationError: it is not one, or is nested too deep; callers name where it was read.
    """
    try:
        return decoder(kind).decode(data)
    except (UnicodeDecodeError, RecursionError) as error:  # msgspec lets these two through as they are
        raise msgspec.DecodeError(str(error)) from None


def decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    """Return the decoder of ``kind``, the same for all who ask.

    Two threads that meet a struct for the first time kill the process: one reads what the other has built by half (msgspec 0.22). So
    every decoder is built here, one at a time, and nobody else asks msgspec for a struct.
    """
    found = _DECODERS.get(kind)
    if found is None:
        with _BUILDING:
            found = _DECODERS.setdefault(kind, msgspec.json.Decoder(kind))
    return found


def convert(value: object, kind: type[T], **how: Any) -> T:
    """Return plain data as ``kind``; ``how`` as `msgspec.convert` has it.

    Raises:
        msgspec.ValidationError: it is not one.
    """
    decoder(kind)  # for what it has built by now
    found: T = msgspec.convert(value, kind, **how)
    return found


_BUILDING = threading.Lock()
_DECODERS: dict[Any, msgspec.json.Decoder[Any]] = {}
_ENCODER = msgspec.json.Encoder(order="sorted")
