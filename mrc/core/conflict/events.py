"""Events about entities, and the order in which every region takes them.

Invariant: `order` depends on nothing but the events, and never puts an event before one that it has seen. So whoever has the same
events takes them in the same order, whatever order they arrived in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mrc.core.model import Region, Value

Json = Any
"""What JSON can say: None, bool, int, float, str, list, dict."""


class Hlc(Value, frozen=True, order=True, gc=False):
    """A hybrid logical clock's reading (Kulkarni and others, 2014): later than everything its event has seen, near the wall clock."""

    wall_ms: int
    counter: int = 0

    def __str__(self) -> str:
        return f"{self.wall_ms}.{self.counter}"


class EntityEvent(Value, frozen=True, array_like=True, gc=False):
    """One event about one entity.

    Attributes:
        entity: the kind of entity and its key, such as ``order/17``.
        id: of the event, the same in both regions; unique.
        origin: the region in which it was written.
        number: its place among its region's events about this entity: greater than those of all before it.
        seen: per other region, the number of the last event of that region which its writer had seen; a region that is missing: none.
        hlc: later than those of all events that its writer had seen.
        type: the event's type, such as ``Shipped``.
        fields: what the rules may look at.
        deleted: it deletes the entity (a tombstone).
    """

    entity: str
    id: str
    origin: Region
    number: int
    seen: Mapping[Region, int]
    hlc: Hlc
    type: str = ""
    fields: Mapping[str, Json] = {}
    deleted: bool = False


class Ranks(Value, frozen=True):
    """The regions in the order in which ties end: an earlier one wins. The same list in every region."""

    regions: tuple[Region, ...]

    def of(self, region: Region) -> int:
        """Return a number that is greater for a region that wins ties; a region that is not named loses to all that are."""
        return len(self.regions) - self.regions.index(region) if region in self.regions else 0


def order(event: EntityEvent, ranks: Ranks) -> tuple[Hlc, int, str]:
    """Return the key by which events are taken, and by which every tie ends: hybrid clock, rank of the region, id."""
    return (event.hlc, ranks.of(event.origin), event.id)
