"""Topics change while an agent follows them: they grow, are made anew, or their copies are unlike their records."""

from __future__ import annotations

from mrc.core.model import GroupId, Offset, Region, TopicPartition, encode
from mrc.core.translation.checkpoint import CheckpointKey, advance
from mrc.core.translation.offset_map import Exact
from mrc.ports import Position
from mrc.sim.cluster import Topic
from mrc.sim.log import PartitionLog, Record
from mrc.sim.world import CONSUMER, EAST, PRODUCER, WEST
from tests.sim.estate import BILLING, SHIPPING, Estate, settled

LOOKS = 110
"""Rounds after which the agent has looked at topics again."""


def answer(estate: Estate, group: GroupId, tp: TopicPartition) -> tuple[str, int]:
    views = estate.leader(WEST).coordinator.capture.snapshot().checkpoints
    found = next(c for c in views if (c.group, c.topic, c.partition) == (group, tp.topic, tp.partition))
    return found.translation.type, found.translation.offset


def test_a_partition_that_is_added_is_followed_too() -> None:
    estate = settled()
    new = TopicPartition("orders", 3)
    for region in (EAST, WEST):
        estate.world.clusters[region].contents["orders"].logs.append(PartitionLog())
    estate.world.clusters[EAST].produce(PRODUCER, new, b"k", b"v")
    estate.world.replicate()
    estate.world.clusters[EAST].commit_as_member(CONSUMER, BILLING, {new: Position(Offset(1))})
    estate.settle(LOOKS)
    assert answer(estate, BILLING, new) == ("exact", 1)


def test_a_topic_made_anew_is_translated_anew_and_said() -> None:
    estate = settled()
    estate.producing, estate.consuming = False, {}
    estate.settle(5)
    tp = TopicPartition("orders", 0)
    east, west = estate.world.clusters[EAST], estate.world.clusters[WEST]
    old = west.log(tp).end
    assert old > 0
    east.make_topic("orders", 3)
    connector = estate.world.replicators[WEST].connectors["mrc.orders.east-west"]
    for p in range(3):
        connector.held[TopicPartition("orders", p)] = connector.stored[TopicPartition("orders", p)] = Offset(0)
    for n in range(7):
        east.produce(PRODUCER, tp, b"new", b"new%d" % n)
    estate.settle(LOOKS)
    east.commit_as_member(CONSUMER, SHIPPING, {tp: Position(Offset(3))})
    estate.settle(5)
    assert answer(estate, SHIPPING, tp) == ("exact", old + 3)
    assert any("made anew" in finding.message for finding in estate.leader(WEST).coordinator.noticed())


def test_copies_with_other_headers_are_named_and_nothing_is_answered_for_them() -> None:
    estate = settled()
    estate.producing, estate.consuming, estate.replicating = False, {}, False
    estate.world.clusters[EAST].contents["orders"] = Topic("new", 3, {})
    estate.world.clusters[WEST].contents["orders"] = Topic("new", 3, {})
    tp = TopicPartition("orders", 0)

    def write(region: Region, headers: tuple[tuple[str, bytes | None], ...]) -> None:
        for n in range(30):
            estate.world.clusters[region].log(tp).append(Record(b"k%d" % n, b"v", 1_000 + n, headers))

    write(EAST, (("trace", b"\x01"),))
    write(WEST, (("trace", b"AQ=="),))
    estate.world.clusters[EAST].commit_as_member(CONSUMER, BILLING, {tp: Position(Offset(20))})
    estate.settle(2 * LOOKS)
    coordinator = estate.leader(WEST).coordinator
    assert "HEADERS_CHANGED" in {finding.code for finding in coordinator.noticed()}
    views = coordinator.capture.snapshot().checkpoints
    mine = next(c for c in views if (c.group, c.topic, c.partition) == (BILLING, "orders", 0))
    assert (mine.translation.type, mine.translation.reason) == ("unknown", "records-changed")


def test_while_connect_is_silent_the_logs_are_looked_at_as_before() -> None:
    estate = Estate()
    replicator = estate.world.replicators[WEST]
    replicator.connectors["mrc.orders.east-west"].config["source.consumer.isolation.level"] = "read_uncommitted"
    leader = next(agent for agent in estate.agents.values() if agent.name == "west-a").coordinator.estate
    flow = leader.inbound(WEST)
    assert leader.sights(flow).source.isolation == "read_uncommitted"
    replicator.reachable = False
    assert leader.sights(flow).source.isolation == "read_uncommitted"


def skip_some(estate: Estate, tp: TopicPartition, count: int) -> int:
    """Move the connector's position ahead of some records, so that they are never copied; return the first one's offset."""
    estate.settle(5)
    estate.producing, estate.replicating = False, False
    east, connector = estate.world.clusters[EAST], estate.world.replicators[WEST].connectors["mrc.orders.east-west"]
    begin = east.log(tp).end
    for n in range(count):
        east.produce(PRODUCER, tp, b"skipped%d" % n, b"skipped%d" % n)
    connector.held[tp] = connector.stored[tp] = Offset(east.log(tp).end)
    east.produce(PRODUCER, tp, b"after", b"after")
    east.produce(PRODUCER, tp, b"after2", b"after2")
    estate.replicating = True
    estate.settle(30)
    return begin


def test_records_that_the_flow_has_passed_forbid_a_planned_move_until_they_are_copied() -> None:
    estate = settled()
    tp = TopicPartition("orders", 1)
    begin = skip_some(estate, tp, 5)
    coordinator = estate.leader(WEST).coordinator
    found = [f for f in coordinator.noticed() if f.code == "MIRROR_LACKS_RECORDS"]
    assert [f.where for f in found] == ["orders-1"]
    assert found[0].message.startswith(f"5 records of orders-1 in east, the first at offset {begin}")
    estate.begin("switchover", WEST)
    run = estate.until("waiting")
    assert run.waiting is not None
    assert (run.step.name, run.waiting.code) == ("preflight", "PLAN_REFUSED")
    connector = estate.world.replicators[WEST].connectors["mrc.orders.east-west"]
    connector.held[tp] = connector.stored[tp] = Offset(begin)
    estate.settle(30)
    assert not [f for f in coordinator.noticed() if f.code == "MIRROR_LACKS_RECORDS"]
    assert estate.finish(WEST).phase == "succeeded"


def test_what_a_transformation_may_have_dropped_forbids_nothing() -> None:
    estate = Estate()
    estate.world.replicators[WEST].connectors["mrc.orders.east-west"].config["transforms"] = "drop"
    estate.settle()
    skip_some(estate, TopicPartition("orders", 1), 5)
    assert not [f for f in estate.leader(WEST).coordinator.noticed() if f.code == "MIRROR_LACKS_RECORDS"]


def test_what_a_connector_says_of_its_converters_and_what_logs_may_lack_is_known_to_the_maps() -> None:
    estate = settled()
    west = estate.leader(WEST).coordinator.capture._alignment
    config = estate.world.replicators[WEST].connectors["mrc.orders.east-west"].config
    assert {(pair.known.torn, pair.known.faithful) for pair in west.pairs.values()} == {(False, False)}
    config |= {f"{part}.converter": "org.apache.kafka.connect.converters.ByteArrayConverter" for part in ("key", "value", "header")}
    estate.world.clusters[EAST].contents["orders"].config["cleanup.policy"] = "compact"
    estate.settle(LOOKS)
    assert {(tp.topic, pair.known.torn, pair.known.faithful) for tp, pair in west.pairs.items()} == {
        ("orders", True, True),
        ("payments", False, True),
    }
    config["header.converter"] = "org.apache.kafka.connect.storage.SimpleHeaderConverter"
    estate.settle(LOOKS)
    assert {pair.known.faithful for pair in west.pairs.values()} == {False}


def test_what_was_noticed_of_a_topic_made_anew_is_still_told_by_the_next_leader() -> None:
    estate = settled()
    estate.producing, estate.consuming = False, {}
    estate.settle(5)
    estate.world.clusters[EAST].make_topic("orders", 3)
    estate.settle(LOOKS)
    first = estate.leader(WEST)
    assert any("made anew" in finding.message for finding in first.coordinator.noticed())
    estate.world.clusters[EAST].produce(PRODUCER, TopicPartition("orders", 0), b"k", b"v")
    estate.settle(30)
    first.alive = False
    first.tree.expire()
    estate.settle(60)
    second = estate.leader(WEST)
    assert second is not first
    assert any("made anew" in finding.message for finding in second.coordinator.noticed())


def test_an_agent_that_starts_leaves_the_checkpoints_of_others_alone() -> None:
    estate = settled()
    west = estate.world.clusters[WEST]
    key = encode(CheckpointKey(GroupId("theirs"), "others", 0))
    value = encode(advance(None, source_offset=1, metadata="", translation=Exact(Offset(1), ""), now_ms=1, topic_id="", target_id=""))
    gone = encode(CheckpointKey(GroupId("no-more-configured"), "orders", 0))
    west.append("mrc.checkpoints.east.internal", [(key, value), (gone, value)])
    first = estate.leader(WEST)
    first.alive = False
    first.tree.expire()
    estate.settle(60)
    stored = west.load("mrc.checkpoints.east.internal")
    assert stored[key] == value
    assert stored[gone] == value
