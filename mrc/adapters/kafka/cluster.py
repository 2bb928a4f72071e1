"""One region's Kafka cluster through librdkafka: the `Cluster` port."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Future
from functools import partial
from typing import Any, Final

from confluent_kafka import ConsumerGroupState, IsolationLevel, KafkaError, KafkaException, TopicCollection
from confluent_kafka import TopicPartition as Wire
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec, ResourceType
from confluent_kafka.admin import TopicDescription as _Described

from mrc.adapters.kafka import acls, tails
from mrc.adapters.kafka.access import Access
from mrc.adapters.kafka.admin import DRIVER_TIMEOUT_S, Admin
from mrc.adapters.kafka.appending import Appender
from mrc.adapters.kafka.commits import TOPIC as COMMITS_TOPIC
from mrc.adapters.kafka.commits import CommitTail
from mrc.adapters.kafka.emitting import KafkaEmitter
from mrc.adapters.kafka.positions import GroupPositions
from mrc.adapters.kafka.probing import Probe
from mrc.adapters.kafka.reading import KafkaReader
from mrc.core.errors import MrcError
from mrc.core.model import GroupId, Offset, Record, Seen, TopicPartition
from mrc.ports import COMMITTED, Binding, GroupInfo, Isolation, Position, ProbeAnswer, Sight, TopicInfo

_STATES: Final = {
    "PREPARING_REBALANCING": "PreparingRebalance",
    "COMPLETING_REBALANCING": "CompletingRebalance",
    "STABLE": "Stable",
    "EMPTY": "Empty",
    "DEAD": "Dead",
}
"""The driver's words for a group's state, in Kafka's."""

_NO_LEADER = frozenset({KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.BROKER_NOT_AVAILABLE})

_LEADER_RETRY_S = 0.05

_GROUPS_AT_ONCE = 25

LOAD_DEADLINES = 10
"""Loading one of mrc's own topics may take this many deadlines."""


class KafkaCluster:
    """The port `Cluster`; connections are made when first needed and kept. Safe for several threads.

    Args:
        region: the region's name, for errors.
        access: how mrc itself reaches the cluster.
        probe: the probe principal's access; None answers every probe with ``unverifiable``.
        deadline_s: what any call may take (`load`: ten times that).
    """

    def __init__(self, region: str, access: Access, probe: Access | None, deadline_s: float) -> None:
        self._region = region
        self._access = access
        self._admin = Admin(access, region, deadline_s)
        self._probe = Probe(probe, region, deadline_s) if probe is not None else None
        self._appender = Appender(access, region, deadline_s)
        self._positions = GroupPositions(access, region, deadline_s)
        self._deadline_s = deadline_s

    def close(self) -> None:
        """Drop the connections; readers are closed by their owners."""
        self._admin.close()
        self._appender.close()
        self._positions.close()

    def topics(self, names: Sequence[str]) -> dict[str, TopicInfo]:
        """See `Cluster.topics`."""
        described = self._describe(list(dict.fromkeys(names)))
        configs = self._configs(ResourceType.TOPIC, list(described))
        return {
            name: TopicInfo(topic_id=str(described[name].topic_id), leaders=_leaders(described[name]), config=config)
            for name, config in configs.items()
        }

    def topic_names(self) -> list[str]:
        """See `Cluster.topic_names`."""
        return sorted(self._admin.ask_now(lambda c: c.list_topics(timeout=self._deadline_s)).topics)

    def starts(self, tps: Sequence[TopicPartition]) -> dict[TopicPartition, Offset]:
        """See `Cluster.starts`."""
        return self._offsets(tps, OffsetSpec.earliest(), IsolationLevel.READ_UNCOMMITTED)

    def ends(self, tps: Sequence[TopicPartition], isolation: Isolation) -> dict[TopicPartition, Offset]:
        """See `Cluster.ends`."""
        return self._offsets(tps, OffsetSpec.latest(), IsolationLevel[isolation.upper()])

    def since(self, tps: Sequence[TopicPartition], at_ms: int) -> dict[TopicPartition, Offset]:
        """Return where the first record stands that has this timestamp or a later one; a partition without one is left out."""
        spec = OffsetSpec.for_timestamp(at_ms)
        return self._offsets(tps, spec, IsolationLevel.READ_UNCOMMITTED, none=-1)

    def group_ids(self) -> list[GroupId]:
        """See `Cluster.group_ids`."""
        listed = self._admin.ask_one("list groups", lambda c: c.list_consumer_groups(request_timeout=DRIVER_TIMEOUT_S))
        if listed.errors:
            # The driver hands over one or the other.
            first = listed.errors[0]
            raise self._admin.error(first.args[0] if isinstance(first, KafkaException) else first, "list groups")
        return sorted(GroupId(group.group_id) for group in listed.valid)

    def other_groups(self) -> dict[GroupId, str]:
        """See `Cluster.other_groups`."""
        # The newer calls of the driver leave these groups out; this one names the protocol, where a broker tells it.
        every: list[Any] = self._admin.ask_now(lambda c: c.list_groups(timeout=self._deadline_s))
        consumers = {*self.group_ids(), *(group.id for group in every if group.protocol_type == "consumer")}
        return {GroupId(group.id): group.protocol_type or "" for group in every if group.id not in consumers}

    def group(self, group: GroupId) -> GroupInfo:
        """See `Cluster.group`."""
        return self.groups([group])[group]

    def groups(self, groups: Sequence[GroupId]) -> dict[GroupId, GroupInfo]:
        """See `Cluster.groups`. The deadline is for `_GROUPS_AT_ONCE`: the driver makes two requests of each group.

        Of a group without members there is no more to know than its state, and one answer of each broker names all of those.
        """
        found = self._empty(set(groups)) if len(groups) > 1 else {}
        left = [group for group in groups if group not in found]
        for begin in range(0, len(left), _GROUPS_AT_ONCE):
            some = left[begin : begin + _GROUPS_AT_ONCE]
            what = f"groups {some[0]} to {some[-1]}" if len(some) > 1 else f"group {some[0]}"
            answers = self._admin.ask(what, partial(_describe_groups, groups=some))
            found |= {group: self._described(group, answers[group]) for group in some}
        return found

    def _empty(self, groups: AbstractSet[GroupId]) -> dict[GroupId, GroupInfo]:
        """Return those without members, as far as brokers tell: who is not named here has to be asked for.

        Every broker is asked, so one that is dead costs the deadline, and no answer.
        """
        try:
            listed = self._admin.ask_one(
                "list groups", lambda c: c.list_consumer_groups(states={ConsumerGroupState.EMPTY}, request_timeout=DRIVER_TIMEOUT_S)
            )
        except MrcError as error:
            if not error.retryable:
                raise
            return {}
        return {GroupId(one.group_id): GroupInfo(state="Empty", members=0) for one in listed.valid if one.group_id in groups}

    def _described(self, group: GroupId, answer: Any) -> GroupInfo:  # the driver's answers are not typed
        if isinstance(answer, KafkaError):
            if answer.code() == KafkaError.GROUP_ID_NOT_FOUND:
                return GroupInfo(state="Dead", members=0)
            raise self._admin.error(answer, f"group {group}")
        return GroupInfo(state=_STATES.get(answer.state.name, answer.state.name.title()), members=len(answer.members))

    def positions(self, group: GroupId) -> dict[TopicPartition, Position]:
        """See `Cluster.positions`."""
        return self._positions.read((group,))[group]

    def positions_of(self, groups: Sequence[GroupId]) -> dict[GroupId, dict[TopicPartition, Position]]:
        """See `Cluster.positions_of`."""
        found = self._positions.read(groups)
        return {group: found[group] for group in groups}

    def commits(self) -> CommitTail:
        """See `Cluster.commits`."""
        described = self._describe([COMMITS_TOPIC])
        if not described:
            raise MrcError("UNKNOWN_TOPIC", f"{COMMITS_TOPIC} does not exist yet", where=self._region, retryable=True)
        tps = [TopicPartition(COMMITS_TOPIC, p) for name in described for p in range(len(_leaders(described[name])))]
        return CommitTail(self._access, self._region, self.ends(tps, "read_committed"), self._deadline_s)

    def commit_positions(self, group: GroupId, positions: Mapping[TopicPartition, Position]) -> None:
        """See `Cluster.commit_positions`. Partitions without an error are committed even when another's is raised."""
        self.commit_positions_of({group: positions})

    def commit_positions_of(self, positions: Mapping[GroupId, Mapping[TopicPartition, Position]]) -> None:
        """See `Cluster.commit_positions_of`."""
        self._positions.commit({group: wanted for group, wanted in positions.items() if wanted})

    def bindings(self, *, everywhere: bool = False) -> frozenset[Binding]:
        """See `Cluster.bindings`."""
        what = "list ACLs"
        found = self._admin.ask_one(what, lambda c: c.describe_acls(acls.EVERY_BINDING, request_timeout=DRIVER_TIMEOUT_S))
        if not found:
            # The driver answers "none" also where the broker refused the question, and a fence must not be built on that.
            self._require_describe_cluster()
        return acls.from_kafka(found, everywhere=everywhere)

    def add_bindings(self, bindings: Iterable[Binding]) -> None:
        """See `Cluster.add_bindings`."""
        wanted = [acls.to_kafka(binding) for binding in sorted(set(bindings))]
        if wanted:
            self._admin.ask_all("add ACLs", lambda c: c.create_acls(wanted, request_timeout=DRIVER_TIMEOUT_S))

    def remove_bindings(self, bindings: Iterable[Binding]) -> None:
        """See `Cluster.remove_bindings`."""
        unwanted = [acls.exactly(binding) for binding in sorted(set(bindings))]
        if unwanted:
            self._admin.ask_all("remove ACLs", lambda c: c.delete_acls(unwanted, request_timeout=DRIVER_TIMEOUT_S))

    def broker_settings(self) -> dict[str, str]:
        """See `Cluster.broker_settings`.

        A broker hides the values of settings that it does not define itself; ``super.users`` and
        ``allow.everyone.if.no.acl.found`` belong to the authorizer and are hidden. What is hidden is absent.
        """
        broker = str(self._brokers()[0])
        return self._configs(ResourceType.BROKER, [broker])[broker]

    def probe(self, tps: Sequence[TopicPartition]) -> dict[TopicPartition, ProbeAnswer]:
        """See `Cluster.probe`."""
        if self._probe is None or not tps:
            return dict.fromkeys(tps, "unverifiable")
        topics = self.topics(sorted({tp.topic for tp in tps}))
        for tp in tps:
            if tp.topic not in topics or tp.partition >= len(topics[tp.topic].leaders):
                raise MrcError("UNKNOWN_TOPIC", "there is no such partition to probe", where=f"{self._region} {tp}")
        return self._probe.ask(tps, topics)

    def last_records(
        self, tps: Sequence[TopicPartition], below: Mapping[TopicPartition, Offset], sight: Sight = COMMITTED
    ) -> dict[TopicPartition, Seen | None]:
        """See `Cluster.last_records`."""
        return tails.last_records(self._access, self._region, self.starts(tps), below, self._deadline_s, sight) if tps else {}

    def reader(self, start: Mapping[TopicPartition, Offset], sight: Sight = COMMITTED) -> KafkaReader:
        """See `Cluster.reader`. A position outside of the log raises ``OFFSET_OUT_OF_RANGE`` from `poll`: it never jumps."""
        return KafkaReader(self._access, self._region, start, self._deadline_s, sight)

    def records(self, tp: TopicPartition, begin: Offset, limit: int, sight: Sight = COMMITTED) -> tuple[Record, ...]:
        """See `Cluster.records`."""
        span = (Offset(max(begin, self.starts([tp])[tp])), self.ends([tp], sight.isolation)[tp])
        return tails.first_records(self._access, self._region, tp, span, limit, self._deadline_s, sight)

    def ensure_topic(self, name: str, *, compacted: bool, partitions: int = 1) -> None:
        """See `Cluster.ensure_topic`."""
        kept = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}
        self._make_topic(name, partitions, {"cleanup.policy": "compact"} if compacted else kept)

    def make_topic_like(self, name: str, partitions: int, config: Mapping[str, str]) -> None:
        """See `Cluster.make_topic_like`."""
        self._make_topic(name, partitions, config)

    def delete_topic(self, name: str) -> None:
        """See `Cluster.delete_topic`."""
        answer = self._admin.ask(f"delete topic {name}", lambda c: c.delete_topics([name], request_timeout=DRIVER_TIMEOUT_S))[name]
        if isinstance(answer, KafkaError) and answer.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise self._admin.error(answer, f"delete topic {name}")

    def delete_records(self, below: Mapping[TopicPartition, Offset]) -> None:
        """See `Cluster.delete_records`."""
        if not below:
            return
        wires = [Wire(tp.topic, tp.partition, offset) for tp, offset in below.items()]
        answers = self._admin.ask(
            "delete records", lambda c: c.delete_records(wires, request_timeout=DRIVER_TIMEOUT_S, operation_timeout=DRIVER_TIMEOUT_S)
        )
        for wire, answer in answers.items():
            if isinstance(answer, KafkaError) and answer.code() == KafkaError._NOENT:
                raise self._without_leaders(sorted({tp.topic for tp in below}))
            if isinstance(answer, KafkaError):
                raise self._admin.error(answer, f"delete records of {wire.topic}-{wire.partition}")

    def emitter(self, name: str) -> KafkaEmitter:
        """See `Cluster.emitter`."""
        return KafkaEmitter(self._access, self._region, name, self._deadline_s)

    def _make_topic(self, name: str, partitions: int, config: Mapping[str, str]) -> None:
        topic = NewTopic(name, partitions, -1, config=dict(config))
        answer = self._admin.ask(f"make topic {name}", lambda c: c.create_topics([topic], request_timeout=DRIVER_TIMEOUT_S))[name]
        if isinstance(answer, KafkaError) and answer.code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise self._admin.error(answer, f"make topic {name}")

    def remove_topics(self, names: Iterable[str]) -> None:
        """See `Cluster.remove_topics`."""
        if not (wanted := list(names)):
            return
        answers = self._admin.ask("delete topics", lambda c: c.delete_topics(wanted, request_timeout=DRIVER_TIMEOUT_S))
        for name, answer in answers.items():
            if isinstance(answer, KafkaError) and answer.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise self._admin.error(answer, f"delete topic {name}")

    def append(self, topic: str, entries: Sequence[tuple[bytes, bytes | None]]) -> None:
        """See `Cluster.append`."""
        self._appender.append(topic, entries)

    def load(self, topic: str) -> dict[bytes, bytes]:
        """See `Cluster.load`."""
        if not self._describe([topic]):
            return {}
        tp = TopicPartition(topic, 0)
        end = self.ends([tp], "read_committed")[tp]
        return tails.last_values(self._access, self._region, tp, (self.starts([tp])[tp], end), self._deadline_s * LOAD_DEADLINES)

    def _describe(self, names: Sequence[str]) -> dict[str, _Described]:
        if not names:
            return {}
        answers = self._admin.ask(
            "describe topics", lambda c: c.describe_topics(TopicCollection(list(names)), request_timeout=DRIVER_TIMEOUT_S)
        )
        found: dict[str, _Described] = {}
        for name, answer in answers.items():
            if not isinstance(answer, KafkaError):
                found[name] = answer
            elif answer.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise self._admin.error(answer, name)
        return found

    def _configs(self, kind: ResourceType, names: Sequence[str]) -> dict[str, dict[str, str]]:
        if not names:
            return {}
        resources = [ConfigResource(kind, name) for name in names]
        answers = self._admin.ask("describe settings", lambda c: c.describe_configs(resources, request_timeout=DRIVER_TIMEOUT_S))
        found: dict[str, dict[str, str]] = {}
        for resource, answer in answers.items():
            if not isinstance(answer, KafkaError):
                found[resource.name] = {name: entry.value for name, entry in answer.items() if entry.value is not None}
            elif answer.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise self._admin.error(answer, f"settings of {resource.name}")
        return found

    def _offsets(
        self, tps: Sequence[TopicPartition], spec: OffsetSpec, isolation: IsolationLevel, none: int | None = None
    ) -> dict[TopicPartition, Offset]:
        """Return offsets; an election in progress is waited for, up to the deadline. Who answers ``none`` is left out."""
        if not tps:
            return {}
        request = {Wire(tp.topic, tp.partition): spec for tp in tps}
        until_s = time.monotonic() + self._deadline_s
        while True:
            answers = self._admin.ask(
                "list offsets", lambda c: c.list_offsets(request, isolation_level=isolation, request_timeout=DRIVER_TIMEOUT_S)
            )
            failed = [(wire, answer) for wire, answer in answers.items() if isinstance(answer, KafkaError)]
            if not failed:
                found = {wire: answer for wire, answer in answers.items() if not isinstance(answer, KafkaError) and answer.offset != none}
                return {TopicPartition(wire.topic, wire.partition): self._listed(wire, answer) for wire, answer in found.items()}
            wire, error = failed[0]
            if error.code() == KafkaError._NOENT:
                raise self._without_leaders(sorted({tp.topic for tp in tps}))
            if error.code() not in _NO_LEADER or time.monotonic() > until_s:
                raise self._admin.error(error, f"{wire.topic}-{wire.partition}")
            time.sleep(_LEADER_RETRY_S)

    def _listed(self, wire: Wire, answer: Any) -> Offset:  # the driver's answers are not typed
        """Return a listed offset; the driver says -1001, without an error, of a leader that did not answer."""
        if answer.offset < 0:
            raise MrcError(
                "CLUSTER_UNREACHABLE", "the leader did not answer", where=f"{self._region} {wire.topic}-{wire.partition}", retryable=True
            )
        return Offset(answer.offset)

    def _without_leaders(self, names: list[str]) -> MrcError:
        """Return why the driver found no leader: it says the same of missing, forbidden and leaderless partitions."""
        described = self._describe(names)
        missing = [name for name in names if name not in described]
        if missing:
            return MrcError("UNKNOWN_TOPIC", "there is no such topic", where=f"{self._region} {missing[0]}")
        if all(leader >= 0 for topic in described.values() for leader in _leaders(topic)):
            return MrcError("UNKNOWN_TOPIC", "there is no such partition", where=f"{self._region} {', '.join(names)}")
        return MrcError("CLUSTER_UNREACHABLE", "a partition has no leader", where=f"{self._region} {', '.join(names)}", retryable=True)

    def _brokers(self) -> list[int]:
        """Return the ids of the brokers that are in service; at least one.

        Not by describing the cluster: the driver (2.16) aborts the process when the answer names no broker, as it does for a moment while a
        region returns. The topic asked for beside does not matter.
        """
        found = self._admin.ask_now(lambda c: c.list_topics(COMMITS_TOPIC, timeout=self._deadline_s))
        if not found.brokers:
            raise MrcError("CLUSTER_UNREACHABLE", "no broker is in service", where=self._region, retryable=True)
        return sorted(found.brokers)

    def _require_describe_cluster(self) -> None:
        self._brokers()
        cluster = self._admin.ask_one(
            "describe cluster", lambda c: c.describe_cluster(include_authorized_operations=True, request_timeout=DRIVER_TIMEOUT_S)
        )
        if not any(operation.name in {"DESCRIBE", "ALL"} for operation in cluster.authorized_operations or ()):
            raise MrcError("AUTHORIZATION_FAILED", "mrc may not list ACLs: it lacks DESCRIBE on the cluster", where=self._region)


def _describe_groups(admin: AdminClient, groups: Sequence[GroupId]) -> dict[str, Future[Any]]:
    return admin.describe_consumer_groups(list(groups), request_timeout=DRIVER_TIMEOUT_S)


def _leaders(topic: _Described) -> tuple[int, ...]:
    leaders: list[Any] = [partition.leader for partition in topic.partitions]  # The stub forgets that a leader may be missing.
    return tuple(-1 if leader is None else leader.id for leader in leaders)
