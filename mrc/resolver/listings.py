"""One partition's events without headers: what was read of each region, what the marks list of it, and what the own marks list next."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from mrc.core.conflict.headers import Unreadable
from mrc.core.conflict.listing import FOLLOWED_MS_MAX, Claimed, Claims, Listed, Lister, Passed, event_id
from mrc.core.conflict.marks import Entry, Listing, Mark
from mrc.core.model import Offset, Region
from mrc.ports import Arrived, Shelf
from mrc.resolver.lately import Lately, prefix
from mrc.resolver.reading import check, fingerprint


class Read(NamedTuple):
    """A record that has been read, with its fingerprint."""

    record: Arrived
    fingerprint: int


Found = Claimed[Read] | Passed[Read]


class Said(NamedTuple):
    """What a mark is to say; see `Mark`."""

    offset: int
    last: str
    listing: Listing


class Listings:
    """All regions' listings in one partition.

    Args:
        regions: all.
        here: this one.
        partition: its number.
        states: what was written down of each.
        shelf: holds what was taken lately.
    """

    def __init__(self, regions: Collection[Region], here: Region, partition: int, states: Mapping[Region, Listed], shelf: Shelf) -> None:
        self._here = here
        self._partition = partition
        self._lately = {region: Lately(region, shelf.items(prefix(region))) for region in regions if region != here}
        self._claims = {
            region: Claims[Read](region, partition, states.get(region) or Listed(), self._lately.get(region)) for region in regions
        }
        self._lister = Lister(self._claims[here].heard)

    @property
    def states(self) -> dict[Region, Listed]:
        """What is to be written down of each region."""
        return {region: one.state for region, one in self._claims.items()}

    @property
    def unlisted(self) -> int:
        """How many records of other regions no mark has listed yet, or any more."""
        return sum(self._claims[region].unlisted for region in self._lately)

    def first_held(self, region: Region) -> Offset | None:
        """See `Claims.first_held`."""
        return self._claims[region].first_held

    def first_record(self, region: Region) -> Offset | None:
        """Where the first record stands that no listed event has claimed; it is read again after a crash."""
        first = self._claims[region].first_record
        return None if first is None else Offset(first.record.offset)

    def come(self, region: Region, record: Arrived) -> list[Found]:
        """Take the next record of a region's log, see `Claims.come`. Raises `Unreadable` where it is no event; no mark lists it then."""
        check(record)
        entry = Entry(record.offset, record.timestamp_ms, fingerprint(record))
        if region == self._here:
            self._lister.read(entry)
        return self._claims[region].come(entry, Read(record, entry.fingerprint))

    def hear(self, region: Region, at: Offset, mark: Mark) -> list[Found]:
        """Take what a region's next mark lists, see `Claims.hear`. Raises `Unreadable` where that is no listing."""
        if mark.listing is None:
            return []
        try:
            found = self._claims[region].hear(at, mark, mark.listing)
        except ValueError as error:
            raise Unreadable("bad-mark", str(error)) from None
        if region == self._here:
            self._lister.heard(self._claims[region].heard)
        return found

    def came_again(self, region: Region, one: Passed[Read]) -> bool:
        """Whether a record that was passed over is like one that was taken lately."""
        return region in self._lately and one.record.fingerprint in self._lately[region]

    def next(self, position: Offset, end: Offset, now_ms: int) -> list[Said]:
        """Return what this region's next marks say, at least one.

        Args:
            position: how far its own log has been read.
            end: of its own log, asked for behind all that was read.
            now_ms: the wall clock before what was read last.
        """
        others = {region: one for region, one in self._claims.items() if region != self._here and one.settled}
        known_ms = max((one.known_ms for one in others.values()), default=-1)
        self._lister.look(end, {region: one.settled for region, one in others.items()}, min(known_ms, now_ms + FOLLOWED_MS_MAX))
        said = self._lister.next(position, now_ms)
        return [Said(offset, event_id(self._here, self._partition, last), listing) for offset, last, listing in said]

    def writes(self) -> dict[bytes, bytes | None]:
        """Return what has changed of what was taken lately since the last call, by key."""
        return {key: value for one in self._lately.values() for key, value in one.writes().items()}
