"""A plain MirrorMaker 2 estate in full traffic: adopted, moved there and back, given back. Counted from the topics' own contents."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from kazoo.client import KazooClient

from mrc.adapters.kafka.acls import EVERY_BINDING
from mrc.sandbox import connect
from mrc.sandbox.layout import Options
from mrc.sandbox.world import Sandbox
from tests.e2e.running import eventually, mrc, ready, refusal, said, state, values

pytestmark = pytest.mark.server

OLD, OURS, BACK = "mm2", "mrc.orders.east-west", "mrc.orders.west-east"
TOPICS = {"orders": 3, "payments": 4, "invoices": 2}
TIMEOUT_S = 60.0

STANDS_STILL_LESS_S = 1.0
"""By how much less copies may have been seen to stand still than is said: what MirrorMaker had under way comes late."""


class Plain:
    """A sandbox without mrc: one connector for everything, no fence, no record; somebody writes all the time."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.acked = dict.fromkeys(TOPICS, 0)
        self._number = 0
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._empty()
        self._thread.start()

    def _empty(self) -> None:
        """Take away what the sandbox brings along of mrc."""
        for region in ("east", "west"):
            for name in self.rest(region, "GET", "/connectors"):
                self.rest(region, "DELETE", f"/connectors/{name}")
        zookeeper = KazooClient(hosts=self.sandbox.layout.zookeeper(), timeout=TIMEOUT_S)
        zookeeper.start(timeout=TIMEOUT_S)
        zookeeper.delete("/mrc/groups", recursive=True)
        zookeeper.stop()
        zookeeper.close()
        admin = AdminClient({**self.sandbox.client_config("east", "admin")})
        for made in admin.create_topics([NewTopic("invoices", 2, 1)], request_timeout=TIMEOUT_S).values():
            made.result(timeout=TIMEOUT_S)
        config = connect.connectors(self.sandbox.layout, self.sandbox.state, "west")[OURS]
        config |= {"topics": ".*", "sync.topic.acls.enabled": "true", "heartbeats.replication.enabled": "true"}
        self.rest("west", "POST", "/connectors", {"name": OLD, "config": config})
        eventually(lambda: self.tasks(OLD) == ["RUNNING", "RUNNING"])

    def _write(self) -> None:
        quiet = {"enable.idempotence": True, "linger.ms": 5}
        producer = Producer({**self.sandbox.client_config("east", "admin"), **quiet})

        def acked(error: KafkaError | None, message: Message[bytes, bytes]) -> None:
            assert error is None
            self.acked[str(message.topic())] += 1

        turn = 0
        while not self._ends.wait(0.01):
            for topic, partitions in TOPICS.items():
                self._number += 1
                producer.produce(topic, f"event-{self._number}".encode(), partition=turn % partitions, on_delivery=acked)
            turn += 1
            producer.poll(0)
        assert producer.flush(TIMEOUT_S) == 0

    def quiet(self) -> None:
        """Nobody writes any more, and everything that was written is acknowledged."""
        self._ends.set()
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()

    def again(self) -> None:
        self._ends.clear()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def rest(self, region: str, method: str, path: str, body: object = None) -> list[str]:
        url = self.sandbox.layout.connect_url(region) + path
        data = None if body is None else json.dumps(body).encode()
        for attempt in range(100):
            request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
            try:
                with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                    return list(json.loads(answer.read() or b"[]"))
            except urllib.error.HTTPError as error:
                if error.code != 409 or attempt == 99:
                    raise
                time.sleep(0.2)
        raise AssertionError(path)

    def tasks(self, connector: str) -> list[str]:
        """Return the states of a connector's tasks; none while Connect does not know of it yet."""
        url = f"{self.sandbox.layout.connect_url('west')}/connectors/{connector}/status"
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
                return [task["state"] for task in json.loads(answer.read())["tasks"]]
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            return []

    def contents(self, region: str, topic: str) -> dict[int, list[bytes | None]]:
        """Read a topic from its beginning to its end, past mrc."""
        return {partition: list(values(self.sandbox, region, topic, partition).values()) for partition in range(TOPICS[topic])}

    def same(self) -> None:
        """West gets what east has, each record once, in its order."""
        for topic in TOPICS:
            east = self.contents("east", topic)
            assert sum(map(len, east.values())) >= self.acked[topic] > 0
            counts = [len(values) for values in east.values()]
            eventually(partial(self._has, topic, counts))
            assert self.contents("west", topic) == east, topic

    def _has(self, topic: str, counts: list[int]) -> bool:
        return [len(held) for held in self.contents("west", topic).values()] >= counts

    def end(self, region: str) -> int:
        """Return where the first partition of orders ends."""
        consumer = Consumer({**self.sandbox.client_config(region, "admin"), "group.id": "judge"})
        try:
            return consumer.get_watermark_offsets(TopicPartition("orders", 0), timeout=TIMEOUT_S)[1]
        finally:
            consumer.close()

    def committed(self, region: str, at: list[TopicPartition] | None = None) -> list[int]:
        """Return the positions of a group without members, committed first where ``at`` says so."""
        config = {**self.sandbox.client_config(region, "consumer"), "group.id": "billing", "enable.auto.commit": False}
        consumer = Consumer(config)
        try:
            if at is not None:
                consumer.commit(offsets=at, asynchronous=False)
            asked = [TopicPartition("orders", partition) for partition in range(TOPICS["orders"])]
            return [found.offset for found in consumer.committed(asked, timeout=TIMEOUT_S)]
        finally:
            consumer.close()

    @contextmanager
    def stands_still(self) -> Iterator[list[float]]:
        """Watch the copies of one partition grow; afterwards the list holds for how many seconds they did not, at the longest."""
        ends, longest = threading.Event(), [0.0]
        consumer = Consumer({**self.sandbox.client_config("west", "admin"), "group.id": "judge", "enable.auto.commit": False})

        def watch() -> None:
            last, grew_s = -1, time.monotonic()
            while not ends.wait(0.02):
                high, now_s = consumer.get_watermark_offsets(TopicPartition("orders", 0), timeout=TIMEOUT_S)[1], time.monotonic()
                longest[0] = max(longest[0], now_s - grew_s)
                if high != last:
                    last, grew_s = high, now_s

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield longest
        finally:
            ends.set()
            watcher.join(TIMEOUT_S)
            consumer.close()

    def bindings(self, region: str) -> set[str]:
        admin = AdminClient({**self.sandbox.client_config(region, "admin")})
        return {str(binding) for binding in admin.describe_acls(EVERY_BINDING, request_timeout=TIMEOUT_S).result(timeout=TIMEOUT_S)}


@pytest.fixture
def plain() -> Iterator[Plain]:
    sandbox = Sandbox(state("adoption"))
    sandbox.up(Options())
    plain = None
    try:
        plain = Plain(sandbox)
        yield plain
    finally:
        if plain is not None:
            plain.quiet()
        sandbox.down()


def test_a_plain_estate_is_adopted_moved_and_given_back_with_nothing_lost_and_nothing_twice(plain: Plain) -> None:
    sandbox = plain.sandbox
    eventually(lambda: plain.acked["orders"] > 200)
    positions = plain.committed("east", [TopicPartition("orders", partition, 5) for partition in range(TOPICS["orders"])])
    before = {region: plain.bindings(region) for region in ("east", "west")}

    shown = said(sandbox, "init", "east", "--dry-run")
    assert not shown["done"]
    assert any(f"stop {OLD}" in act for act in shown["acts"])
    assert plain.rest("west", "GET", "/connectors") == [OLD]

    with plain.stands_still() as longest_s:
        adopted = mrc(sandbox, "init", "east", "--yes")
        assert adopted.returncode == 0, adopted.stderr
        copied = plain.end("west")
        eventually(lambda: plain.end("west") > copied)
    done = json.loads(adopted.stdout)
    assert done["unproved"] == []
    # What is said is told from Connect's words; the first copy comes a moment later, and how long a moment is the machine's matter.
    assert 0 < done["paused_ms"] / 1000 < longest_s[0] + STANDS_STILL_LESS_S, longest_s
    assert set(plain.rest("west", "GET", "/connectors")) == {OLD, OURS}
    assert plain.rest("east", "GET", "/connectors") == [BACK]
    assert refusal(mrc(sandbox, "init", "east", "--yes"))["code"] == "ALREADY_ADOPTED"
    so_far = plain.acked["orders"]
    eventually(lambda: plain.acked["orders"] > so_far + 100)
    plain.quiet()
    plain.same()

    sandbox.start_agents()
    for region in ("west", "east"):
        ready(sandbox, region)
        moved = mrc(sandbox, "switchover", region, "--yes")
        assert moved.returncode == 0, moved.stderr
        if region == "west":
            assert [f["code"] for f in said(sandbox, "unmanage", "west", "--dry-run")["findings"]] == ["ADOPTION_REFUSED"]
    plain.same()

    plain.again()
    left = mrc(sandbox, "unmanage", "east", "--yes", "--remove-nodes")
    assert left.returncode == 0, left.stderr
    assert json.loads(left.stdout)["paused_ms"] > 0
    so_far = plain.acked["orders"]
    eventually(lambda: plain.acked["orders"] > so_far + 100)
    plain.quiet()
    assert plain.rest("west", "GET", "/connectors") == [OLD]
    assert plain.rest("east", "GET", "/connectors") == []
    plain.same()
    denied = {region: {one for one in plain.bindings(region) if "DENY" in one} for region in before}
    assert denied == {region: {one for one in bindings if "DENY" in one} for region, bindings in before.items()}
    assert plain.committed("east") == positions == [5, 5, 5]
