"""Observation: one look at one region at a time, kept as an immutable snapshot with its age.

Nothing waits on a dead cluster: the first call that fails answers for all readings of that cluster, and a region that was
unreachable a moment ago is not asked again on somebody's request, only by the observer's own round.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TypeVar

from mrc.agent.estate import Estate
from mrc.core.errors import MrcError
from mrc.core.inventory import Binding, GroupInfo, Inventory, Pointing, RegionInventory
from mrc.core.model import ActiveRecord, GroupId, Known, Reading, Region, Unknown

T = TypeVar("T")


class Observer:
    """Looks at the regions of one replication group. `refresh` is called by one thread per region."""

    def __init__(self, estate: Estate) -> None:
        self._estate = estate
        self._lock = threading.Lock()
        unseen = Unknown("not-looked-yet", "the agent has just started", estate.clock.now_ms())
        self._regions: dict[Region, RegionInventory] = {
            region: RegionInventory(region, unseen, unseen, unseen, unseen, unseen, unseen, unseen, unseen)
            for region in estate.unit.regions
        }
        self._routes: dict[str, Reading[Pointing]] = {}

    def region(self, region: Region) -> RegionInventory:
        """Return the last look at a region."""
        with self._lock:
            return self._regions[region]

    def inventory(self) -> Inventory:
        """Return the last looks at all regions, with the record as it is now.

        Raises:
            MrcError: ``ZOOKEEPER_UNREACHABLE``, ``GARBLED_RECORD``.
        """
        found = self._estate.store.record()
        current, _ = self._estate.store.current()
        with self._lock:
            regions: Mapping[Region, RegionInventory] = dict(self._regions)
            routes = dict(self._routes)
        held = self._held(found[0], regions) if found else ""
        return Inventory(self._estate.unit, self._estate.clock.now_ms(), found[0] if found else None, regions, current, routes, held)

    def _held(self, record: ActiveRecord, regions: Mapping[Region, RegionInventory]) -> str:
        """Return by which execution the flow out of the open region stands still; asked only where it does not run."""
        flow = self._estate.inbound(self._estate.unit.other(record.region))
        inbound = regions[flow.target].inbound
        if not isinstance(inbound, Known) or inbound.value.tasks:
            return ""
        found = self._estate.store.flow_start(flow)
        return found[0].execution if found is not None and found[0].held else ""

    def observe(self) -> Inventory:
        """Look anew at every region and route that answered last time, then return `inventory`."""
        for region in self._estate.unit.regions:
            seen = self.region(region)
            if isinstance(seen.kafka, Known) or seen.kafka.reason == "not-looked-yet":
                self.refresh(region)
        self.refresh_routes(silent_too=False)
        return self.inventory()

    def refresh_routes(self, *, silent_too: bool = True) -> None:
        """Look where the routes lead, and keep it; ``silent_too``: also at those that did not answer last time."""
        unseen = Unknown("not-looked-yet", "the agent has just started", self._estate.clock.now_ms())
        for route in self._estate.routes:
            with self._lock:
                before = self._routes.get(route.name, unseen)
            if silent_too or isinstance(before, Known) or before.reason == "not-looked-yet":
                looked = self._read(route.read, before)
                with self._lock:
                    self._routes[route.name] = looked

    def refresh(self, region: Region, *, groups_age_max_s: float = 0.0) -> RegionInventory:
        """Look at a region, keep and return what was seen.

        Args:
            region: which one.
            groups_age_max_s: its groups are asked for again when they were last told longer ago; of all readings they cost most.
        """
        before = self.region(region)
        looked = self._look(region, before, groups_age_max_s)
        with self._lock:
            self._regions[region] = looked
        return looked

    def _look(self, region: Region, before: RegionInventory, groups_age_max_s: float) -> RegionInventory:
        estate, cluster = self._estate, self._estate.clusters[region]
        topics = self._read(lambda: cluster.topics(estate.unit.read_in(region)), before.topics)
        kafka = self._answered(topics, before.kafka)
        bindings: Reading[frozenset[Binding]]
        broker: Reading[Mapping[str, str]]
        groups: Reading[Mapping[GroupId, GroupInfo]]
        if isinstance(topics, Unknown):
            bindings, broker, groups = topics, topics, topics
        else:
            bindings = self._read(cluster.bindings, before.bindings)
            broker = self._read(lambda: estate.broker_settings(region), before.broker_settings)
            groups = before.groups
            if not isinstance(groups, Known) or estate.clock.now_ms() - groups.at_ms >= groups_age_max_s * 1000:
                groups = self._read(lambda: cluster.groups(estate.unit.groups), before.groups)
        connector = estate.connector(estate.inbound(region))
        replicator = estate.replicators[region]
        inbound = self._read(lambda: replicator.status(connector), before.inbound)
        connect = self._answered(inbound, before.connect)
        settings = inbound if isinstance(inbound, Unknown) else self._read(lambda: replicator.settings(connector), before.inbound_settings)
        return RegionInventory(region, kafka, connect, topics, bindings, broker, groups, inbound, settings)

    def _read(self, read: Callable[[], T], before: Reading[T]) -> Reading[T]:
        now_ms = self._estate.clock.now_ms()
        try:
            return Known(read(), now_ms)
        except MrcError as error:
            since_ms = before.since_ms if isinstance(before, Unknown) else now_ms
            return Unknown(error.reason, str(error), since_ms)

    def _answered(self, reading: Reading[T], before: Reading[float]) -> Reading[float]:
        if isinstance(reading, Unknown):
            return Unknown(reading.reason, reading.detail, before.since_ms if isinstance(before, Unknown) else reading.since_ms)
        return Known(float(self._estate.clock.now_ms() - reading.at_ms), reading.at_ms)
