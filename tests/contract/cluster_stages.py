"""A Kafka cluster with applications and operators around it: in memory, and in a sandbox. Tests see no difference."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from confluent_kafka import Consumer, KafkaError, Message, Producer
from confluent_kafka import TopicPartition as Wire
from confluent_kafka.admin import AclBinding, AclBindingFilter, AdminClient, NewTopic

from mrc.adapters.kafka import Access, KafkaCluster
from mrc.adapters.kafka.acls import to_kafka
from mrc.core.model import GroupId, Offset, TopicPartition
from mrc.ports import Binding, Cluster
from mrc.sandbox.world import Sandbox
from mrc.sim.clock import FakeClock
from mrc.sim.cluster import FakeCluster
from tests.contract.waiting import eventually

DEADLINE_S = 3.0
WAIT_S = 15.0

Finish = Callable[[bool], None]
"""Ends a transaction: True commits."""


class ClusterStage(Protocol):
    """What a contract test of `Cluster` may do besides calling it."""

    cluster: Cluster
    dead: Cluster

    def topic(self, partitions: int = 1, **config: str) -> str: ...

    def produce(self, tp: TopicPartition, values: Sequence[str], timestamp_ms: int = 0) -> None: ...

    def begin(self, tp: TopicPartition, values: Sequence[str]) -> Finish: ...

    def trim(self, tp: TopicPartition, start: int) -> None: ...

    def forget_group(self, group: GroupId) -> None: ...

    def member(self, group: GroupId, topic: str) -> AbstractContextManager[None]: ...

    def for_one_host(self, binding: Binding) -> AbstractContextManager[None]: ...


def fresh_group() -> GroupId:
    return GroupId(f"test-{uuid.uuid4().hex[:8]}")


class FakeStage:
    def __init__(self) -> None:
        self.fake = FakeCluster("east", FakeClock())
        self.cluster: Cluster = self.fake
        silent = FakeCluster("east", FakeClock())
        silent.reachable = False
        self.dead: Cluster = silent
        self._names = itertools.count()

    def topic(self, partitions: int = 1, **config: str) -> str:
        name = f"test-{next(self._names)}"
        self.fake.make_topic(name, partitions, {key.replace("_", "."): value for key, value in config.items()})
        return name

    def produce(self, tp: TopicPartition, values: Sequence[str], timestamp_ms: int = 0) -> None:
        for value in values:
            self.fake.produce("User:admin", tp, b"k", value.encode(), timestamp_ms=timestamp_ms or None)

    def begin(self, tp: TopicPartition, values: Sequence[str]) -> Finish:
        transaction = self.fake.begin()
        for value in values:
            self.fake.produce("User:producer", tp, b"k", value.encode(), transaction=transaction)
        return lambda commit: self.fake.finish(transaction, commit=commit)

    def trim(self, tp: TopicPartition, start: int) -> None:
        self.fake.log(tp).trim(start)

    def forget_group(self, group: GroupId) -> None:
        self.fake.forget_group(group)

    @contextmanager
    def member(self, group: GroupId, topic: str) -> Iterator[None]:
        self.fake.join("User:admin", group)
        yield
        self.fake.leave(group)

    @contextmanager
    def for_one_host(self, binding: Binding) -> Iterator[None]:
        if binding.permission == "allow":  # a refusal for one host is nobody's to see
            self.fake.acls.bindings.add(binding)
            self.fake.for_one_host.add(binding)
        yield
        self.fake.acls.bindings.discard(binding)
        self.fake.for_one_host.discard(binding)


def access(sandbox: Sandbox, region: str, user: str) -> Access:
    config = sandbox.client_config(region, user)
    return Access(config["bootstrap.servers"], "SASL_PLAINTEXT", config["sasl.mechanism"], user, config["sasl.password"])


class RealStage:
    """The east of a sandbox; topics have names of their own and go with the sandbox."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        mrc = access(sandbox, "east", "mrc")
        self.real = KafkaCluster("east", mrc, access(sandbox, "east", "probe"), DEADLINE_S)
        self.cluster: Cluster = self.real
        self.dead: Cluster = KafkaCluster("east", Access("127.0.0.1:1"), Access("127.0.0.1:1"), 0.5)
        self._admin = AdminClient(dict(sandbox.client_config("east", "admin")))
        self._producer = Producer({**sandbox.client_config("east", "admin"), "enable.idempotence": True, "linger.ms": 0})

    def close(self) -> None:
        self.real.close()

    def topic(self, partitions: int = 1, **config: str) -> str:
        name = f"test-{uuid.uuid4().hex[:8]}"
        settings = {key.replace("_", "."): value for key, value in config.items()}
        made = self._admin.create_topics([NewTopic(name, partitions, config=settings)], request_timeout=WAIT_S)
        made[name].result(timeout=WAIT_S)
        return name

    def produce(self, tp: TopicPartition, values: Sequence[str], timestamp_ms: int = 0) -> None:
        failures: list[KafkaError] = []

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                failures.append(error)

        for value in values:
            self._producer.produce(tp.topic, value.encode(), b"k", tp.partition, timestamp=timestamp_ms, on_delivery=delivered)
        assert self._producer.flush(WAIT_S) == 0
        assert not failures

    def begin(self, tp: TopicPartition, values: Sequence[str]) -> Finish:
        config = self.sandbox.client_config("east", "producer")
        producer = Producer({**config, "transactional.id": f"test-{uuid.uuid4().hex}", "linger.ms": 0})
        producer.init_transactions(WAIT_S)
        producer.begin_transaction()
        for value in values:
            producer.produce(tp.topic, value.encode(), b"k", tp.partition)
        assert producer.flush(WAIT_S) == 0

        def finish(commit: bool) -> None:
            before = self.cluster.ends([tp], "read_uncommitted")
            if commit:
                producer.commit_transaction(WAIT_S)
            else:
                producer.abort_transaction(WAIT_S)
            # The answer comes before the markers are written.
            eventually(
                lambda: None, lambda: before != self.cluster.ends([tp], "read_uncommitted") == self.cluster.ends([tp], "read_committed")
            )

        return finish

    def trim(self, tp: TopicPartition, start: int) -> None:
        for future in self._admin.delete_records([Wire(tp.topic, tp.partition, start)], request_timeout=WAIT_S).values():
            future.result(timeout=WAIT_S)

    def forget_group(self, group: GroupId) -> None:
        self._admin.delete_consumer_groups([group], request_timeout=WAIT_S)[group].result(timeout=WAIT_S)

    @contextmanager
    def member(self, group: GroupId, topic: str) -> Iterator[None]:
        consumer = Consumer({**self.sandbox.client_config("east", "admin"), "group.id": group, "enable.auto.commit": False})
        consumer.subscribe([topic])
        for _ in range(100):
            consumer.poll(0.1)
            if consumer.assignment():
                break
        yield
        consumer.close()

    @contextmanager
    def for_one_host(self, binding: Binding) -> Iterator[None]:
        of = to_kafka(binding)
        fields = (of.restype, of.name, of.resource_pattern_type, of.principal, "192.0.2.1", of.operation, of.permission_type)
        made, gone = AclBinding(*fields), AclBindingFilter(*fields)
        self._admin.create_acls([made], request_timeout=WAIT_S)[made].result(timeout=WAIT_S)
        yield
        self._admin.delete_acls([gone], request_timeout=WAIT_S)[gone].result(timeout=WAIT_S)


def at(position: int) -> Offset:
    return Offset(position)
