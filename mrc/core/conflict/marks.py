"""Marks: what a region says about one partition of its own log, for all regions to obey.

Where events have no headers a mark also lists those that it seals, so that what is known of an event (its number, its clock, what its
writer can have seen) is the same in every region, whoever reads what first; see `mrc.core.conflict.listing`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from mrc.core.model import Int64, Region, Written

_ENTRY = struct.Struct(">QqQ")


class Entry(NamedTuple):
    """One listed event: where it stands, its record's timestamp, and a fingerprint of all that a copy keeps of it (64 bits)."""

    offset: int
    at_ms: int
    fingerprint: int


class Knew(Written, frozen=True):
    """What a region's log held of the others' events when its own end was ``offset``: what stands there or behind may have seen it.

    Attributes:
        offset: in the log that the mark speaks of.
        numbers: per other region, of the last of its listed events whose copy was there.
        clock_ms: not earlier than the clocks of these, but for clocks that are far ahead.
    """

    offset: Int64
    numbers: Mapping[Region, Int64]
    clock_ms: Int64


class Listing(Written, frozen=True):
    """The events that a mark lists.

    Attributes:
        after: everything below this offset was listed before; what stands from here to below the mark's own offset is listed here.
        read_ms: by this wall clock all of it had been read; what says to be later is taken for that.
        events: see `pack`.
        knew: in the order of their offsets; of an event the last one counts that is not behind it.
    """

    after: Int64
    read_ms: Int64
    events: bytes
    knew: tuple[Knew, ...] = ()


class Mark(Written, frozen=True, omit_defaults=True):
    """A region's word about one partition of its own log.

    Attributes:
        offset: in that log; the mark speaks of what stands below it.
        last: id of the last event below; empty: there is none.
        clock_ms: what stands behind ``last`` is later than this, or is made so.
        horizon_ms: what ``last`` and those before it say to be later than this is refused: some clock is far ahead.
        rules: the version of the rules that its writer has; decided by where all regions have the same.
        by: the version by which its writer decides as yet; for people.
        listing: the events that it seals; None: they have headers.
    """

    offset: Int64
    last: str
    clock_ms: Int64
    horizon_ms: Int64
    rules: str
    by: str = ""
    listing: Listing | None = None


def pack(entries: Iterable[Entry]) -> bytes:
    """Return entries, in the order of their offsets, as a mark has them: 24 bytes each."""
    return b"".join([_ENTRY.pack(*one) for one in entries])


def unpack(mark: Mark, listing: Listing) -> list[Entry]:
    """Return the entries of a mark. Raises ValueError where they are none, not in order, or not within what the mark speaks of."""
    try:
        found = [Entry(*one) for one in _ENTRY.iter_unpack(listing.events)]
    except struct.error as error:
        raise ValueError(f"what it lists is cut off: {error}") from None
    if listing.after > mark.offset:
        raise ValueError(f"it lists from {listing.after} on, and speaks of what is below {mark.offset}")
    below = listing.after - 1
    for one in found:
        if not below < one.offset < mark.offset:
            raise ValueError(f"it lists offset {one.offset} behind {below}, and speaks of {listing.after} to below {mark.offset}")
        below = one.offset
    return found
