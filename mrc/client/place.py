"""Where a client belongs: the opening of a region, and what a record says about it."""

from __future__ import annotations

from typing import Protocol

from mrc.core.model import ActiveRecord, Epoch, Region, Value


class Place(Value, frozen=True):
    """One opening of one region. Client instances live exactly as long as their place stays open."""

    region: Region
    epoch: Epoch


class Sighting(Value, frozen=True):
    """What is known of the active-region record.

    Attributes:
        record: the last one that was read; None where there was none yet.
        number: grows with every record that differs from the one before; 0 before the first.
        confirmed_at_ms: wall-clock time of the last reading; None before the first.
        failing_since_ms: wall-clock time since which readings fail; None while they succeed.
        trouble: why they fail; empty while they succeed.
    """

    record: ActiveRecord | None = None
    number: int = 0
    confirmed_at_ms: int | None = None
    failing_since_ms: int | None = None
    trouble: str = ""

    @property
    def open_place(self) -> Place | None:
        """The place where applications may read and write now; None while there is none."""
        if self.record is None or self.record.state != "open":
            return None
        return Place(self.record.region, self.record.epoch)

    @property
    def coming(self) -> Place | None:
        """The region that opens next, where the record says so; the epoch is still the last opening's."""
        if self.record is None or self.record.state != "closed":
            return None
        return Place(self.record.region, self.record.epoch)


class Follows(Protocol):
    """Whatever knows the active region: `mrc.client.ActiveRegion`, or a test's own."""

    def now(self) -> Sighting:
        """Return what is known now, without waiting."""
