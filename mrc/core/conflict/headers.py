"""The headers by which an event says who wrote it, where, and having seen what; docs/conflicts.md has the format.

Every value has exactly one spelling, so whoever reads an event, in any language and region, reads the same. What is spelt otherwise
is refused: guessing would let two regions guess differently.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from mrc.core.conflict.events import Hlc
from mrc.core.model import Region, Value

VECTOR, CLOCK, ORIGIN, ID = "mrc-vv", "mrc-hlc", "mrc-origin", "mrc-event-id"
NAMES = (VECTOR, CLOCK, ORIGIN, ID)
_NAMES = frozenset(NAMES)

REGIONS_MAX = 16
NUMBER_MAX = 2**63 - 1
WALL_MS_MAX = 2**48 - 1
COUNTER_MAX = 2**31 - 1

_REGION = re.compile(rb"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_PART = re.compile(rb"([^=,]*)=(0|[1-9][0-9]{0,18})")
_READING = re.compile(rb"(0|[1-9][0-9]{0,18})\.(0|[1-9][0-9]{0,18})")
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
    id = values[ID]
    origin = _region(values[ORIGIN])
    if origin is None:
        raise Unreadable("bad-stamp", f"{ORIGIN} is no region's name: {_shown(values[ORIGIN])}")
    if not _ID.fullmatch(id):
        raise Unreadable("bad-stamp", f"{ID} is not 1 to 128 visible ASCII characters: {_shown(id)}")
    vector = _vector(values[VECTOR])
    if not vector.get(origin):
        raise Unreadable("bad-stamp", f"{VECTOR} has no number above 0 for {origin}, the event's own region: {_shown(values[VECTOR])}")
    return Stamp(origin, id.decode(), vector, _clock(values[CLOCK]))


def read_seen(found: Headers) -> tuple[dict[Region, int], Hlc]:
    """Return what whoever has read this record, an event or a resolved one, has seen of its entity; nothing of a record without stamp.

    Raises:
        Unreadable: ``bad-stamp``.
    """
    values = _values(found)
    if VECTOR not in values or CLOCK not in values:
        return {}, Hlc(0)
    return _vector(values[VECTOR]), _clock(values[CLOCK])


def _values(found: Headers) -> dict[str, bytes]:
    values: dict[str, bytes] = {}
    for name, value in found:
        if name in _NAMES:
            if name in values:
                raise Unreadable("bad-stamp", f"header {name} is there twice")
            if value is None or len(value) > _BYTES_MAX or not value.isascii():
                raise Unreadable("bad-stamp", f"header {name} is empty, longer than {_BYTES_MAX} bytes or not ASCII")
            values[name] = value
    return values


@lru_cache(maxsize=64)
def _region(name: bytes) -> Region | None:
    """Return the region of this name; None where it is none."""
    return Region(name.decode()) if _REGION.fullmatch(name) else None


def _vector(text: bytes) -> dict[Region, int]:
    vector: dict[Region, int] = {}
    last = ""
    for part in text.split(b","):
        said = _PART.fullmatch(part)
        region = _region(said[1]) if said is not None else None
        if said is None or region is None or region <= last or (number := int(said[2])) > NUMBER_MAX:
            raise Unreadable("bad-stamp", f"{VECTOR} is not REGION=NUMBER,... in the order of the names: {_shown(text)}")
        vector[region] = number
        last = region
    if len(vector) > REGIONS_MAX:
        raise Unreadable("bad-stamp", f"{VECTOR} names more than {REGIONS_MAX} regions")
    return vector


def _clock(text: bytes) -> Hlc:
    found = _READING.fullmatch(text)
    wall_ms, counter = (int(found[1]), int(found[2])) if found is not None else (-1, 0)
    if not 0 <= wall_ms <= WALL_MS_MAX or counter > COUNTER_MAX:
        raise Unreadable("bad-stamp", f"{CLOCK} is not MILLISECONDS.COUNTER: {_shown(text)}")
    return Hlc(wall_ms, counter)


def _shown(value: bytes) -> str:
    return repr(value[:80].decode())
