"""The offset map in a compacted topic: chunks of runs and a head, so that only what changed is written again.

The head names how many runs there are and what is known besides; it is written after the chunks that it needs. A chunk that
is missing or garbled makes the map end before it: what is known is less then, never wrong.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, NamedTuple

import msgspec

from mrc.core.model import Written, decode, encode
from mrc.core.translation.offset_map import CHUNK_RUNS, Hole, OffsetMap, Resent, Run


class MapKey(Written, frozen=True, array_like=True):
    """Key of a record; ``chunk`` is -1 for the head. The topic by its name in the source."""

    topic: str
    partition: int
    chunk: int


class Anew(Written, frozen=True):
    """That a map was begun anew in place of another one, when, and why."""

    at_ms: int
    why: str


class Head(Written, frozen=True):
    """What is known of a partition besides its runs; see `OffsetMap`. Topic ids: of the source's and the target's topic.

    ``sight`` says how the logs were looked at; empty: written before it was kept.
    """

    source_topic_id: str
    target_topic_id: str
    runs: int
    begin_source: int
    begin_target: int
    resolved_source: int
    resolved_target: int
    tail_sure: bool
    resent: tuple[Resent, ...]
    anchors: tuple[tuple[int, int], ...]
    possible: tuple[tuple[int, int], ...] = ()
    strays: tuple[tuple[int, int], ...] = ()
    newest_ms: int = -1
    first: int = 0
    holes: tuple[Hole, ...] = ()
    unrecognised: int = 0
    own: int = 0
    passed: int = 0
    sight: str = ""
    anew: Anew | None = None
    version: Literal[1] = 1


def encode_map(
    topic: str,
    partition: int,
    known: OffsetMap,
    ids: tuple[str, str],
    *,
    first_before: int,
    sight: str = "",
    anew: Anew | None = None,
) -> list[tuple[bytes, bytes | None]]:
    """Return the records to append: the chunks that have changed, the head, and tombstones of chunks that were dropped.

    Args:
        first_before: number of the first run that was kept when the map was stored last.
    """
    records: list[tuple[bytes, bytes | None]] = []
    dropped = known.first // CHUNK_RUNS
    for chunk in range(known.changed_from // CHUNK_RUNS, (len(known) + CHUNK_RUNS - 1) // CHUNK_RUNS):
        begin = chunk * CHUNK_RUNS
        records.append((encode(MapKey(topic, partition, dropped + chunk)), encode(known.runs(begin, begin + CHUNK_RUNS))))
    head = Head(
        source_topic_id=ids[0],
        target_topic_id=ids[1],
        runs=len(known),
        begin_source=known.begin_source,
        begin_target=known.begin_target,
        resolved_source=known.resolved_source,
        resolved_target=known.resolved_target,
        tail_sure=known.tail_sure,
        resent=tuple(known.resent),
        anchors=known.anchors,
        possible=tuple(known.possible),
        strays=tuple(known.strays),
        newest_ms=known.newest_ms,
        first=known.first,
        holes=tuple(known.holes),
        unrecognised=known.unrecognised,
        own=known.own,
        passed=known.passed,
        sight=sight,
        anew=anew,
    )
    gone = [(encode(MapKey(topic, partition, chunk)), None) for chunk in range(first_before // CHUNK_RUNS, dropped)]
    return [*records, (encode(MapKey(topic, partition, -1)), encode(head)), *gone]


class Decoded(NamedTuple):
    """A map as stored; None when there is none, or none that can be used. ``wrong`` says what is wrong with it."""

    known: OffsetMap | None
    wrong: str = ""
    anew: Anew | None = None


def decode_map(entries: dict[bytes, bytes], topic: str, partition: int, ids: tuple[str, str], sight: str = "") -> Decoded:
    """Return the map as stored.

    An empty source id means that the source cannot be asked; the target's alone must agree then. A map of topics of the same
    names with other ids cannot be used, and none that was made by looking at the logs in another way.
    """
    raw = entries.get(encode(MapKey(topic, partition, -1)))
    if raw is None:
        return Decoded(None)
    try:
        head = decode(raw, Head)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        return Decoded(None, f"the head of the offset map cannot be read: {error}")
    if head.target_topic_id != ids[1]:
        return Decoded(None, "the target's topic was made anew since the offset map was stored")
    if ids[0] not in ("", head.source_topic_id):
        return Decoded(None, "the source's topic was made anew since the offset map was stored")
    if sight and head.sight and sight != head.sight:
        return Decoded(None, f"the logs were compared as {head.sight} so far, and are {sight} by now")
    known = OffsetMap(head.begin_source, head.begin_target, head.first)
    runs, wrong = _runs(entries, topic, partition, head)
    for run in runs:
        known.add(run)
    behind = runs[-1] if runs else Run(head.begin_source, head.begin_target, 0)
    if wrong:
        # What lies behind the missing chunk is compared again.
        known.resume_at(behind.source + behind.length, behind.target + behind.length)
    else:
        # A chunk may be newer than the head, where the writer was killed between the two: its last run is longer then.
        known.resume_at(max(head.resolved_source, behind.source + behind.length), max(head.resolved_target, behind.target + behind.length))
        known.tail_sure = head.tail_sure
    known.resent = list(head.resent)
    known.anchors = head.anchors
    known.possible, known.strays = list(head.possible), list(head.strays)
    known.newest_ms = head.newest_ms
    known.holes = list(head.holes)
    known.unrecognised = head.unrecognised
    known.own, known.passed = head.own, head.passed
    known.changed_from = len(known)
    return Decoded(known, wrong, head.anew)


def stored_isolation(entries: dict[bytes, bytes], topics: Collection[str]) -> str:
    """Return the isolation level with which the source was read for the stored maps of these topics; empty where none says."""
    for key, raw in entries.items():
        try:
            place = decode(key, MapKey)
            if place.chunk == -1 and place.topic in topics and (sight := decode(raw, Head).sight):
                return sight.partition(",")[0]
        except (msgspec.DecodeError, msgspec.ValidationError):
            continue
    return ""


def _runs(entries: dict[bytes, bytes], topic: str, partition: int, head: Head) -> tuple[list[Run], str]:
    runs: list[Run] = []
    count, dropped = head.runs, head.first // CHUNK_RUNS
    for chunk in range(dropped, dropped + (count + CHUNK_RUNS - 1) // CHUNK_RUNS):
        raw = entries.get(encode(MapKey(topic, partition, chunk)))
        try:
            found = decode(raw or b"", list[Run])
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            return runs, f"chunk {chunk} of the offset map cannot be read: {error}"
        full = chunk < dropped + (count - 1) // CHUNK_RUNS
        if full and len(found) != CHUNK_RUNS:
            # Two writers have torn it: what follows need not belong to what stands here.
            return runs, f"chunk {chunk} of the offset map has {len(found)} runs of {CHUNK_RUNS}"
        runs += found
    if len(runs) < count:
        return runs, f"the offset map has {len(runs)} runs of {count}"
    return runs[:count], ""
