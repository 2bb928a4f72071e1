"""Without agents and without ZooKeeper: what mrc captured is read from the target's own topic and committed by hand."""

from __future__ import annotations

import pytest

from mrc.core.errors import MrcError
from mrc.core.inventory import Position
from mrc.core.model import GroupId, Offset, TopicPartition
from mrc.core.translation.positions import PositionsFile, checkpoints_topic
from mrc.sim.agents import unit
from mrc.sim.world import CONSUMER, EAST, WEST
from mrc.wiring.direct import commit, read_positions
from tests.sim.estate import BILLING, SHIPPING, Estate

TP = TopicPartition("orders", 0)
NOW_MS = 2_000_000_000_000


@pytest.fixture
def estate() -> Estate:
    """East was open and everything was captured; now east is lost, and no agent is alive any more."""
    made = Estate()
    made.settle(30)
    made.drain()
    made.settle(60)
    made.world.lose(EAST)
    for agent in made.agents.values():
        agent.alive = False
    return made


def read(estate: Estate, group: str = "") -> PositionsFile:
    return read_positions(estate.world.clusters[WEST], unit(estate.world), WEST, group, NOW_MS)


def by_hand(estate: Estate, wanted: dict[TopicPartition, Position], group: str = BILLING, *, dry_run: bool = False) -> None:
    commit(estate.world.clusters[WEST], unit(estate.world), WEST, GroupId(group), wanted, dry_run=dry_run)


def test_every_captured_position_is_read_as_it_would_be_moved(estate: Estate) -> None:
    found = read(estate)
    assert (found.source, found.target, found.epoch, found.via, found.left_out) == (EAST, WEST, None, "direct", ())
    assert len(found.positions) == 14
    for position in found.positions:
        assert position.evidence == "exact"
        assert position.offset == position.source_offset == estate.world.clusters[WEST].log(position.tp).end
        assert position.age_s > 0
    assert {position.group for position in read(estate, SHIPPING).positions} == {SHIPPING}


def test_what_is_read_can_be_committed_and_is_read_back(estate: Estate) -> None:
    west = estate.world.clusters[WEST]
    west.forget_group(BILLING)
    wanted = {position.tp: Position(Offset(position.offset), "AQ==") for position in read(estate, BILLING).positions}
    by_hand(estate, wanted, dry_run=True)
    assert west.positions(BILLING) == {}
    by_hand(estate, wanted)
    assert west.positions(BILLING) == wanted


def test_a_garbled_checkpoint_is_left_out_and_named_and_groups_of_others_are_not_read(estate: Estate) -> None:
    topic = checkpoints_topic(EAST)
    estate.world.clusters[WEST].append(topic, [(b"garbled", b"?"), (b'["billing","orders",0]', b"{}")])
    found = read(estate)
    assert len(found.positions) == 13
    assert len(found.left_out) == 2
    assert any("garbled" in line for line in found.left_out)


def test_a_group_with_members_and_positions_beyond_the_log_are_refused(estate: Estate) -> None:
    west = estate.world.clusters[WEST]
    before = len(west.committed)
    west.acls.bindings = {b for b in west.acls.bindings if b.permission == "allow"}
    for wanted, group, code in (
        ({TP: Position(Offset(10**9))}, BILLING, "OFFSET_OUT_OF_RANGE"),
        ({TopicPartition("others", 0): Position(Offset(0))}, BILLING, "UNKNOWN_TOPIC"),
        ({TP: Position(Offset(0))}, "nobody", "UNKNOWN_GROUP"),
    ):
        with pytest.raises(MrcError) as refused:
            by_hand(estate, wanted, group)
        assert refused.value.code == code
    west.join(CONSUMER, BILLING)
    for dry_run in (True, False):
        with pytest.raises(MrcError) as alive:
            by_hand(estate, {TP: Position(Offset(0))}, dry_run=dry_run)
        assert alive.value.code == "GROUP_HAS_MEMBERS"
    assert len(west.committed) == before


def test_a_region_that_keeps_no_checkpoints_says_so(estate: Estate) -> None:
    estate.world.regain(EAST)
    with pytest.raises(MrcError) as refused:
        read_positions(estate.world.clusters[EAST], unit(estate.world), EAST, "", NOW_MS)
    assert refused.value.code == "UNKNOWN_TOPIC"
    with pytest.raises(MrcError) as unknown:
        read(estate, "nobody")
    assert unknown.value.code == "UNKNOWN_GROUP"
