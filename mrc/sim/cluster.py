"""One Kafka cluster in memory: the `Cluster` port for mrc, and what applications do to it for workloads."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

from mrc.core.errors import MrcError
from mrc.core.model import GroupId, Offset, Seen, TopicPartition
from mrc.core.model import Record as Whole
from mrc.ports import COMMITTED, Binding, Commit, GroupInfo, Isolation, Position, ProbeAnswer, Sight, TopicInfo
from mrc.sim.authorizer import Authorizer
from mrc.sim.clock import FakeClock
from mrc.sim.emitter import FakeEmitter, Holder
from mrc.sim.kills import one_by_one
from mrc.sim.log import Headers, PartitionLog, Record
from mrc.sim.reader import FakeCommits, FakeReader

BROKERS = 2
"""Brokers of a cluster that may know of changed ACLs at different times."""

_PROBE_AHEAD_MS = 10 * 365 * 86_400_000
_RECORD_BYTES = 68
"""What a batch of one record takes besides its key and value, at least."""

_DEFAULTS = {
    "cleanup.policy": "delete",
    "message.timestamp.type": "CreateTime",
    "message.timestamp.after.max.ms": "3600000",
    "min.insync.replicas": "1",
    "max.message.bytes": "1048588",
}


class Topic:
    """A topic: its id, its settings and its partitions' logs."""

    def __init__(self, topic_id: str, partitions: int, config: Mapping[str, str]) -> None:
        self.topic_id = topic_id
        self.config = {**_DEFAULTS, **config}
        self.logs = [PartitionLog() for _ in range(partitions)]


class Group:
    """A consumer group: who is in it, what it committed."""

    def __init__(self) -> None:
        self.members = 0
        self.positions: dict[TopicPartition, Position] = {}
        self.unstable = False


class FakeCluster:
    """The port `Cluster`, and below it the workloads' side. mrc itself is a super user.

    Attributes:
        reachable: False makes every call, workloads' too, raise ``CLUSTER_UNREACHABLE``.
        acls: the authorizer.
        settings: what `broker_settings` tells.
        probe_principal: as whom `probe` asks; empty answers ``unverifiable``.
        for_one_host: those of its ALLOWs that are for one host only.
        contents: topics by name.
        members_of: consumer groups by id.
        others: protocols of other groups by id.
        emitters: the newest of each name.
        purged: values that `delete_records` has taken, with where they were.
        late_s: by broker, how long ACLs changed from now on take to be in force there; brokers that are not named have them at once.
            The broker of a partition is its number modulo `BROKERS`.
    """

    def __init__(self, region: str, clock: FakeClock, probe_principal: str = "User:probe") -> None:
        self.region = region
        self.clock = clock
        self.reachable = True
        self.acls = Authorizer()
        self.settings: dict[str, str] = {"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer"}
        self.probe_principal = probe_principal
        self.for_one_host: set[Binding] = set()
        self.contents: dict[str, Topic] = {}
        self.members_of: dict[GroupId, Group] = {}
        self.others: dict[GroupId, str] = {}
        self.committed: list[Commit] = []
        self.late_s: dict[int, float] = {}
        self._before: list[tuple[dict[int, float], frozenset[Binding]]] = []
        self.emitters: dict[str, Holder] = {}
        self.purged: dict[bytes, tuple[TopicPartition, int]] = {}
        self._made = 0
        self._transactions = 0

    # ---------------------------------------------------------------- the port

    def topics(self, names: Sequence[str]) -> dict[str, TopicInfo]:
        """See `Cluster.topics`."""
        self._reach()
        found = {name: self.contents[name] for name in names if name in self.contents}
        return {name: TopicInfo(topic.topic_id, (1,) * len(topic.logs), dict(topic.config)) for name, topic in found.items()}

    def starts(self, tps: Sequence[TopicPartition]) -> dict[TopicPartition, Offset]:
        """See `Cluster.starts`."""
        return {tp: Offset(self.log(tp).start) for tp in tps}

    def ends(self, tps: Sequence[TopicPartition], isolation: Isolation) -> dict[TopicPartition, Offset]:
        """See `Cluster.ends`."""
        return {tp: self.log(tp).next_stable() if isolation == "read_committed" else Offset(self.log(tp).end) for tp in tps}

    def group_ids(self) -> list[GroupId]:
        """See `Cluster.group_ids`."""
        self._reach()
        return sorted(self.members_of)

    def other_groups(self) -> dict[GroupId, str]:
        """See `Cluster.other_groups`."""
        self._reach()
        return dict(self.others)

    def group(self, group: GroupId) -> GroupInfo:
        """See `Cluster.group`."""
        self._reach()
        found = self.members_of.get(group)
        if found is None:
            return GroupInfo("Dead", 0)
        return GroupInfo("Stable" if found.members else "Empty", found.members)

    def groups(self, groups: Sequence[GroupId]) -> dict[GroupId, GroupInfo]:
        """See `Cluster.groups`."""
        self._reach()
        return {group: self.group(group) for group in groups}

    def positions(self, group: GroupId) -> dict[TopicPartition, Position]:
        """See `Cluster.positions`."""
        self._reach()
        found = self.members_of.get(group)
        if found is not None and found.unstable:
            raise self._error("OPEN_TRANSACTION", f"{group} has an undecided transactional commit", retryable=True)
        return {} if found is None else dict(found.positions)

    def positions_of(self, groups: Sequence[GroupId]) -> dict[GroupId, dict[TopicPartition, Position]]:
        """See `Cluster.positions_of`."""
        return {group: self.positions(group) for group in groups}

    def commits(self) -> FakeCommits:
        """See `Cluster.commits`."""
        self._reach()
        return FakeCommits(self._reach, self.committed)

    def commit_positions(self, group: GroupId, positions: Mapping[TopicPartition, Position]) -> None:
        """See `Cluster.commit_positions`."""
        self._reach()
        if not positions:
            return
        if group in self.members_of and self.members_of[group].members:
            raise self._error("GROUP_HAS_MEMBERS", f"{group} has members", retryable=True)
        self.members_of.setdefault(group, Group())
        unknown = [tp for tp in positions if not self._exists(tp)]
        self._commit(group, {tp: position for tp, position in positions.items() if tp not in unknown})
        if unknown:
            raise self._error("UNKNOWN_TOPIC", f"there is no {unknown[0]}")

    def commit_positions_of(self, positions: Mapping[GroupId, Mapping[TopicPartition, Position]]) -> None:
        """See `Cluster.commit_positions_of`."""
        one_by_one(self.commit_positions, positions)

    def bindings(self, *, everywhere: bool = False) -> frozenset[Binding]:
        """See `Cluster.bindings`."""
        self._reach()
        return frozenset(self.acls.bindings - self.for_one_host) if everywhere else frozenset(self.acls.bindings)

    def add_bindings(self, bindings: Iterable[Binding]) -> None:
        """See `Cluster.add_bindings`."""
        self._reach()
        self._remember()
        self.acls.bindings |= set(bindings)

    def remove_bindings(self, bindings: Iterable[Binding]) -> None:
        """See `Cluster.remove_bindings`."""
        self._reach()
        self._remember()
        self.acls.bindings -= set(bindings)

    def broker_settings(self) -> dict[str, str]:
        """See `Cluster.broker_settings`."""
        self._reach()
        return dict(self.settings)

    def probe(self, tps: Sequence[TopicPartition]) -> dict[TopicPartition, ProbeAnswer]:
        """See `Cluster.probe`."""
        return {tp: self._probe(tp) for tp in tps}

    def last_records(
        self, tps: Sequence[TopicPartition], below: Mapping[TopicPartition, Offset], sight: Sight = COMMITTED
    ) -> dict[TopicPartition, Seen | None]:
        """See `Cluster.last_records`."""
        found = {tp: self.log(tp).last_visible(below[tp], sight.isolation) for tp in tps}
        return {tp: entry.seen(stamped=tp.topic not in sight.unstamped) if entry else None for tp, entry in found.items()}

    def reader(self, start: Mapping[TopicPartition, Offset], sight: Sight = COMMITTED) -> FakeReader:
        """See `Cluster.reader`."""
        return FakeReader(self.region, self.log, start, sight)

    def records(self, tp: TopicPartition, begin: Offset, limit: int, sight: Sight = COMMITTED) -> tuple[Whole, ...]:
        """See `Cluster.records`."""
        log = self.log(tp)
        return tuple(entry.whole() for entry in itertools.islice(log.visible(begin, log.end, sight.isolation), limit))

    def ensure_topic(self, name: str, *, compacted: bool, partitions: int = 1) -> None:
        """See `Cluster.ensure_topic`."""
        self._reach()
        if name not in self.contents:
            self.make_topic(name, partitions, {"cleanup.policy": "compact"} if compacted else {"retention.ms": "-1"})

    def make_topic_like(self, name: str, partitions: int, config: Mapping[str, str]) -> None:
        """See `Cluster.make_topic_like`."""
        self._reach()
        if name not in self.contents:
            self.make_topic(name, partitions, config)

    def delete_topic(self, name: str) -> None:
        """See `Cluster.delete_topic`; as in Kafka the groups lose their positions on it."""
        self._reach()
        if self.contents.pop(name, None) is None:
            return
        for group, one in self.members_of.items():
            gone = [tp for tp in one.positions if tp.topic == name]
            for tp in gone:
                del one.positions[tp]
            self.committed += [Commit(group, tp, None) for tp in gone]

    def delete_records(self, below: Mapping[TopicPartition, Offset]) -> None:
        """See `Cluster.delete_records`."""
        for tp, offset in below.items():
            log = self.log(tp)
            if "delete" not in self.contents[tp.topic].config["cleanup.policy"]:
                raise self._error("POLICY_VIOLATION", f"{tp} is compacted")
            if offset > log.end:
                raise self._error("OFFSET_OUT_OF_RANGE", f"{tp} ends at {log.end}")
            gone = [entry for entry in log.visible(log.start, offset) if entry.record is not None and entry.record.value]
            self.purged |= {entry.record.value: (tp, entry.offset) for entry in gone if entry.record is not None and entry.record.value}
            log.trim(offset)

    def emitter(self, name: str) -> FakeEmitter:
        """See `Cluster.emitter`."""
        self._reach()
        return FakeEmitter(self, name)

    def topic_names(self) -> list[str]:
        """See `Cluster.topic_names`."""
        self._reach()
        return sorted(self.contents)

    def remove_topics(self, names: Iterable[str]) -> None:
        """See `Cluster.remove_topics`."""
        self._reach()
        for name in names:
            self.contents.pop(name, None)

    def append(self, topic: str, entries: Sequence[tuple[bytes, bytes | None]]) -> None:
        """See `Cluster.append`."""
        log = self.log(TopicPartition(topic, 0))
        size_max = int(self.contents[topic].config["max.message.bytes"])
        for key, value in entries:
            if len(key) + len(value or b"") + _RECORD_BYTES > size_max:
                raise self._error("RECORD_TOO_LARGE", f"{len(value or b'')} bytes; max.message.bytes is {size_max}")
            log.append(Record(key, value, self.clock.now_ms()))

    def load(self, topic: str) -> dict[bytes, bytes]:
        """See `Cluster.load`."""
        self._reach()
        if topic not in self.contents:
            return {}
        log = self.contents[topic].logs[0]
        records = [entry.record for entry in log.visible(0, log.end) if entry.record is not None]
        last = {record.key: record.value for record in records if record.key is not None}
        return {key: value for key, value in last.items() if value is not None}

    # ---------------------------------------------------------------- applications and operators

    def make_topic(self, name: str, partitions: int, config: Mapping[str, str] | None = None) -> None:
        """Make a topic with an id of its own; an existing one is replaced, as deleting and making again would."""
        self._made += 1
        self.contents[name] = Topic(f"{self.region}-{name}-{self._made}", partitions, config or {})

    def log(self, tp: TopicPartition) -> PartitionLog:
        """Return a partition's log. Raises ``UNKNOWN_TOPIC``, ``CLUSTER_UNREACHABLE``."""
        self._reach()
        if not self._exists(tp):
            raise self._error("UNKNOWN_TOPIC", f"there is no {tp}")
        self._break_off_late()
        return self.contents[tp.topic].logs[tp.partition]

    def _break_off_late(self) -> None:
        """End the transactions of emitters that have had their time, whoever has died with them."""
        now_s = self.clock.monotonic_s()
        for name, holder in self.emitters.items():
            if holder.transaction and holder.until_s <= now_s:
                self.emitters[name] = Holder(holder.number + 1)
                self.finish(holder.transaction, commit=False)

    def produce(
        self,
        principal: str,
        tp: TopicPartition,
        key: bytes | None,
        value: bytes | None,
        *,
        headers: Headers = (),
        timestamp_ms: int | None = None,
        transaction: int = 0,
    ) -> Offset:
        """Append as an application and return the offset. Raises ``AUTHORIZATION_FAILED`` where an ACL refuses."""
        log = self.log(tp)
        if not self.lets_write(principal, tp):
            raise self._error("AUTHORIZATION_FAILED", f"{principal} may not write {tp.topic}")
        now_ms = self.clock.now_ms() if timestamp_ms is None else timestamp_ms
        return Offset(log.append(Record(key, value, now_ms, headers), transaction))

    def lets_write(self, principal: str, tp: TopicPartition) -> bool:
        """Whether the partition's broker, which may be late, lets somebody write."""
        return self.acls.allows(principal, "write", "topic", tp.topic, self._in_force(tp))

    def begin(self) -> int:
        """Return a new transaction, to be given to `produce`."""
        self._transactions += 1
        return self._transactions

    def finish(self, transaction: int, *, commit: bool) -> None:
        """Commit or abort everywhere. As in Kafka, no topic ACL is asked: an open transaction passes a fence."""
        self._reach()
        for topic in self.contents.values():
            for log in topic.logs:
                log.finish(transaction, commit=commit)

    def join(self, principal: str, group: GroupId, members: int = 1) -> None:
        """Add members. Raises ``AUTHORIZATION_FAILED`` where an ACL refuses."""
        self._as_member(principal, group).members += members

    def leave(self, group: GroupId) -> None:
        """Take every member away; positions stay."""
        self._reach()
        self.members_of[group].members = 0

    def commit_as_member(self, principal: str, group: GroupId, positions: Mapping[TopicPartition, Position]) -> None:
        """Commit as a member of the group does. Raises ``AUTHORIZATION_FAILED`` where an ACL refuses."""
        self._as_member(principal, group)
        self._commit(group, positions)

    def forget_group(self, group: GroupId) -> None:
        """Delete a group with its positions, as an operator or the expiry of its offsets does."""
        self._reach()
        self.committed += [Commit(group, tp, None) for tp in self.members_of.pop(group).positions]

    # ---------------------------------------------------------------- inside

    def _commit(self, group: GroupId, positions: Mapping[TopicPartition, Position]) -> None:
        self.members_of[group].positions |= dict(positions)
        self.committed += [Commit(group, tp, position) for tp, position in positions.items()]

    def _as_member(self, principal: str, group: GroupId) -> Group:
        self._reach()
        if not self.acls.allows(principal, "read", "group", group):
            raise self._error("AUTHORIZATION_FAILED", f"{principal} may not read group {group}")
        return self.members_of.setdefault(group, Group())

    def _probe(self, tp: TopicPartition) -> ProbeAnswer:
        self.log(tp)
        config = self.contents[tp.topic].config
        bounded = config["message.timestamp.type"] == "CreateTime" and int(config["message.timestamp.after.max.ms"]) < _PROBE_AHEAD_MS
        if not bounded or not self.probe_principal or not self.acls.allows(self.probe_principal, "describe", "topic", tp.topic):
            return "unverifiable"
        return "writable" if self.lets_write(self.probe_principal, tp) else "refused"

    def _remember(self) -> None:
        """Keep what was in force until now, and until when, for brokers that are late. No broker ever unlearns what it knew."""
        now_s = self.clock.monotonic_s()
        self._before = [change for change in self._before if max(change[0].values()) > now_s]
        if self.late_s:
            last = self._before[-1][0] if self._before else {}
            known_s = {broker: max(now_s + late_s, last.get(broker, 0.0)) for broker, late_s in self.late_s.items()}
            self._before.append((known_s, frozenset(self.acls.bindings)))

    def _in_force(self, tp: TopicPartition) -> frozenset[Binding] | None:
        """Return the bindings by which a partition's broker judges; None where it knows the newest."""
        if not self._before:
            return None
        now_s, broker = self.clock.monotonic_s(), tp.partition % BROKERS
        return next((before for known_s, before in self._before if known_s.get(broker, 0.0) > now_s), None)

    def up_to_date(self) -> bool:
        """Whether every broker knows of every ACL."""
        now_s = self.clock.monotonic_s()
        return all(known_s <= now_s for known, _ in self._before for known_s in known.values())

    def catch_up(self) -> None:
        """Let every broker know of every ACL."""
        self.late_s.clear()
        self._before.clear()

    def _exists(self, tp: TopicPartition) -> bool:
        return tp.topic in self.contents and tp.partition < len(self.contents[tp.topic].logs)

    def _reach(self) -> None:
        if not self.reachable:
            raise self._error("CLUSTER_UNREACHABLE", "no answer", retryable=True)

    def _error(self, code: str, message: str, *, retryable: bool = False) -> MrcError:
        return MrcError(code, message, where=self.region, retryable=retryable)
