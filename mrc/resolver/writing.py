"""What the resolver writes: what stands, conflicts, compensations and dead letters, as records.

Invariant: of equal decisions the records are equal in every region, ids included; only compensations are written in one region alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from mrc.core.conflict.entity import Candidate, Conflict, Decision, HowClosed
from mrc.core.conflict.events import EntityEvent, Json
from mrc.core.conflict.headers import CLOCK, ID, ORIGIN, VECTOR, Stamp, clock_text, headers, vector_text
from mrc.core.conflict.partition import Standing
from mrc.core.conflict.taking import Pending, Wrong
from mrc.core.model import Int64, Region, Value, encode
from mrc.ports import Arrived, Outgoing
from mrc.resolver.kinds import Kind, Topics

FINAL, CONFLICT, FIELDS, DECISION = "mrc-final", "mrc-conflict", "mrc-fields", "mrc-decision"
REASON, DETAIL, SOURCE, LEFT_OUT = "mrc-reason", "mrc-detail", "mrc-source", "mrc-left-out"

LETTER_BYTES_MAX = 1 << 20
"""A dead letter with more is written without its value: it is still where it came from."""

_HEADERS_BYTES_MAX = 64 * 1024


class CandidateRecord(Value, frozen=True):
    """One side of a conflict as it is written, see `mrc.core.conflict.entity.Candidate`; ``hlc`` is ``MILLISECONDS.COUNTER``."""

    id: str
    origin: Region
    number: Int64
    hlc: str
    type: str
    deleted: bool
    value: Json
    competes_as: str
    types: tuple[str, ...]
    unseen_since: Int64
    seen: Mapping[Region, Int64]
    fields: Mapping[str, Json]

    @property
    def at_ms(self) -> int:
        """Milliseconds of its clock."""
        return int(self.hlc.partition(".")[0])


class DecisionRecord(Value, frozen=True):
    """A person's decision as it is written with its conflict, see `mrc.core.conflict.entity.Decision`."""

    id: str
    region: Region
    actor: str
    reason: str
    at_ms: Int64


class ConflictRecord(Value, frozen=True):
    """A final conflict as it is written; byte for byte the same in every region.

    Attributes:
        key: the entity's record key.
        winner: id of the event that stands.
        open: a person is asked; the winner is provisional.
        until_ms: the clock up to which a person's decision counts; 0: nobody is or was asked.
        closed: how the question ended, see `mrc.core.conflict.entity.HowClosed`.
        decision: of the person.
    """

    id: str
    entity: str
    key: str
    topic: str
    type: str
    rule: str
    rules_hash: str
    steps: tuple[str, ...]
    winner: str
    open: bool
    candidates: tuple[CandidateRecord, ...]
    until_ms: Int64 = 0
    closed: HowClosed = ""
    decision: DecisionRecord | None = None
    version: Literal[1] = 1

    @property
    def at_ms(self) -> int:
        """When it arose: the clock of the latest event in it."""
        return max(one.at_ms for one in self.candidates)

    @property
    def outcome(self) -> str:
        """The region whose event stands, ``open``, or ``superseded``."""
        if self.open:
            return "open"
        return "superseded" if self.closed == "superseded" else next(one.origin for one in self.candidates if one.id == self.winner)


def resolved(kind: Kind, topics: Topics, partition: int, key: bytes, standing: Standing) -> Outgoing:
    """Return what stands for an entity now: the winner's value, with the fields that the rules of ``kind`` merged in their places."""
    made: list[tuple[str, bytes | None]] = [
        (VECTOR, vector_text(standing.vector)),
        (CLOCK, clock_text(standing.hlc)),
        (ORIGIN, standing.winner.origin.encode()),
        (ID, standing.winner.id.encode()),
        (FINAL, b"true" if standing.final else b"false"),
    ]
    if standing.conflict:
        made.append((CONFLICT, standing.conflict.encode()))
    if standing.decision:
        made.append((DECISION, standing.decision.encode()))
    body = standing.body
    if standing.fields:
        made.append((FIELDS, encode(standing.fields)))
        body = _merged(kind, body, standing.fields)
    return Outgoing(topics.resolved, partition, key, body, made)


def nothing_stands(topics: Topics, partition: int, key: bytes) -> Outgoing:
    """Return a tombstone in place of what was shown for an entity of which every event was refused."""
    return Outgoing(topics.resolved, partition, key, None, [(FINAL, b"true")])


def conflict_record(topics: Topics, partition: int, key: bytes, conflict: Conflict, bodies: Mapping[str, bytes | None]) -> Outgoing:
    """Return a final conflict, with everything that was decided and the values of all who took part."""
    said = conflict.decision
    told = ConflictRecord(
        id=conflict.id,
        entity=conflict.entity,
        key=key.decode(),
        topic=topics.topic,
        type=conflict.type,
        rule=conflict.rule,
        rules_hash=conflict.rules_hash,
        steps=conflict.steps,
        winner=conflict.winner,
        open=conflict.open,
        candidates=tuple(_candidate(one, bodies) for one in conflict.candidates),
        until_ms=conflict.until_ms if conflict.ttl_s else 0,
        closed=conflict.closed,
        decision=None if said is None else DecisionRecord(said.id, said.region, said.actor, said.reason, said.at_ms),
    )
    return Outgoing(topics.conflicts, partition, conflict.id.encode(), encode(told))


def compensations(
    topics: Topics, partition: int, key: bytes, conflict: Conflict, asks: Sequence[str], bodies: Mapping[str, bytes | None]
) -> Iterator[Outgoing]:
    """Yield what those of the losing events that ask (by their ids) and are of this region ask for; each region does for its own."""
    for event in conflict.losers:
        if event.id not in asks or event.origin != topics.here:
            continue
        id = hashlib.sha256(f"{conflict.id}\0{event.id}".encode()).hexdigest()[:20]
        told = {
            "version": 1,
            "id": id,
            "template": conflict.on_loss,
            "conflict": conflict.id,
            "entity": conflict.entity,
            "key": key.decode(),
            "lost": _event(event, bodies),
            "winner": conflict.winner,
        }
        yield Outgoing(topics.compensations, partition, key, encode(told), [(ID, id.encode())])


def dead_letter(topics: Topics, record: Arrived, reason: str, detail: str) -> Outgoing:
    """Return a record that cannot be resolved, as it came, with the reason and where it stands."""
    made: list[tuple[str, bytes | None]] = [
        (REASON, reason.encode()),
        (DETAIL, detail.encode(errors="replace")),
        (SOURCE, f"{record.topic}-{record.partition}@{record.offset}".encode()),
    ]
    key, value, own = record.key, record.value, list(record.headers)
    left_out = []
    if sum(len(name) + len(one or b"") for name, one in own) > _HEADERS_BYTES_MAX:
        own = []
        left_out.append("headers")
    if key is not None and len(key) > LETTER_BYTES_MAX:
        key = None
        left_out.append("key")
    if value is not None and len(value) > LETTER_BYTES_MAX:
        value = None
        left_out.append(f"value of {len(record.value or b'')} bytes")
    if left_out:
        made.append((LEFT_OUT, ", ".join(left_out).encode()))
    return Outgoing(topics.dead_letters, record.partition, key, value, [*own, *made])


def dead_decision(topics: Topics, partition: int, decision: Decision, why: Wrong) -> Outgoing:
    """Return a decision that comes to nothing as a dead letter, under its own id."""
    made: list[tuple[str, bytes | None]] = [(ID, decision.id.encode()), (REASON, why.reason.encode()), (DETAIL, why.detail.encode())]
    return Outgoing(topics.dead_letters, partition, decision.key.encode(), encode(decision), made)


def dead_event(topics: Topics, partition: int, one: Pending, why: Wrong, *, stamped: bool) -> Outgoing:
    """Return an event that was read and does not count, as a dead letter. ``stamped``: its stamp was in its headers."""
    event = one.event
    stamp = headers(Stamp(event.origin, event.id, {**event.seen, event.origin: event.number}, event.hlc)) if stamped else []
    record = Arrived(topics.events[event.origin], partition, one.offset, one.key, one.body, (*stamp, *one.headers))
    return dead_letter(topics, record, why.reason, why.detail)


def _candidate(one: Candidate, bodies: Mapping[str, bytes | None]) -> CandidateRecord:
    return CandidateRecord(
        **_event(one.event, bodies),
        competes_as=one.type,
        types=one.types,
        unseen_since=one.unseen_since,
        seen=one.seen,
        fields={name: write.value for name, write in one.fields.items()},
    )


def _event(event: EntityEvent, bodies: Mapping[str, bytes | None]) -> dict[str, Any]:
    body = bodies[event.id]
    return {
        "id": event.id,
        "origin": event.origin,
        "number": event.number,
        "hlc": str(event.hlc),
        "type": event.type,
        "deleted": event.deleted,
        "value": None if body is None else msgspec.Raw(body),
    }


def _merged(kind: Kind, body: bytes | None, fields: Mapping[str, Json]) -> bytes | None:
    """Set merged fields where the rules read them; what is not in the JSON, or does not fit there, is in the header alone."""
    if body is None:
        return None
    data: Any = msgspec.json.decode(body)
    for name, value in fields.items():
        at = kind.fields.get(name)
        if at is not None and at.kind == "json":
            _set(data, at.path, value)
    try:
        return encode(data)
    except (RecursionError, OverflowError):
        return body


def _set(data: dict[str, Any], path: tuple[str, ...], value: Json) -> None:
    for name in path[:-1]:
        inner = data.setdefault(name, {})
        if not isinstance(inner, dict):
            return
        data = inner
    data[path[-1]] = value


def region_of(topics: Mapping[Region, str], topic: str) -> Region | None:
    """Return whose topic this is; None: nobody's."""
    return next((region for region, name in topics.items() if name == topic), None)
