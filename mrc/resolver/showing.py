"""Of which entities of a partition it is shown with a batch what stands, and of which later.

What became final is shown at once. With much to read, what is not final waits: most of it is final soon, and is shown once. Nothing is
put off for good: what waits is shown after a time, or when all of it is final.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from itertools import takewhile

from mrc.core.conflict.entity import Outcome
from mrc.core.conflict.partition import Stream
from mrc.core.conflict.taking import AHEAD, Pending
from mrc.core.model import Region


class Showing:
    """The entities of one partition that are to be shown.

    Attributes:
        shown: per region, what came before this place has been shown; durable.
    """

    def __init__(
        self,
        pending: Iterable[Pending],
        heard: Iterable[bytes],
        streams: Mapping[Region, Stream],
        shown: Mapping[Region, int],
        *,
        puts_off: bool,
    ) -> None:
        """Go on from what was written down.

        Args:
            pending: every event that is not final.
            heard: the entities about which decisions were heard whose turn has not come.
            streams: how far each region's stream has been read, now and whenever this is asked.
            shown: see there.
            puts_off: see there.
        """
        waiting = list(pending)
        self.shown = shown
        self._streams = streams
        # Entities of which something is not shown yet, with since when, earliest first: of `_news` an event that came, of `_put_off` one
        # that became final, or got another clock.
        self._news = {one.key: 0.0 for one in waiting if one.new and one.place >= shown.get(one.event.origin, 0)}
        self._put_off = dict.fromkeys([*(one.key for one in waiting), *heard] if puts_off else [], 0.0)
        self._came_now: dict[bytes, None] = {}
        self._came: deque[tuple[float, Mapping[Region, int]]] = deque([(0.0, self._arrived())])
        self._now_s = 0.0
        self._touched: dict[bytes, Outcome | None] = {}
        self._withdrawn: set[bytes] = set()

    @property
    def puts_off(self) -> bool:
        """Whether of some entities with pending events it is not shown what they have come to; durable."""
        return bool(self._put_off)

    def came(self, key: bytes) -> None:
        """Note an entity of which an event has come with this batch."""
        self._came_now[key] = None

    def begin(self, now_s: float) -> None:
        """Take up what has come; what is final by now is noted next. ``now_s``: of a clock that never goes back."""
        self._now_s = now_s
        self._withdrawn.clear()
        for key in self._came_now:
            self._news.setdefault(key, now_s)
        self._came_now = {}

    def touch(self, key: bytes, last: Outcome | None = None) -> None:
        """Note an entity of which something became final. ``last``: what stood after that; None: it must be worked out."""
        self._touched[key] = last

    def change(self, key: bytes) -> None:
        """Note an entity of which an event that is not final got another clock."""
        self._put_off.setdefault(key, self._now_s)

    def withdraw(self, key: bytes) -> None:
        """Note an entity that may have been shown with an event that comes to nothing: where nothing stands now, that is to be said."""
        self.touch(key)
        self._withdrawn.add(key)

    def is_withdrawn(self, key: bytes) -> bool:
        """Whether it was noted so with this batch."""
        return key in self._withdrawn

    def was_shown(self, one: Pending) -> bool:
        """Whether what stands may have been shown, in an earlier batch, with an event that comes to nothing now."""
        origin, why = one.event.origin, one.wrong
        arrived = self._came[-1][1] if self._came else self.shown
        readable = why is None or why.reason == AHEAD or one.place < self._streams[origin].anew
        return readable and one.place < arrived.get(origin, 0)

    def waits(self, key: bytes) -> bool:
        """Whether an entity has not been shown yet as it is."""
        return key in self._put_off or key in self._news

    def due(self, provisional_after_s: float, is_decided: Callable[[bytes], bool]) -> list[tuple[bytes, Outcome | None]]:
        """Return the entities that are to be shown now, each with what stood last, where that is known.

        Args:
            provisional_after_s: how long what is not final waits.
            is_decided: whether nothing that is known can change any more what an entity has come to.
        """
        self._came.append((self._now_s, self._arrived()))
        upto_s = self._now_s - provisional_after_s
        while self._came and self._came[0][0] <= upto_s:
            self.shown = self._came.popleft()[1]
        found: list[tuple[bytes, Outcome | None]] = []
        for key, last in self._touched.items():
            if provisional_after_s and key not in self._withdrawn and not is_decided(key):
                self._put_off.setdefault(key, self._now_s)
            else:
                found.append((key, last))
                self._show(key)
        self._touched = {}
        for late in (self._news, self._put_off):
            for key, _ in list(takewhile(lambda one: one[1] <= upto_s, late.items())):
                found.append((key, None))
                self._show(key)
        return found

    def _show(self, key: bytes) -> None:
        self._news.pop(key, None)
        self._put_off.pop(key, None)

    def _arrived(self) -> dict[Region, int]:
        return {region: stream.arrived for region, stream in self._streams.items()}
