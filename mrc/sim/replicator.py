"""MirrorMaker 2 in memory: the `Replicator` port of one region, and `copy`, which does what its running tasks do."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from mrc.core.errors import MrcError
from mrc.core.failover.adoption import covered
from mrc.core.model import Offset, Policy, Region, TopicPartition, target_topic
from mrc.ports import FlowStatus
from mrc.sim.cluster import FakeCluster
from mrc.sim.log import PartitionLog

MM2 = "User:mm2"


class Connector:
    """One source connector.

    Attributes:
        state: the state that was asked for, RUNNING or STOPPED.
        config: what `settings` tells.
        stored: per source partition the next offset to copy, as Connect stores it.
        held: the same, ahead of ``stored`` by what is not flushed yet.
        tasks_until_s: when a stopped connector's tasks are gone, monotonic.
        trace: why its tasks failed; empty while they have not.
        had_tasks, counted, unfenced: what an exactly-once worker knows of it: whether it has ever had tasks, whether they were counted,
            and whether it was stopped since.
    """

    def __init__(self, source: FakeCluster, policy: Policy, state: str, config: Mapping[str, str]) -> None:
        self.source = source
        self.policy: Policy = policy
        self.state = state
        self.config = dict(config)
        self.stored: dict[TopicPartition, Offset] = {}
        self.held: dict[TopicPartition, Offset] = {}
        self.tasks_until_s = float("-inf")
        self.trace = ""
        self.had_tasks = state == "RUNNING"
        self.counted = self.unfenced = False


class FakeReplicator:
    """The port `Replicator` of the region that ``target`` is in.

    Attributes:
        reachable: False makes every call raise ``CONNECT_UNREACHABLE`` and copies nothing.
        exactly_once: every copied run ends with a transaction marker.
        stop_takes_s: how long tasks outlive `stop`.
        connectors: by name.
        sources: clusters by the alias that a connector made through the port names.
        kept: positions of deleted connectors, as Connect keeps them.
    """

    def __init__(self, target: FakeCluster, *, exactly_once: bool = False) -> None:
        self.target = target
        self.reachable = True
        self.exactly_once = exactly_once
        self.stop_takes_s = 0.0
        self.connectors: dict[str, Connector] = {}
        self.sources: dict[str, FakeCluster] = {}
        self.kept: dict[str, dict[TopicPartition, Offset]] = {}

    def add(self, name: str, source: FakeCluster, policy: Policy, topics: Sequence[str], *, state: str = "RUNNING") -> None:
        """Make a connector that copies ``topics`` of ``source`` here."""
        self.sources[source.region] = source
        self.connectors[name] = Connector(
            source,
            policy,
            state,
            {
                "connector.class": "org.apache.kafka.connect.mirror.MirrorSourceConnector",
                "source.cluster.alias": source.region,
                "target.cluster.alias": self.target.region,
                "topics": ",".join(re.escape(topic) for topic in topics),
                "replication.policy.class": f"org.apache.kafka.connect.mirror.{policy.title()}ReplicationPolicy",
                "refresh.topics.interval.seconds": "600",
                "sync.topic.acls.enabled": "false",
                "source.consumer.isolation.level": "read_committed",
            },
        )

    # ---------------------------------------------------------------- the port

    def status(self, connector: str) -> FlowStatus:
        """See `Replicator.status`."""
        self._reach()
        found = self.connectors.get(connector)
        if found is None:
            return FlowStatus("ABSENT", ())
        if found.state == "STOPPED":
            return FlowStatus("STOPPED", ("RUNNING",) if self._has_tasks(found) else ())
        return FlowStatus("RUNNING", ("FAILED",) if found.trace else ("RUNNING",), found.trace)

    def settings(self, connector: str) -> dict[str, str]:
        """See `Replicator.settings`."""
        self._reach()
        found = self.connectors.get(connector)
        return {} if found is None else dict(found.config)

    def configurations(self) -> dict[str, dict[str, str]]:
        """See `Replicator.configurations`."""
        self._reach()
        return {name: dict(found.config) for name, found in self.connectors.items()}

    def create(self, connector: str, settings: Mapping[str, str]) -> None:
        """See `Replicator.create`."""
        self._reach()
        if connector in self.connectors:
            return
        policy: Policy = "identity" if settings.get("replication.policy.class", "").endswith("IdentityReplicationPolicy") else "default"
        self.connectors[connector] = made = Connector(self.sources[settings["source.cluster.alias"]], policy, "STOPPED", settings)
        made.stored, made.held = dict(self.kept.get(connector, {})), dict(self.kept.get(connector, {}))

    def configure(self, connector: str, settings: Mapping[str, str]) -> None:
        """See `Replicator.configure`."""
        self._find(connector).config = dict(settings)

    def delete(self, connector: str) -> None:
        """See `Replicator.delete`."""
        self._reach()
        if connector in self.connectors:
            gone = self.connectors.pop(connector)
            self._flush(gone)
            self.kept[connector] = gone.stored

    def stop(self, connector: str) -> None:
        """See `Replicator.stop`; tasks end `stop_takes_s` later and flush then."""
        found = self._find(connector)
        found.unfenced = True
        if found.state != "STOPPED":
            found.state = "STOPPED"
            found.trace = ""
            found.tasks_until_s = self.target.clock.monotonic_s() + self.stop_takes_s

    def resume(self, connector: str) -> None:
        """See `Replicator.resume`; tasks start from what is stored."""
        found = self._find(connector)
        if found.state != "RUNNING":
            self._flush(found)
            found.state = "RUNNING"
            found.had_tasks = True
            found.trace = ""  # tasks that were ending may have failed meanwhile; these are new ones
            found.held = dict(found.stored)

    def positions(self, connector: str) -> dict[TopicPartition, Offset]:
        """See `Replicator.positions`."""
        found = self._find(connector)
        if found.state == "STOPPED" and not self._has_tasks(found):
            self._flush(found)
        return dict(found.stored)

    def set_positions(self, connector: str, positions: Mapping[TopicPartition, Offset]) -> None:
        """See `Replicator.set_positions`. Like Connect it accepts positions beyond the source's end."""
        found = self._find(connector)
        if found.state != "STOPPED" or self._has_tasks(found):
            raise MrcError("CONNECT_REFUSED", "the connector is not stopped", where=connector)
        if any(position < 0 for position in positions.values()):
            raise MrcError("CONNECT_REFUSED", "a position is below 0", where=connector)
        if self.exactly_once and found.counted and found.unfenced and not found.had_tasks:
            found.had_tasks = True
            raise MrcError("CONNECT_REFUSED", "it had never had tasks; it has now", where=connector, retryable=True)
        found.counted, found.unfenced = True, False
        self._flush(found)
        found.stored |= {tp: position for tp, position in positions.items() if position > 0}
        for tp in (tp for tp, position in positions.items() if position == 0):
            found.stored.pop(tp, None)
        found.held = dict(found.stored)

    # ---------------------------------------------------------------- the tasks

    def copy(self, connector: str, records_max: int | None = None, *, flush: bool = True) -> int:
        """Copy what the connector would, at most ``records_max`` per partition; return how many records.

        ``flush`` False leaves the stored positions behind, as between two flushes without exactly-once.
        """
        found = self.connectors[connector]
        able = self.reachable and self.target.reachable and found.source.reachable
        if not able or found.trace or not self._has_tasks(found):
            return 0
        copied = sum(self._copy(found, tp, records_max) for tp in self._source_partitions(found))
        if flush or self.exactly_once:
            self._flush(found)
        return copied

    def crash(self, connector: str) -> None:
        """Restart the tasks without a flush: what was copied since the last one is copied again."""
        found = self.connectors[connector]
        found.held = dict(found.stored)

    def _copy(self, connector: Connector, tp: TopicPartition, records_max: int | None) -> int:
        source = connector.source.log(tp)
        name = target_topic(connector.policy, self._alias(connector), tp.topic)
        if name not in self.target.contents:
            self.target.make_topic(name, len(connector.source.contents[tp.topic].logs), connector.source.contents[tp.topic].config)
        low = self._begin(connector, tp, source)
        entries = [entry for entry, _ in zip(source.visible(low, source.end), _up_to(records_max), strict=False)]
        if entries and not self.target.lets_write(MM2, TopicPartition(name, tp.partition)):
            connector.trace = f"org.apache.kafka.common.errors.TopicAuthorizationException: Not authorized to access topics: [{name}]"
            return 0
        log = self.target.log(TopicPartition(name, tp.partition))
        transaction = self.target.begin() if self.exactly_once else 0
        for entry in entries:
            log.append(entry.record, transaction)
        log.finish(transaction, commit=True)
        if entries:
            connector.held[tp] = Offset(entries[-1].offset + 1)
        return len(entries)

    def _begin(self, connector: Connector, tp: TopicPartition, source: PartitionLog) -> int:
        """Return where to read from; a position outside of the log starts over at its beginning, as MM2's consumer does."""
        position = connector.held.get(tp, Offset(source.start))
        return position if source.start <= position <= source.end else source.start

    def _source_partitions(self, connector: Connector) -> Iterator[TopicPartition]:
        for topic in sorted(covered(connector.config, connector.source.contents)):
            for partition in range(len(connector.source.contents[topic].logs)):
                yield TopicPartition(topic, partition)

    def _has_tasks(self, connector: Connector) -> bool:
        return connector.state == "RUNNING" or self.target.clock.monotonic_s() < connector.tasks_until_s

    @staticmethod
    def _alias(connector: Connector) -> Region:
        return Region(connector.config["source.cluster.alias"])

    @staticmethod
    def _flush(connector: Connector) -> None:
        connector.stored = dict(connector.held)

    def _find(self, connector: str) -> Connector:
        self._reach()
        if connector not in self.connectors:
            raise MrcError("CONNECT_REFUSED", "404: there is no such connector", where=connector)
        return self.connectors[connector]

    def _reach(self) -> None:
        if not self.reachable:
            raise MrcError("CONNECT_UNREACHABLE", "no answer", where=self.target.region, retryable=True)


def _up_to(count: int | None) -> Iterable[int]:
    return itertools.count() if count is None else range(count)
