"""What mrc commits for a group is what the group had stored, byte for byte, on real brokers."""

from __future__ import annotations

import struct

import pytest
from confluent_kafka import Consumer, KafkaError
from confluent_kafka import TopicPartition as Wire

from mrc.adapters.kafka import Access, KafkaCluster
from mrc.core.errors import MrcError
from mrc.core.model import GroupId, Offset, TopicPartition
from mrc.ports import Position
from mrc.sandbox.world import Sandbox
from tests.contract.cluster_stages import RealStage, at, fresh_group

pytestmark = pytest.mark.server


def stored(sandbox: Sandbox, group: GroupId) -> dict[int, bytes]:
    """Return the metadata's bytes per partition as Kafka's own topic holds them."""
    config = sandbox.client_config("east", "admin")
    consumer = Consumer({**config, "group.id": "look", "enable.partition.eof": True, "enable.auto.commit": False})
    consumer.assign([Wire("__consumer_offsets", p, 0) for p in range(4)])
    found: dict[int, bytes] = {}
    ended: set[int] = set()
    while len(ended) < 4:
        for message in consumer.consume(100, 0.2):
            error, key, value = message.error(), message.key() or b"", message.value()
            if error is not None:
                assert error.code() == KafkaError._PARTITION_EOF
                ended.add(message.partition() or 0)
            elif value is not None and group.encode() in key and struct.unpack_from(">h", key)[0] == 1:
                length = value[14] - 1
                found[struct.unpack_from(">i", key, len(key) - 4)[0]] = value[15 : 15 + length]
    consumer.close()
    return found


def test_metadata_is_kept_byte_for_byte(sandbox: Sandbox) -> None:
    stage = RealStage(sandbox)
    topic = stage.topic(3)
    group = fresh_group()
    wanted = {0: "AgAAAZ4=", 1: "", 2: "grüße"}
    positions = {TopicPartition(topic, p): Position(Offset(p), text) for p, text in wanted.items()}
    stage.cluster.commit_positions(group, positions)
    assert stored(sandbox, group) == {p: text.encode() for p, text in wanted.items()}
    assert stage.cluster.positions(group) == positions
    stage.cluster.commit_positions(group, {TopicPartition(topic, 0): Position(Offset(0))})
    assert stored(sandbox, group)[0] == b""
    stage.close()


def test_metadata_of_a_group_with_members_is_refused(sandbox: Sandbox) -> None:
    stage = RealStage(sandbox)
    topic, group = stage.topic(), fresh_group()
    with stage.member(group, topic), pytest.raises(MrcError) as raised:
        stage.cluster.commit_positions(group, {TopicPartition(topic, 0): Position(at(0), "meta")})
    assert raised.value.code == "GROUP_HAS_MEMBERS"
    with pytest.raises(MrcError) as raised:
        stage.cluster.commit_positions(group, {TopicPartition("test-none", 0): Position(at(0), "meta")})
    assert raised.value.code == "UNKNOWN_TOPIC"
    stage.close()


def test_a_cluster_that_does_not_answer_is_an_error_within_the_deadline() -> None:
    cluster = KafkaCluster("east", Access("127.0.0.1:1"), None, 0.5)
    with pytest.raises(MrcError) as raised:
        cluster.commit_positions(fresh_group(), {TopicPartition("orders", 0): Position(at(0), "meta")})
    assert (raised.value.code, raised.value.retryable) == ("CLUSTER_UNREACHABLE", True)
    cluster.close()
