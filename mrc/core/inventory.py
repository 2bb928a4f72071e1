"""One immutable observation of the world, and the small values that Kafka and Connect answer with.

Every reading is `Known` with its time or `Unknown` with its reason. Findings, plans and fences are pure functions of an
`Inventory`, so whatever mrc decides can be decided again from the same observation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from mrc.core.model import ActiveRecord, Flow, GroupId, Mode, Offset, Policy, Reading, Region, Value, target_topic


class TopicInfo(Value, frozen=True):
    """A topic as its cluster describes it.

    Attributes:
        topic_id: Kafka's topic id; a re-created topic has another.
        leaders: leader broker id per partition, index = partition; -1 where there is none.
        config: effective topic settings by name.
    """

    topic_id: str
    leaders: tuple[int, ...]
    config: Mapping[str, str]


class Position(Value, frozen=True):
    """A committed position with the metadata that the consumer stored."""

    offset: Offset
    metadata: str = ""


class GroupInfo(Value, frozen=True):
    """A consumer group's state (Kafka's names: Empty, Stable, PreparingRebalance, Dead, ...) and member count."""

    state: str
    members: int


class Binding(Value, frozen=True, order=True):
    """One ACL binding, literal or prefixed, for host ``*``. ``operation`` is Kafka's name in lower case (``write``)."""

    resource: Literal["topic", "group", "cluster", "transactional_id"]
    name: str
    pattern: Literal["literal", "prefixed"]
    principal: str
    operation: str
    permission: Literal["allow", "deny"]


class FlowStatus(Value, frozen=True):
    """A flow's connector as Connect reports it.

    Attributes:
        state: Connect's word: RUNNING, STOPPED, PAUSED, FAILED, UNASSIGNED; ABSENT where there is no connector.
        tasks: Connect's word per task.
        trace: the first task's or the connector's error, first line; empty where there is none.
    """

    state: str
    tasks: tuple[str, ...]
    trace: str = ""

    @property
    def tasks_run(self) -> bool:
        """Whether there are tasks, and all of them run."""
        return bool(self.tasks) and all(task == "RUNNING" for task in self.tasks)


ProbeAnswer = Literal["refused", "writable", "unverifiable"]


class Recovery(Value, frozen=True):
    """What becomes of divergent records; see `mrc.config.settings.DivergenceSettings`."""

    resolve: str = "quarantine"
    topics: Mapping[str, str] = {}
    old_log: str = "keep"
    records_per_second: int = 5_000
    old_logs: Mapping[str, str] = {}

    def policy(self, topic: str) -> str:
        """Return how a topic's divergent records are resolved."""
        return self.topics.get(topic, self.resolve)

    def old_log_of(self, topic: str) -> str:
        """Return what becomes of a topic's log that holds them."""
        return self.old_logs.get(topic, self.old_log)


class Unit(Value, frozen=True):
    """A replication group as the core needs it.

    Attributes:
        writers, readers: application principals that a fence refuses (``User:name``).
        exempt: principals that a fence never names: the replicator's and mrc's own.
        probe: the principal that probes; it stands for the writers.
        connectors: name of the source connector per flow.
        replicators: as whom the replicator writes, exempt all of them; refused by a flow block only. Empty: no flow can be blocked.
        live_sync: patterns of groups whose positions are kept committed in the standby.
        rpo_s: seconds of records that a failover may lose; None: nobody has said.
        rto_s: seconds that a move may take.
        recovery: what becomes of divergent records.
        self_fence_after_s: seconds without a ZooKeeper majority after which agents refuse writes in their open region; None: never.
        carries_producers: something redirects clients that may carry a running idempotent producer to the other cluster.
    """

    name: str
    mode: Mode
    policy: Policy
    regions: tuple[Region, ...]
    topics: tuple[str, ...]
    groups: tuple[GroupId, ...]
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    exempt: tuple[str, ...]
    probe: str
    connectors: Mapping[Flow, str]
    live_sync: tuple[str, ...] = ("*",)
    rpo_s: float | None = None
    rto_s: float | None = None
    self_fence_after_s: float | None = None
    recovery: Recovery = Recovery()
    carries_producers: bool = False
    replicators: tuple[str, ...] = ()

    def other(self, region: Region) -> Region:
        """Return the unit's other region (a unit has two)."""
        return self.regions[1] if region == self.regions[0] else self.regions[0]

    def copies(self, region: Region) -> tuple[str, ...]:
        """Return the topics of a region that hold the other region's records; none under identity, where both stand in one."""
        return () if self.policy == "identity" else tuple(target_topic(self.policy, self.other(region), topic) for topic in self.topics)

    def read_in(self, region: Region) -> tuple[str, ...]:
        """Return the topics that groups read in a region: those that are written there, then the copies of the other region's."""
        return (*self.topics, *self.copies(region))

    def counterparts(self, source: Region) -> dict[str, str]:
        """Return, for each topic that groups read in a region, the other region's topic with the same records.

        Under the default policy ``orders`` is ``<source>.orders`` there, and ``<other>.orders`` is ``orders``, where it came from.
        """
        other = self.other(source)
        if self.policy == "identity":
            return {topic: topic for topic in self.topics}
        return dict(zip(self.read_in(source), (*self.copies(other), *self.topics), strict=True))


class RegionInventory(Value, frozen=True):
    """What one agent saw of one region.

    Attributes:
        kafka, connect: milliseconds that an answer took.
        inbound, inbound_settings: the connector of the flow into this region.
    """

    region: Region
    kafka: Reading[float]
    connect: Reading[float]
    topics: Reading[Mapping[str, TopicInfo]]
    bindings: Reading[frozenset[Binding]]
    broker_settings: Reading[Mapping[str, str]]
    groups: Reading[Mapping[GroupId, GroupInfo]]
    inbound: Reading[FlowStatus]
    inbound_settings: Reading[Mapping[str, str]]


class Pointing(Value, frozen=True):
    """Where a route leads: a name in DNS, a load balancer, whatever sends clients to a region that do not follow the record.

    Attributes:
        region: where all of it leads; empty: to none, to several, or elsewhere.
        foreign: it leads to something that is no region's: somebody else has written it, and mrc never overwrites that.
        seen: all that was read, in an order of its own; what a change is compared with.
    """

    region: str
    foreign: bool
    seen: tuple[str, ...]


class Inventory(Value, frozen=True):
    """Everything that one agent saw of one replication group, in one piece.

    Attributes:
        routes: where the configured routes lead, by name.
        held: the execution by which the flow out of the open region has to stand still, where it does; empty: none.
    """

    unit: Unit
    at_ms: int
    record: ActiveRecord | None
    regions: Mapping[Region, RegionInventory]
    execution: str = ""
    routes: Mapping[str, Reading[Pointing]] = {}
    held: str = ""
