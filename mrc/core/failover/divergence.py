"""What becomes of divergent records: their names, their fates, the notes that make recovery exactly once, and the sums.

Every divergent record is exported to the *recovered topic* of its topic and then has one fate: *emitted* (written to the topic again),
*superseded* (the entity, its key, has been written in the active region since the failover: the newer record stands) or *quarantined*
(it stays in the recovered topic only). Notes about how far that has come are written in the transactions that do it, so a note is
there exactly when what it says has happened. The rule: divergent = emitted + superseded + quarantined, per partition, or nobody goes home.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from mrc.core.failover.ledger import SUPERSEDED_TOLD, Account, Ledger, SupersededRecord, Tail
from mrc.core.model import Record, TopicPartition, Value, Written, decode, encode

ResolvePolicy = Literal["quarantine", "append", "untouched", "conflict_rules"]
"""What to do with a topic's divergent records once they are exported."""

OldLogPolicy = Literal["keep", "recreate", "supersede", "purge"]
"""What to do with the log that they lie in."""

NOTES_TOPIC = "mrc.divergence.internal"
"""Compacted, in the region that was failed over to."""

ORIGIN_HEADER = "mrc-recovered"
"""On every exported and every re-emitted record: where it came from, as `Origin` in JSON."""


def recovered_topic(topic: str) -> str:
    """Return the name of the topic that a topic's divergent records are exported to."""
    return f"mrc.recovered.{topic}"


class Origin(Written, frozen=True):
    """Where a record came from.

    Attributes:
        failover: the ledger entry's id.
        region: whose log it lies in.
    """

    failover: str
    region: str
    topic: str
    partition: int
    offset: int
    timestamp_ms: int

    @property
    def tp(self) -> TopicPartition:
        """The partition in the old region."""
        return TopicPartition(self.topic, self.partition)


def with_origin(record: Record, origin: Origin) -> tuple[tuple[str, bytes | None], ...]:
    """Return a record's headers with its origin behind them."""
    return (*record.headers, (ORIGIN_HEADER, encode(origin)))


def origin_of(record: Record) -> Origin | None:
    """Return where a record came from; None where it was not recovered."""
    for name, value in reversed(record.headers):
        if name == ORIGIN_HEADER and value is not None:
            try:
                return decode(value, Origin)
            except (msgspec.DecodeError, msgspec.ValidationError):
                return None  # an application's own header of that name
    return None


def own_headers(record: Record) -> tuple[tuple[str, bytes | None], ...]:
    """Return a recovered record's headers as they were."""
    return record.headers[:-1]


# ---------------------------------------------------------------- notes


class Exported(Written, frozen=True):
    """How far a partition has been exported.

    Attributes:
        next: offset in the old region of the next one.
        records: how many were.
    """

    next: int
    records: int


class Settling(Written, frozen=True):
    """How a topic is resolved; written before the first of its records is, and never changed.

    Attributes:
        policy: as the settings had it then.
        upto: per partition, the active region's committed end then: an entity counts as untouched that was not written below it.
    """

    policy: ResolvePolicy
    upto: tuple[int, ...]


class Fate(Written, frozen=True):
    """What became of one record.

    Attributes:
        by: of a superseded one, [partition, offset] of the record in the active region that stands in its place.
        why: of a quarantined one.
    """

    fate: Literal["emitted", "superseded", "quarantined"]
    by: tuple[int, int] | None = None
    why: str = ""


class Resolved(Written, frozen=True):
    """How far a partition has been resolved.

    Attributes:
        next: offset in the recovered topic's partition of the next record to look at.
    """

    next: int
    emitted: int = 0
    superseded: int = 0
    quarantined: int = 0

    def with_fates(self, next_offset: int, fates: Sequence[Fate]) -> Resolved:
        """Return it with some more records resolved."""
        said = [one.fate for one in fates]
        return Resolved(
            next_offset,
            self.emitted + said.count("emitted"),
            self.superseded + said.count("superseded"),
            self.quarantined + said.count("quarantined"),
        )


Note = Exported | Settling | Fate | Resolved


class Notes(Value, frozen=True):
    """Everything that is noted about one ledger entry."""

    exported: Mapping[TopicPartition, Exported]
    settling: Mapping[str, Settling]
    resolved: Mapping[TopicPartition, Resolved]
    fates: Mapping[tuple[TopicPartition, int], Fate]


def exported_key(ledger: str, tp: TopicPartition) -> bytes:
    """Return the key of an `Exported` note."""
    return encode(["exported", ledger, tp.topic, tp.partition])


def settling_key(ledger: str, topic: str) -> bytes:
    """Return the key of a `Settling` note."""
    return encode(["settling", ledger, topic])


def resolved_key(ledger: str, tp: TopicPartition) -> bytes:
    """Return the key of a `Resolved` note."""
    return encode(["resolved", ledger, tp.topic, tp.partition])


def fate_key(origin: Origin) -> bytes:
    """Return the key of a `Fate` note."""
    return encode(["fate", origin.failover, origin.topic, origin.partition, origin.offset])


def read_notes(ledger: str, stored: Mapping[bytes, bytes]) -> Notes:
    """Return what the notes' topic says about one ledger entry."""
    exported: dict[TopicPartition, Exported] = {}
    settling: dict[str, Settling] = {}
    resolved: dict[TopicPartition, Resolved] = {}
    fates: dict[tuple[TopicPartition, int], Fate] = {}
    for key, value in stored.items():
        match msgspec.json.decode(key):
            case ["exported", str(of), str(topic), int(partition)] if of == ledger:
                exported[TopicPartition(topic, partition)] = decode(value, Exported)
            case ["settling", str(of), str(topic)] if of == ledger:
                settling[topic] = decode(value, Settling)
            case ["resolved", str(of), str(topic), int(partition)] if of == ledger:
                resolved[TopicPartition(topic, partition)] = decode(value, Resolved)
            case ["fate", str(of), str(topic), int(partition), int(offset)] if of == ledger:
                fates[TopicPartition(topic, partition), offset] = decode(value, Fate)
    return Notes(exported, settling, resolved, fates)


# ---------------------------------------------------------------- deciding

Rewritten = Mapping[bytes, tuple[int, int]]
"""Key -> [partition, offset] of the last record with it that the active region has taken since the failover."""


def fate(policy: ResolvePolicy, record: Record, written: Rewritten) -> Fate:
    """Return what becomes of an exported record; a pure function, so that it may be asked again after a crash.

    ``untouched`` speaks of entities, which are keys: a record without one is nobody's, and a person has to look at it.
    """
    if policy == "append":
        return Fate("emitted")
    if policy == "quarantine":
        return Fate("quarantined", why="the topic's policy")
    if record.key is None:
        return Fate("quarantined", why="it has no key, so nobody can tell whether its entity was written since")
    if (by := written.get(record.key)) is not None:
        return Fate("superseded", by=by)
    return Fate("emitted")


# ---------------------------------------------------------------- the sums


def accounts(
    ledger: Ledger, notes: Notes, exported: Mapping[TopicPartition, int], found: Mapping[TopicPartition, int]
) -> tuple[Account, ...]:
    """Return per partition with divergent records what became of them, by the records' own fates.

    Args:
        exported: how many records of each partition the recovered topics hold.
        found: how many re-emitted records of each old partition the active region's topic holds.
    """
    return tuple(_account(tail, notes, exported, found) for tail in ledger.tails if tail.records > 0)


def superseded_by(tp: TopicPartition, fates: Mapping[tuple[TopicPartition, int], Fate]) -> tuple[SupersededRecord, ...]:
    """Return the first superseded records of a partition, each with the record that stands in its place."""
    told = sorted((offset, one.by) for (of, offset), one in fates.items() if of == tp and one.fate == "superseded" and one.by is not None)
    return tuple(SupersededRecord(offset, *by) for offset, by in told[:SUPERSEDED_TOLD])


def _account(tail: Tail, notes: Notes, exported: Mapping[TopicPartition, int], found: Mapping[TopicPartition, int]) -> Account:
    tp = TopicPartition(tail.topic, tail.partition)
    said = [one.fate for (of, offset), one in notes.fates.items() if of == tp and tail.begin <= offset < tail.end]
    return Account(
        topic=tail.topic,
        partition=tail.partition,
        divergent=tail.records,
        exported=exported.get(tp, 0),
        emitted=said.count("emitted"),
        found=found.get(tp, 0),
        superseded=said.count("superseded"),
        quarantined=said.count("quarantined"),
        superseded_by=superseded_by(tp, notes.fates),
    )


def pattern_copies(settings: Mapping[str, str], topic: str) -> bool:
    """Whether a MirrorSourceConnector with these settings would copy a topic (Kafka's ``DefaultTopicFilter``)."""

    def matches(listed: str) -> bool:
        return any(_matches(one.strip(), topic) for one in listed.split(",") if one.strip())

    excluded = settings.get("topics.exclude", r"mm2.*\.internal,.*[\-\.]internal,.*\.replica,__.*")
    return matches(settings.get("topics", ".*")) and not matches(excluded)


def _matches(pattern: str, topic: str) -> bool:
    try:
        return re.fullmatch(pattern, topic) is not None
    except re.error:
        return False  # one of Java's own: it would have to be looked at by a person, and names most often stand there plainly
