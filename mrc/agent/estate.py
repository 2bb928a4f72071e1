"""Everything that one agent reaches for one replication group: clusters, replicators, the store, the clock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mrc.agent.leadership import Leadership
from mrc.agent.store import Store
from mrc.core.errors import MrcError
from mrc.core.inventory import TopicInfo, Unit
from mrc.core.model import ActiveRecord, Flow, Region, TopicPartition
from mrc.core.translation.sight import Sights, sights
from mrc.ports import Clock, Cluster, Hook, Replicator, Route


def in_turn(jobs: Sequence[Callable[[], None]]) -> None:
    """Do one after the other."""
    for job in jobs:
        job()


@dataclass(frozen=True)
class Estate:
    """An agent's reach. Not a value: it holds connections; made once by the wiring.

    Attributes:
        region: the agent's own region.
        replicators: Connect of the flows *into* each region.
        super_users: what the configuration says of each region's ``super.users``; None: nothing.
        route: argv of the routing command that is not read back; empty where there is none.
        routes: what sends clients to a region and can be read back.
        committing: held by whoever commits positions, so that a move's are the last.
        reconciling: per region, held by whoever brings its fence to the record: the pump and a move would do each half of it twice.
        together: does looks that need nothing of one another, and raises the failure that comes first in their order.
        settings: of the flows' source connectors, as Connect told them last.
        led_beside: asks the region's other agents, not ZooKeeper, whether one of them leads; False also where none answers.
    """

    unit: Unit
    region: Region
    clusters: Mapping[Region, Cluster]
    replicators: Mapping[Region, Replicator]
    store: Store
    leadership: Leadership
    clock: Clock
    hook: Hook
    route: Sequence[str] = ()
    routes: Sequence[Route] = ()
    super_users: Mapping[Region, tuple[str, ...] | None] = field(default_factory=dict)
    committing: threading.Lock = field(default_factory=threading.Lock)
    reconciling: Mapping[Region, threading.Lock] = field(init=False)
    together: Callable[[Sequence[Callable[[], None]]], None] = in_turn
    settings: dict[Flow, Mapping[str, str]] = field(default_factory=dict)
    led_beside: Callable[[], bool] = field(default=lambda: False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "reconciling", {region: threading.Lock() for region in self.clusters})

    def inbound(self, region: Region) -> Flow:
        """Return the flow into a region."""
        return Flow(self.unit.other(region), region)

    def connector(self, flow: Flow) -> str:
        """Return the name of a flow's source connector."""
        return self.unit.connectors[flow]

    def sights(self, flow: Flow) -> Sights:
        """Return how to look at a flow's logs, from fresh settings of both sides. Raises world errors."""
        unit = self.unit
        here, there = (self.clusters[region].topics(unit.read_in(region)) for region in (flow.source, flow.target))
        return self.sights_of(flow, here, there)

    def sights_of(self, flow: Flow, here: Mapping[str, TopicInfo], there: Mapping[str, TopicInfo], isolation: str = "") -> Sights:
        """The same from topics that were described already; a side that does not answer is empty, and the other decides.

        While Connect does not answer, or does not know of the connector, what it said last holds; before it has said anything,
        ``isolation``.
        """
        try:
            said = self.replicators[flow.target].settings(self.connector(flow))
            if said:
                self.settings[flow] = said
        except MrcError as error:
            if error.kind == "bug":
                raise
        unheard = {"source.consumer.isolation.level": isolation} if isolation else {}
        return sights(self.unit.counterparts(flow.source), here, there, self.settings.get(flow, unheard))

    def broker_settings(self, region: Region) -> Mapping[str, str]:
        """Return what the region's brokers say of themselves, and what the configuration says where they say nothing."""
        declared = self.super_users.get(region)
        said = self.clusters[region].broker_settings()
        return said if declared is None else {"super.users": ";".join(declared), **said}

    def partitions(self, region: Region) -> list[TopicPartition]:
        """Return all partitions of the topics that are written in a region. Raises ``UNKNOWN_TOPIC`` when one does not exist."""
        return self._partitions(region, self.unit.topics)

    def read_partitions(self, region: Region) -> list[TopicPartition]:
        """Return all partitions that groups read in a region, as `partitions`."""
        return self._partitions(region, self.unit.read_in(region))

    def _partitions(self, region: Region, topics: Sequence[str]) -> list[TopicPartition]:
        infos = self.clusters[region].topics(topics)
        missing = [topic for topic in topics if topic not in infos]
        if missing:
            raise MrcError("UNKNOWN_TOPIC", f"topic {missing[0]} does not exist", where=str(region))
        return [TopicPartition(topic, p) for topic in topics for p in range(len(infos[topic].leaders))]

    def require_record(self) -> tuple[ActiveRecord, int]:
        """Return the active-region record with its version, for whoever acts by it. Raises ``NO_ACTIVE_RECORD``, ``MODE_CHANGED``."""
        found = self.store.record()
        if found is None:
            raise MrcError("NO_ACTIVE_RECORD", "nobody has written the first active-region record", where=self.store.record_path)
        self.require_mode(found[0])
        return found

    def require_mode(self, record: ActiveRecord) -> None:
        """Raise ``MODE_CHANGED`` where the record is not this unit's: an active-active one has none, so an earlier mode has left it."""
        if self.unit.mode != "active-passive":
            message = (
                f"{self.unit.name} is {self.unit.mode}, and a record of before says {record.region} {record.state}: nothing is done by it"
            )
            raise MrcError("MODE_CHANGED", message, where=self.store.record_path)

    def wait_until(self, done: Callable[[], bool], deadline_s: float, *, every_s: float = 0.05) -> bool:
        """Poll ``done`` until it is true or the deadline (by the monotonic clock) has passed; return whether it is."""
        while True:
            if done():
                return True
            if self.clock.monotonic_s() >= deadline_s:
                return False
            self.clock.sleep(every_s)
