"""Judges translations by the events themselves. Imports nothing of mrc: it knows records by the ids that they carry.

A translation is *skipping* when a group that goes on at the answer never meets an event that it has not read and still could
have read, though a copy of it stands in the other log. It *repeats* what stands at or after the answer and was read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Event(NamedTuple):
    """A visible record: its offset, the id that it carries, its timestamp."""

    offset: int
    id: str
    timestamp_ms: int = 0


class Log(NamedTuple):
    """One partition: where it begins, where it ends for its readers, and its visible records in offset order."""

    start: int
    end: int
    events: tuple[Event, ...]


class Cost(NamedTuple):
    """What a group would meet that goes on at an answer.

    Attributes:
        skipped: ids of unread events that it never meets.
        repeated: how many records it meets that it has read.
        beyond: whether the answer lies behind the other log's end.
    """

    skipped: tuple[str, ...]
    repeated: int
    beyond: bool


def numbered(log: Log) -> Log:
    """Return the log with ids that tell records with the same id apart by their order, for topics whose records are all the same.

    Right only where both logs were read from their first record on and nothing was copied twice.
    """
    seen: Counter[str] = Counter()
    events = []
    for event in log.events:
        events.append(event._replace(id=f"{event.id} #{seen[event.id]}"))
        seen[event.id] += 1
    return log._replace(events=tuple(events))


class Judge:
    """Knows both logs of one partition.

    Args:
        source, target: as they are read in the end.
        stood: offsets in the source of every event that was ever seen there.
        headless: events of `stood` that were deleted from the source's head: a group that had not read them can do so in the target only.
    """

    def __init__(self, source: Log, target: Log, stood: Mapping[str, int], headless: Iterable[str] = ()) -> None:
        self._source = source
        self._target = target
        self._stood = {**stood, **{event.id: event.offset for event in source.events}}
        self._readable = {event.id for event in source.events} | set(headless)
        self._first: dict[str, int] = {}
        self._last: dict[str, int] = {}
        for event in target.events:
            self._first.setdefault(event.id, event.offset)
            self._last[event.id] = event.offset

    def to_target(self, committed: int, answer: int) -> Cost:
        """Judge ``answer``, an offset of the target, for a group that had read the source up to ``committed``."""
        unread = (id for id in self._readable if self._stood[id] >= committed)
        skipped = tuple(sorted(id for id in unread if self._last.get(id, answer) < answer))
        repeated = sum(1 for event in self._target.events if event.offset >= answer and self._stood.get(event.id, committed) < committed)
        return Cost(skipped, repeated, answer > self._target.end)

    def to_source(self, committed: int, answer: int) -> Cost:
        """Judge ``answer``, an offset of the source, for a group that had read the target up to ``committed``.

        Of an event that was copied more than once the group has read the first copy it came to.
        """
        unread = {id for id, first in self._first.items() if first >= committed}
        read = self._first.keys() - unread
        skipped = tuple(sorted(event.id for event in self._source.events if event.id in unread and event.offset < answer))
        repeated = sum(1 for event in self._source.events if event.offset >= answer and event.id in read)
        return Cost(skipped, repeated, answer > self._source.end)
