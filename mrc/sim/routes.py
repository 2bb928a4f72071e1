"""A route in memory: what it leads to, who has changed it, and what goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from mrc.core.errors import MrcError
from mrc.core.inventory import Pointing
from mrc.core.model import Region


class FakeRoute:
    """The port `Route`.

    Attributes:
        leads_to: where it leads, a region or anything else; empty: nowhere.
        reachable: whether anybody answers.
        refuses: whether changes are refused.
        changes: where mrc has let it lead, in order.
        before_change: called right before a change is compared and carried out: what somebody else does meanwhile.
    """

    def __init__(self, regions: Iterable[Region], leads_to: str = "", name: str = "fake") -> None:
        self.name = name
        self._regions = frozenset(regions)
        self.leads_to = leads_to
        self.reachable = True
        self.refuses = False
        self.changes: list[Region] = []
        self.before_change: Callable[[], None] = lambda: None

    def read(self) -> Pointing:
        """See `Route.read`."""
        if not self.reachable:
            raise MrcError("ROUTE_UNREACHABLE", "no answer", where=self.name, retryable=True)
        ours = self.leads_to in self._regions
        return Pointing(
            region=self.leads_to if ours else "",
            foreign=bool(self.leads_to) and not ours,
            seen=(self.leads_to,) if self.leads_to else (),
        )

    def point(self, region: Region, seen: Pointing, told: Mapping[str, str]) -> None:
        """See `Route.point`."""
        self.before_change()
        if self.read().seen != seen.seen:
            raise MrcError("ROUTE_CHANGED", "it is not as it was", where=self.name, retryable=True)
        if self.refuses:
            raise MrcError("ROUTE_REFUSED", "not allowed", where=self.name)
        self.leads_to = region
        self.changes.append(region)
