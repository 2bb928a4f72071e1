"""The traffic on real servers, through a move that the test makes by hand, well once and badly once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient
from kazoo.client import KazooClient

from mrc.core.model import ActiveRecord, Epoch, Region, RegionState, encode
from mrc.sandbox.judge import Move
from mrc.sandbox.layout import TOPICS
from mrc.sandbox.traffic import Traffic
from mrc.sandbox.world import Sandbox

pytestmark = pytest.mark.server

RECORD = "/mrc/groups/orders/record"
PARTITIONS = [(topic, partition) for topic, count in TOPICS.items() for partition in range(count)]
REPEATED = 5


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    made = Sandbox(tmp_path_factory.mktemp("traffic") / "sandbox")
    try:
        made.up()
        yield made
    finally:
        made.down(wipe=True)


@pytest.fixture
def traffic(sandbox: Sandbox, tmp_path: Path) -> Iterator[Traffic]:
    made = Traffic(sandbox.state.folder, tmp_path / "logs")
    yield made
    made.stop()


def until(done: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline_s, "it did not come about"
        time.sleep(0.05)


class Hand:
    """Turns the record and carries positions over, as an operator with nothing but Kafka's own tools would."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def put(self, region: str, state: RegionState, epoch: int) -> None:
        zookeeper = KazooClient(hosts=self._sandbox.layout.zookeeper())
        zookeeper.start(timeout=10)
        zookeeper.set(RECORD, encode(ActiveRecord(Region(region), state, Epoch(epoch))))
        zookeeper.stop()
        zookeeper.close()

    def ends(self, region: str) -> list[int]:
        consumer = Consumer({**self._sandbox.client_config(region, "admin"), "group.id": "hand"})
        found = [consumer.get_watermark_offsets(TopicPartition(*each), timeout=10)[1] for each in PARTITIONS]
        consumer.close()
        return found

    def positions(self, region: str, group: str) -> list[int]:
        consumer = Consumer({**self._sandbox.client_config(region, "admin"), "group.id": group})
        found = [each.offset for each in consumer.committed([TopicPartition(*each) for each in PARTITIONS], timeout=10)]
        consumer.close()
        return found

    def set_positions(self, region: str, group: str, offsets: list[int]) -> None:
        wanted = [TopicPartition(*each, offset) for each, offset in zip(PARTITIONS, offsets, strict=True)]
        admin = AdminClient({**self._sandbox.client_config(region, "admin")})  # it must live until the answer is there
        answers = admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, wanted)])
        for answer in answers.values():
            assert all(each.error is None for each in answer.result(10).topic_partitions)


def test_clients_follow_a_move_and_the_judge_counts_exactly_what_it_repeated(sandbox: Sandbox, traffic: Traffic) -> None:
    hand = Hand(sandbox)
    groups = ("billing", "shipping")
    traffic.start(1000, {"billing": 0.0, "shipping": 1.0})
    assert traffic.wait_acked(4_000, 30)
    assert traffic.wait_processed(2_000, 30, groups)

    accepted_s = time.time()
    hand.put("east", "draining", 1)
    until(lambda: {turn.who for turn in traffic.logs().turns if turn.what == "left"} >= {"producer", *groups})
    until(lambda: hand.ends("west") == hand.ends("east"))
    billing = hand.positions("east", "billing")
    billing[0] -= REPEATED  # the one thing that this hand does badly
    hand.set_positions("west", "billing", billing)
    hand.set_positions("west", "shipping", hand.positions("east", "shipping"))
    hand.put("west", "closed", 1)
    hand.put("west", "open", 2)
    assert traffic.wait_acked(3_000, 30, "west")
    traffic.stop_producers()
    assert traffic.drain(30)
    traffic.stop()

    assert traffic.running() == {}
    verdict = traffic.judge([Move("switchover", "east", "west", int(accepted_s * 1000))])
    (move,) = verdict.moves
    assert move.reread_per_group == {"billing": REPEATED, "shipping": 0}
    assert (move.lost, move.skipped, move.unreplicated_tail, move.resent, move.duplicates_in_log) == (0, 0, 0, 0, 0)
    assert move.acked >= 4_000
    assert move.reasons == [f"processed again billing: {REPEATED}"]
    assert move.write_block_s is not None
    assert move.rto_s is not None
    left = [turn for turn in traffic.logs().turns if turn.what == "left" and turn.who in groups and turn.region == "east"]
    assert all(not turn.detail.partition(", ")[2] for turn in left), "a final commit failed"
