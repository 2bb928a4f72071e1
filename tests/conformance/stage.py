"""What cases are set up with: the sandbox's clusters and workers, as an administrator and as applications reach them."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, ResourceType

from mrc.sandbox import connect
from mrc.sandbox.world import Sandbox
from tests.conformance.logs import records

WAIT_S = 240.0
POLL_S = 0.2
REST_S = 240.0
OFFSETS_PARTITIONS = 4
BUSY = (404, 409, 500, 503)
"""What a worker answers while it rebalances, or before it has heard of a connector that it has just taken."""

MAIN = connect.flow_connector("east", "west")
Headers = list[tuple[str, str | bytes | None]]


def eventually(holds: Callable[[], bool], what: str, timeout_s: float = WAIT_S, every_s: float = POLL_S) -> None:
    """Return as soon as it holds; fail saying what did not."""
    until_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < until_s, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(every_s)


@dataclass
class Topic:
    """A case's topic.

    Attributes:
        name, target: its names in east and in west.
        partitions: how many it has in east by now.
        life: how often it was made anew; part of the ids of its events.
    """

    name: str
    target: str
    partitions: int
    life: int = 0


@dataclass
class Stage:
    """One running sandbox.

    Attributes:
        lost: ids of events that MirrorMaker is not to copy.
        headless: ids of events that were deleted from the source's head.
        members: consumers that stay members of their groups.
        prepared: settings of connectors that may be posted.
        posted: connectors that were.
    """

    sandbox: Sandbox
    exactly_once: bool
    lost: set[str] = field(default_factory=set)
    headless: set[str] = field(default_factory=set)
    members: list[Consumer] = field(default_factory=list)
    prepared: dict[str, Mapping[str, str]] = field(default_factory=dict)
    posted: set[str] = field(default_factory=set)
    _ids: Counter[tuple[str, int, int]] = field(default_factory=Counter)
    _admins: dict[str, AdminClient] = field(default_factory=dict)
    _producers: dict[str, Producer] = field(default_factory=dict)
    _open: list[Producer] = field(default_factory=list)

    # -- clients

    def config(self, region: str) -> dict[str, Any]:
        """Return librdkafka's settings of the administrator."""
        return dict(self.sandbox.client_config(region, "admin"))

    def admin(self, region: str) -> AdminClient:
        if region not in self._admins:
            self._admins[region] = AdminClient(self.config(region))
        return self._admins[region]

    def producer(self, region: str, transactional_id: str = "") -> Producer:
        """Return the region's producer of this name; the plain one where it has none."""
        key = f"{region} {transactional_id}"
        if key not in self._producers:
            settings = {**self.config(region), "enable.idempotence": True, "linger.ms": 2}
            if transactional_id:
                settings |= {"transactional.id": transactional_id, "transaction.timeout.ms": 600_000}
            self._producers[key] = Producer(settings)
            if transactional_id:
                self._producers[key].init_transactions(WAIT_S)
        return self._producers[key]

    def close(self) -> None:
        """Let the groups' members leave."""
        for member in self.members:
            member.close()

    # -- topics

    def make(self, region: str, wanted: Mapping[str, tuple[int, Mapping[str, str]]]) -> None:
        """Make topics: name -> partitions and settings. One that is just being deleted is waited for."""
        left = dict(wanted)

        def made() -> bool:
            new = [NewTopic(name, partitions, 1, config=dict(config)) for name, (partitions, config) in left.items()]
            for name, future in self.admin(region).create_topics(new, request_timeout=WAIT_S).items():
                try:
                    future.result(timeout=WAIT_S)
                    del left[name]
                except KafkaException as error:
                    if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                        raise
            return not left

        if wanted:
            eventually(made, f"topics {sorted(wanted)} could be made in {region}")

    def delete(self, region: str, name: str) -> None:
        self.admin(region).delete_topics([name], request_timeout=WAIT_S)[name].result(timeout=WAIT_S)

    def grow(self, region: str, name: str, partitions: int) -> None:
        self.admin(region).create_partitions([NewPartitions(name, partitions)], request_timeout=WAIT_S)[name].result(timeout=WAIT_S)
        self.told(region, name, partitions)

    def told(self, region: str, name: str, partitions: int) -> None:
        """Return when the brokers tell of all the topic's partitions; producers ask for them anew then."""
        eventually(
            lambda: len(self.admin(region).list_topics(name, timeout=60).topics[name].partitions) == partitions, f"{name} has {partitions}"
        )
        self.flush(region)
        self._producers.pop(f"{region} ", None)

    def configure(self, region: str, name: str, settings: Mapping[str, str], kind: ResourceType = ResourceType.TOPIC) -> None:
        changes = [ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET) for key, value in settings.items()]
        resource = ConfigResource(kind, name, incremental_configs=changes)
        for future in self.admin(region).incremental_alter_configs([resource], request_timeout=WAIT_S).values():
            future.result(timeout=WAIT_S)

    def trim(self, name: str, partitions: int, start: int) -> None:
        """Delete the heads of a topic's logs in east."""
        heads = [TopicPartition(name, partition, start) for partition in range(partitions)]
        for future in self.admin("east").delete_records(heads, request_timeout=WAIT_S).values():
            future.result(timeout=WAIT_S)

    # -- records

    def id(self, topic: Topic, partition: int) -> str:
        """Return the next event's id."""
        key = (topic.name, partition, topic.life)
        self._ids[key] += 1
        return f"{topic.name}/{partition}/{topic.life}/{self._ids[key]}"

    def send(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        *,
        timestamp_ms: int = 0,
        headers: Headers | None = None,
        region: str = "east",
        producer: Producer | None = None,
    ) -> None:
        """Queue a record; `flush` says whether all were taken."""
        used = producer or self.producer(region)
        while True:
            try:
                used.produce(topic, value, key, partition, timestamp=timestamp_ms, headers=headers or [], on_delivery=_delivered)
                break
            except BufferError:
                used.poll(0.05)

    def flush(self, region: str = "east", producer: Producer | None = None) -> None:
        assert (producer or self.producer(region)).flush(WAIT_S) == 0, "records were not acknowledged"

    def open_transaction(self, name: str) -> Producer:
        """Return a producer in a transaction."""
        producer = self.producer("east", name)
        producer.begin_transaction()
        return producer

    # -- groups

    def commit(self, group: str, positions: Mapping[tuple[str, int], int], *, region: str = "east") -> None:
        """Commit positions of a group without members."""
        rows = [TopicPartition(*where, offset) for where, offset in positions.items()]
        futures = self.admin(region).alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, rows)], request_timeout=WAIT_S)
        for future in futures.values():
            for row in future.result(timeout=WAIT_S).topic_partitions:
                assert row.error is None, row.error

    def committed(self, group: str, where: tuple[str, int], region: str) -> tuple[int, bytes]:
        """Return a group's position with its metadata, as Kafka's own topic holds them; -1 where it has none.

        The driver reads metadata beyond its end. Source: Kafka's OffsetCommitKey and OffsetCommitValue.
        """
        found = (-1, b"")
        wanted = [("__consumer_offsets", partition) for partition in range(OFFSETS_PARTITIONS)]
        rows, _ = records(self.config(region), wanted, "read_committed")
        for record in (record for part in rows.values() for record in part):
            if record.key is None or record.key[:2] not in (b"\0\0", b"\0\1"):
                continue
            name, at = text(record.key, 2)
            topic, at = text(record.key, at)
            if (name.decode(), topic.decode(), int.from_bytes(record.key[at:], "big")) == (group, *where):
                offset = -1 if record.value is None else int.from_bytes(record.value[2:10], "big")
                found = (offset, b"" if record.value is None else metadata(record.value))
        return found

    def member(self, group: str, topic: str, *, region: str = "east", **settings: str) -> Consumer:
        """Return a consumer that has become a member of the group and stays one until `close`: nobody polls it for the rest of the run."""
        own = {"group.id": group, "enable.auto.commit": False, "auto.offset.reset": "earliest", "max.poll.interval.ms": 3_600_000}
        consumer = Consumer({**self.config(region), **own, **settings})
        consumer.subscribe([topic])
        self.members.append(consumer)

        def joined() -> bool:
            consumer.poll(0.1)
            return bool(consumer.assignment())

        eventually(joined, f"a member of {group} was assigned partitions", every_s=0.0)
        return consumer

    # -- Connect

    def rest(self, method: str, path: str, body: object = None, *, region: str = "west") -> Any:
        """Ask a region's worker; one that is busy, or says nothing, is asked again, for a minute and a half."""
        url = self.sandbox.layout.connect_url(region) + path
        data = None if body is None else json.dumps(body).encode()
        until_s = time.monotonic() + REST_S
        while True:
            request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    text = answer.read()
                return json.loads(text) if text else None
            except urllib.error.HTTPError as error:
                if error.code not in BUSY or time.monotonic() > until_s:
                    raise AssertionError(f"{method} {path}: {error.code} {error.read().decode(errors='replace')}") from error
            except (TimeoutError, urllib.error.URLError) as error:
                if time.monotonic() > until_s:
                    raise AssertionError(f"{method} {path}: {error}") from error
            time.sleep(POLL_S)

    def post(self, name: str, *, state: str = "RUNNING", region: str = "west") -> None:
        """Make a connector that was prepared."""
        self.rest("POST", "/connectors", {"name": name, "config": self.prepared[name], "initial_state": state}, region=region)
        self.posted.add(name)

    def tasks(self, connector: str, region: str = "west") -> tuple[str, list[str]]:
        """Return the states of a connector and of its tasks."""
        status = self.rest("GET", f"/connectors/{connector}/status", region=region)
        for one in (status["connector"], *status["tasks"]):
            assert one["state"] != "FAILED", f"{connector}: {one.get('trace', '')[:800]}"
        return status["connector"]["state"], [task["state"] for task in status["tasks"]]

    def running(self, connector: str, region: str = "west") -> bool:
        state, tasks = self.tasks(connector, region)
        return state == "RUNNING" and bool(tasks) and set(tasks) == {"RUNNING"}

    def stop(self, connector: str) -> None:
        """Stop a connector; its tasks are gone when this returns."""
        self.rest("PUT", f"/connectors/{connector}/stop")
        eventually(lambda: not self.tasks(connector)[1], f"{connector} has no tasks")

    def resume(self, connector: str) -> None:
        self.rest("PUT", f"/connectors/{connector}/resume")
        eventually(lambda: self.running(connector), f"{connector} runs")

    def set_positions(self, connector: str, last_copied: Mapping[tuple[str, int], int]) -> None:
        """Let a stopped connector go on behind these offsets."""
        rows = [
            {"partition": {"cluster": "east", "topic": topic, "partition": partition}, "offset": {"offset": offset}}
            for (topic, partition), offset in last_copied.items()
        ]
        self.rest("PATCH", f"/connectors/{connector}/offsets", {"offsets": rows})


def metadata(value: bytes) -> bytes:
    """Return the metadata of an OffsetCommitValue; from version 4 on texts have their length plus 1, as a varint, before them."""
    if int.from_bytes(value[:2], "big") < 4:
        return text(value, 14)[0]
    length = shift = 0
    at = 14
    while True:
        byte = value[at]
        length |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value[at : at + length - 1]


def text(data: bytes, at: int) -> tuple[bytes, int]:
    """Return the text of Kafka's wire format that begins at a place, and where it ends."""
    end = at + 2 + int.from_bytes(data[at : at + 2], "big")
    return data[at + 2 : end], end


def _delivered(error: KafkaError | None, _message: Message) -> None:
    assert error is None, error
