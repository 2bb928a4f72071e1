"""Stamps events for conflict rules: who wrote them, where, and having seen what.

Owns the hybrid clock of one process. Invariant: a stamp's clock and number are later than those of every stamp made here before it and
of everything that its writer says to have seen.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Mapping

from mrc.core.conflict.events import Hlc
from mrc.core.conflict.headers import COUNTER_MAX, Headers, Stamp, headers, read_seen
from mrc.core.model import Region

DRIFT_MS_MAX = 60_000
"""A clock that is further ahead than this is not followed: it is somebody's mistake, and would be handed on from writer to writer."""

_COUNTER_BITS = 14


class Seen:
    """What a writer has seen of one entity: keep one beside the entity, and show it every record about the entity that is read."""

    def __init__(self) -> None:
        self.vector: dict[Region, int] = {}
        self.hlc = Hlc(0)

    def add(self, found: Headers | None) -> None:
        """Note a record's headers; of an event or, better, of what ``mrc.resolved.<topic>`` says of the entity.

        Raises:
            Unreadable: the stamp is spelt wrongly.
        """
        vector, hlc = read_seen(found or ())
        for region, number in vector.items():
            self.vector[region] = max(number, self.vector.get(region, 0))
        self.hlc = max(self.hlc, hlc)


class Stamper:
    """Makes the headers of the events that one process writes in one region. Safe for several threads.

    Numbers are made of the clock, so writers of one region need not ask one another; that their clocks are near one another does no
    harm: the resolver takes what comes too late for the order of its region's log.
    """

    def __init__(
        self,
        region: str,
        *,
        now_ms: Callable[[], int] = lambda: int(time.time() * 1000),
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        """Make a stamper.

        Args:
            region: in which this process writes.
            now_ms: the wall clock.
            new_id: gives an event its id where the application gives none.
        """
        self._region = Region(region)
        self._now_ms = now_ms
        self._new_id = new_id
        self._lock = threading.Lock()
        self._last = Hlc(0)

    def stamp(self, seen: Seen, id: str | None = None) -> list[tuple[str, bytes]]:
        """Return the headers of the next event about an entity, and note in ``seen`` that its writer knows it.

        Args:
            seen: what the writer has seen of the entity.
            id: the event's own, unique: 1 to 128 visible ASCII characters. An event that is sent again keeps its headers.
        """
        with self._lock:
            now_ms = self._now_ms()
            heard = seen.hlc if seen.hlc.wall_ms <= now_ms + DRIFT_MS_MAX else Hlc(0)
            after = max(self._last, heard)
            self._last = Hlc(now_ms) if Hlc(now_ms) > after else self._next(after)
            hlc = self._last
        number = max((hlc.wall_ms << _COUNTER_BITS) | hlc.counter, seen.vector.get(self._region, 0) + 1)
        vector: Mapping[Region, int] = {**seen.vector, self._region: number}
        made = headers(Stamp(self._region, id or self._new_id(), vector, hlc))
        seen.add(made)
        return made

    @staticmethod
    def _next(after: Hlc) -> Hlc:
        # The counter has room in the number; an overflow lends from the next millisecond.
        if after.counter + 1 < min(1 << _COUNTER_BITS, COUNTER_MAX):
            return Hlc(after.wall_ms, after.counter + 1)
        return Hlc(after.wall_ms + 1)
