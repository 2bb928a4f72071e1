"""Positions in the standby: kept as the source's groups stand, never against somebody who is there, and not forgotten."""

from __future__ import annotations

import pytest

from mrc.core.model import Offset, TopicPartition
from mrc.ports import Position
from mrc.sim.world import CONSUMER, EAST, WEST
from tests.sim.estate import BILLING, SHIPPING, Estate


@pytest.fixture
def estate() -> Estate:
    estate = Estate()
    estate.settle(30)
    estate.drain()
    estate.settle(60)
    return estate


def positions(estate: Estate, region: str) -> dict[TopicPartition, int]:
    cluster = estate.world.clusters[WEST if region == "west" else EAST]
    return {tp: position.offset for tp, position in cluster.positions(BILLING).items()}


def test_the_standby_holds_every_groups_position(estate: Estate) -> None:
    assert positions(estate, "east")
    assert positions(estate, "west") == positions(estate, "east"), "MM2 copied without gaps, so offsets are the same"


def test_a_group_that_goes_back_goes_back_in_the_standby_too(estate: Estate) -> None:
    tp = TopicPartition("orders", 0)
    estate.consuming = {SHIPPING: 10}
    estate.world.clusters[EAST].commit_as_member(CONSUMER, BILLING, {tp: Position(Offset(1), "again")})
    estate.settle(100)
    assert estate.world.clusters[WEST].positions(BILLING)[tp] == Position(Offset(1), "again")


def test_a_group_with_members_is_left_alone_and_followed_again_when_they_are_gone(estate: Estate) -> None:
    west = estate.world.clusters[WEST]
    west.acls.bindings = {b for b in west.acls.bindings if b.permission == "allow"}
    west.join(CONSUMER, BILLING)
    tp = TopicPartition("orders", 0)
    estate.consuming = {}
    before = west.positions(BILLING)[tp]
    estate.world.clusters[EAST].commit_as_member(CONSUMER, BILLING, {tp: Position(Offset(2))})
    estate.settle(100)
    assert west.positions(BILLING)[tp] == before
    west.leave(BILLING)
    estate.settle(400)
    assert west.positions(BILLING)[tp].offset == 2


def test_nothing_is_written_while_mirrormaker_writes_positions_itself(estate: Estate) -> None:
    replicator = estate.world.replicators[WEST]
    replicator.add("mrc.orders.east-west.checkpoint", estate.world.clusters[EAST], "identity", ())
    replicator.connectors["mrc.orders.east-west.checkpoint"].config["sync.group.offsets.enabled"] = "true"
    estate.settle(310)
    before = positions(estate, "west")
    estate.producing, estate.consuming = True, {BILLING: 1_000}
    estate.settle(100)
    assert positions(estate, "west") == before
    sync = estate.leader(WEST).coordinator.sync
    assert [finding.code for finding in sync.findings()] == ["MM2_SYNCS_OFFSETS"]
    replicator.connectors["mrc.orders.east-west.checkpoint"].config["sync.group.offsets.enabled"] = "false"
    estate.settle(400)
    assert sync.findings() == ()
    assert positions(estate, "west") != before


def test_a_position_that_does_not_change_is_written_again_well_within_the_retention(estate: Estate) -> None:
    west = estate.world.clusters[WEST]
    west.settings["offsets.retention.minutes"] = "4"
    estate.consuming = {}
    estate.settle(310)
    written = len(west.committed)
    estate.settle(610)
    again = [commit for commit in west.committed[written:] if commit.group == BILLING]
    assert len(again) >= len(positions(estate, "west"))
    assert len(again) <= 2 * len(positions(estate, "west"))


def test_a_groups_deletion_takes_its_checkpoints_and_an_expiry_does_not(estate: Estate) -> None:
    coordinator = estate.leader(WEST).coordinator
    east = estate.world.clusters[EAST]
    estate.consuming = {}
    east.settings["offsets.retention.minutes"] = "10"
    east.leave(BILLING)
    east.forget_group(BILLING)
    estate.settle(5)
    assert {c.group for c in coordinator.capture.snapshot().checkpoints} == {SHIPPING}
    estate.world.clock.sleep(11 * 60)
    east.leave(SHIPPING)
    east.forget_group(SHIPPING)
    estate.settle(5)
    assert {c.group for c in coordinator.capture.snapshot().checkpoints} == {SHIPPING}, "it may have expired"


def test_a_leader_that_lost_its_session_begins_again_from_what_the_other_one_stored() -> None:
    estate = Estate()
    estate.settle(20)
    first = estate.leader(WEST)
    before = {(c.group, c.topic, c.partition): c.source_offset for c in first.coordinator.capture.snapshot().checkpoints}
    first.alive = False  # it sleeps past its session, and wakes
    first.tree.expire()
    estate.settle(20)
    second = estate.leader(WEST)
    assert second is not first
    first.alive = True
    estate.settle(20)
    assert estate.leader(WEST) is second
    assert first.coordinator.capture.snapshot().checkpoints == (), "it holds nothing that it could write on"
    second.alive = False
    second.tree.expire()
    estate.settle(20)
    third = estate.leader(WEST)
    assert third is first
    after = {(c.group, c.topic, c.partition): c.source_offset for c in third.coordinator.capture.snapshot().checkpoints}
    assert before.keys() == after.keys()
    assert all(after[key] >= offset for key, offset in before.items())
    assert any(after[key] > offset for key, offset in before.items())
