"""Events that are not final, as they are written down: those of one region that came in one batch share a record, a *page*.

A page goes when the last of its events is final. Until then it may hold events that are final already; which these are is told by how far
everything was final when the state was written. So an event costs its share of two records instead of two records.
"""

from __future__ import annotations

import struct
from bisect import bisect_right, insort
from collections.abc import Callable, Iterable, Iterator

import msgspec

from mrc.core.conflict.taking import Pending
from mrc.core.model import Region

PENDING = b"p"
"""What keys of pages begin with."""

EVENTS_MAX = 500
BYTES_MAX = 1 << 20
"""Of one page; values and headers count, for whatever else an event has was read in them or is bounded."""

_encode = msgspec.msgpack.Encoder().encode
decode_page = msgspec.msgpack.Decoder(list[Pending]).decode


class Pages:
    """What is pending in one partition, and the records that say so."""

    def __init__(self, written: Iterable[tuple[bytes, bytes]], is_final: Callable[[Pending], bool]) -> None:
        """Take up what was written down, by key. ``is_final``: whether an event has become final since its page was written."""
        self._pages: dict[Region, dict[int, dict[int, Pending]]] = {}
        """By origin and the page's first place; a page by the places of the events that are pending."""
        self._firsts: dict[Region, list[int]] = {}
        self._arrived: dict[Region, dict[int, Pending]] = {}
        self._changed: dict[tuple[Region, int], None] = {}
        for key, value in written:
            self._bind(*_address(key), [one for one in decode_page(value) if not is_final(one)])

    def __iter__(self) -> Iterator[Pending]:
        """Yield every event that is pending and written down."""
        for pages in self._pages.values():
            for page in pages.values():
                yield from page.values()

    def add(self, one: Pending) -> None:
        """Take an event that has come."""
        self._arrived.setdefault(one.event.origin, {})[one.place] = one

    def drop(self, one: Pending) -> None:
        """Take out an event that is final."""
        if (first := self._taken_out(one)) is not None and not self._pages[one.event.origin][first]:
            self._changed[one.event.origin, first] = None

    def change(self, one: Pending) -> None:
        """Note that an event has another clock now."""
        if one.place not in self._arrived.get(one.event.origin, ()):
            self._changed[one.event.origin, self._first(one)] = None

    def writes(self) -> dict[bytes, bytes | None]:
        """Return what has changed since the last call, by key; None: the key goes."""
        found: dict[bytes, bytes | None] = {}
        for origin, first in self._changed:
            page = self._pages[origin][first]
            found[_key(origin, first)] = _encode(list(page.values())) if page else None
            if not page:
                del self._pages[origin][first]
                self._firsts[origin].remove(first)
        for origin, arrived in self._arrived.items():
            for fresh in _cut(arrived.values()):
                self._bind(origin, fresh[0].place, fresh)
                found[_key(origin, fresh[0].place)] = _encode(fresh)
        self._changed, self._arrived = {}, {}
        return found

    def _bind(self, origin: Region, first: int, page: Iterable[Pending]) -> None:
        self._pages.setdefault(origin, {})[first] = {one.place: one for one in page}
        insort(self._firsts.setdefault(origin, []), first)

    def _taken_out(self, one: Pending) -> int | None:
        """Take an event out of its page and return the page's first place; None: it came with this batch, and is written nowhere."""
        origin, place = one.event.origin, one.place
        arrived = self._arrived.get(origin)
        if arrived is not None and arrived.pop(place, None) is not None:
            return None
        first = self._first(one)
        del self._pages[origin][first][place]
        return first

    def _first(self, one: Pending) -> int:
        firsts = self._firsts[one.event.origin]
        return firsts[bisect_right(firsts, one.place) - 1]


def _cut(events: Iterable[Pending]) -> Iterator[list[Pending]]:
    """Cut events into pages."""
    page: list[Pending] = []
    size = 0
    for one in events:
        added = len(one.body or b"") + sum(len(name) + len(value or b"") for name, value in one.headers)
        if page and (len(page) == EVENTS_MAX or size + added > BYTES_MAX):
            yield page
            page, size = [], 0
        page.append(one)
        size += added
    if page:
        yield page


def _key(origin: Region, first: int) -> bytes:
    return PENDING + origin.encode() + b"\0" + struct.pack(">q", first)


def _address(key: bytes) -> tuple[Region, int]:
    origin, first = key[len(PENDING) : -9], key[-8:]
    return Region(origin.decode()), struct.unpack(">q", first)[0]
