"""A replication group as one agent sees it now, and what an operator should know of it.

Made from snapshots; of ZooKeeper alone something is asked, for `ZOOKEEPER_WAIT_S` at most.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from mrc.agent.coordinator import Coordinator
from mrc.agent.flow_views import flow_view
from mrc.agent.leadership import Leadership
from mrc.agent.objectives import over_rpo
from mrc.core.errors import CODES, MrcError
from mrc.core.failover import fence
from mrc.core.failover.findings import findings
from mrc.core.inventory import Inventory
from mrc.core.model import ActiveRecord, Known, Region
from mrc.core.views import AgentView, FindingView, RegionView, StatusView

ZOOKEEPER_WAIT_S = 0.6
"""How long all of a status's questions to ZooKeeper may take: a client waits a second for it, and is to be told of the silence."""


class Status:
    """The status of replication groups as one agent sees them. `of` may be called from many threads at once."""

    def __init__(self, agent: str, peers: Mapping[Region, Leadership]) -> None:
        self._agent = agent
        self._peers = peers
        self._last_records: dict[str, tuple[ActiveRecord, int]] = {}

    def of(self, coordinator: Coordinator) -> StatusView:
        """Return the replication group as this agent sees it now, from snapshots.

        Without a quorum of ZooKeeper, or with a garbled record, the rest is still shown: the record is None then, and a finding
        says why and what it said when it was read last.
        """
        estate = coordinator.estate
        with estate.store.tree.within(ZOOKEEPER_WAIT_S):
            inventory, unread = self._look(coordinator)
            pairs, unseen = self._pairs(estate.unit.regions, unread)
            blocked = () if unread is not None or unseen else _blocked(coordinator)
        now_ms = estate.clock.now_ms()
        record = inventory.record
        flows = tuple(flow_view(coordinator, inventory, flow, partitions=False) for flow in sorted(estate.unit.connectors))
        late = [
            one for flow in flows if flow.wanted == "running" for one in over_rpo(estate.unit, flow.source, flow.target, flow.lag_seconds)
        ]
        return StatusView(
            replication_group=estate.unit.name,
            mode=estate.unit.mode,
            policy=estate.unit.policy,
            record=record,
            record_age_s=(now_ms - record.at_ms) / 1000 if record else 0.0,
            regions=tuple(_region_view(coordinator, inventory, pairs[region], unread) for region in estate.unit.regions),
            flows=flows,
            execution=inventory.execution,
            findings=(*unseen, *blocked, *_standing_findings(coordinator, inventory, unread), *late),
            answered_by=self._agent,
            at_ms=now_ms,
        )

    def _look(self, coordinator: Coordinator) -> tuple[Inventory, FindingView | None]:
        """Return the last looks at all regions with the record as it is now; where it cannot be read, without it, and the reason."""
        observer, unit = coordinator.observer, coordinator.estate.unit
        now_ms = coordinator.estate.clock.now_ms()
        try:
            inventory = observer.inventory()
        except MrcError as error:
            last = self._last_records.get(unit.name)
            told = f"; {(now_ms - last[1]) / 1000:.1f} s ago {last[0].region} was {last[0].state}, epoch {last[0].epoch}" if last else ""
            blind = Inventory(unit, now_ms, None, {region: observer.region(region) for region in unit.regions})
            return blind, FindingView(error.code, "error", f"the active-region record cannot be read: {error.message}{told}", error.where)
        if inventory.record is not None:
            self._last_records[unit.name] = (inventory.record, now_ms)
        return inventory, None

    def _pairs(self, regions: Sequence[Region], unread: FindingView | None) -> tuple[dict[Region, _Pair], tuple[FindingView, ...]]:
        """Return who is alive in each region, and why not where it cannot be read; what said so of the record is not asked again."""
        pairs = {region: _Pair(region) for region in regions}
        if unread is not None:
            return pairs, ()
        try:
            for region in regions:
                pairs[region] = self._pair(region)
        except MrcError as error:
            return pairs, (FindingView(error.code, "error", f"the agents cannot be read: {error.message}", error.where),)
        return pairs, ()

    def _pair(self, region: Region) -> _Pair:
        peers = self._peers[region]
        leader = peers.leader()
        agents = tuple(AgentView(a.id, region, a.address, a.version, leader is not None and leader.id == a.id) for a in peers.agents())
        return _Pair(region, leader.id if leader else "", peers.current_term(), agents)


class _Pair(NamedTuple):
    """A region's leader and its term, and the agents that are alive; empty where nobody leads, or it cannot be read."""

    region: Region
    leader: str = ""
    term: int = 0
    agents: tuple[AgentView, ...] = ()


def _standing_findings(coordinator: Coordinator, inventory: Inventory, unread: FindingView | None) -> tuple[FindingView, ...]:
    """Return what would stand against moving away from the active region now, and what the capture has noticed."""
    record = inventory.record
    if unread is not None:
        return (unread, *_self_fenced(inventory), *coordinator.noticed())
    if record is None:
        if coordinator.estate.unit.mode == "active-active":
            return ()  # both are written, and there is to be none
        return (FindingView("NO_ACTIVE_RECORD", "error", CODES["NO_ACTIVE_RECORD"].means),)
    try:
        coordinator.estate.require_mode(record)
    except MrcError as error:
        return (FindingView(error.code, "error", error.message, error.where), *coordinator.noticed())
    found = [*_self_fenced(inventory), *coordinator.noticed()]
    if record.state == "open" and not inventory.execution:
        target = coordinator.estate.unit.other(record.region)
        against = findings(inventory, "switchover", target, attested=False)
        found += [one for one in against if one.code != "PRODUCERS_CARRIED"]  # about who asks for a move, not about how things stand
    return tuple(found)


def _self_fenced(inventory: Inventory) -> Iterator[FindingView]:
    """Say where agents have refused writes by themselves, and since when, until a leader that hears a majority has looked after it."""
    for region, seen in inventory.regions.items():
        imposed = fence.self_imposed(inventory.unit, seen.bindings.value if isinstance(seen.bindings, Known) else ())
        if imposed.marks:
            ago_s = (inventory.at_ms - imposed.since_ms) / 1000
            message = (
                f"agents of {region} heard no majority of ZooKeeper and have refused writes there by themselves since {ago_s:.0f} s:"
                f" {len(imposed.made)} refusals; they go when a leader of {region} has read a record that names it open"
            )
            yield FindingView("SELF_FENCED", "warning", message, str(region))


def _blocked(coordinator: Coordinator) -> tuple[FindingView, ...]:
    """Say into which regions a failover has blocked the flow, for as long as it has not been seen STOPPED; or why that cannot be read."""
    estate = coordinator.estate
    found = []
    for region in estate.unit.regions:
        try:
            stored, _ = estate.store.fence(region)
        except MrcError as error:
            found.append(FindingView(error.code, "error", f"the fence of {region} cannot be read: {error.message}", error.where))
            break
        if stored.block:
            refused = f"{', '.join(estate.unit.replicators)} may not write {', '.join(estate.unit.topics)} in {region}"
            message = (
                f"{refused} since execution {stored.block}, which could not stop the flow: that ends when Connect there has stopped it"
            )
            found.append(FindingView("FLOW_BLOCKED", "warning", message, str(region)))
    return tuple(found)


def _region_view(coordinator: Coordinator, inventory: Inventory, pair: _Pair, unread: FindingView | None) -> RegionView:
    seen = inventory.regions[pair.region]
    both = inventory.record is None and inventory.unit.mode == "active-active"
    active = both or (inventory.record is not None and inventory.record.region == pair.region)
    return RegionView(
        region=pair.region,
        role="unknown" if unread else "active" if active else "standby",
        kafka=seen.kafka,
        connect=seen.connect,
        fence=coordinator.fence(pair.region),
        leader=pair.leader,
        term=pair.term,
        agents=pair.agents,
    )
