"""Two regions in memory, wired as the sandbox wires two real ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mrc.core.inventory import Recovery
from mrc.core.model import Flow, GroupId, Mode, Policy, Region, TopicPartition, target_topic
from mrc.ports import Binding
from mrc.sim.clock import FakeClock, FakeHook
from mrc.sim.cluster import FakeCluster
from mrc.sim.replicator import MM2, FakeReplicator
from mrc.sim.routes import FakeRoute
from mrc.sim.tree import FakeTree, TreeStore

PRODUCER = "User:producer"
CONSUMER = "User:consumer"
PROBE = "User:probe"

EAST = Region("east")
WEST = Region("west")


class World:
    """Everything outside of mrc.

    Under identity only the flow out of ``active`` runs and the other is STOPPED; under default both run, and have made the topics of
    their copies. The topics of the passive region exist, empty.

    Args:
        topics: partitions per topic.
        groups: consumer groups that applications use.
        policy: MM2's replication policy.
        exactly_once: whether MM2 copies in transactions.
        active: the region that is open first.
        clock: the world's; a `FakeClock` where none is given.
        self_fence_after_s: as the replication group's configuration says; None: agents keep the open region open whatever happens.
        recovery: what the configuration says of divergent records.

    Attributes:
        clock: the only time there is.
        clusters: by region.
        replicators: by the region that they copy into.
        hook: the routing command.
        routes: what else sends clients to a region; none at first.
        carries_producers: whether a redirect may carry running producers along.
        mode: as the replication group's configuration says; active-passive at first.
        ensemble: ZooKeeper; `tree` makes an agent's handle.
    """

    def __init__(
        self,
        topics: Mapping[str, int] | None = None,
        groups: Sequence[str] = ("billing", "shipping"),
        *,
        policy: Policy = "identity",
        exactly_once: bool = False,
        active: Region = EAST,
        clock: FakeClock | None = None,
        self_fence_after_s: float | None = None,
        recovery: Recovery | None = None,
    ) -> None:
        self.policy: Policy = policy
        self.self_fence_after_s = self_fence_after_s
        self.recovery = recovery or Recovery()
        self.mode: Mode = "active-passive"
        self.partitions = dict({"orders": 3, "payments": 4} if topics is None else topics)
        self.groups = tuple(GroupId(group) for group in groups)
        self.clock = clock or FakeClock()
        self.hook = FakeHook()
        self.routes: list[FakeRoute] = []
        self.carries_producers = False
        self.ensemble = TreeStore(self.clock)
        self.clusters = {region: FakeCluster(region, self.clock, PROBE) for region in (EAST, WEST)}
        self.replicators = {region: FakeReplicator(cluster, exactly_once=exactly_once) for region, cluster in self.clusters.items()}
        self.flows = (Flow(EAST, WEST), Flow(WEST, EAST))
        for region, cluster in self.clusters.items():
            for topic, count in self.partitions.items():
                for name in dict.fromkeys((topic, target_topic(policy, other(region), topic))):
                    cluster.make_topic(name, count)
            cluster.add_bindings(self._allowed(region))
        for flow in self.flows:
            running = policy == "default" or flow.source == active
            self.replicators[flow.target].add(
                connector(flow), self.clusters[flow.source], policy, list(self.partitions), state="RUNNING" if running else "STOPPED"
            )

    def tree(self) -> FakeTree:
        """Return a handle with a session of its own, as each agent has."""
        return self.ensemble.connect()

    def tps(self) -> list[TopicPartition]:
        """Return every partition of the replication group, by the names of the source."""
        return [TopicPartition(topic, partition) for topic, count in self.partitions.items() for partition in range(count)]

    def mirror(self, source: Region, tp: TopicPartition) -> TopicPartition:
        """Return where a partition of ``source`` is copied to in the other region."""
        return TopicPartition(target_topic(self.policy, source, tp.topic), tp.partition)

    def read_tps(self, region: Region) -> list[TopicPartition]:
        """Return every partition that groups read in a region: what is written there, and copies of what is written in the other."""
        return list(dict.fromkeys([*self.tps(), *(self.mirror(other(region), tp) for tp in self.tps())]))

    def replicate(self) -> int:
        """Let every running flow copy all there is, once; return how many records were copied."""
        return sum(self.replicators[flow.target].copy(connector(flow)) for flow in self.flows)

    def lose(self, region: Region) -> None:
        """Cut ``region`` off: its cluster and its Connect answer nobody. Agents' trees are cut by their own handles."""
        self.clusters[region].reachable = False
        self.replicators[region].reachable = False

    def regain(self, region: Region) -> None:
        """End `lose`; what the region held is as it was."""
        self.clusters[region].reachable = True
        self.replicators[region].reachable = True

    def _allowed(self, region: Region) -> set[Binding]:
        """Return the ACLs that an estate like this has before mrc adds any."""
        names = {*self.partitions, *(target_topic(self.policy, other(region), topic) for topic in self.partitions)}
        found = {
            Binding("topic", name, "literal", principal, operation, "allow")
            for name in names
            for principal, operation in ((PRODUCER, "write"), (PROBE, "write"), (CONSUMER, "read"), (MM2, "all"))
        }
        return found | {Binding("group", group, "literal", CONSUMER, "read", "allow") for group in self.groups}


def connector(flow: Flow, replication_group: str = "orders") -> str:
    """Return the name of a flow's connector."""
    return f"mrc.{replication_group}.{flow.source}-{flow.target}"


def other(region: Region) -> Region:
    """Return the world's other region."""
    return WEST if region == EAST else EAST
