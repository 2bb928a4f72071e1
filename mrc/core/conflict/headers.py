"""The headers by which an event says who wrote it, where, and having seen what; docs/conflicts.md has the format.

Every value has exactly one spelling, so whoever reads an event, in any language and region, reads the same. What is spelt otherwise
is refused: guessing would let two regions guess differently.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from mrc.core.conflict.events import Hlc
from mrc.core.model import Region, Value

VECTOR, CLOCK, ORIGIN, ID = "mrc-vv", "mrc-hlc", "mrc-origin", "mrc-event-id"
NAMES = (VECTOR, CLOCK, ORIGIN, ID)

REGIONS_MAX = 16
NUMBER_MAX = 2**63 - 1
WALL_MS_MAX = 2**48 - 1
COUNTER_MAX = 2**31 - 1

_REGION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", re.ASCII)
_ID = re.compile(r"[\x21-\x7e]{1,128}")
_VECTOR = re.compile("{0}(?:,{0})*".format(rf"{_REGION.pattern}=(?:0|[1-9][0-9]{{0,18}})"), re.ASCII)
_READING = re.compile(r"(0|[1-9][0-9]{0,18})\.(0|[1-9][0-9]{0,18})", re.ASCII)
_BYTES_MAX = 2048

Headers = Iterable[tuple[str, bytes | None]]


class Unreadable(Exception):
    """A record is no event that can be resolved.

    Attributes:
        reason: a stable kebab-case word.
        detail: a sentence for people.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Stamp(Value, frozen=True, gc=False):
    """What the headers say.

    Attributes:
        origin: the region in which the event was written.
        id: the event's own, unique.
        vector: what its writer had seen of every region about this entity: the number of the last event; under ``origin`` the event's
            own number. A region that is missing: nothing.
        hlc: later than those of all events that the writer had seen.
    """

    origin: Region
    id: str
    vector: Mapping[Region, int]
    hlc: Hlc

    @property
    def number(self) -> int:
        """The event's place among its region's events about the entity."""
        return self.vector[self.origin]

    @property
    def seen(self) -> dict[Region, int]:
        """What its writer had seen of the other regions."""
        seen = dict(self.vector)
        del seen[self.origin]
        return seen


def vector_text(vector: Mapping[Region, int]) -> bytes:
    """Return a vector as its header has it: ``east=3,west=17``, by name of the region."""
    return ",".join([f"{region}={vector[region]}" for region in sorted(vector)]).encode()


def clock_text(hlc: Hlc) -> bytes:
    """Return a clock as its header has it: ``1700000000000.0``.

    A late event's clock has its number for a counter, which may be more than the header holds; then the next millisecond is written:
    whoever reads it stamps later than that.
    """
    return (f"{hlc.wall_ms}.{hlc.counter}" if hlc.counter <= COUNTER_MAX else f"{hlc.wall_ms + 1}.0").encode()


def headers(stamp: Stamp) -> list[tuple[str, bytes]]:
    """Return the headers of a stamp, in the order of `NAMES`."""
    return [
        (VECTOR, vector_text(stamp.vector)),
        (CLOCK, clock_text(stamp.hlc)),
        (ORIGIN, stamp.origin.encode()),
        (ID, stamp.id.encode()),
    ]


def read_stamp(found: Headers) -> Stamp:
    """Return what the headers of a record say; headers of other names are nobody's business here.

    Raises:
        Unreadable: ``no-stamp`` where one is missing, ``bad-stamp`` where one is there twice or spelt otherwise.
    """
    values = _values(found)
    if len(values) < len(NAMES):
        raise Unreadable("no-stamp", f"there is no header {', '.join(name for name in NAMES if name not in values)}")
    origin, id = Region(values[ORIGIN]), values[ID]
    if not _REGION.fullmatch(origin):
        raise Unreadable("bad-stamp", f"{ORIGIN} is no region's name: {origin[:80]!r}")
    if not _ID.fullmatch(id):
        raise Unreadable("bad-stamp", f"{ID} is not 1 to 128 visible ASCII characters: {id[:80]!r}")
    vector = _vector(values[VECTOR])
    if not vector.get(origin):
        raise Unreadable("bad-stamp", f"{VECTOR} has no number above 0 for {origin}, the event's own region: {values[VECTOR][:80]!r}")
    return Stamp(origin, id, vector, _clock(values[CLOCK]))


def read_seen(found: Headers) -> tuple[dict[Region, int], Hlc]:
    """Return what whoever has read this record, an event or a resolved one, has seen of its entity; nothing of a record without stamp.

    Raises:
        Unreadable: ``bad-stamp``.
    """
    values = _values(found)
    if VECTOR not in values or CLOCK not in values:
        return {}, Hlc(0)
    return _vector(values[VECTOR]), _clock(values[CLOCK])


def _values(found: Headers) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, value in found:
        if name in NAMES:
            if name in values:
                raise Unreadable("bad-stamp", f"header {name} is there twice")
            if value is None or len(value) > _BYTES_MAX or not value.isascii():
                raise Unreadable("bad-stamp", f"header {name} is empty, longer than {_BYTES_MAX} bytes or not ASCII")
            values[name] = value.decode()
    return values


def _vector(text: str) -> dict[Region, int]:
    vector: dict[Any, int] = {}
    parts = text.split(",") if _VECTOR.fullmatch(text) else []
    last = ""
    for part in parts:
        region, _, number = part.partition("=")
        if region > last:
            vector[region] = int(number)
            last = region
    if not parts or len(vector) < len(parts) or max(vector.values()) > NUMBER_MAX:
        raise Unreadable("bad-stamp", f"{VECTOR} is not REGION=NUMBER,... in the order of the names: {text[:80]!r}")
    if len(vector) > REGIONS_MAX:
        raise Unreadable("bad-stamp", f"{VECTOR} names more than {REGIONS_MAX} regions")
    return vector


def _clock(text: str) -> Hlc:
    found = _READING.fullmatch(text)
    wall_ms, counter = (int(found[1]), int(found[2])) if found is not None else (-1, 0)
    if not 0 <= wall_ms <= WALL_MS_MAX or counter > COUNTER_MAX:
        raise Unreadable("bad-stamp", f"{CLOCK} is not MILLISECONDS.COUNTER: {text[:80]!r}")
    return Hlc(wall_ms, counter)
