"""The production agents wired to the in-memory world, pumped one after another: no thread, no wall clock."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from mrc.agent.coordinator import Coordinator
from mrc.agent.estate import Estate
from mrc.agent.leadership import AgentNode, Leadership
from mrc.agent.store import Store
from mrc.core.errors import MrcError
from mrc.core.inventory import Position, Unit
from mrc.core.model import ActiveRecord, Epoch, GroupId, Offset, Region, TopicPartition, decode, encode
from mrc.ports import Clock, Create
from mrc.sim.kills import Killed, KillSwitch
from mrc.sim.replicator import MM2
from mrc.sim.world import CONSUMER, EAST, PRODUCER, WEST, World, connector

REPLICATION_GROUP = "orders"

Wire = Callable[[Any, str, Region], Any]
"""(port, kind of port, region) -> the port with the same methods."""


def unit(world: World) -> Unit:
    """Return the replication group that the world holds."""
    return Unit(
        name=REPLICATION_GROUP,
        mode=world.mode,
        policy=world.policy,
        regions=(EAST, WEST),
        topics=tuple(world.partitions),
        groups=world.groups,
        writers=(PRODUCER,),
        readers=(CONSUMER,),
        exempt=(MM2, "User:mrc", "User:admin"),
        replicators=(MM2,),
        probe="User:probe",
        connectors={flow: connector(flow) for flow in world.flows},
        self_fence_after_s=world.self_fence_after_s,
        recovery=world.recovery,
        carries_producers=world.carries_producers,
    )


def write_first_record(world: World, region: Region = EAST) -> None:
    """Write the first active-region record, as an adoption does."""
    tree = world.tree()
    tree.ensure(f"/groups/{REPLICATION_GROUP}")
    tree.commit([Create(f"/groups/{REPLICATION_GROUP}/record", encode(ActiveRecord(region, "open", Epoch(1))))])


class SimAgent:
    """One production agent.

    Attributes:
        alive: False once killed.
        switch: its kill switch.
    """

    def __init__(
        self,
        world: World,
        region: Region,
        name: str,
        *,
        clock: Clock | None = None,
        wire: Wire | None = None,
        led_beside: Callable[[], bool] = lambda: False,
    ) -> None:
        """Wire an agent; ``clock`` is its own where it has one, ``wire`` gives each port as the agent reaches it."""
        self.world = world
        self.name = name
        self.switch = KillSwitch()
        self.tree = world.tree()
        self.alive = True
        wire = wire or (lambda port, name, where: self.switch.watch(port))
        tree = wire(self.tree, "zookeeper", region)
        self.leadership = Leadership(tree, region, AgentNode(name, f"{name}:0", "sim"))
        estate = Estate(
            unit=unit(world),
            region=region,
            clusters={at: wire(cluster, "kafka", at) for at, cluster in world.clusters.items()},
            replicators={at: wire(replicator, "connect", at) for at, replicator in world.replicators.items()},
            store=Store(tree, REPLICATION_GROUP),
            leadership=self.leadership,
            clock=clock or world.clock,
            hook=wire(world.hook, "hook", region),
            routes=tuple(wire(route, "route", region) for route in world.routes),
            led_beside=led_beside,
        )
        self.coordinator = Coordinator(estate, name)
        self.moving = False

    def pump(self, *, move: bool = True) -> None:
        """Let every pump of the agent run once. A killed agent's session ends and it never runs again."""
        if not self.alive:
            return
        try:
            self._pump(move=move)
        except Killed:
            self.alive = False
            self.tree.expire()

    def _pump(self, *, move: bool) -> None:
        coordinator = self.coordinator
        _bear(self._lead)
        for region in coordinator.estate.unit.regions:
            _bear(partial(coordinator.observer.refresh, region))
            _bear(partial(coordinator.fence_tick, region))
        _bear(coordinator.quorum_tick)
        _bear(coordinator.flow_tick)
        _bear(coordinator.route_tick)
        _bear(coordinator.capture_tick)
        _bear(coordinator.sync_tick)
        if move and not self.moving:
            self.moving = True
            try:
                _bear(coordinator.move_tick)
            finally:
                self.moving = False

    def _lead(self) -> None:
        self.coordinator.lead(new_term=self.leadership.tick())


def _bear(pump: Callable[[], object]) -> None:
    """Run a pump; world errors are borne, as the wiring does."""
    try:
        pump()
    except MrcError as error:
        if error.kind == "bug":
            raise


class Applications:
    """Producers and consumer groups that follow the active-region record, and know what they wrote and read.

    Attributes:
        acked: value -> region of every acknowledged record.
        processed: per group, every value in the order in which it was processed.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.acked: dict[bytes, Region] = {}
        self.processed: dict[GroupId, list[bytes]] = {group: [] for group in world.groups}
        self._joined: dict[GroupId, Region] = {}
        self._number = 0

    def record(self) -> ActiveRecord:
        """Return the record that applications follow."""
        node = self.world.ensemble.nodes[f"/groups/{REPLICATION_GROUP}/record"]
        return decode(node.data, ActiveRecord)

    def produce(self, count: int) -> None:
        """Write ``count`` records, spread over all partitions, where the record says that writing is open."""
        record = self.record()
        if record.state != "open":
            return
        tps = self.world.tps()
        for _ in range(count):
            tp = tps[(self._number * 5) % len(tps)]
            value = f"event-{self._number}".encode()
            self._number += 1
            try:
                self.world.clusters[record.region].produce(PRODUCER, tp, value, value)
            except MrcError:
                continue  # refused or unreachable: not acknowledged
            self.acked[value] = record.region

    def consume(self, limits: dict[GroupId, int]) -> None:
        """Let each group join where it is open, process up to its limit of records and commit; leave where it is not."""
        record = self.record()
        for group, limit in limits.items():
            here = self._joined.get(group)
            if here is not None and (here != record.region or record.state != "open"):
                self.world.clusters[here].members_of[group].members = 0  # a dead region's members are gone when it returns
                del self._joined[group]
            if record.state != "open" or not self.world.clusters[record.region].reachable:
                continue
            try:
                if group not in self._joined:
                    self.world.clusters[record.region].join(CONSUMER, group)
                    self._joined[group] = record.region
                self._process(group, record.region, limit)
            except MrcError:
                continue

    def _process(self, group: GroupId, region: Region, limit: int) -> None:
        cluster = self.world.clusters[region]
        committed = cluster.positions(group)
        for tp in self.world.read_tps(region):
            log = cluster.log(tp)
            begin = committed[tp].offset if tp in committed else Offset(0)
            for entry in list(log.visible(begin, log.end))[:limit]:
                self.processed[group].append((entry.record.value or b"") if entry.record else b"")
                begin = Offset(entry.offset + 1)
            cluster.commit_as_member(CONSUMER, group, {tp: Position(begin)})


def contents(world: World, region: Region, tp: TopicPartition) -> list[bytes]:
    """Return the values of a partition's visible records, in order."""
    log = world.clusters[region].log(tp)
    return [entry.record.value or b"" for entry in log.visible(0, log.end) if entry.record is not None]
