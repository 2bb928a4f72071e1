"""A producer of `mrc.client` that the brokers refuse, as they do for a moment after the record says ``open``."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from mrc.adapters.kafka import KafkaCluster
from mrc.client import Acknowledged, FollowingProducer
from mrc.core.inventory import Binding
from mrc.core.model import Region
from mrc.sandbox.world import Sandbox
from tests.client.conftest import EAST, WEST, Record, until
from tests.contract.cluster_stages import DEADLINE_S, access

pytestmark = pytest.mark.server

FENCE = frozenset({Binding("topic", topic, "literal", "User:producer", "write", "deny") for topic in ("orders", "payments")})


@pytest.fixture
def east(sandbox: Sandbox) -> Iterator[KafkaCluster]:
    admin = access(sandbox, "east", "admin")
    cluster = KafkaCluster("east", admin, admin, DEADLINE_S)
    yield cluster
    cluster.remove_bindings(FENCE)
    cluster.close()


def test_it_goes_on_when_the_fence_is_lifted_each_event_acknowledged_or_back_once(sandbox: Sandbox, east: KafkaCluster) -> None:
    record, acked, back = Record(), list[Acknowledged[int]](), list[int]()
    sent = 0
    configs: dict[Region, dict[str, str]] = {region: sandbox.client_config(region, "producer") for region in (EAST, WEST)}
    with FollowingProducer[int](record, configs, acked.append) as producer:

        def step() -> None:
            nonlocal sent
            if producer.send(("orders", "payments")[sent % 2], str(sent).encode(), b"value", sent):
                sent += 1
            producer.tend(0.02)
            back.extend(each.token for each in producer.take_unacknowledged())

        record.put(EAST, "open", 1)
        until(lambda: len(acked) > 20, step)
        one = producer._instance
        east.add_bindings(FENCE)
        until(lambda: bool(back), step)
        refused_from = len(acked)
        began_s = time.monotonic()
        while time.monotonic() - began_s < 1.0:
            step()
        assert producer._instance is one, "a new one was made"
        assert len(acked) == refused_from
        east.remove_bindings(FENCE)
        until(lambda: {each.topic for each in acked[refused_from:]} == {"orders", "payments"}, step)
        assert producer._instance is one
        last = sent
        until(lambda: max(each.token for each in acked) >= last - 1, lambda: producer.tend(0.02))
    back.extend(each.token for each in producer.take_unacknowledged())
    assert sorted([each.token for each in acked] + back) == list(range(sent))
    offsets = [(each.topic, each.partition, each.offset) for each in acked]
    assert len(set(offsets)) == len(offsets)
