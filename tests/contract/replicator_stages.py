"""One flow with its source and its target: in memory, and a connector of its own in a sandbox."""

from __future__ import annotations

import json
import time
import urllib.request
import uuid
from typing import Protocol

from mrc.adapters.kafka import KafkaCluster
from mrc.adapters.mirrormaker import ConnectReplicator
from mrc.core.model import TopicPartition
from mrc.ports import Binding, Cluster, Replicator
from mrc.sandbox.world import Sandbox
from mrc.sim.clock import FakeClock
from mrc.sim.cluster import FakeCluster
from mrc.sim.replicator import FakeReplicator
from tests.contract.cluster_stages import DEADLINE_S, RealStage, access


class FlowStage(Protocol):
    """A flow from ``source`` to ``target`` that copies one topic of two partitions, RUNNING, exactly once."""

    replicator: Replicator
    dead: Replicator
    connector: str
    topic: str
    source: Cluster
    target: Cluster

    def produce(self, partition: int, values: list[str]) -> None: ...

    def turn(self) -> None: ...


class FakeFlow:
    def __init__(self) -> None:
        clock = FakeClock()
        self._source, target = FakeCluster("east", clock), FakeCluster("west", clock)
        self.source: Cluster = self._source
        self.target: Cluster = target
        self._fake = FakeReplicator(target, exactly_once=True)
        self._fake.stop_takes_s = 1.0
        self.replicator: Replicator = self._fake
        silent = FakeReplicator(target)
        silent.reachable = False
        self.dead: Replicator = silent
        self._clock = clock
        self.topic = "orders"
        self.connector = "mrc.test"
        self._source.make_topic(self.topic, 2)
        target.make_topic(self.topic, 2)
        target.add_bindings([Binding("topic", self.topic, "literal", "User:mm2", "all", "allow")])
        self._fake.add(self.connector, self._source, "identity", [self.topic])

    def produce(self, partition: int, values: list[str]) -> None:
        for value in values:
            self._source.produce("User:admin", TopicPartition(self.topic, partition), b"k", value.encode())

    def turn(self) -> None:
        self._fake.copy(self.connector)
        self._clock.sleep(0.2)


class RealFlow:
    def __init__(self, sandbox: Sandbox) -> None:
        self._east = RealStage(sandbox)
        self.source: Cluster = self._east.cluster
        self._west = KafkaCluster("west", access(sandbox, "west", "mrc"), None, DEADLINE_S)
        self.target: Cluster = self._west
        self._url = sandbox.layout.connect_url("west")
        self._real = ConnectReplicator(self._url, 10.0)
        self.replicator: Replicator = self._real
        self.dead: Replicator = ConnectReplicator("http://127.0.0.1:1", 1.0)
        self.topic = self._east.topic(2)
        self.connector = f"test.{uuid.uuid4().hex[:8]}"
        like = self._real.settings("mrc.orders.east-west")
        config = {**like, "name": self.connector, "topics": self.topic}
        self._rest("POST", "/connectors", {"name": self.connector, "config": config})

    def produce(self, partition: int, values: list[str]) -> None:
        self._east.produce(TopicPartition(self.topic, partition), values)

    def turn(self) -> None:
        time.sleep(0.1)

    def close(self) -> None:
        self._rest("DELETE", f"/connectors/{self.connector}")
        self._east.close()
        self._west.close()

    def _rest(self, method: str, path: str, body: object = None) -> None:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, {"Content-Type": "application/json"}, method=method)
        for attempt in range(50):
            try:
                with urllib.request.urlopen(request, timeout=10):
                    return
            except urllib.error.HTTPError as error:
                if error.code != 409 or attempt == 49:
                    raise
                time.sleep(0.2)
